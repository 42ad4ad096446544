"""The progress of a pass over many recordings: a live line on a terminal, else a line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ast_cli.cli.live_line import PLAIN_INTERVAL_S, live_line
from ast_cli.cli.streams import note


@contextmanager
def counting(noun: str, *, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a function that shows the number of recordings done, of the number of all, on standard error.

    Args:
        noun: Name of the recordings in the plural, such as ``clips``.
        quiet: Show nothing, and yield None instead of a function.
    """
    if quiet:
        yield None
    elif not sys.stderr.isatty():
        yield _PlainLines(noun)
    else:
        lines = _PlainLines(noun)
        with live_line(lambda _width: lines.text()):
            yield lines.count


class _PlainLines:
    """A line every few seconds."""

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self.num_done = self.num_all = 0
        self.started = self.last = time.monotonic()

    def text(self) -> str:
        """Return how many are done, and the time left."""
        left = "-"
        if self.num_done:
            left_s = (time.monotonic() - self.started) / self.num_done * (self.num_all - self.num_done)
            left = f"{left_s / 60:.1f} min"
        return f"{self.num_done} of {self.num_all or '?'} {self.noun}, {left} left"

    def count(self, num_done: int, num_all: int) -> None:
        """Set the numbers that `text` shows."""
        self.num_done, self.num_all = num_done, num_all

    def __call__(self, num_done: int, num_all: int) -> None:
        """Set the numbers, and print a line if the last one is some seconds old."""
        self.count(num_done, num_all)
        if time.monotonic() - self.last >= PLAIN_INTERVAL_S:
            self.last = time.monotonic()
            note(self.text())
