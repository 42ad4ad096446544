"""The table for people: a heading for each input and its labels below; in color on a terminal only.

On a terminal the windows of a recording are lanes over a time axis; elsewhere each window is a line of text.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Sequence
from typing import NoReturn, TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from ast_cli.report.lanes import Lane, axis_unit, lanes_of, result_end_s, result_start_s, tick_text, time_ticks
from ast_cli.report.text import clock, counted, label_text, printable
from ast_cli.results import Event, Tag, TaggingResult

BAR_WIDTH = 20  # characters for a score of 1
MISSING = "no label above the threshold"
MAX_LANES = 20  # labels with lanes; the others are counted
MIN_SCORE = 0.05  # of a lane and of a block that is drawn
LANE_COLUMNS = (40, 200)  # of a terminal; a narrower one has a line for each window
MAX_LABEL_FRACTION = 0.3  # of the terminal's width
LEVELS = "▁▂▃▄▅▆▇█"  # scores from 0 to 1
SCORE_WIDTH = 7  # of the column at the right
MIN_TICK_GAP = 4  # columns


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
        for line in self._lines(result):
            self.console.print(line)

    def _lines(self, result: TaggingResult) -> list[Text]:
        """Return what is below the heading of a result."""
        if not _has_parts(result):
            return _bars(result.tags, result.activation)
        width = min(self.console.width, LANE_COLUMNS[1])
        has_lanes = result.windows and result.activation != "none" and width >= LANE_COLUMNS[0]
        if not has_lanes or not self.console.file.isatty():
            return _parts(result)
        lines = _lanes(result, width)
        if result.events is not None:
            lines += [Text("  events", style="dim"), *_parts(dataclasses.replace(result, windows=None))]
        return lines

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
        lines.append(Text.assemble(f"  {tag.score:8.4f}  ", (f"{bar:<{width}}", "green"), label_text(tag.label)))
    return lines


def _lanes(result: TaggingResult, width: int) -> list[Text]:
    """Return one line for each label of the windows, blocks as high as its scores, and a time axis below.

    Args:
        result: Result with windows.
        width: Columns of the terminal.
    """
    lanes = lanes_of(result)
    if not lanes:
        return [Text(f"  {MISSING}", style="dim")]
    shown = [lane for lane in lanes[:MAX_LANES] if lane.best >= MIN_SCORE] or lanes[:1]
    start_s = result_start_s(result)
    end_s = max(result_end_s(result), start_s + 0.01)
    names = [f"time ({axis_unit(end_s)})", *(label_text(lane.label) for lane in shown)]
    label_width = min(max(map(cell_len, names)), int(width * MAX_LABEL_FRACTION))
    num_columns = width - label_width - SCORE_WIDTH - 5  # two before the label, two after it, and the last column
    lines = [_lane(lane, label_width, lane.columns(start_s, end_s, num_columns)) for lane in shown]
    lines.append(_axis(start_s, end_s, num_columns, label_width))
    if others := lanes[len(shown) :]:
        text = f"  and {counted(len(others), 'label')} up to {others[0].best:.3f}"
        lines.append(Text(text, style="dim"))
    return lines


def _lane(lane: Lane, label_width: int, scores: Sequence[float | None]) -> Text:
    """Return a label, its blocks and its highest score."""
    blocks = "".join(" " if score is None or score < MIN_SCORE else _block(score) for score in scores)
    label = _cut(label_text(lane.label), label_width)
    return Text.assemble(f"  {label}  ", (blocks, "green"), f"  {lane.best:.3f}")


def _block(score: float) -> str:
    """Return the character whose height is a score from 0 to 1."""
    return LEVELS[min(int(score * len(LEVELS)), len(LEVELS) - 1)]


def _axis(start_s: float, end_s: float, num_columns: int, label_width: int) -> Text:
    """Return the time axis below the lanes; the text of a tick begins at its time."""
    unit = axis_unit(end_s)
    name = f"time ({unit})" if len(unit) + 7 <= label_width else unit
    max_ticks = max(1, num_columns // (len(tick_text(end_s, 1, end_s)) + MIN_TICK_GAP))
    line = ""
    for time_s, text in time_ticks(start_s, end_s, max_ticks):
        place = round((time_s - start_s) / (end_s - start_s) * num_columns)
        if place >= len(line) + bool(line) and place + len(text) <= num_columns:
            line = line.ljust(place) + text
    return Text(f"  {_cut(name, label_width)}  {line}", style="cyan")


def _cut(text: str, width: int) -> str:
    """Return a text in exactly as many columns of a terminal, with an ellipsis where it is longer."""
    return set_cell_size(text, width) if cell_len(text) <= width else f"{set_cell_size(text, width - 1)}…"


def _times(start_s: float, end_s: float) -> Text:
    return Text(f"  {clock(start_s)} - {clock(end_s)}  ", style="cyan")


def _event_line(event: Event) -> Text:
    """Return the scores and the label of an event on one line."""
    return Text(f"{event.mean_score:.3f} (up to {event.max_score:.3f}) {label_text(event.label)}")


def _one_line(tags: Sequence[Tag]) -> Text:
    """Return the tags of a window on one line."""
    if not tags:
        return Text(MISSING, style="dim")
    return Text("   ".join(f"{tag.score:.3f} {label_text(tag.label)}" for tag in tags))
