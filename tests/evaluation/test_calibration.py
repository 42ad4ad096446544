from __future__ import annotations

import json

import numpy as np
import pytest

from ast_cli.errors import UsageError
from ast_cli.evaluation.calibration import expected_calibration_error, reliability


def test_the_bins_and_the_error_equal_those_counted_by_hand() -> None:
    scores = np.array([[0.1, 0.3], [0.8, 0.9], [1.0, 0.5]])
    targets = np.array([[0, 1], [1, 0], [1, 1]])
    found = reliability(scores, targets, num_bins=2)
    low, high = found.bins
    assert (low.low, low.high, low.num_scores) == (0, 0.5, 2)
    assert (low.mean_score, low.fraction_right) == (pytest.approx(0.2), 0.5)
    # 0.5 belongs to the second interval, and so does 1.
    assert (high.num_scores, high.mean_score, high.fraction_right) == (4, pytest.approx(0.8), 0.75)
    expected = 2 / 6 * (0.5 - 0.2) + 4 / 6 * (0.8 - 0.75)
    assert found.expected_calibration_error == pytest.approx(expected)
    assert expected_calibration_error(scores, targets, num_bins=2) == pytest.approx(expected)


def test_all_labels_are_compared_together_in_15_bins(rng: np.random.Generator) -> None:
    scores = rng.random((400, 3)).astype(np.float32)
    targets = rng.random((400, 3)) < scores
    found = reliability(scores, targets)
    assert [each.num_scores for each in found.bins] == np.histogram(scores, bins=15, range=(0, 1))[0].tolist()
    gaps = []
    for low, high in zip(np.arange(15) / 15, np.arange(1, 16) / 15, strict=True):
        inside = (scores >= low) & (scores < high)
        gaps.append(inside.sum() * abs(scores[inside].mean(dtype=np.float64) - targets[inside].mean()))
    assert found.expected_calibration_error == pytest.approx(sum(gaps) / scores.size)


def test_the_error_is_0_for_right_scores_and_grows_with_overconfidence(rng: np.random.Generator) -> None:
    scores = np.repeat(np.array([0.25, 0.75]), 4)
    assert expected_calibration_error(scores, np.array([1, 0, 0, 0, 1, 1, 1, 0])) == 0
    assert expected_calibration_error(scores, np.zeros(8)) == 0.5
    assert expected_calibration_error(scores, scores) == 0  # soft targets


def test_empty_bins_are_null_in_json_and_do_not_count() -> None:
    record = json.loads(json.dumps(reliability(np.array([0.9]), np.array([True]), num_bins=2).to_dict()))
    assert record == {
        "expected_calibration_error": 0.1,
        "bins": [
            {"low": 0.0, "high": 0.5, "num_scores": 0, "mean_score": None, "fraction_right": None},
            {"low": 0.5, "high": 1.0, "num_scores": 1, "mean_score": 0.9, "fraction_right": 1.0},
        ],
    }


@pytest.mark.parametrize(
    ("scores", "targets", "message"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), "do not fit"),
        (np.zeros(0), np.zeros(0), "no scores"),
        (np.array([1.1]), np.array([1]), "scores must be from 0 to 1"),
        (np.array([np.nan]), np.array([1]), "scores must be from 0 to 1"),
        (np.array([0.5]), np.array([2]), "targets must be from 0 to 1"),
    ],
)
def test_arrays_that_cannot_be_compared_are_usage_errors(scores: np.ndarray, targets: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        reliability(scores, targets)
