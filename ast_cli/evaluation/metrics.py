"""How good scores are: pure functions from arrays to frozen results. The numbers are scikit-learn's."""

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
METRIC_NAMES = {  # by their keys in JSON
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
    """One class of single-label data: a prediction is the label with the highest score.

    Attributes:
        label: Its name.
        support: Examples of it.
        precision: Fraction of the predictions of this class that are right; 0 where it is never predicted.
        recall: Fraction of its examples that are recognized.
        f1: Harmonic mean of the two.
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
    """How often examples of one class (row) were taken for another (column).

    Attributes:
        labels: Of rows and columns: the classes that have examples or were predicted.
        counts: Rows of numbers of examples.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    def confusions(self) -> list[tuple[str, str, int]]:
        """Return what was taken for what, and how often, most frequent first."""
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
    """How good predictions of one label an example are.

    Attributes:
        num_examples: That were judged.
        accuracy: Fraction of them whose label is right.
        accuracy_interval: Where the true accuracy lies with 95 % confidence, as low and high end (Wilson, 1927): the
            spread that a data set of this size leaves, had it been drawn anew.
        macro_f1: Mean of the classes' F1, all classes that have examples counting the same.
        per_class: Of the classes that have examples, in the order of the labels.
        confusion_matrix: What was taken for what.
        labels_without_examples: Classes that could have been predicted but have no example; no mean counts them.
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
        """The one number to compare models by, after its name."""
        return METRIC_NAMES[self.headline_key], self.accuracy

    def summary(self) -> dict[str, Any]:
        """Return the numbers over all classes in their JSON form."""
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
    """One class of multi-label data, by the ranking that its scores give the examples.

    Attributes:
        label: Its name.
        support: Examples that have it.
        average_precision: Mean of the precisions at each recognized example, as scikit-learn defines it.
        auc: Area under the ROC curve; None where every example has the label.
        d_prime: sqrt(2) * ppf(auc), ppf the inverse normal distribution function (Hershey et al., 2017, section 4);
            None where it is infinite or the AUC is None.
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
    """How good the scores of any number of labels an example are.

    Attributes:
        num_examples: That were judged.
        mean_average_precision: mAP: mean of the classes' average precisions (macro).
        mean_auc: Mean of the classes' AUCs; None where no class has one.
        d_prime: Of the mean AUC, as the AudioSet papers report it.
        lwlrap: Label-weighted label-ranking average precision (DCASE 2019, task 2): per label of each example, the
            fraction of right labels among those scored as high; None where no example has a label.
        per_class: Of the classes that have examples, in the order of the labels.
        labels_without_examples: No example has them; no mean counts them.
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
        """The one number to compare models by, after its name."""
        return METRIC_NAMES[self.headline_key], self.mean_average_precision

    def summary(self) -> dict[str, Any]:
        """Return the numbers over all classes in their JSON form."""
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
    """Judge the predictions of one label an example: the one with the highest score, of equal ones the first.

    Args:
        scores: Finite, any scale, shape (num_examples, num_labels).
        targets: Index of each example's label, shape (num_examples,).
        labels: Names of the columns.

    Raises:
        UsageError: Arrays that do not fit each other, no example, or scores that are not finite.
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
    """Judge the scores of any number of labels an example.

    Args:
        scores: Finite, any scale, shape (num_examples, num_labels).
        targets: Whether an example has a label, shape (num_examples, num_labels).
        labels: Names of the columns.

    Raises:
        UsageError: Arrays that do not fit each other, no example with a label, or scores that are not finite.
    """
    _check(scores, targets.shape == scores.shape, labels)
    present = np.flatnonzero(targets.any(axis=0))
    if not present.size:
        raise UsageError("no example has any label: there is nothing to judge the scores by")
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
    """Return the 95 % score interval of a fraction that was counted on so many examples (Wilson, 1927)."""
    z_squared = Z_95**2 / num_examples
    center = (fraction + z_squared / 2) / (1 + z_squared)
    half = Z_95 / (1 + z_squared) * math.sqrt(fraction * (1 - fraction) / num_examples + z_squared / (4 * num_examples))
    return max(0.0, center - half), min(1.0, center + half)


def d_prime(auc: float | None) -> float | None:
    """Return the separation of two normal distributions of variance 1 that have this AUC; None where it is infinite."""
    if auc is None or not 0 < auc < 1:
        return None
    return math.sqrt(2) * NormalDist().inv_cdf(auc)


def _multi_label_class(scores: NDArray[Any], targets: NDArray[np.bool_], label: str) -> MultiLabelClass:
    """Judge one class by scores and targets of shape (num_examples,), some of which are positive."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    auc = None if targets.all() else float(roc_auc_score(targets, scores))
    average_precision = float(average_precision_score(targets, scores))
    return MultiLabelClass(label, int(targets.sum()), average_precision, auc, d_prime(auc))


def _lwlrap(scores: NDArray[Any], targets: NDArray[np.bool_]) -> float | None:
    """Weigh each example's ranking precision by its number of labels, so that each label counts the same."""
    from sklearn.metrics import label_ranking_average_precision_score

    if targets.shape[1] < 2:  # scikit-learn takes one column for a binary problem; there is nothing to rank
        return None
    return float(label_ranking_average_precision_score(targets, scores, sample_weight=targets.sum(axis=1)))


def _check(scores: NDArray[Any], targets_fit: bool, labels: Sequence[str]) -> None:
    if scores.ndim != 2 or scores.shape[1] != len(labels) or not targets_fit:
        raise UsageError(
            f"scores of shape {scores.shape} do not fit the targets or the {len(labels)} labels: "
            "they must be (num_examples, num_labels)"
        )
    if not len(scores):
        raise UsageError("there is no example to judge")
    if not np.isfinite(scores).all():
        raise UsageError("scores must be finite to be judged")


def _absent(labels: Sequence[str], present: NDArray[np.integer[Any]]) -> tuple[str, ...]:
    known = set(present.tolist())
    return tuple(label for index, label in enumerate(labels) if index not in known)


def _rounded(values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(value, METRIC_DECIMALS) for name, value in values.items()}
