"""The predictions of an evaluation, example by example, as JSON Lines or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ast_cli.dataset.examples import Example
from ast_cli.evaluation.evaluate import Evaluation
from ast_cli.report.comma_separated import path_cells
from ast_cli.report.text import harmless_cell
from ast_cli.results import SCORE_DECIMALS, exact_path, path_fields
from ast_cli.tagging.options import DEFAULT_THRESHOLD


def predictions_text(evaluation: Evaluation, suffix: str) -> str:
    """Return the labels and scores of every example, then the examples that failed.

    Args:
        evaluation: Evaluation with the scores.
        suffix: File suffix: one of `ast_cli.evaluation.options.PREDICTION_SUFFIXES`.
    """
    if suffix == ".csv":
        return _csv_text(evaluation)
    return "".join(json.dumps(record, allow_nan=False) + "\n" for record in _records(evaluation))


def _records(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """Yield one dictionary per example; ``scores`` contains every label that could be predicted."""
    for example, scores in zip(evaluation.examples, evaluation.scores, strict=True):
        by_label = dict(zip(evaluation.labels, scores.tolist(), strict=True))
        predicted = _predicted(by_label, is_multi_label=evaluation.targets.ndim == 2)
        rounded = {label: round(score, SCORE_DECIMALS) for label, score in by_label.items()}
        yield {**_example_fields(example), "predicted": predicted, "scores": rounded, "error": None}
    for failure in evaluation.failures:
        error = {"code": str(failure.error.code), "message": failure.error.message}
        yield {**_example_fields(failure.example), "predicted": [], "scores": {}, "error": error}


def _example_fields(example: Example) -> dict[str, Any]:
    part = {"start_s": example.start_s, "end_s": example.end_s}
    return {**path_fields(example.path), **part, "labels": list(example.labels)}


def _predicted(scores: Mapping[str, float], *, is_multi_label: bool) -> list[str]:
    """Return the label with the highest score; for multi-label data all labels with a score of at least 0.5."""
    if is_multi_label:
        return [label for label, score in scores.items() if score >= DEFAULT_THRESHOLD]
    return [max(scores, key=lambda label: scores[label])]


def _csv_text(evaluation: Evaluation) -> str:
    """Return a header and one row per example, with one column per label."""
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    header = ["path", "start_s", "end_s", "labels", "predicted", "error_code", "path_b64"]
    rows.writerow([*header, *map(harmless_cell, evaluation.labels)])
    for record in _records(evaluation):
        code = record["error"]["code"] if record["error"] else ""
        end_s = "" if record["end_s"] is None else f"{record['end_s']:g}"
        named = [harmless_cell(";".join(record[key])) for key in ("labels", "predicted")]
        scores = [f"{score:.{SCORE_DECIMALS}f}" for score in record["scores"].values()]
        path, path_b64 = path_cells(exact_path(record))
        rows.writerow([path, f"{record['start_s']:g}", end_s, *named, code, path_b64, *scores])
    return stream.getvalue()
