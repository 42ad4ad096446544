"""An evaluation as readable text. Imports NumPy, so commands import this module inside functions only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ast_cli.evaluation.metrics import METRIC_NAMES, Metrics, MultiLabelMetrics, SingleLabelMetrics
from ast_cli.report.text import printable
from ast_cli.styles import display_name

if TYPE_CHECKING:
    from ast_cli.evaluation.evaluate import Evaluation

MAX_CONFUSIONS = 10
MAX_ABSENT = 10  # labels without examples that are listed
UNDEFINED = "-"


def evaluation_text(evaluation: Evaluation) -> str:
    """Return the metrics of all models, of each class, and the most frequent mistakes."""
    return "".join(f"{printable(line)}\n" for line in _lines(evaluation))


def _lines(evaluation: Evaluation) -> Iterator[str]:
    metrics = evaluation.metrics
    models = " + ".join(model.name for model in evaluation.models)
    yield f"{models} on {evaluation.data}: {_counts(evaluation)}"
    yield _headline(metrics)
    yield f"expected calibration error {_number(evaluation.reliability().expected_calibration_error)}"
    yield ""
    if len(evaluation.models) > 1:
        yield from _models(evaluation)
        yield ""
    if isinstance(metrics, SingleLabelMetrics):
        yield from _single_label_classes(metrics)
    else:
        yield from _multi_label_classes(metrics)
    if absent := metrics.labels_without_examples:
        named = ", ".join(absent[:MAX_ABSENT]) + (" ..." if len(absent) > MAX_ABSENT else "")
        yield ""
        have = "label has no examples and is" if len(absent) == 1 else "labels have no examples and are"
        yield f"{len(absent)} {have} not included in the means: {named}"


def _counts(evaluation: Evaluation) -> str:
    parts = [f"{len(evaluation.examples)} examples of {len(evaluation.metrics.per_class)} classes"]
    if evaluation.failures:
        parts.append(f"{len(evaluation.failures)} failed")
    if evaluation.num_left_out:
        parts.append(f"{evaluation.num_left_out} with unknown labels left out")
    return ", ".join(parts)


def _headline(metrics: Metrics) -> str:
    if isinstance(metrics, SingleLabelMetrics):
        low, high = metrics.accuracy_interval
        return (
            f"accuracy {metrics.accuracy:.2%} (95 % confidence: {low:.2%} to {high:.2%}), "
            f"macro F1 {metrics.macro_f1:.4f}"
        )
    values = metrics.summary()
    return ", ".join(f"{METRIC_NAMES[key]} {_number(values[key])}" for key in values)


def _models(evaluation: Evaluation) -> Iterator[str]:
    """Yield a table with one line per model and one for the mean of their scores."""
    summaries = [model.metrics.summary() for model in evaluation.models]
    keys = [key for key in METRIC_NAMES if key in summaries[0]]
    rows = [
        [model.name, str(model.metrics.num_examples), *(_number(summary[key]) for key in keys)]
        for model, summary in zip(evaluation.models, summaries, strict=True)
    ]
    mean = evaluation.metrics.summary()
    rows.append(["mean of their scores", str(len(evaluation.examples)), *(_number(mean[key]) for key in keys)])
    yield from _table(["model", "examples", *(METRIC_NAMES[key] for key in keys)], rows)


def _single_label_classes(metrics: SingleLabelMetrics) -> Iterator[str]:
    rows = [
        [display_name(result.label), str(result.support), *map(_number, (result.precision, result.recall, result.f1))]
        for result in metrics.per_class
    ]
    yield from _table(["class", "examples", "precision", "recall", "F1"], rows)
    confusions = metrics.confusion_matrix.confusions()
    if confusions:
        yield ""
        yield "most frequent mistakes"
    for true, predicted, count in confusions[:MAX_CONFUSIONS]:
        yield f"{count:6d}  {display_name(true)} predicted as {display_name(predicted)}"


def _multi_label_classes(metrics: MultiLabelMetrics) -> Iterator[str]:
    ranked = sorted(metrics.per_class, key=lambda result: -result.average_precision)
    rows = [
        [
            display_name(result.label),
            str(result.support),
            *map(_number, (result.average_precision, result.auc, result.d_prime)),
        ]
        for result in ranked
    ]
    yield from _table(["class", "examples", "AP", "AUC", "d'"], rows)


def _number(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.4f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield aligned lines, with the first column to the left and numbers to the right."""
    cells = [list(header), *([printable(row[0]), *row[1:]] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for first, *others in cells:
        numbers = (other.rjust(width) for other, width in zip(others, widths[1:], strict=True))
        yield "  ".join([first.ljust(widths[0]), *numbers])
