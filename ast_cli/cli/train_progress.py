"""What a person sees of a training run on standard error: a live line on a terminal, a plain line an epoch off it."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ast_cli.cli.streams import note

if TYPE_CHECKING:
    from ast_cli.training.trainer import Report

PLAIN_INTERVAL_S = 10.0  # between lines within an epoch, off a terminal


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
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True, highlight=False, markup=False, emoji=False)
            self._live = Live(console=console, transient=True, refresh_per_second=4, get_renderable=lambda: self._line)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def features(self, done: int, num_clips: int) -> None:
        """Show how many spectrograms are computed."""
        self._show(f"reading clips: {done} of {num_clips}", lasting=False)

    def report(self, report: Report) -> None:
        """Show an update or the end of an epoch."""
        row = report.row
        text = f"epoch {report.epoch}/{report.num_epochs}"
        if row is None:
            text += f"  update {report.update}/{report.num_updates}"
        text += f"  loss {report.loss:.4f}"
        if row is not None and row["validation_metric"] is not None:
            text += f"  validation {row['validation_metric']:.4f}"
        text += f"  {report.clips_per_s:.1f} clips/s  {_duration(report.left_s)} left"
        self._show(text, lasting=row is not None)

    def note(self, text: str) -> None:
        """Say something that stays."""
        self._show(text, lasting=True)

    def _show(self, text: str, *, lasting: bool) -> None:
        if self.quiet:
            return
        if self._live is not None:
            self._line = text
            if lasting:
                self._live.console.print(text)
        elif lasting or time.monotonic() - self._shown_at >= PLAIN_INTERVAL_S:
            note(text)
            self._shown_at = time.monotonic()


def _duration(seconds: float) -> str:
    """Write a time to wait: 42 s, 3 min 10 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
