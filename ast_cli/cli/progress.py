"""Progress of a run on standard error: a line that is updated on a terminal, else a line every few seconds."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from ast_cli.cli.live_line import PLAIN_INTERVAL_S, live_line
from ast_cli.cli.streams import note
from ast_cli.cli.terminal import cells, shortened, wrapped
from ast_cli.report.text import counted, printable
from ast_cli.tagging.run.tally import AudioTotal, Tally

PATH_WIDTH = 43  # columns of the current path in a line that is not on a terminal
AnyRecord = TypeVar("AnyRecord")
NO_BREAK = "\N{NO-BREAK SPACE}"
BETWEEN_WORDS = re.compile("(?<!,) ")  # a line is broken between figures, not between a figure and its unit
MIN_PATH_WIDTH = 20  # with less room the path is put on a line of its own


class RunProgress:
    """The progress of a run, by hours of audio, since inputs may last a second or a day.

    Args:
        tally: Counts of the run, which updates them.
        is_live: Whether the input is live; its windows show the progress by themselves, so none is printed.
    """

    def __init__(self, tally: Tally, *, is_live: bool = False) -> None:
        self.tally = tally
        self.is_live = is_live
        self.started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start of the run."""
        return time.monotonic() - self.started

    def text(self, width: int | None = None) -> str:
        """Return inputs and hours of audio done, rate, time left, number of errors, and the current file.

        Args:
            width: Columns of the terminal, which the path is shortened to; None if there is no terminal.
        """
        tally, elapsed_s = self.tally, max(self.elapsed_s, 1e-9)
        read_s, total = tally.read_s, tally.audio_total()
        figures = (
            f"{tally.num_done} of {counted(tally.num_inputs, 'input')}, "
            f"{read_s / 3600:.2f}{_of_hours(total)} h of audio, "
            f"{read_s / elapsed_s:.1f} x real time, {_time_left(read_s, total, elapsed_s)} left, "
            f"{tally.num_failed} failed"
        )
        path = printable(tally.current or "")
        if width is None:
            return f"{figures}  {shortened(path, PATH_WIDTH)}"
        figures = wrapped(BETWEEN_WORDS.sub(NO_BREAK, figures), width).replace(NO_BREAK, " ")
        room = width - cells(figures.rpartition("\n")[2]) - 2
        return (
            f"{figures}  {shortened(path, room)}" if room >= MIN_PATH_WIDTH else f"{figures}\n{shortened(path, width)}"
        )


def _of_hours(total: AudioTotal) -> str:
    if total.duration_s is None:
        return ""
    hours = total.duration_s / 3600
    if not total.is_estimate:
        return f" of {hours:.2f}"
    return f" of about {hours:.0f}" if hours >= 10 else f" of about {hours:.2f}"


def _time_left(read_s: float, total: AudioTotal, elapsed_s: float) -> str:
    """Return the time that the rest takes at the present rate."""
    if not read_s or total.duration_s is None:
        return "-"
    left_s = round(elapsed_s / read_s * max(total.duration_s - read_s, 0.0))
    hours, minutes, seconds = left_s // 3600, left_s // 60 % 60, left_s % 60
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def watched(
    records: Iterable[AnyRecord], progress: RunProgress, *, quiet: bool, to_stdout: bool
) -> Iterator[AnyRecord]:
    """Yield the records of a run while its progress is shown.

    Args:
        records: Records that the run yields.
        progress: Progress of the run.
        quiet: Whether nothing is shown.
        to_stdout: Whether the caller prints the records on standard output.
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
    """Show progress; yield a context manager that hides it while a record is printed on the same terminal."""
    if sys.stderr.isatty():
        with _live_line(progress) as hidden:
            yield hidden if shares_terminal else contextlib.nullcontext
    else:
        with _plain_lines(progress):
            yield contextlib.nullcontext


@contextmanager
def _live_line(progress: RunProgress) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    live = live_line(progress.text)

    @contextmanager
    def hidden() -> Iterator[None]:
        nonlocal live
        live.stop()
        yield
        live = live_line(progress.text)  # the old one would erase as many lines as it had, now those of the record
        live.start()

    live.start()
    try:
        yield hidden
    finally:
        live.stop()


@contextmanager
def _plain_lines(progress: RunProgress) -> Iterator[None]:
    """Print a line every few seconds from a thread, since a long recording yields no record for hours."""
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
