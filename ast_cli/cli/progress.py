"""What a person sees on standard error while a long run goes on: a live line, or a line now and then."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

from ast_cli.cli.live_line import PLAIN_INTERVAL_S, live_line
from ast_cli.cli.streams import note
from ast_cli.report.text import printable
from ast_cli.results import Record
from ast_cli.tagging.run.tally import AudioTotal, Tally

PATH_WIDTH = 40


class RunProgress:
    """How far a run is, by hours of audio: inputs may be of a second or of a day.

    Args:
        tally: Kept by the run.
        is_live: Whether the input is, whose windows show by themselves how far it is.
    """

    def __init__(self, tally: Tally, *, is_live: bool = False) -> None:
        self.tally = tally
        self.is_live = is_live
        self.started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.started

    def text(self) -> str:
        """Return files and audio hours done, rate, time left, errors so far, and the current file."""
        tally, elapsed_s = self.tally, max(self.elapsed_s, 1e-9)
        read_s, total = tally.read_s, tally.audio_total()
        return (
            f"{tally.num_done} of {tally.num_inputs} inputs, {read_s / 3600:.2f}{_of_hours(total)} h of audio, "
            f"{read_s / elapsed_s:.1f} x real time, {_time_left(read_s, total, elapsed_s)} left, "
            f"{tally.num_failed} failed  {_shortened(printable(tally.current or ''))}"
        )


def _of_hours(total: AudioTotal) -> str:
    if total.duration_s is None:
        return ""
    hours = total.duration_s / 3600
    if not total.is_estimate:
        return f" of {hours:.2f}"
    return f" of about {hours:.0f}" if hours >= 10 else f" of about {hours:.2f}"


def _time_left(read_s: float, total: AudioTotal, elapsed_s: float) -> str:
    """Return how long what is left takes at the rate so far."""
    if not read_s or total.duration_s is None:
        return "-"
    left_s = round(elapsed_s / read_s * max(total.duration_s - read_s, 0.0))
    hours, minutes, seconds = left_s // 3600, left_s // 60 % 60, left_s % 60
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def _shortened(path: str) -> str:
    return f"...{path[-PATH_WIDTH:]}" if len(path) > PATH_WIDTH else path


def watched(records: Iterable[Record], progress: RunProgress, *, quiet: bool, to_stdout: bool) -> Iterator[Record]:
    """Pass records on while showing how far the run is.

    Args:
        records: What the run yields.
        progress: Of the run.
        quiet: Show nothing.
        to_stdout: Whether the records are printed on standard output.
    """
    if quiet or progress.is_live:
        yield from records
        return
    shares_terminal = to_stdout and sys.stdout.isatty()
    with _display(progress, shares_terminal=shares_terminal) as hidden:
        for record in records:
            with hidden():
                yield record


@contextmanager
def _display(progress: RunProgress, *, shares_terminal: bool) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Show progress; give what hides it while something is printed on the same terminal."""
    if sys.stderr.isatty():
        with _live_line(progress) as hidden:
            yield hidden if shares_terminal else contextlib.nullcontext
    else:
        with _plain_lines(progress):
            yield contextlib.nullcontext


@contextmanager
def _live_line(progress: RunProgress) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    @contextmanager
    def hidden() -> Iterator[None]:
        live.stop()
        yield
        live.start()

    with live_line(progress.text) as live:
        yield hidden


@contextmanager
def _plain_lines(progress: RunProgress) -> Iterator[None]:
    """Print a line every few seconds, from a thread: a long recording yields no record for hours."""
    is_over = threading.Event()

    def show() -> None:
        while not is_over.wait(PLAIN_INTERVAL_S):
            note(progress.text())

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
