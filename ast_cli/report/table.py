"""The table for people: a heading for each input and its labels below; in color on a terminal only."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import NoReturn, TextIO

from rich.console import Console
from rich.text import Text

from ast_cli.report.text import clock, printable
from ast_cli.results import Event, Tag, TaggingResult

BAR_WIDTH = 20  # characters for a score of 1
MISSING = "no label above the threshold"


class _Console(Console):
    """A console that raises an error when its reader has closed the pipe; rich would end the process."""

    def on_broken_pipe(self) -> NoReturn:
        """Raise the error that rich has caught."""
        raise BrokenPipeError(errno.EPIPE, "the reader has closed the pipe")


class TableWriter:
    """Prints results, one by one."""

    def __init__(self, stream: TextIO) -> None:
        self.console = _Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self.num_written = 0

    def write(self, result: TaggingResult) -> None:
        """Print one result, each channel under a heading of its own where it has several."""
        for record in result.records:
            self._write_record(record)
        self.console.file.flush()

    def _write_record(self, result: TaggingResult) -> None:
        if self.num_written:
            self.console.print()
        self.num_written += 1
        self.console.print(_heading(result))
        if result.error is not None:
            return
        for line in _parts(result) if _has_parts(result) else _bars(result.tags, result.activation):
            self.console.print(line)

    def close(self) -> None:
        """Do nothing: the table has no footer."""


def _heading(result: TaggingResult) -> Text:
    """Return the input's name and channel with its length or its error."""
    channel = "" if result.channel is None else f" [channel {result.channel}]"
    name = Text(printable(result.path or "(waveform)") + channel, style="bold")
    if result.error is not None:
        reason = result.error.message.removeprefix(f"{result.path}: ")  # the line already begins with the name
        return name + Text(f"  error: {printable(reason)}", style="red")
    warned = f"  warning: {', '.join(result.warnings)}" if result.warnings else ""
    return Text.assemble(name, (f"  {clock(result.duration_s or 0.0)}", "dim"), (warned, "yellow"))


def _has_parts(result: TaggingResult) -> bool:
    """Return whether the result has windows or events instead of tags for the whole recording alone."""
    return result.windows is not None or result.events is not None


def _parts(result: TaggingResult) -> list[Text]:
    """Return one line for each window and event; if the result has both, each kind has a heading."""
    windows = [_times(window.start_s, window.end_s) + _one_line(window.tags) for window in result.windows or ()]
    events = [_times(event.start_s, event.end_s) + _event_line(event) for event in result.events or ()]
    if result.events is not None and not events:
        events = [Text(f"  {MISSING}", style="dim")]
    if result.windows is None or result.events is None:
        return windows + events
    indented = [[Text("  ") + line for line in lines] for lines in (windows, events)]
    return [Text("  windows", style="dim"), *indented[0], Text("  events", style="dim"), *indented[1]]


def _bars(tags: Sequence[Tag], activation: str) -> list[Text]:
    """Return one line for each tag: score, bar, label; logits have no bar, since they are no probabilities."""
    if not tags:
        return [Text(f"  {MISSING}", style="dim")]
    lines = []
    for tag in tags:
        bar = "" if activation == "none" else "█" * round(BAR_WIDTH * tag.score)
        width = 0 if activation == "none" else BAR_WIDTH + 2
        lines.append(Text.assemble(f"  {tag.score:8.4f}  ", (f"{bar:<{width}}", "green"), printable(tag.label)))
    return lines


def _times(start_s: float, end_s: float) -> Text:
    return Text(f"  {clock(start_s)} - {clock(end_s)}  ", style="cyan")


def _event_line(event: Event) -> Text:
    """Return the scores and the label of an event on one line."""
    return Text(f"{event.mean_score:.3f} (up to {event.max_score:.3f}) {printable(event.label)}")


def _one_line(tags: Sequence[Tag]) -> Text:
    """Return the tags of a window on one line."""
    if not tags:
        return Text(MISSING, style="dim")
    return Text("   ".join(f"{tag.score:.3f} {printable(tag.label)}" for tag in tags))
