from __future__ import annotations

import math
from typing import Any

import pytest

from ast_cli.errors import UsageError
from ast_cli.tagging.options import MAX_WORKERS, ClassifyOptions, DecodeOptions, ExtractOptions, RunOptions


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start_s": -1.0}, "^--start must be at least 0 s, not -1"),
        ({"start_s": float("nan")}, "^--start must be at least 0 s"),
        ({"duration_s": 0.0}, "^--duration must be above 0 s, not 0"),
        ({"hop_s": float("inf")}, "^--hop must be above 0 s, not inf"),
        ({"batch_size": 0}, "^--batch-size must be from 1 to 65536, not 0"),
        ({"top_k": 0}, "^--top-k must be at least 1, not 0"),
        ({"threshold": float("nan")}, "^--threshold must be a number"),
        (
            {"threshold": 2.0, "activation": "sigmoid"},
            "^--threshold must be from 0 to 1, as scores after sigmoid are, not 2$",
        ),
        ({"threshold": -0.1, "activation": "softmax"}, r"^--threshold must be from 0 to 1, .* not -0\.1$"),
        ({"labels": ("",)}, "^--labels is empty: name labels"),
        ({"labels": ("Rain", " ")}, "^--labels is empty: name labels"),
        ({"exclude_labels": ("",)}, "^--exclude-labels is empty: name labels"),
        ({"labels": "Rain"}, "labels must be a sequence of names"),
        ({"aggregate": "median"}, "^--aggregate must be one of mean, max, not 'median'"),
        ({"activation": "tanh"}, "^--activation must be one of auto, sigmoid, softmax, none"),
    ],
)
def test_errors_of_invalid_options_name_their_flag(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ClassifyOptions(**change)


def test_unknown_what_to_extract_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^--what must be one of fbank, input-values"):
        ExtractOptions(what="spectrum")  # type: ignore[arg-type]


@pytest.mark.parametrize("num_workers", [-1, MAX_WORKERS + 1])
def test_a_number_of_workers_out_of_range_is_refused(num_workers: int) -> None:
    with pytest.raises(UsageError, match=f"^--workers must be from 0 to {MAX_WORKERS}, not {num_workers}"):
        DecodeOptions(num_workers)


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, math.nan])
def test_a_timeout_that_is_not_above_zero_is_refused(timeout_s: float) -> None:
    with pytest.raises(UsageError, match=r"^--timeout must be above 0 s"):
        DecodeOptions(timeout_s=timeout_s)


def test_the_bounds_and_an_infinite_timeout_are_valid() -> None:
    DecodeOptions(0, math.inf)
    DecodeOptions(MAX_WORKERS, 0.001)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_workers": -1}, "^--workers must be from 0"),
        ({"resume": True}, "--resume needs --output"),
        ({"max_errors": 0}, "^--max-errors must be at least 1, not 0"),
    ],
)
def test_invalid_run_options_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RunOptions(**changes)
