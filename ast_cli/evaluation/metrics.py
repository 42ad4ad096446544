"""Metrics: pure functions from arrays to frozen results. The numbers equal those of scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ast_cli.errors import UsageError

METRIC_DECIMALS = 6
METRIC_NAMES = {  # by key in JSON
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "mean_average_precision": "mAP",
    "mean_auc": "AUC",
    "d_prime": "d'",
    "lwlrap": "lwlrap",
}
Z_95 = NormalDist().inv_cdf(0.975)  # two-sided 95 %


@dataclass(frozen=True, slots=True)
class SingleLabelClass:
    """Metrics of one class of single-label data, in which the prediction is the label with the highest score.

    Attributes:
        label: Name of the class.
        support: Number of examples of the class.
        precision: Fraction of the predictions of this class that are correct; 0 if it is never predicted.
        recall: Fraction of its examples that are recognized.
        f1: Harmonic mean of precision and recall.
    """

    label: str
    support: int
    precision: float
    recall: float
    f1: float

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        values = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {"label": self.label, "support": self.support, **_rounded(values)}


@dataclass(frozen=True, slots=True)
class ConfusionMatrix:
    """Number of examples by true class (row) and predicted class (column).

    Attributes:
        labels: Labels of rows and columns: the classes that have examples or were predicted.
        counts: Numbers of examples, row by row.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    def confusions(self) -> list[tuple[str, str, int]]:
        """Return true class, predicted class and count of all mistakes, most frequent first."""
        pairs = [
            (self.labels[i], self.labels[j], count)
            for i, row in enumerate(self.counts)
            for j, count in enumerate(row)
            if i != j and count
        ]
        return sorted(pairs, key=lambda pair: -pair[2])

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"labels": list(self.labels), "counts": [list(row) for row in self.counts]}


@dataclass(frozen=True, slots=True)
class SingleLabelMetrics:
    """Metrics of single-label predictions.

    Attributes:
        num_examples: Number of examples evaluated.
        accuracy: Fraction of the examples with a correct prediction.
        accuracy_interval: Low and high end of the 95 % confidence interval of the accuracy (Wilson, 1927), which covers
            the variation between data sets of this size.
        macro_f1: Mean F1 over the classes that have examples, all with the same weight.
        per_class: Metrics of the classes that have examples, in the order of the labels.
        confusion_matrix: Counts by true and predicted class.
        labels_without_examples: Labels that could be predicted without examples; they are not included in the means.
    """

    problem: ClassVar[str] = "single_label"
    headline_key: ClassVar[str] = "accuracy"

    num_examples: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    macro_f1: float
    per_class: tuple[SingleLabelClass, ...]
    confusion_matrix: ConfusionMatrix
    labels_without_examples: tuple[str, ...]

    @property
    def headline(self) -> tuple[str, float]:
        """Name and value of the metric by which models are compared."""
        return METRIC_NAMES[self.headline_key], self.accuracy

    def summary(self) -> dict[str, Any]:
        """Return the metrics over all classes in their JSON form."""
        interval = [round(end, METRIC_DECIMALS) for end in self.accuracy_interval]
        values = _rounded({"accuracy": self.accuracy, "macro_f1": self.macro_f1})
        return {"accuracy": values["accuracy"], "accuracy_interval": interval, "macro_f1": values["macro_f1"]}

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "problem": self.problem,
            "num_examples": self.num_examples,
            "metrics": self.summary(),
            "per_class": [result.to_dict() for result in self.per_class],
            "labels_without_examples": list(self.labels_without_examples),
            "confusion_matrix": self.confusion_matrix.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class MultiLabelClass:
    """Metrics of one class of multi-label data, from the ranking of the examples by its scores.

    Attributes:
        label: Name of the class.
        support: Number of examples that have the label.
        average_precision: Mean of the precisions at each recognized example, as scikit-learn defines it.
        auc: Area under the ROC curve; None if every example has the label.
        d_prime: sqrt(2) * ppf(auc), with ppf the inverse normal distribution function (Hershey et al., 2017, section
            4); None if it is infinite or there is no AUC.
    """

    label: str
    support: int
    average_precision: float
    auc: float | None
    d_prime: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        values = {"average_precision": self.average_precision, "auc": self.auc, "d_prime": self.d_prime}
        return {"label": self.label, "support": self.support, **_rounded(values)}


@dataclass(frozen=True, slots=True)
class MultiLabelMetrics:
    """Metrics of multi-label scores.

    Attributes:
        num_examples: Number of examples evaluated.
        mean_average_precision: mAP: mean of the average precisions of the classes (macro).
        mean_auc: Mean of the AUCs of the classes; None if no class has one.
        d_prime: d' of the mean AUC, as in the AudioSet papers.
        lwlrap: Label-weighted label-ranking average precision (DCASE 2019, task 2): for each label of each example, the
            fraction of correct labels among those with the same or a higher score; None if there are fewer than two
            labels.
        per_class: Metrics of the classes that have examples, in the order of the labels.
        labels_without_examples: Labels that no example has; they are not included in the means.
    """

    problem: ClassVar[str] = "multi_label"
    headline_key: ClassVar[str] = "mean_average_precision"

    num_examples: int
    mean_average_precision: float
    mean_auc: float | None
    d_prime: float | None
    lwlrap: float | None
    per_class: tuple[MultiLabelClass, ...]
    labels_without_examples: tuple[str, ...]

    @property
    def headline(self) -> tuple[str, float]:
        """Name and value of the metric by which models are compared."""
        return METRIC_NAMES[self.headline_key], self.mean_average_precision

    def summary(self) -> dict[str, Any]:
        """Return the metrics over all classes in their JSON form."""
        return _rounded(
            {
                "mean_average_precision": self.mean_average_precision,
                "mean_auc": self.mean_auc,
                "d_prime": self.d_prime,
                "lwlrap": self.lwlrap,
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "problem": self.problem,
            "num_examples": self.num_examples,
            "metrics": self.summary(),
            "per_class": [result.to_dict() for result in self.per_class],
            "labels_without_examples": list(self.labels_without_examples),
        }


Metrics = SingleLabelMetrics | MultiLabelMetrics


def single_label_metrics(
    scores: NDArray[Any], targets: NDArray[np.integer[Any]], labels: Sequence[str]
) -> SingleLabelMetrics:
    """Compute the metrics of single-label data; the prediction is the label with the highest score (the first of ties).

    Args:
        scores: Finite scores on any scale, shape (num_examples, num_labels).
        targets: Index of the label of each example, shape (num_examples,).
        labels: Names of the columns.

    Raises:
        UsageError: If the shapes do not match, there is no example, or scores are not finite.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    _check(scores, targets.shape == scores.shape[:1], labels)
    if targets.min() < 0 or targets.max() >= len(labels):
        raise UsageError(f"targets must be from 0 to {len(labels) - 1}, the indices of the labels")
    predicted = scores.argmax(axis=1)
    present, seen = np.unique(targets), np.union1d(targets, predicted)
    precision, recall, f1, support = precision_recall_fscore_support(
        targets, predicted, labels=present, average=None, zero_division=0.0
    )
    accuracy = float((predicted == targets).mean())
    return SingleLabelMetrics(
        num_examples=len(targets),
        accuracy=accuracy,
        accuracy_interval=wilson_interval(accuracy, len(targets)),
        macro_f1=float(f1.mean()),
        per_class=tuple(
            SingleLabelClass(labels[index], int(support[i]), float(precision[i]), float(recall[i]), float(f1[i]))
            for i, index in enumerate(present.tolist())
        ),
        confusion_matrix=ConfusionMatrix(
            tuple(labels[index] for index in seen.tolist()),
            tuple(map(tuple, confusion_matrix(targets, predicted, labels=seen).tolist())),
        ),
        labels_without_examples=_absent(labels, present),
    )


def multi_label_metrics(scores: NDArray[Any], targets: NDArray[np.bool_], labels: Sequence[str]) -> MultiLabelMetrics:
    """Compute the metrics of multi-label data.

    Args:
        scores: Finite scores on any scale, shape (num_examples, num_labels).
        targets: Whether an example has a label, shape (num_examples, num_labels).
        labels: Names of the columns.

    Raises:
        UsageError: If the shapes do not match, no example has a label, or scores are not finite.
    """
    _check(scores, targets.shape == scores.shape, labels)
    present = np.flatnonzero(targets.any(axis=0))
    if not present.size:
        raise UsageError("no example has a label, so no metric can be computed")
    per_class = tuple(_multi_label_class(scores[:, i], targets[:, i], labels[i]) for i in present.tolist())
    aucs = [result.auc for result in per_class if result.auc is not None]
    mean_auc = float(np.mean(aucs)) if aucs else None
    return MultiLabelMetrics(
        num_examples=len(targets),
        mean_average_precision=float(np.mean([result.average_precision for result in per_class])),
        mean_auc=mean_auc,
        d_prime=d_prime(mean_auc),
        lwlrap=_lwlrap(scores, targets),
        per_class=per_class,
        labels_without_examples=_absent(labels, present),
    )


def wilson_interval(fraction: float, num_examples: int) -> tuple[float, float]:
    """Return the 95 % score interval (Wilson, 1927) of a fraction of ``num_examples`` examples."""
    z_squared = Z_95**2 / num_examples
    center = (fraction + z_squared / 2) / (1 + z_squared)
    half = Z_95 / (1 + z_squared) * math.sqrt(fraction * (1 - fraction) / num_examples + z_squared / (4 * num_examples))
    return max(0.0, center - half), min(1.0, center + half)


def d_prime(auc: float | None) -> float | None:
    """Return the distance of two normal distributions of variance 1 with this AUC; None if it is infinite."""
    if auc is None or not 0 < auc < 1:
        return None
    return math.sqrt(2) * NormalDist().inv_cdf(auc)


def _multi_label_class(scores: NDArray[Any], targets: NDArray[np.bool_], label: str) -> MultiLabelClass:
    """Compute the metrics of one class from scores and targets of shape (num_examples,), with some positive targets."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    auc = None if targets.all() else float(roc_auc_score(targets, scores))
    average_precision = float(average_precision_score(targets, scores))
    return MultiLabelClass(label, int(targets.sum()), average_precision, auc, d_prime(auc))


def _lwlrap(scores: NDArray[Any], targets: NDArray[np.bool_]) -> float | None:
    """Compute the lwlrap: examples are weighted by their number of labels, so that all labels have the same weight."""
    from sklearn.metrics import label_ranking_average_precision_score

    if targets.shape[1] < 2:  # there is nothing to rank, and scikit-learn takes one column for a binary problem
        return None
    return float(label_ranking_average_precision_score(targets, scores, sample_weight=targets.sum(axis=1)))


def _check(scores: NDArray[Any], targets_fit: bool, labels: Sequence[str]) -> None:
    if scores.ndim != 2 or scores.shape[1] != len(labels) or not targets_fit:
        raise UsageError(
            f"scores of shape {scores.shape} do not fit the targets or the {len(labels)} labels: "
            "they must be (num_examples, num_labels)"
        )
    if not len(scores):
        raise UsageError("there are no examples to evaluate")
    if not np.isfinite(scores).all():
        raise UsageError("scores must be finite")


def _absent(labels: Sequence[str], present: NDArray[np.integer[Any]]) -> tuple[str, ...]:
    known = set(present.tolist())
    return tuple(label for index, label in enumerate(labels) if index not in known)


def _rounded(values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(value, METRIC_DECIMALS) for name, value in values.items()}
