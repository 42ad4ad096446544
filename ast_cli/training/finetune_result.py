"""The result of a training run: ``results.json``, ``history.csv``, and the learning curves."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.evaluation.agreement import Agreement
from ast_cli.evaluation.metrics import Metrics
from ast_cli.files.atomic import write_whole
from ast_cli.model.config import ASTConfig
from ast_cli.report.text import counted
from ast_cli.results import SCHEMA_VERSION, path_fields
from ast_cli.training.data.spectrograms import UnreadExample
from ast_cli.training.data.splits import Splits
from ast_cli.training.options import TrainOptions

HISTORY_NAME = "history.csv"
CURVES_NAME = "curves.png"
HISTORY_COLUMNS = (
    "epoch",
    "update",
    "learning_rate",
    "train_loss",
    "validation_loss",
    "validation_metric",
    "seconds",
)


@dataclass(frozen=True)
class TaughtResult:
    """What a run with soft targets has learned from its teacher.

    Attributes:
        source: File of the soft targets.
        teacher: Name of the model that they are from; empty if unknown.
        has_labels: Whether clips have labels beside them.
        agreement: Agreement of the saved weights with the targets, for ``validation`` and ``test`` if there are such
            clips.
        label_counts: Number of clips with each label, for each split; see
            `ast_cli.training.validation.present_labels`.
    """

    source: str
    teacher: str
    has_labels: bool
    agreement: Mapping[str, Agreement]
    label_counts: Mapping[str, Mapping[str, int]]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        agreement = {name: each.to_dict() for name, each in self.agreement.items()}
        return {"source": self.source, "teacher": self.teacher, "agreement": agreement}


@dataclass(frozen=True)
class FinetuneResult:
    """Result of a training run.

    Attributes:
        output: Checkpoint folder.
        config: Configuration of the trained model.
        feature_extractor: Its front end.
        base: Name of the base model, as given.
        options: Options of the run.
        splits: Training, validation and test examples that could be read.
        failures: Examples that could not be read, with the errors.
        history: One row per epoch; see `HISTORY_COLUMNS`.
        diverged_epoch: First epoch in which training diverged, from 1; None if it did not.
        kept: Weights that were saved: ``best``, ``last`` or ``average``.
        validation: Metrics of the saved weights on the validation examples; None if there are none.
        test: Metrics of the saved weights on the test split of the data; None if it has none.
        device: Description of the device that the model was trained on.
        taught: Agreement with the soft targets; None without soft targets.
    """

    output: Path
    config: ASTConfig
    feature_extractor: FeatureExtractor
    base: str
    options: TrainOptions
    splits: Splits
    failures: tuple[UnreadExample, ...]
    history: tuple[dict[str, Any], ...]
    diverged_epoch: int | None
    kept: str
    validation: Metrics | None
    test: Metrics | None
    device: str
    taught: TaughtResult | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``results.json``."""
        splits = {"train": self.splits.train, "validation": self.splits.validation, "test": self.splits.test}
        return {
            "schema_version": SCHEMA_VERSION,
            "type": "finetune",
            "base": self.base,
            "data": self.splits.train.source,
            "num_examples": {name: len(examples) for name, examples in splits.items()},
            "held_out": self.splits.how,
            "num_epochs": len(self.history),
            "diverged_epoch": self.diverged_epoch,
            "kept": self.kept,
            "validation": self.validation.to_dict() if self.validation else None,
            "test": self.test.to_dict() if self.test else None,
            "soft_targets": self.taught.to_dict() if self.taught else None,
            "failures": [
                {**path_fields(example.path), "error": {"code": str(error.code), "message": error.message}}
                for example, error in self.failures
            ],
        }


def device_description(device: torch.device) -> str:
    """Return a description of a device for the model card: the name of the GPU, or the CPU and its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"a CPU ({counted(torch.get_num_threads(), 'thread')})"
    return str(device)


def write_history(folder: Path, history: Sequence[dict[str, Any]]) -> None:
    """Write ``history.csv`` with one row per epoch; cells that were not measured are empty.

    Raises:
        AstError: If the file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, HISTORY_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in history)
    write_whole(folder / HISTORY_NAME, text.getvalue().encode())


def _cell(value: Any) -> Any:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else value


def draw_curves(folder: Path, history: Sequence[dict[str, Any]], metric: str) -> None:
    """Write ``curves.png``: losses, and the validation metric (or the learning rate without one), over the epochs.

    Args:
        folder: Output folder of the run.
        history: Rows as in ``history.csv``.
        metric: Name of the validation metric.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # needs no display and no global state
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
    """Return the epochs and values of one column, without empty cells."""
    rows = [row for row in history if row[name] is not None]
    return [row["epoch"] for row in rows], [row[name] for row in rows]
