"""Pictures of an evaluation, as PNG: what was taken for what, or how good each class is. Drawn without any display."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ast_cli.evaluation.metrics import ConfusionMatrix, Metrics, MultiLabelClass, MultiLabelMetrics, SingleLabelMetrics
from ast_cli.report.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_CLASSES = 60  # more lines than this cannot be read on one picture
MAX_LABEL_LENGTH = 32  # characters
DPI = 150
BAR_COLOR, MEAN_COLOR = "#4878a8", "#b04030"
CELL_INCHES = (0.52, 0.26)  # a side of a cell: of up to 15 classes, and of 40 and more
FONT_POINTS = (9.0, 6.0)  # likewise
MIN_SIDE_INCHES = 2.5
BAR_INCHES = 4.0  # at most, of the colors
MARGIN_INCHES = 0.15
LINE_INCHES = 0.22  # of a bar


def evaluation_picture(metrics: Metrics, title: str) -> bytes:
    """Draw the confusion matrix of single-label results, the classes' average precisions of multi-label ones.

    Args:
        metrics: What is shown.
        title: Of the picture: the model and the data.

    Returns:
        The content of a PNG file.
    """
    if isinstance(metrics, SingleLabelMetrics):
        figure = _confusion_figure(metrics, title)
    else:
        figure = _bars_figure(metrics, title)
    content = io.BytesIO()
    # A bare Figure brings the Agg canvas, which needs no display; "tight" makes room for all that is written.
    figure.savefig(content, format="png", dpi=DPI, bbox_inches="tight", pad_inches=MARGIN_INCHES)
    return content.getvalue()


def _confusion_figure(metrics: SingleLabelMetrics, title: str) -> Figure:
    """Draw counts on cells colored by the fraction of their row."""
    from matplotlib.figure import Figure

    matrix = _most_confused(metrics.confusion_matrix)
    counts, totals = np.array(matrix.counts), {result.label: result.support for result in metrics.per_class}
    supports = np.array([totals.get(label, 0) for label in matrix.labels])
    fractions = counts / np.maximum(supports, 1)[:, None]
    cell, points = (_between(values, len(counts)) for values in (CELL_INCHES, FONT_POINTS))
    side = max(cell * len(counts), MIN_SIDE_INCHES)
    figure = Figure(figsize=(side, side))  # of the cells alone; what stands around them is added when it is saved
    axes = figure.add_axes((0, 0, 1, 1))
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    _write_counts(axes, counts, fractions, points)
    _name_cells(axes, matrix.labels, supports, points)
    height = min(1.0, BAR_INCHES / side)
    figure.colorbar(image, cax=figure.add_axes((1 + 0.2 / side, 1 - height, 0.15 / side, height)))
    low, high = metrics.accuracy_interval
    subtitle = f"accuracy {metrics.accuracy:.1%} ({low:.1%} to {high:.1%}), macro F1 {metrics.macro_f1:.3f}"
    if len(matrix.labels) < len(metrics.confusion_matrix.labels):
        subtitle += f"\nthe {len(counts)} classes with the most mistakes, of {len(metrics.confusion_matrix.labels)}"
    _set_title(axes, title, f"{subtitle}\ncolor: fraction of the true class's examples")
    return figure


def _name_cells(axes: Axes, labels: tuple[str, ...], supports: NDArray[np.integer[Any]], points: float) -> None:
    """Write the labels beside rows and columns, and draw lines between the cells."""
    names = [_short(label) for label in labels]
    rows = [f"{name} ({support})" for name, support in zip(names, supports, strict=True)]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=points, parse_math=False)
    axes.set_yticks(range(len(names)), rows, fontsize=points, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true (examples)")
    between = np.arange(-0.5, len(names))
    axes.set_xticks(between, minor=True)
    axes.set_yticks(between, minor=True)
    axes.grid(which="minor", color="#d8d8d8", linewidth=0.5)
    axes.tick_params(which="both", length=0)


def _write_counts(axes: Axes, counts: NDArray[Any], fractions: NDArray[Any], points: float) -> None:
    """Write the counts that are not 0, in white where the cell is dark."""
    for row, column in zip(*counts.nonzero(), strict=True):
        color = "white" if fractions[row, column] > 0.55 else "#202020"
        text = str(counts[row, column])
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=points)


def _most_confused(matrix: ConfusionMatrix) -> ConfusionMatrix:
    """Return the part of a matrix that can be read: the classes with the most mistakes in row and column."""
    if len(matrix.labels) <= MAX_CLASSES:
        return matrix
    counts = np.array(matrix.counts)
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    kept = np.sort(np.argsort(-mistakes, kind="stable")[:MAX_CLASSES])
    part = counts[np.ix_(kept, kept)]
    return ConfusionMatrix(tuple(matrix.labels[index] for index in kept), tuple(map(tuple, part.tolist())))


def _bars_figure(metrics: MultiLabelMetrics, title: str) -> Figure:
    """Draw the classes' average precisions as bars, best first; of many classes both ends."""
    from matplotlib.figure import Figure

    ranked = sorted(metrics.per_class, key=lambda result: -result.average_precision)
    ends = [ranked] if len(ranked) <= MAX_CLASSES else [ranked[: MAX_CLASSES // 2], ranked[-MAX_CLASSES // 2 :]]
    num_lines = sum(map(len, ends)) + len(ends) - 1  # a gap stands for what is left out
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
    """Draw bars from a line on; return their lines."""
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
    """Return a size for a number of classes: the first up to 15, the second from 40 on."""
    fraction = min(max((num_classes - 15) / 25, 0.0), 1.0)
    return values[0] + fraction * (values[1] - values[0])


def _short(text: str, max_length: int = MAX_LABEL_LENGTH) -> str:
    """Return a text that is safe to show, cut to a length."""
    shown = printable(text)
    return shown if len(shown) <= max_length else f"{shown[: max_length - 1]}…"
