from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from ast_cli import selfcheck
from ast_cli.errors import ExitCode

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_doctor_finds_the_numbers_right(run_ast: Run) -> None:
    done = run_ast("doctor")
    assert done.returncode == ExitCode.OK, done.stdout
    for heading in ("versions:", "decoders:", "devices:", "caches:", "models:", "default model: builtin", "checks:"):
        assert heading in done.stdout
    assert done.stdout.endswith("all numbers are right\n")


def test_doctor_json_tells_each_check(run_ast: Run) -> None:
    document = json.loads(run_ast("doctor", "--json").stdout)
    checked = {(check["what"], check["engine"], check["device"], check["dtype"]) for check in document["checks"]}
    assert {("fbank", "native", "cpu", "float32"), ("logits", "torch eager", "cpu", "bfloat16")} <= checked
    assert document["num_wrong"] == 0
    assert document["versions"]["torch"]


@pytest.mark.parametrize("name", ["fbank", "logits"])
def test_wrong_number_fails_its_check(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    load: Any = selfcheck.load_file

    def shifted(path: object) -> dict[str, Any]:
        arrays = load(path)
        arrays[name] = arrays[name] + 0.5
        return arrays  # type: ignore[no-any-return]

    monkeypatch.setattr(selfcheck, "load_file", shifted)
    monkeypatch.setattr(selfcheck, "LOGITS_TOLERANCE", {"float32": 1e-4})
    checks = {(check.what, check.engine): check for check in selfcheck.run_checks()}
    assert not checks[name, "native" if name == "fbank" else "torch sdpa"].is_right
