from __future__ import annotations

import pytest

from ast_cli.cli import progress
from ast_cli.cli.progress import Record, watched
from ast_cli.results import TaggingResult
from ast_cli.tagging.tally import Tally

RESULTS: list[Record] = [TaggingResult(f"{'x' * 60}{i}.wav", "m", "softmax", 1800.0, 16000, 1) for i in range(4)]


def run(tally: Tally, *, quiet: bool = False) -> list[Record]:
    """Consume as a run does: count each result when it has been written."""
    seen = []
    for record in watched(RESULTS, tally, len(RESULTS), quiet=quiet, to_stdout=True):
        assert isinstance(record, TaggingResult)
        tally.add(record)
        seen.append(record)
    return seen


def test_lines_tell_how_far_a_long_run_is_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PLAIN_INTERVAL_S", 0.0)
    assert run(Tally()) == RESULTS
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert printed.out == ""
    assert len(lines) == 4
    assert lines[1].startswith("2 of 4 inputs, 1.00 h of audio, ")
    assert lines[1].endswith(f"0 failed  ...{'x' * 35}1.wav")


def test_short_run_and_quiet_run_say_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Tally()) == RESULTS
    monkeypatch.setattr(progress, "PLAIN_INTERVAL_S", 0.0)
    assert run(Tally(), quiet=True) == RESULTS
    assert capsys.readouterr().err == ""
