"""What a person sees on standard error while a long run goes on: a live line, or a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from ast_cli.report.text import printable
from ast_cli.results import StreamedPart, TaggingResult
from ast_cli.tagging.tally import Tally

PLAIN_INTERVAL_S = 10.0  # between lines where standard error is no terminal
PATH_WIDTH = 40

Record = TaggingResult | StreamedPart


class _Display(Protocol):
    def show(self) -> None:
        """Bring what is seen up to date."""


def watched(
    records: Iterable[Record], tally: Tally, num_inputs: int, *, quiet: bool, to_stdout: bool
) -> Iterator[Record]:
    """Pass records on while showing how far the run is.

    Args:
        records: What the run yields.
        tally: Kept by the consumer.
        num_inputs: In all.
        quiet: Show nothing.
        to_stdout: Whether the records are printed on standard output.
    """
    scrolls = to_stdout and sys.stdout.isatty()  # results scroll on the terminal: a live line would tear them
    if quiet or num_inputs < 2 or (scrolls and sys.stderr.isatty()):
        yield from records
        return
    with _display(tally, num_inputs) as display:
        for record in records:
            yield record
            display.show()


@contextmanager
def _display(tally: Tally, num_inputs: int) -> Iterator[_Display]:
    if not sys.stderr.isatty():
        yield _PlainLines(tally, num_inputs)
    else:
        from rich.console import Console
        from rich.live import Live

        lines = _PlainLines(tally, num_inputs)
        console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        with Live(console=console, transient=True, refresh_per_second=4, get_renderable=lines.text):
            yield _Nothing()


class _Nothing:
    def show(self) -> None:
        """Do nothing: somebody else shows it."""


class _PlainLines:
    """A line every few seconds."""

    def __init__(self, tally: Tally, num_inputs: int) -> None:
        self.tally = tally
        self.num_inputs = num_inputs
        self.started = self.last = time.monotonic()

    def text(self) -> str:
        """Return files and audio hours done, rate, time left, errors so far, and the current file."""
        tally, elapsed_s = self.tally, time.monotonic() - self.started
        num_new = tally.num_done - tally.num_skipped
        left = "-"
        if num_new:
            left = f"{elapsed_s / num_new * (self.num_inputs - tally.num_done) / 60:.1f} min"
        path = printable(tally.current or "")
        if len(path) > PATH_WIDTH:
            path = f"...{path[-PATH_WIDTH:]}"
        return (
            f"{tally.num_done} of {self.num_inputs} inputs, {tally.audio_s / 3600:.2f} h of audio, "
            f"{tally.audio_s / max(elapsed_s, 1e-9):.1f} x real time, {left} left, {tally.num_failed} failed  {path}"
        )

    def show(self) -> None:
        """Print a line if the last one is some seconds old."""
        if time.monotonic() - self.last >= PLAIN_INTERVAL_S:
            self.last = time.monotonic()
            print(self.text(), file=sys.stderr, flush=True)  # noqa: T201
