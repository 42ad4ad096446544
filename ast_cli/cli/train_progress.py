"""What a person sees of a training run on standard error: a live line on a terminal, a plain line an epoch off it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ast_cli.cli.live_line import PLAIN_INTERVAL_S, live_line
from ast_cli.cli.streams import note
from ast_cli.report.text import counted, printable, waiting_time

if TYPE_CHECKING:
    from ast_cli.training.data.spectrograms import UnreadExample
    from ast_cli.training.trainer import Report

MAX_FAILURES_SHOWN = 10
BAR_WIDTH = 20  # characters


class TrainDisplay:
    """Shows how far a run is.

    Args:
        quiet: Show nothing.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.is_live = not quiet and sys.stderr.isatty()
        self._live: Any = None
        self._line = ""
        self._shown_at = time.monotonic()

    def __enter__(self) -> Self:
        """Begin."""
        if self.is_live:
            self._live = live_line(lambda: self._line)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def progress(self, what: str, done: int, num_clips: int) -> None:
        """Show how far the work before training is."""
        self._show(f"{what}: {done} of {num_clips}", lasting=False)

    def failures(self, failures: Sequence[UnreadExample]) -> None:
        """Say which clips are left out, and why; an error is said with ``--quiet`` too."""
        for _, error in failures[:MAX_FAILURES_SHOWN]:
            self._say(f"error: {error.message}")
        more = "; results.json names all" if len(failures) > MAX_FAILURES_SHOWN else ""
        self.note(f"{counted(len(failures), 'clip')} left out{more}")

    def report(self, report: Report) -> None:
        """Show an update or the end of an epoch."""
        row = report.row
        text = f"epoch {report.epoch}/{report.num_epochs}"
        if row is None:
            text += f"  {_bar(report.update / report.num_updates)}  update {report.update}/{report.num_updates}"
        text += f"  loss {report.loss:.4f}"
        if row is not None and row["validation_metric"] is not None:
            text += f"  validation {row['validation_metric']:.4f}"
        text += f"  {report.clips_per_s:.1f} clips/s  {waiting_time(report.left_s)} left"
        self._show(text, lasting=row is not None)

    def note(self, text: str) -> None:
        """Say something that stays."""
        self._show(text, lasting=True)

    def _show(self, text: str, *, lasting: bool) -> None:
        if self.quiet:
            return
        if self._live is not None and not lasting:
            self._line = text
        elif lasting or time.monotonic() - self._shown_at >= PLAIN_INTERVAL_S:
            self._say(text)
            self._shown_at = time.monotonic()

    def _say(self, text: str) -> None:
        """Print a line that stays, above the live one if there is one."""
        if self._live is not None:
            self._live.console.print(printable(text), soft_wrap=True)
        else:
            note(text)


def _bar(fraction: float) -> str:
    """Draw how much of an epoch is done."""
    return "█" * round(fraction * BAR_WIDTH) + "░" * (BAR_WIDTH - round(fraction * BAR_WIDTH))
