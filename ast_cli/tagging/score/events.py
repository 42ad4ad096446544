"""Merge the scores of consecutive windows into events, each with a label, a beginning and an end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ast_cli.labels import mid_of
from ast_cli.results import Event
from ast_cli.tagging.score.specific import SpecificLabels


@dataclass(slots=True)
class _OpenEvent:
    """An event that has not ended: the label has reached its threshold in every window since ``start_s``."""

    start_s: float
    end_s: float
    total: float
    largest: float
    num_windows: int = 1


class EventMerger:
    """Merges consecutive windows that reach a threshold into events, for each label; stores only events not yet ended.

    Args:
        id2label: Labels of the checkpoint by class index.
        label_ids: Class indices of the labels to follow, shape (num_chosen,).
        thresholds: Lowest score that belongs to an event: one for all labels, or one for each, shape (num_chosen,).
        specific: What leaves general labels out of each window; None to follow them too.

    Attributes:
        open_events: Events that have not ended, by class index.
    """

    def __init__(
        self,
        id2label: Mapping[int, str],
        label_ids: NDArray[np.int64],
        thresholds: float | NDArray[Any],
        specific: SpecificLabels | None = None,
    ) -> None:
        self.id2label = id2label
        self.label_ids = label_ids
        self.thresholds = thresholds
        self.specific = specific
        self.open_events: dict[int, _OpenEvent] = {}

    def add(self, start_s: float, end_s: float, scores: NDArray[np.float32]) -> list[Event]:
        """Add the next window with its scores, shape (num_labels,); return the events that ended before it."""
        chosen = scores[self.label_ids]
        over = chosen >= self.thresholds
        if self.specific is not None:
            over = self.specific(chosen, over)
        now = {int(self.label_ids[i]): float(chosen[i]) for i in np.flatnonzero(over).tolist()}
        ended = self._close([label_id for label_id in self.open_events if label_id not in now])
        for label_id, score in now.items():
            event = self.open_events.get(label_id)
            if event is None:
                self.open_events[label_id] = _OpenEvent(start_s, end_s, score, score)
            else:
                event.end_s = end_s
                event.total += score
                event.largest = max(event.largest, score)
                event.num_windows += 1
        return ended

    def finish(self) -> list[Event]:
        """Return the events that last until the end of the recording."""
        return self._close(list(self.open_events))

    def _close(self, label_ids: list[int]) -> list[Event]:
        events = []
        for label_id in label_ids:
            event = self.open_events.pop(label_id)
            label = self.id2label[label_id]
            mean = event.total / event.num_windows
            events.append(Event(label, label_id, mid_of(label), event.start_s, event.end_s, mean, event.largest))
        return sorted(events, key=lambda event: (event.start_s, event.label_id))
