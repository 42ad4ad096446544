"""Progress of a training run on standard error: a live line on a terminal, and a line for each epoch of interest."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ast_cli.cli.live_line import PLAIN_INTERVAL_S, live_line
from ast_cli.cli.streams import note
from ast_cli.cli.terminal import wrapped
from ast_cli.report.text import counted, printable, waiting_time

if TYPE_CHECKING:
    from ast_cli.training.data.spectrograms import UnreadExample
    from ast_cli.training.trainer import Report

MAX_FAILURES_SHOWN = 10
BAR_WIDTH = 20  # characters
EPOCH_INTERVAL_S = 2.0  # between the lines of epochs that bring nothing new


class TrainDisplay:
    """Shows the progress of training.

    The first epoch, the last one and each new best validation have a line that stays. Any other epoch has one if the
    last such line is `EPOCH_INTERVAL_S` old, so that the epochs of a linear probe, which take milliseconds, do not fill
    the screen; ``history.csv`` has them all.

    Args:
        quiet: Whether to print errors only.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.is_live = not quiet and sys.stderr.isatty()
        self._live: Any = None
        self._line = ""
        self._shown_at = time.monotonic()
        self._epoch_shown_at: float | None = None  # None: the run has shown no epoch yet

    def __enter__(self) -> Self:
        """Start the live line if standard error is a terminal."""
        if self.is_live:
            self._live = live_line(lambda _width: self._line)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove the live line from the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def progress(self, what: str, done: int, num_clips: int) -> None:
        """Show the progress of the work before training."""
        self._show(f"{what}: {done} of {num_clips}", lasting=False)

    def failures(self, failures: Sequence[UnreadExample]) -> None:
        """Print which clips are left out, and why; errors are printed with ``--quiet`` too."""
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
            text += f"  validation {row['validation_metric']:.4f}" + ("  best so far" if report.is_best else "")
        text += f"  {report.clips_per_s:.1f} clips/s  {waiting_time(report.left_s)} left"
        self._show(text, lasting=row is not None and self._is_worth_a_line(report))

    def _is_worth_a_line(self, report: Report) -> bool:
        """Return whether the end of an epoch gets a line that stays."""
        now, before = time.monotonic(), self._epoch_shown_at
        is_old = before is None or now - before >= EPOCH_INTERVAL_S
        if not (is_old or report.is_best or report.is_last):
            return False
        self._epoch_shown_at = None if report.is_last else now  # with --folds another run follows
        return True

    def note(self, text: str) -> None:
        """Print a line that stays."""
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
        """Print a line that stays, above the live line if there is one."""
        if self._live is not None:
            self._live.console.print(wrapped(printable(text), self._live.console.width), soft_wrap=True)
        else:
            note(text)


def _bar(fraction: float) -> str:
    """Draw the part of an epoch that is done."""
    return "█" * round(fraction * BAR_WIDTH) + "░" * (BAR_WIDTH - round(fraction * BAR_WIDTH))
