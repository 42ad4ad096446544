"""The course of a run: ``history.csv``, and the learning curves drawn from it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ast_cli.files.atomic import write_whole

HISTORY_NAME = "history.csv"
CURVES_NAME = "curves.png"
COLUMNS = (
    "epoch",
    "update",
    "learning_rate",
    "train_loss",
    "validation_loss",
    "validation_metric",
    "seconds",
)


def write_history(folder: Path, history: Sequence[dict[str, Any]]) -> None:
    """Write a row for each epoch; what was not measured is empty.

    Raises:
        AstError: The folder cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in history)
    write_whole(folder / HISTORY_NAME, text.getvalue().encode())


def _cell(value: Any) -> Any:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else value


def draw_curves(folder: Path, history: Sequence[dict[str, Any]], metric: str) -> None:
    """Draw losses, metric and learning rate over the epochs, as a picture beside the history.

    Args:
        folder: Of the output.
        history: Rows as in ``history.csv``.
        metric: Name of the validation metric.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, and no global state
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 6), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.plot(*_curve(history, "train_loss"), label="training", color="#1f5f99")
    if any(row["validation_loss"] is not None for row in history):
        upper.plot(*_curve(history, "validation_loss"), label="validation", color="#b8430b", marker=".")
    upper.set_ylabel("loss")
    upper.legend()
    epochs, values = _curve(history, "validation_metric")
    if epochs:
        lower.plot(epochs, values, color="#b8430b", marker=".")
        lower.set_ylabel(f"validation {metric}")
    else:
        lower.plot(*_curve(history, "learning_rate"), color="#555555")
        lower.set_ylabel("learning rate")
    lower.set_xlabel("epoch")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_whole(folder / CURVES_NAME, picture.getvalue())


def _curve(history: Sequence[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Return epochs and values of one column, where it has any."""
    rows = [row for row in history if row[name] is not None]
    return [row["epoch"] for row in rows], [row[name] for row in rows]
