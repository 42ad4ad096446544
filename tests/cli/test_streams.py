"""Messages on standard error are escaped, and C libraries write to it only with --debug."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ast_cli.cli.streams import note, notice


def test_names_in_a_note_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    note("note: all splits are used (train\x1b[2J, t\u202eest)")
    note("warning: never shown", quiet=True)
    assert capsys.readouterr() == ("", "note: all splits are used (train\\x1b[2J, t\\u202eest)\n")


def test_notices_are_printed_only_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    notice("converting the model")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    notice("converting the model", quiet=True)
    notice("converting the model")
    assert capsys.readouterr() == ("", "converting the model\n")


ENDS = """
import atexit, os, sys
atexit.register(os.write, 2, b"leaked 64 types!")  # runs last, as C libraries end
from ast_cli.__main__ import collect_garbage_rarely
collect_garbage_rarely()
sys.stderr.write("said by the program\\n")
"""


@pytest.mark.parametrize(("debug", "expected"), [({}, b""), ({"AST_DEBUG": "1"}, b"leaked 64 types!")])
def test_output_of_c_libraries_at_process_exit_is_shown_only_with_debug(debug: dict[str, str], expected: bytes) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "AST_DEBUG"} | debug
    done = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, env=environment, check=True)
    assert done.stderr == b"said by the program\n" + expected
