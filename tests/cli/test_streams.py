"""What is said on standard error cannot move a terminal's cursor."""

from __future__ import annotations

import pytest

from ast_cli.cli.streams import note


def test_names_in_a_note_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    note("note: all splits are used (train\x1b[2J, t\u202eest)")
    note("warning: never shown", quiet=True)
    assert capsys.readouterr() == ("", "note: all splits are used (train\\x1b[2J, t\\u202eest)\n")
