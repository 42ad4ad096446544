"""Targets of parts of clips, where a teacher has scored windows; and the combination of scores with labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def combined(
    scores: NDArray[np.float32], labels: NDArray[np.float32], weight: float | None, *, are_probabilities: bool
) -> NDArray[np.float32]:
    """Return the targets of clips that have a teacher's scores and perhaps labels.

    Args:
        scores: Scores, float32, shape (..., num_labels).
        labels: 1 where a clip has a label, else 0, in the same shape. A clip without any label keeps its scores.
        weight: Weight of the scores in their mean with the labels (Hinton et al., 2015, section 2); None for the larger
            of both, which adds the labels to what the teacher hears.
        are_probabilities: Whether targets must add up to 1, for cross-entropy.
    """
    if weight is None:
        targets = np.maximum(scores, labels)
    else:
        is_labeled = labels.any(axis=-1, keepdims=True)
        targets = np.where(is_labeled, weight * scores + (1 - weight) * labels, scores)
    if are_probabilities:
        targets = targets / targets.sum(axis=-1, keepdims=True)
    return targets.astype(np.float32, copy=False)


@dataclass(frozen=True, eq=False)
class WindowTargets:
    """Targets of parts of clips, from the scores of the windows that a part overlaps.

    Attributes:
        scores: Scores of all windows, float32, shape (num_windows, num_labels); clips may share windows.
        rows: Row of the scores for each window of each clip, one clip after another.
        first: Index into ``rows`` of the first window of each clip, and the number of all, shape (num_clips + 1,).
        starts: Start of each window in its clip, in frames; parallel to ``rows``.
        ends: End of each window in its clip, in frames; parallel to ``rows``.
        labels: Whether a clip has a label, bool, shape (num_clips, num_labels).
        weight: Weight of the scores, as in `combined`.
        are_probabilities: Whether targets add up to 1.
    """

    scores: NDArray[np.float32]
    rows: NDArray[np.int64]
    first: NDArray[np.int64]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    labels: NDArray[np.bool_]
    weight: float | None
    are_probabilities: bool

    def part_scores(self, clip: int, start: int, end: int) -> NDArray[np.float32]:
        """Return the scores of a part of a clip, shape (num_labels,).

        These are the mean of the windows that the part overlaps, weighted by the length of the overlap; where it
        overlaps none, the scores of the nearest window.

        Args:
            clip: Index of the clip.
            start: First frame of the part.
            end: Frame after its last one.
        """
        own = slice(self.first[clip], self.first[clip + 1])
        rows = self.rows[own]
        overlaps = np.minimum(self.ends[own], end) - np.maximum(self.starts[own], start)
        nearest = int(overlaps.argmax())  # below 0, an overlap is the distance
        if len(rows) == 1 or overlaps[nearest] <= 0:
            return np.asarray(self.scores[rows[nearest]])
        touched = overlaps > 0
        weights = overlaps[touched] / overlaps[touched].sum()
        return np.asarray(weights @ self.scores[rows[touched]], np.float32)

    def part_targets(self, clip: int, start: int, end: int) -> NDArray[np.float32]:
        """Return the targets of a part of a clip, shape (num_labels,); see `part_scores` and `combined`."""
        labels = self.labels[clip].astype(np.float32)
        scores = self.part_scores(clip, start, end)
        return combined(scores, labels, self.weight, are_probabilities=self.are_probabilities)

    def of_parts(self, parts: Sequence[Sequence[tuple[int, int]]]) -> WindowTargets:
        """Return the targets of fixed parts of the clips, each of which becomes one unit of time.

        A clip of embeddings has a row for each part; its row i is then the part from i to i + 1.

        Args:
            parts: First frame and end of each part, for each clip.
        """
        scores = [self.part_scores(clip, *part) for clip, own in enumerate(parts) for part in own]
        starts = np.concatenate([np.arange(len(own), dtype=np.float64) for own in parts])
        first = np.cumsum([0, *map(len, parts)])
        return WindowTargets(
            np.stack(scores),
            np.arange(len(scores)),
            first,
            starts,
            starts + 1,
            self.labels,
            self.weight,
            self.are_probabilities,
        )
