"""Calibration: whether a score of 0.7 is right seven times in ten. Pure functions from arrays to frozen results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ast_cli.errors import UsageError

NUM_BINS = 15  # as in Guo et al., 2017, On Calibration of Modern Neural Networks
DECIMALS = 6


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The scores of one interval: a point of the reliability diagram.

    Attributes:
        low: Lower end of the interval, which belongs to it.
        high: Upper end, which belongs to the next interval; that of the last one, 1, belongs to it.
        num_scores: Number of scores in the interval.
        mean_score: Their mean; None if there are none.
        fraction_right: Fraction of them that are right; None if there are none.
    """

    low: float
    high: float
    num_scores: int
    mean_score: float | None
    fraction_right: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "low": round(self.low, DECIMALS),
            "high": round(self.high, DECIMALS),
            "num_scores": self.num_scores,
            "mean_score": None if self.mean_score is None else round(self.mean_score, DECIMALS),
            "fraction_right": None if self.fraction_right is None else round(self.fraction_right, DECIMALS),
        }


@dataclass(frozen=True, slots=True)
class Reliability:
    """The numbers of a reliability diagram.

    Attributes:
        bins: Intervals of equal width from 0 to 1.
    """

    bins: tuple[ReliabilityBin, ...]

    @property
    def expected_calibration_error(self) -> float:
        """Mean distance between score and fraction that is right, each interval weighted by its number of scores."""
        num_scores = sum(each.num_scores for each in self.bins)
        distances = (
            each.num_scores * abs(each.mean_score - each.fraction_right)
            for each in self.bins
            if each.mean_score is not None and each.fraction_right is not None
        )
        return sum(distances) / num_scores

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        error = round(self.expected_calibration_error, DECIMALS)
        return {"expected_calibration_error": error, "bins": [each.to_dict() for each in self.bins]}


def reliability(scores: NDArray[Any], targets: NDArray[Any], num_bins: int = NUM_BINS) -> Reliability:
    """Compare scores with how often they are right.

    For multi-label data these are the scores of all labels and all examples together. For single-label data the score
    of the predicted label is usual: ``reliability(scores.max(axis=1), scores.argmax(axis=1) == targets)``.

    Args:
        scores: Scores from 0 to 1, of any shape.
        targets: Whether each is right, of the same shape; a soft target from 0 to 1 counts as that fraction.
        num_bins: Number of intervals.

    Raises:
        UsageError: If the shapes differ, there are no scores, or a number is not from 0 to 1.
    """
    if scores.shape != targets.shape:
        raise UsageError(f"scores of shape {scores.shape} do not fit targets of shape {targets.shape}")
    if not scores.size:
        raise UsageError("there are no scores to compare")
    flat, right = scores.ravel().astype(np.float64), targets.ravel().astype(np.float64)
    for name, values in (("scores", flat), ("targets", right)):
        if not ((values >= 0) & (values <= 1)).all():  # also false for NaN
            raise UsageError(f"{name} must be from 0 to 1 to be compared")
    places = np.minimum((flat * num_bins).astype(np.int64), num_bins - 1)
    counts, sums, rights = (np.bincount(places, weights, num_bins) for weights in (None, flat, right))
    return Reliability(
        tuple(
            ReliabilityBin(
                low=i / num_bins,
                high=(i + 1) / num_bins,
                num_scores=int(counts[i]),
                mean_score=float(sums[i] / counts[i]) if counts[i] else None,
                fraction_right=float(rights[i] / counts[i]) if counts[i] else None,
            )
            for i in range(num_bins)
        )
    )


def expected_calibration_error(scores: NDArray[Any], targets: NDArray[Any], num_bins: int = NUM_BINS) -> float:
    """Return the expected calibration error: 0 where every score equals the fraction that is right.

    The arguments are those of `reliability`, which also gives the numbers behind it.
    """
    return reliability(scores, targets, num_bins).expected_calibration_error
