from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ast_cli import Tagger
from ast_cli.cli import progress, tag_run
from ast_cli.cli.progress import RunProgress, watched
from ast_cli.errors import ErrorCode
from ast_cli.results import FileError, Record, TaggingResult
from ast_cli.tagging.inputs import Input
from ast_cli.tagging.options import ClassifyOptions, RunOptions
from ast_cli.tagging.run.tag_files import open_run
from ast_cli.tagging.run.tally import Tally

RESULTS: list[Record] = [TaggingResult(f"{'x' * 60}{i}.wav", "m", "softmax", 1800.0, 16000, 1) for i in range(4)]


def run(shown: RunProgress, *, quiet: bool = False, to_stdout: bool = True) -> list[Record]:
    """Consume as a run does: count each result when it has been written."""
    seen = []
    for record in watched(RESULTS, shown, quiet=quiet, to_stdout=to_stdout):
        assert isinstance(record, TaggingResult)
        shown.tally.add(record)
        seen.append(record)
    return seen


def open_recording(tally: Tally, path: str, read_s: float, header_duration_s: float | None) -> SimpleNamespace:
    """Have a run open a recording; return its stream, of which so much is read."""
    stream = SimpleNamespace(duration_s=read_s, header_duration_s=header_duration_s)
    assert tally.watching(path, lambda: stream)() is stream  # type: ignore[arg-type, comparison-overlap, return-value]
    return stream


def ended(path: str, duration_s: float) -> TaggingResult:
    return TaggingResult(path, "m", "softmax", duration_s, 16000, 1)


def test_line_shows_the_progress_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = RunProgress(Tally(4))
    assert shown.text().startswith("0 of 4 inputs, 0.00 h of audio, 0.0 x real time, - left, 0 failed")
    shown.tally.add(RESULTS[0])  # type: ignore[arg-type]
    monkeypatch.setattr(RunProgress, "elapsed_s", 1500.0)
    shown_path = f"...{'x' * 35}0.wav"
    assert shown.text() == (
        f"1 of 4 inputs, 0.50 of about 2.00 h of audio, 1.2 x real time, 1 h 15 min left, 0 failed  {shown_path}"
    )
    monkeypatch.setattr(RunProgress, "elapsed_s", 30.0)
    assert "60.0 x real time, 1 min 30 s left" in shown.text()


def test_time_left_of_one_long_recording_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = RunProgress(Tally(1))
    stream = open_recording(shown.tally, "day.wav", 0.0, 7200.0)
    assert shown.text() == "0 of 1 input, 0.00 of 2.00 h of audio, 0.0 x real time, - left, 0 failed  day.wav"
    for read_s, elapsed_s, line in (
        (1800.0, 60.0, "0.50 of 2.00 h of audio, 30.0 x real time, 3 min 00 s left"),
        (5400.0, 180.0, "1.50 of 2.00 h of audio, 30.0 x real time, 1 min 00 s left"),
        (7200.0, 240.0, "2.00 of 2.00 h of audio, 30.0 x real time, 0 min 00 s left"),
    ):
        stream.duration_s = read_s
        monkeypatch.setattr(RunProgress, "elapsed_s", elapsed_s)
        assert shown.text() == f"0 of 1 input, {line}, 0 failed  day.wav"
    shown.tally.add(ended("day.wav", 7200.0))
    assert shown.text() == f"1 of 1 input, {line}, 0 failed  day.wav"


def test_time_left_includes_long_recordings_among_many_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = RunProgress(Tally(402))
    for number in range(400):
        shown.tally.add(ended(f"{number}.wav", 4.5))  # half an hour in all
    monkeypatch.setattr(RunProgress, "elapsed_s", 60.0)
    first = open_recording(shown.tally, "first.wav", 0.0, 7200.0)
    assert "0.50 of about 2.51 h of audio, 30.0 x real time, 4 min 01 s left" in shown.text()
    open_recording(shown.tally, "second.wav", 0.0, 7200.0)
    assert "400 of 402 inputs, 0.50 of 4.50 h of audio, 30.0 x real time, 8 min 00 s left" in shown.text()
    first.duration_s = 5400.0
    assert "400 of 402 inputs, 2.00 of 4.50 h of audio, 120.0 x real time, 1 min 15 s left" in shown.text()


def test_no_time_left_is_shown_for_a_recording_of_unknown_or_wrong_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RunProgress, "elapsed_s", 60.0)
    for header_duration_s in (None, 30.0):
        shown = RunProgress(Tally(2))
        shown.tally.add(ended("clip.wav", 1800.0))
        stream = open_recording(shown.tally, "stream.ogg", 900.0, header_duration_s)
        # The estimate is the mean of the others ...
        assert "0.75 of about 1.00 h of audio, 45.0 x real time, 0 min 20 s left" in shown.text()
        stream.duration_s = 2700.0  # ... but it is longer
        assert shown.text() == "1 of 2 inputs, 1.25 h of audio, 75.0 x real time, - left, 0 failed  stream.ogg"
        shown.tally.add(ended("stream.ogg", 3600.0))
        assert "2 of 2 inputs, 1.25 of 1.25 h of audio" in shown.text()


def test_progress_counts_failed_recordings_and_inputs_done_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RunProgress, "elapsed_s", 60.0)
    shown = RunProgress(Tally(12))
    shown.tally.num_skipped = 9
    open_recording(shown.tally, "bad.mp4", 1800.0, 360_000.0)
    assert "of about 300 h of audio" in shown.text()
    error = FileError(ErrorCode.DECODE_ERROR, "bad.mp4: damaged")
    shown.tally.add(TaggingResult("bad.mp4", "m", "softmax", error=error))
    open_recording(shown.tally, "good.wav", 0.0, 5400.0)
    line = "10 of 12 inputs, 0.50 of about 3.00 h of audio, 30.0 x real time, 5 min 00 s left, 1 failed  good.wav"
    assert shown.text() == line
    shown.tally.add(ended("good.wav", 5400.0))
    assert shown.tally.audio_s == 5400.0  # the summary counts what was tagged


@pytest.mark.parametrize("changes", [{"num_workers": 0}, {"num_workers": 1}, {"num_workers": 2, "unordered": True}])
def test_tally_knows_the_audio_read_and_the_total(
    changes: dict[str, Any], write_wav: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = []

    def look(records: Iterable[Record], shown: RunProgress, **_: bool) -> Iterator[Record]:
        for record in records:
            lines.append(shown.text())
            yield record

    monkeypatch.setattr(tag_run, "watched", look)
    monkeypatch.setattr(RunProgress, "elapsed_s", 60.0)
    item = Input(str(write_wav("long.wav", 72.0)))
    options = ClassifyOptions(timestamps=True, stream=True, batch_size=1)
    run = RunOptions(output=tmp_path / "o.jsonl", **changes)
    with open_run(Tagger.from_pretrained("builtin"), [item], options, run) as running:
        assert not tag_run.show_run(running, options, run, quiet=False, verbose=False, is_live=False)
    assert len(lines) > 5
    assert all(line.startswith("0 of 1 input, 0.0") and " of 0.02 h of audio, " in line for line in lines)
    assert "1.2 x real time, 0 min 00 s left" in lines[-1]
    if not run.unordered:  # there all of it comes at its end
        assert "0 min 00 s left" not in lines[0]


def test_lines_are_printed_while_a_long_recording_yields_no_record(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PLAIN_INTERVAL_S", 0.001)
    shown, is_shown = RunProgress(Tally(1)), threading.Event()
    monkeypatch.setattr(progress, "note", lambda text: (sys.stderr.write(f"{text}\n"), is_shown.set()))

    def silent() -> Iterator[Record]:
        assert is_shown.wait(10)
        yield RESULTS[0]

    assert list(watched(silent(), shown, quiet=False, to_stdout=True)) == RESULTS[:1]
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[0].startswith("0 of 1 input, 0.00 h of audio, ")


def test_short_run_quiet_run_and_live_input_show_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(RunProgress(Tally(4))) == RESULTS
    monkeypatch.setattr(progress, "PLAIN_INTERVAL_S", 0.0)
    assert run(RunProgress(Tally(4)), quiet=True) == RESULTS
    assert run(RunProgress(Tally(4), is_live=True)) == RESULTS
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs terminals")
@pytest.mark.parametrize("to_stdout", [False, True])
def test_live_line_is_removed_before_a_result_and_at_the_end(monkeypatch: pytest.MonkeyPatch, to_stdout: bool) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    shown = RunProgress(Tally(4))
    for record in watched(RESULTS, shown, quiet=False, to_stdout=to_stdout):
        if to_stdout:
            assert terminal.getvalue().endswith("\x1b[2K")  # the line is erased: results do not tear it
        shown.tally.add(record)  # type: ignore[arg-type]
    assert "4 of 4 inputs, 2.00 of 2.00 h of audio" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K")
