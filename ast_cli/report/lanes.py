"""Lanes of labels over time, for pictures and terminals: which labels, when, and with which scores.

Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ast_cli.results import Event, TaggingResult, Window

# Distances between two ticks of a time axis, in seconds: those of a clock.
TICK_STEPS_S = (
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800),
    *(3600, 7200, 10_800, 21_600, 43_200, 86_400),
)


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a lane that has one score."""

    start_s: float
    end_s: float
    score: float


@dataclass(frozen=True, slots=True)
class Lane:
    """One label over time.

    Attributes:
        label: Name of the label.
        label_id: Index of the class.
        spans: Parts with a score, in the order of time and without overlap.
    """

    label: str
    label_id: int
    spans: tuple[Span, ...]

    @property
    def best(self) -> float:
        """Highest score of the lane."""
        return max(span.score for span in self.spans)

    def columns(self, start_s: float, end_s: float, num_columns: int) -> list[float | None]:
        """Return the highest score in each of several columns of equal length; None in a column without a span.

        Args:
            start_s: Start of the first column, in seconds.
            end_s: End of the last column, in seconds; after the start.
            num_columns: Number of columns.
        """
        column_s = (end_s - start_s) / num_columns
        scores: list[float | None] = [None] * num_columns
        for span in self.spans:
            # A span belongs to a column if it covers its center, and to at least one column.
            first = math.ceil((span.start_s - start_s) / column_s - 0.5)
            end = math.ceil((span.end_s - start_s) / column_s - 0.5)
            middle = math.floor(((span.start_s + span.end_s) / 2 - start_s) / column_s)
            covered = range(first, end) if end > first else range(middle, middle + 1)
            for column in range(max(covered.start, 0), min(covered.stop, num_columns)):
                scores[column] = max(span.score, scores[column] or 0.0)
        return scores


def lanes_of(
    result: TaggingResult,
    *,
    threshold: float | None = None,
    label_ids: Collection[int] | None = None,
    of_events: bool = False,
) -> list[Lane]:
    """Return the lanes of a result, the label with the highest score first.

    They are those of its windows, else of its events, else its tags over the whole recording. Where windows overlap,
    each moment has the scores of the window whose center is nearest.

    Args:
        result: Result of one recording, or of one channel.
        threshold: Lowest score that is part of a lane; None for any.
        label_ids: Class indices of the labels that may have a lane; None for all.
        of_events: Whether events come before windows.
    """
    spans: dict[tuple[int, str], list[Span]] = {}
    for start_s, end_s, label_id, label, score in _scored_parts(result, of_events):
        if (threshold is None or score >= threshold) and (label_ids is None or label_id in label_ids):
            spans.setdefault((label_id, label), []).append(Span(start_s, end_s, score))
    lanes = [Lane(label, label_id, tuple(found)) for (label_id, label), found in spans.items()]
    return sorted(lanes, key=lambda lane: -lane.best)


def _scored_parts(result: TaggingResult, of_events: bool) -> list[tuple[float, float, int, str, float]]:
    """Return start, end, class, label and score of each part of a lane."""
    if result.events is not None and (of_events or result.windows is None):
        return [(e.start_s, e.end_s, e.label_id, e.label, e.mean_score) for e in result.events]
    windows = [Window(0.0, result.duration_s or 0.0, result.tags)] if result.windows is None else result.windows
    return [
        (start_s, end_s, tag.label_id, tag.label, tag.score)
        for window, (start_s, end_s) in zip(windows, _without_overlap(windows), strict=True)
        for tag in window.tags
    ]


def _without_overlap(windows: Sequence[Window]) -> list[tuple[float, float]]:
    """Return the times of consecutive windows, with one boundary in the middle of each overlap."""
    starts, ends = [window.start_s for window in windows], [window.end_s for window in windows]
    for index, (left, right) in enumerate(pairwise(windows)):
        if right.start_s < left.end_s:
            ends[index] = starts[index + 1] = (left.end_s + right.start_s) / 2
    return list(zip(starts, ends, strict=True))


def result_end_s(result: TaggingResult) -> float:
    """Return the end of the recording, or of the part that was tagged, in seconds."""
    parts: list[Window | Event] = [*(result.windows or ()), *(result.events or ())]
    return max(result_start_s(result) + (result.duration_s or 0.0), max((part.end_s for part in parts), default=0.0))


def result_start_s(result: TaggingResult) -> float:
    """Return the start of the first window of a result, in seconds: not 0 where a part was tagged."""
    return min((window.start_s for window in result.windows or ()), default=0.0)


def time_ticks(start_s: float, end_s: float, max_ticks: int) -> list[tuple[float, str]]:
    """Return the ticks of a time axis: seconds with the text beside them, at most some number of them.

    The texts of one axis have one form: ``2.5`` (seconds) for less than two minutes, else ``1:30`` or ``1:01:30``.

    Args:
        start_s: Start of the axis.
        end_s: Its end.
        max_ticks: Greatest number of ticks, at least 1.
    """
    length_s = max(end_s - start_s, TICK_STEPS_S[0])
    step_s: float = next((step for step in TICK_STEPS_S if length_s / step < max_ticks), 0.0)
    if not step_s:
        step_s = 86_400 * math.ceil(length_s / 86_400 / max_ticks)
    first, last = math.ceil(start_s / step_s - 1e-9), math.floor(end_s / step_s + 1e-9)
    times = [number * step_s for number in range(first, last + 1)][: max(max_ticks, 1)]
    return [(time_s, tick_text(time_s, step_s, end_s)) for time_s in times]


def tick_text(time_s: float, step_s: float, end_s: float) -> str:
    """Return the text of a tick on an axis with a distance between ticks and an end."""
    if axis_unit(end_s) == "s" or step_s < 1:
        return f"{time_s:.2f}" if step_s < 0.1 else f"{time_s:.1f}" if step_s < 1 else f"{time_s:.0f}"
    minutes, seconds = divmod(round(time_s), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if end_s >= 3600 else f"{minutes}:{seconds:02}"


def axis_unit(end_s: float) -> str:
    """Return the unit of a time axis by its end: ``s``, ``min:s`` or ``h:min:s``."""
    return "s" if end_s < 120 else "min:s" if end_s < 3600 else "h:min:s"
