"""Merge the scores of consecutive windows into events, each with a label, a beginning and an end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ast_cli.results import Event
from ast_cli.tagging.score.open_events import OpenEvents
from ast_cli.tagging.score.specific import SpecificLabels


class EventMerger(OpenEvents):
    """Merges consecutive windows that reach a threshold into events, for each label; stores only events not yet ended.

    Args:
        id2label: Labels of the checkpoint by class index.
        label_ids: Class indices of the labels to follow, shape (num_chosen,).
        thresholds: Lowest score that belongs to an event: one for all labels, or one for each, shape (num_chosen,).
        specific: What leaves general labels out of each window; None to follow them too.
    """

    def __init__(
        self,
        id2label: Mapping[int, str],
        label_ids: NDArray[np.int64],
        thresholds: float | NDArray[Any],
        specific: SpecificLabels | None = None,
    ) -> None:
        super().__init__(id2label)
        self.label_ids = label_ids
        self.thresholds = thresholds
        self.specific = specific

    def add(self, start_s: float, end_s: float, scores: NDArray[np.float32]) -> list[Event]:
        """Add the next window with its scores, shape (num_labels,); return the events that ended before it."""
        chosen = scores[self.label_ids]
        over = chosen >= self.thresholds
        if self.specific is not None:
            over = self.specific(chosen, over)
        now = {int(self.label_ids[i]): float(chosen[i]) for i in np.flatnonzero(over).tolist()}
        return self.advance(start_s, end_s, now)
