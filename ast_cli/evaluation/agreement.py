"""Agreement of a model with soft targets, such as the scores of its teacher."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ast_cli.evaluation.metrics import METRIC_DECIMALS

TOP_K = 5
SMALLEST = 1e-7  # scores closer to 0 or 1 than this count as this close, so that logarithms are finite


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of scores with soft targets.

    Attributes:
        num_examples: Number of examples.
        top_1: Fraction of the examples whose label with the highest score has the highest target.
        top_5: Mean fraction of the five labels with the highest targets that are among the five with the highest
            scores; None if there are no more than five labels.
        divergence: Mean Kullback-Leibler divergence from targets to scores, in nats: the loss minus its lowest possible
            value, which is the entropy of the targets. For independent labels the mean over the labels.
    """

    num_examples: int
    top_1: float
    top_5: float | None
    divergence: float

    def to_dict(self) -> dict[str, float | int | None]:
        """Return the JSON form."""
        top_5 = None if self.top_5 is None else round(self.top_5, METRIC_DECIMALS)
        return {
            "num_examples": self.num_examples,
            "top_1": round(self.top_1, METRIC_DECIMALS),
            "top_5": top_5,
            "divergence": round(self.divergence, METRIC_DECIMALS),
        }


def agreement(scores: NDArray[np.float32], targets: NDArray[np.float32], *, is_multi_label: bool) -> Agreement:
    """Compute the agreement of scores with soft targets.

    Args:
        scores: Scores from 0 to 1, shape (num_examples, num_labels).
        targets: Soft targets, shape (num_examples, num_labels).
        is_multi_label: Whether labels are independent; else the targets of an example add up to 1.
    """
    chosen = np.take_along_axis(targets, scores.argmax(axis=1)[:, None], axis=1)[:, 0]
    return Agreement(
        num_examples=len(scores),
        top_1=float((chosen == targets.max(axis=1)).mean()),  # among equal targets each is right
        top_5=_overlap(scores, targets) if scores.shape[1] > TOP_K else None,
        divergence=_divergence(scores, targets, is_multi_label=is_multi_label),
    )


def _overlap(scores: NDArray[np.float32], targets: NDArray[np.float32]) -> float:
    first = [np.argpartition(-each, TOP_K, axis=1)[:, :TOP_K] for each in (scores, targets)]
    return float((first[0][:, :, None] == first[1][:, None, :]).any(axis=2).mean())


def _divergence(scores: NDArray[np.float32], targets: NDArray[np.float32], *, is_multi_label: bool) -> float:
    p, q = (np.clip(each.astype(np.float64), SMALLEST, 1 - SMALLEST) for each in (targets, scores))
    if is_multi_label:
        return float((p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean())
    return float((p * np.log(p / q)).sum(axis=1).mean())
