from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import norm
from sklearn import metrics as sk

from ast_cli.errors import UsageError
from ast_cli.evaluation.metrics import d_prime, multi_label_metrics, single_label_metrics, wilson_interval

LABELS = ["Rain", "Speech", "Music", "Waves, surf"]


def test_single_label_metrics_equal_those_counted_by_hand() -> None:
    # Rain: 2 of 3 right; Speech: 1 of 1; the third Rain is called Speech.
    scores = np.array([[0.9, 0.1, 0.0], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1]])
    found = single_label_metrics(scores, np.array([0, 0, 0, 1]), LABELS[:3])
    assert found.accuracy == 0.75
    rain, speech = found.per_class
    assert (rain.label, rain.support, rain.precision, rain.recall) == ("Rain", 3, 1.0, pytest.approx(2 / 3))
    assert (speech.label, speech.support, speech.precision, speech.recall) == ("Speech", 1, 0.5, 1.0)
    assert found.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)
    assert found.confusion_matrix.labels == ("Rain", "Speech")
    assert found.confusion_matrix.counts == ((2, 1), (0, 1))
    assert found.confusion_matrix.confusions() == [("Rain", "Speech", 1)]
    assert found.labels_without_examples == ("Music",)
    assert found.headline == ("accuracy", 0.75)


def test_single_label_metrics_equal_those_of_scikit_learn(rng: np.random.Generator) -> None:
    targets = rng.integers(0, 4, 200)
    scores = rng.random((200, 4)) + 0.4 * np.eye(4)[targets]
    predicted = scores.argmax(axis=1)
    found = single_label_metrics(scores, targets, LABELS)
    assert found.accuracy == pytest.approx(sk.accuracy_score(targets, predicted))
    assert found.macro_f1 == pytest.approx(sk.f1_score(targets, predicted, average="macro"))
    assert np.array_equal(found.confusion_matrix.counts, sk.confusion_matrix(targets, predicted))
    assert [c.recall for c in found.per_class] == pytest.approx(sk.recall_score(targets, predicted, average=None))


def test_the_first_of_equal_scores_is_predicted() -> None:
    found = single_label_metrics(np.full((2, 3), 0.5), np.array([0, 2]), LABELS[:3])
    assert found.confusion_matrix.counts == ((1, 0), (1, 0))


def test_a_predicted_class_without_examples_has_a_column_but_is_in_no_mean() -> None:
    scores = np.array([[0.1, 0.9], [0.8, 0.2]])
    found = single_label_metrics(scores, np.array([0, 0]), LABELS[:2])
    assert found.confusion_matrix.labels == ("Rain", "Speech")
    assert [result.label for result in found.per_class] == ["Rain"]
    assert found.macro_f1 == pytest.approx(2 / 3)
    assert found.labels_without_examples == ("Speech",)


def test_the_wilson_interval_equals_published_values() -> None:
    # Newcombe (1998), Statistics in Medicine 17, table I, method 3: 81 of 263 is 0.2553 to 0.3662.
    assert wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0 / 20, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1.0, 10)[1] == 1.0


def test_multi_label_metrics_equal_those_of_scikit_learn(rng: np.random.Generator) -> None:
    targets = rng.random((300, 4)) < 0.2
    scores = (rng.random((300, 4)) + 0.3 * targets).astype(np.float32)
    found = multi_label_metrics(scores, targets, LABELS)
    assert found.mean_average_precision == pytest.approx(sk.average_precision_score(targets, scores, average="macro"))
    auc = sk.roc_auc_score(targets, scores, average="macro")
    assert found.mean_auc == pytest.approx(auc)
    assert found.d_prime == pytest.approx(math.sqrt(2) * norm.ppf(auc))
    assert [c.support for c in found.per_class] == targets.sum(axis=0).tolist()
    assert found.headline == ("mAP", found.mean_average_precision)


def test_average_precision_with_ties_equals_the_value_by_hand() -> None:
    # One threshold takes all four: precision 1/4 at recall 1.
    found = multi_label_metrics(np.full((4, 1), 0.3), np.array([[True], [False], [False], [False]]), LABELS[:1])
    assert (found.mean_average_precision, found.mean_auc, found.d_prime) == (0.25, 0.5, 0.0)
    assert found.lwlrap is None


def test_classes_without_examples_are_in_no_mean(rng: np.random.Generator) -> None:
    targets = rng.random((50, 4)) < 0.3
    targets[:, 1] = False
    scores = rng.random((50, 4))
    found = multi_label_metrics(scores, targets, LABELS)
    kept = [0, 2, 3]
    assert found.mean_average_precision == pytest.approx(sk.average_precision_score(targets[:, kept], scores[:, kept]))
    assert found.labels_without_examples == ("Speech",)
    assert [result.label for result in found.per_class] == [LABELS[i] for i in kept]


def test_undefined_metrics_are_null_in_json() -> None:
    targets = np.array([[True, True], [True, False]])
    found = multi_label_metrics(np.array([[0.9, 0.8], [0.7, 0.1]]), targets, LABELS[:2])
    rain, speech = found.per_class
    assert (rain.auc, rain.d_prime) == (None, None)  # no negative example
    assert (speech.auc, speech.d_prime) == (1.0, None)  # infinite
    assert found.mean_auc == 1.0
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert json.loads(text)["per_class"][1] == {
        "label": "Speech", "support": 1, "average_precision": 1.0, "auc": 1.0, "d_prime": None,
    }  # fmt: skip


def test_lwlrap_gives_all_labels_the_same_weight() -> None:
    # First example: its labels are on ranks 1 and 3: (1/1 + 2/3) / 2. Second: rank 2: 1/2. Third: none.
    scores = np.array([[0.9, 0.5, 0.4, 0.1], [0.9, 0.8, 0.1, 0.0], [0.1, 0.2, 0.3, 0.4]])
    targets = np.array([[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=bool)
    assert multi_label_metrics(scores, targets, LABELS).lwlrap == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)


def test_d_prime_is_the_distance_of_the_two_normal_distributions() -> None:
    for distance in (-1.0, 0.0, 0.5, 3.0):  # the difference of two unit normals has the standard deviation sqrt(2)
        assert d_prime(norm.cdf(distance / math.sqrt(2))) == pytest.approx(distance)
    assert d_prime(None) is d_prime(1.0) is d_prime(0.0) is None


@pytest.mark.parametrize(
    ("scores", "targets", "message"),
    [
        (np.zeros((2, 3)), np.zeros(3, int), "do not fit"),
        (np.zeros((2, 2)), np.zeros(2, int), "do not fit"),
        (np.zeros((0, 3)), np.zeros(0, int), "no example"),
        (np.full((1, 3), np.nan), np.zeros(1, int), "finite"),
        (np.zeros((1, 3)), np.array([3]), "from 0 to 2"),
    ],
)
def test_invalid_arrays_are_usage_errors(scores: np.ndarray, targets: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        single_label_metrics(scores, targets, LABELS[:3])


def test_data_without_any_label_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no example has a label"):
        multi_label_metrics(np.zeros((2, 3)), np.zeros((2, 3), bool), LABELS[:3])
