from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterator

import pytest

from ast_cli.cli import progress
from ast_cli.cli.progress import Progress, Record, watched
from ast_cli.results import TaggingResult
from ast_cli.tagging.tally import Tally

RESULTS: list[Record] = [TaggingResult(f"{'x' * 60}{i}.wav", "m", "softmax", 1800.0, 16000, 1) for i in range(4)]


def run(shown: Progress, *, quiet: bool = False, to_stdout: bool = True) -> list[Record]:
    """Consume as a run does: count each result when it has been written."""
    seen = []
    for record in watched(RESULTS, shown, quiet=quiet, to_stdout=to_stdout):
        assert isinstance(record, TaggingResult)
        shown.tally.add(record)
        seen.append(record)
    return seen


def test_line_tells_how_far_a_run_is(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Progress(Tally(), 4)
    assert shown.text().startswith("0 of 4 inputs, 0.00 h of audio, 0.0 x real time, - left, 0 failed")
    shown.tally.add(RESULTS[0])  # type: ignore[arg-type]
    monkeypatch.setattr(Progress, "elapsed_s", 1500.0)
    line = f"1 of 4 inputs, 0.50 h of audio, 1.2 x real time, 1 h 15 min left, 0 failed  ...{'x' * 35}0.wav"
    assert shown.text() == line
    monkeypatch.setattr(Progress, "elapsed_s", 30.0)
    assert "60.0 x real time, 1 min 30 s left" in shown.text()


def test_line_counts_the_recording_that_is_being_read() -> None:
    shown = Progress(Tally(), 2, lambda: ("day.wav", 7200.0))
    assert "0 of 2 inputs, 2.00 h of audio" in shown.text()
    assert shown.text().endswith("  day.wav")
    shown.tally.add(TaggingResult("day.wav", "m", "softmax", 86400.0, 16000, 1))
    assert "1 of 2 inputs, 24.00 h of audio" in shown.text()


def test_lines_come_while_a_long_recording_yields_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PLAIN_INTERVAL_S", 0.001)
    shown, is_shown = Progress(Tally(), 1), threading.Event()
    monkeypatch.setattr(progress, "note", lambda text: (sys.stderr.write(f"{text}\n"), is_shown.set()))

    def silent() -> Iterator[Record]:
        assert is_shown.wait(10)
        yield RESULTS[0]

    assert list(watched(silent(), shown, quiet=False, to_stdout=True)) == RESULTS[:1]
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[0].startswith("0 of 1 inputs, 0.00 h of audio, ")


def test_short_run_quiet_run_and_live_input_show_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Progress(Tally(), 4)) == RESULTS
    monkeypatch.setattr(progress, "PLAIN_INTERVAL_S", 0.0)
    assert run(Progress(Tally(), 4), quiet=True) == RESULTS
    assert run(Progress(Tally(), 4, is_live=True)) == RESULTS
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs terminals")
@pytest.mark.parametrize("to_stdout", [False, True])
def test_live_line_is_gone_when_a_result_is_printed_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch, to_stdout: bool
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    shown = Progress(Tally(), 4)
    for record in watched(RESULTS, shown, quiet=False, to_stdout=to_stdout):
        if to_stdout:
            assert terminal.getvalue().endswith("\x1b[2K")  # the line is erased: results do not tear it
        shown.tally.add(record)  # type: ignore[arg-type]
    assert "4 of 4 inputs, 2.00 h of audio" in terminal.getvalue() or to_stdout
    assert terminal.getvalue().endswith("\x1b[2K")
