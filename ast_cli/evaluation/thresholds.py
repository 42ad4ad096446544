"""From which score on a label counts as heard: found on labeled data, kept in a file, read by ``ast classify``.

Reading needs the standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ast_cli.errors import CheckpointError, UsageError
from ast_cli.files.json_object import read_json_object, write_json_object
from ast_cli.tagging.options import check_threshold

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

THRESHOLDS_VERSION = 1
DECIMALS = 6
THRESHOLD_DECIMALS = 4  # more where two scores are closer


@dataclass(frozen=True, slots=True)
class LabelThreshold:
    """The threshold of one label, and how good it is on the data it was found on.

    Attributes:
        label: Its name.
        threshold: The lowest score that counts as heard.
        f1: Harmonic mean of precision and recall; the largest that any threshold gives.
        precision: Share of the examples over the threshold that have the label.
        recall: Share of the examples that have the label and are over the threshold.
        support: Examples that have the label.
    """

    label: str
    threshold: float
    f1: float
    precision: float
    recall: float
    support: int

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; the threshold keeps its digits, for rounded up it could lose the score it rests on."""
        rounded = {name: round(getattr(self, name), DECIMALS) for name in ("f1", "precision", "recall")}
        return {"threshold": self.threshold, **rounded, "support": self.support}


def best_thresholds(
    scores: NDArray[Any], targets: NDArray[np.bool_], labels: Sequence[str]
) -> tuple[LabelThreshold, ...]:
    """Find each label's threshold that gives the largest F1; labels that no example has are left out.

    Args:
        scores: From 0 to 1, shape (num_examples, num_labels).
        targets: Whether an example has a label, shape (num_examples, num_labels).
        labels: Names of the columns.
    """
    return tuple(
        _best_threshold(scores[:, i], targets[:, i], label) for i, label in enumerate(labels) if targets[:, i].any()
    )


def _best_threshold(scores: NDArray[Any], targets: NDArray[np.bool_], label: str) -> LabelThreshold:
    """Choose from the precision-recall curve of scores and targets, shape (num_examples,); of equal F1 more recall.

    The threshold is put half-way down to the next lower score: the F1 is the same, and other data, whose scores differ
    a little, do not fall off an edge.
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
    """Return the middle of two scores, with few digits where they leave room for that."""
    middle = (low + high) / 2
    short = round(middle, THRESHOLD_DECIMALS)
    return short if low < short <= high else middle


def write_thresholds(file: Path, thresholds: Sequence[LabelThreshold], models: Sequence[str], data: str) -> None:
    """Write thresholds as one JSON object; the file is old or new, never half.

    Args:
        file: To write.
        thresholds: Of the labels that have one.
        models: Whose scores they were found on; several are an ensemble.
        data: Where the examples come from.

    Raises:
        CheckpointError: The file cannot be written.
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
    """Read a file of thresholds: as `write_thresholds` made it, or by hand with ``{"labels": {"Rain": 0.4}}``.

    Returns:
        Labels with their thresholds, in the file's order.

    Raises:
        UsageError: It cannot be read, or holds something else; the message says what.
    """
    try:
        content = read_json_object(file)
    except CheckpointError as error:
        raise UsageError(f"--thresholds {error}") from error
    labels = content.get("labels")
    if content.get("schema_version", THRESHOLDS_VERSION) != THRESHOLDS_VERSION:
        found = json.dumps(content["schema_version"])
        raise UsageError(
            f"--thresholds {file}: written in schema version {found}; this version reads {THRESHOLDS_VERSION}"
        )
    if not isinstance(labels, dict) or not labels:
        raise UsageError(f'--thresholds {file}: holds no thresholds under "labels"; `ast evaluate` writes such a file')
    return tuple((label, _threshold(file, label, value)) for label, value in labels.items())


def _threshold(file: Path, label: str, value: object) -> float:
    """Return one label's threshold, which stands alone or beside what is known about it."""
    threshold = value.get("threshold") if isinstance(value, dict) else value
    try:
        check_threshold(label, threshold)
    except UsageError as error:
        raise UsageError(f"--thresholds {file}: {error}") from error
    assert isinstance(threshold, int | float)
    return float(threshold)
