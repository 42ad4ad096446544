"""From the scores of consecutive windows to events: a label, a beginning, an end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ast_cli.labels import mid_of
from ast_cli.results import Event


@dataclass(slots=True)
class _OpenEvent:
    """A label that is being heard."""

    start_s: float
    end_s: float
    total: float
    largest: float
    num_windows: int = 1


class EventMerger:
    """Merges consecutive windows over a threshold, label by label; holds one number set per label that is being heard.

    Args:
        id2label: The checkpoint's labels.
        label_ids: Which of them to follow, shape (num_chosen,).
        thresholds: The lowest score that counts as heard: one for all labels, or of each, shape (num_chosen,).
    """

    def __init__(
        self, id2label: Mapping[int, str], label_ids: NDArray[np.int64], thresholds: float | NDArray[Any]
    ) -> None:
        self.id2label = id2label
        self.label_ids = label_ids
        self.thresholds = thresholds
        self.heard: dict[int, _OpenEvent] = {}

    def add(self, start_s: float, end_s: float, scores: NDArray[np.float32]) -> list[Event]:
        """Take the scores (num_labels,) of the next window; return the events that ended before it."""
        chosen = scores[self.label_ids]
        over = np.flatnonzero(chosen >= self.thresholds).tolist()
        now = {int(self.label_ids[i]): float(chosen[i]) for i in over}
        ended = self._close([label_id for label_id in self.heard if label_id not in now])
        for label_id, score in now.items():
            event = self.heard.get(label_id)
            if event is None:
                self.heard[label_id] = _OpenEvent(start_s, end_s, score, score)
            else:
                event.end_s = end_s
                event.total += score
                event.largest = max(event.largest, score)
                event.num_windows += 1
        return ended

    def finish(self) -> list[Event]:
        """Return the events that last to the recording's end."""
        return self._close(list(self.heard))

    def _close(self, label_ids: list[int]) -> list[Event]:
        events = []
        for label_id in label_ids:
            event = self.heard.pop(label_id)
            label = self.id2label[label_id]
            mean = event.total / event.num_windows
            events.append(Event(label, label_id, mid_of(label), event.start_s, event.end_s, mean, event.largest))
        return sorted(events, key=lambda event: (event.start_s, event.label_id))
