from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ast_cli.engine.torch.waiting import let_threads_sleep

SHOW_POLICY = """
import os, sys
import ast_cli.cli
sys.argv = ["ast", "--version"]
try:
    ast_cli.cli.main()
except SystemExit:
    print("torch" in sys.modules, os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"))
"""


@pytest.mark.parametrize("chosen", [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}])
def test_a_wait_policy_set_by_the_user_is_kept(chosen: dict[str, str]) -> None:
    environment = dict(chosen)
    let_threads_sleep(environment)
    assert environment == chosen


@pytest.mark.parametrize(
    ("chosen", "expected"), [({}, "False PASSIVE None"), ({"GOMP_SPINCOUNT": "7"}, "False None 7")]
)
def test_the_command_sets_the_wait_policy_before_importing_torch(chosen: dict[str, str], expected: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY",)} | chosen
    done = subprocess.run(
        [sys.executable, "-c", SHOW_POLICY], capture_output=True, text=True, env=environment, timeout=120, check=True
    )
    assert done.stdout.splitlines()[-1] == expected


def test_the_library_does_not_change_the_environment() -> None:
    program = "import os; before = dict(os.environ); import ast_cli; ast_cli.Tagger; assert dict(os.environ) == before"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    subprocess.run([sys.executable, "-c", program], env=environment, timeout=120, check=True)
