"""Pictures of an evaluation, as PNG: a confusion matrix, or the average precisions. They need no display."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ast_cli.evaluation.metrics import ConfusionMatrix, Metrics, MultiLabelClass, MultiLabelMetrics, SingleLabelMetrics
from ast_cli.report.text import counted, label_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_CLASSES = 60  # more rows cannot be read in one picture
OTHERS = "all other classes"
MAX_LABEL_LENGTH = 32  # characters
DPI = 150
BAR_COLOR, MEAN_COLOR = "#4878a8", "#b04030"
CELL_INCHES = (0.52, 0.26)  # side of a cell, for up to 15 classes and for 40 or more
FONT_POINTS = (9.0, 6.0)  # size of the text, for the same numbers of classes
MIN_SIDE_INCHES = 2.5  # of the matrix
BAR_INCHES = 4.0  # largest height of the color bar
MARGIN_INCHES = 0.15
LINE_INCHES = 0.22  # height of a bar and the gap after it


def evaluation_picture(metrics: Metrics, title: str) -> bytes:
    """Draw the confusion matrix of single-label metrics, or the average precisions of multi-label metrics.

    Args:
        metrics: Metrics to draw.
        title: Title of the picture: the model and the data.

    Returns:
        The content of a PNG file.
    """
    if isinstance(metrics, SingleLabelMetrics):
        figure = _confusion_figure(metrics, title)
    else:
        figure = _bars_figure(metrics, title)
    content = io.BytesIO()
    # A bare Figure has the Agg canvas, which needs no display. "tight" makes room for all texts around the axes.
    figure.savefig(content, format="png", dpi=DPI, bbox_inches="tight", pad_inches=MARGIN_INCHES)
    return content.getvalue()


def _confusion_figure(metrics: SingleLabelMetrics, title: str) -> Figure:
    """Draw counts on cells colored by the fraction of their row."""
    from matplotlib.figure import Figure

    supports = {result.label: result.support for result in metrics.per_class}
    labels, counts = _shown_part(metrics.confusion_matrix, supports)
    rows = [f"{_short(label)} ({supports[label]})" for label in labels]
    columns = [*map(_short, labels), OTHERS][: counts.shape[1]]
    fractions = counts / np.array([supports[label] for label in labels])[:, None]
    cell, points = (_between(values, len(labels)) for values in (CELL_INCHES, FONT_POINTS))
    cell = max(cell, MIN_SIDE_INCHES / len(labels))
    width, height = cell * len(columns), cell * len(rows)
    figure = Figure(figsize=(width, height))  # of the cells alone; saving adds the texts around them
    axes = figure.add_axes((0, 0, 1, 1))
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    _write_counts(axes, counts, fractions, points)
    _name_cells(axes, rows, columns, points)
    if len(columns) > len(rows):
        axes.axvline(len(rows) - 0.5, color="#404040", linewidth=1)
    bar_height = min(1.0, BAR_INCHES / height)
    figure.colorbar(image, cax=figure.add_axes((1 + 0.2 / width, 1 - bar_height, 0.15 / width, bar_height)))
    _set_title(axes, title, _single_label_subtitle(metrics, len(labels)))
    return figure


def _shown_part(matrix: ConfusionMatrix, supports: Mapping[str, int]) -> tuple[list[str], NDArray[np.int64]]:
    """Choose the classes to draw: those with examples, and of many those with the most mistakes.

    A class that was predicted but has no example would be an empty row. The predictions of classes that are not drawn
    are one more column, so that the cells of each row add up to the class's examples.

    Returns:
        The labels of the rows, and the counts, shape (num_shown, num_shown), or (num_shown, num_shown + 1) if there are
        predictions of other classes.
    """
    counts = np.array(matrix.counts, np.int64)
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    shown = np.flatnonzero([label in supports for label in matrix.labels])
    if len(shown) > MAX_CLASSES:
        shown = np.sort(shown[np.argsort(-mistakes[shown], kind="stable")[:MAX_CLASSES]])
    part = counts[np.ix_(shown, shown)]
    others = counts[shown].sum(axis=1) - part.sum(axis=1)
    return [matrix.labels[index] for index in shown], np.column_stack([part, others]) if others.any() else part


def _single_label_subtitle(metrics: SingleLabelMetrics, num_shown: int) -> str:
    low, high = metrics.accuracy_interval
    lines = [f"accuracy {metrics.accuracy:.1%} ({low:.1%} to {high:.1%}), macro F1 {metrics.macro_f1:.3f}"]
    num_classes = len(metrics.per_class)
    if num_shown < num_classes:
        lines.append(f"the {num_shown} classes with the most mistakes, of {num_classes}")
    if num_without_examples := len(metrics.confusion_matrix.labels) - num_classes:
        lines.append(f"left out: {counted(num_without_examples, 'predicted label')} without examples")
    return "\n".join([*lines, "color: fraction of the true class's examples"])


def _name_cells(axes: Axes, rows: list[str], columns: list[str], points: float) -> None:
    """Write the names beside rows and columns, and draw lines between the cells."""
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=points, parse_math=False)
    axes.set_yticks(range(len(rows)), rows, fontsize=points, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true (examples)")
    axes.set_xticks(np.arange(-0.5, len(columns)), minor=True)
    axes.set_yticks(np.arange(-0.5, len(rows)), minor=True)
    axes.grid(which="minor", color="#d8d8d8", linewidth=0.5)
    axes.tick_params(which="both", length=0)


def _write_counts(axes: Axes, counts: NDArray[Any], fractions: NDArray[Any], points: float) -> None:
    """Write the counts that are not 0, in white where the cell is dark."""
    for row, column in zip(*counts.nonzero(), strict=True):
        color = "white" if fractions[row, column] > 0.55 else "#202020"
        text = str(counts[row, column])
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=points)


def _bars_figure(metrics: MultiLabelMetrics, title: str) -> Figure:
    """Draw the average precisions of the classes as bars, best first; of many classes the best and the worst."""
    from matplotlib.figure import Figure

    ranked = sorted(metrics.per_class, key=lambda result: -result.average_precision)
    ends = [ranked] if len(ranked) <= MAX_CLASSES else [ranked[: MAX_CLASSES // 2], ranked[-MAX_CLASSES // 2 :]]
    num_lines = sum(map(len, ends)) + len(ends) - 1  # with an empty line for the classes left out
    figure = Figure(figsize=(5.5, LINE_INCHES * num_lines))
    axes = figure.add_axes((0, 0, 1, 1))
    places, names = list[float](), list[str]()
    for first, results in zip((0, len(ends[0]) + 1), ends, strict=False):
        places += _draw_bars(axes, results, first)
        names += [f"{_short(result.label)} ({result.support})" for result in results]
    axes.set_yticks(places, names, fontsize=8, parse_math=False)
    axes.set_ylim(num_lines - 0.4, -0.6)
    axes.set_xlim(0, 1.08)  # room for the number beside a bar of 1
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.axvline(metrics.mean_average_precision, color=MEAN_COLOR, linestyle="--", linewidth=1)
    axes.set_xlabel("average precision (dashed: the mean); in brackets the examples with the label")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    _set_title(axes, title, _multi_label_subtitle(metrics, sum(map(len, ends))))
    return figure


def _draw_bars(axes: Axes, results: list[MultiLabelClass], first: int) -> list[float]:
    """Draw bars from a line downwards; return their lines."""
    places = [float(first + i) for i in range(len(results))]
    values = [result.average_precision for result in results]
    bars = axes.barh(places, values, height=0.75, color=BAR_COLOR)
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=7, color="#404040")
    return places


def _multi_label_subtitle(metrics: MultiLabelMetrics, num_shown: int) -> str:
    parts = [f"mAP {metrics.mean_average_precision:.3f}"]
    if metrics.mean_auc is not None:
        parts.append(f"AUC {metrics.mean_auc:.3f}")
    if metrics.d_prime is not None:
        parts.append(f"d' {metrics.d_prime:.2f}")
    subtitle = ", ".join(parts) + f" over {len(metrics.per_class)} classes"
    if num_shown < len(metrics.per_class):
        subtitle += f"; the best and the worst {num_shown // 2} are shown"
    return subtitle


def _set_title(axes: Axes, title: str, subtitle: str) -> None:
    axes.set_title(f"{_short(title, 90)}\n{subtitle}", fontsize=10, pad=10, parse_math=False)


def _between(values: tuple[float, float], num_classes: int) -> float:
    """Interpolate a size by the number of classes: the first value up to 15, the second from 40 on."""
    fraction = min(max((num_classes - 15) / 25, 0.0), 1.0)
    return values[0] + fraction * (values[1] - values[0])


def _short(text: str, max_length: int = MAX_LABEL_LENGTH) -> str:
    """Return a label for people without control characters, cut to a length."""
    shown = label_text(text)
    return shown if len(shown) <= max_length else f"{shown[: max_length - 1]}…"
