"""Thresholds: the score from which a label counts as present, found on labeled data and read by ``ast classify``.

Reading needs the standard library only; `ast_cli.tagging.thresholds` defines the format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ast_cli.errors import CheckpointError, UsageError
from ast_cli.files.json_object import write_json_object
from ast_cli.tagging.thresholds import THRESHOLDS_VERSION, read_label_thresholds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DECIMALS = 6
THRESHOLD_DECIMALS = 4  # more if two scores are closer


@dataclass(frozen=True, slots=True)
class LabelThreshold:
    """The threshold of one label, with its metrics on the data it was found on.

    Attributes:
        label: Name of the label.
        threshold: Lowest score at which the label counts as present.
        f1: Harmonic mean of precision and recall, the largest that any threshold gives.
        precision: Fraction of the examples at or above the threshold that have the label.
        recall: Fraction of the examples with the label that are at or above the threshold.
        support: Number of examples that have the label.
    """

    label: str
    threshold: float
    f1: float
    precision: float
    recall: float
    support: int

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; the threshold is not rounded, since rounding up could exclude the score it rests on."""
        rounded = {name: round(getattr(self, name), DECIMALS) for name in ("f1", "precision", "recall")}
        return {"threshold": self.threshold, **rounded, "support": self.support}


def best_thresholds(
    scores: NDArray[Any], targets: NDArray[np.bool_], labels: Sequence[str], min_support: int = 1
) -> tuple[LabelThreshold, ...]:
    """Find the threshold of each label with the largest F1; labels with too few examples are left out.

    Args:
        scores: Scores from 0 to 1, shape (num_examples, num_labels).
        targets: Whether an example has a label, shape (num_examples, num_labels).
        labels: Names of the columns.
        min_support: Smallest number of examples that a label needs, at least 1.
    """
    enough = targets.sum(axis=0) >= max(1, min_support)
    return tuple(_best_threshold(scores[:, i], targets[:, i], label) for i, label in enumerate(labels) if enough[i])


def _best_threshold(scores: NDArray[Any], targets: NDArray[np.bool_], label: str) -> LabelThreshold:
    """Choose the best F1 on the precision-recall curve of scores and targets, shape (num_examples,).

    Of points with the same F1 the one with the larger recall is chosen. The threshold is the middle between its score
    and the next lower one: the F1 is the same, and the slightly different scores of other data do not fall below it.
    """
    import numpy as np
    from sklearn.metrics import precision_recall_curve

    precision, recall, candidates = precision_recall_curve(targets, scores.astype(np.float64))
    precision, recall = precision[:-1], recall[:-1]  # the curve's last point has no threshold
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
    best = int(f1.argmax())
    below = float(candidates[best - 1]) if best else 0.0
    threshold = _between(below, float(candidates[best]))
    return LabelThreshold(
        label,
        threshold=threshold,
        f1=float(f1[best]),
        precision=float(precision[best]),
        recall=float(recall[best]),
        support=int(targets.sum()),
    )


def _between(low: float, high: float) -> float:
    """Return the middle of two scores, rounded if the rounded value is still between them."""
    middle = (low + high) / 2
    short = round(middle, THRESHOLD_DECIMALS)
    return short if low < short <= high else middle


def write_thresholds(file: Path, thresholds: Sequence[LabelThreshold], models: Sequence[str], data: str) -> None:
    """Write thresholds as one JSON object, atomically.

    Args:
        file: File to write.
        thresholds: Thresholds of all labels that have one.
        models: Names of the models whose scores were used; several for an ensemble.
        data: Path of the data.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    content = {
        "schema_version": THRESHOLDS_VERSION,
        "type": "thresholds",
        "model": models[0] if len(models) == 1 else list(models),
        "data": data,
        "labels": {found.label: found.to_dict() for found in thresholds},
    }
    write_json_object(file, content)


def read_thresholds(file: Path) -> tuple[tuple[str, float], ...]:
    """Read the file of ``--thresholds``.

    Returns:
        Pairs of label and threshold, in the order of the file.

    Raises:
        UsageError: If the file cannot be read or its content is invalid.
    """
    try:
        return read_label_thresholds(file)
    except CheckpointError as error:
        raise UsageError(f"--thresholds {error}") from error
