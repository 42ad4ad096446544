"""Events that have not ended, and what ends them: the merging of `ast_cli.tagging.score.events`, without NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ast_cli.labels import mid_of
from ast_cli.results import Event


@dataclass(slots=True)
class _OpenEvent:
    """An event that has not ended: the label has reached its threshold in every window since ``start_s``."""

    start_s: float
    end_s: float
    total: float
    largest: float
    num_windows: int = 1


class OpenEvents:
    """Merges consecutive windows into events, for each label; stores only events that have not ended.

    Args:
        id2label: Labels by class index.

    Attributes:
        open_events: Events that have not ended, by class index.
    """

    def __init__(self, id2label: Mapping[int, str]) -> None:
        self.id2label = id2label
        self.open_events: dict[int, _OpenEvent] = {}

    def advance(self, start_s: float, end_s: float, scores: Mapping[int, float]) -> list[Event]:
        """Add the next window; return the events that ended before it.

        Args:
            start_s: Start of the window.
            end_s: End of the window.
            scores: Scores of the labels that reach their thresholds in the window, by class index.
        """
        ended = self._close([label_id for label_id in self.open_events if label_id not in scores])
        for label_id, score in scores.items():
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
