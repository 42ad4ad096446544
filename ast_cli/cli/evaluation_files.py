"""The output files of ``ast evaluate``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ast_cli.cli.streams import results_stream, writing_stdout
from ast_cli.errors import UsageError
from ast_cli.evaluation.options import PREDICTION_SUFFIXES
from ast_cli.files.atomic import write_whole
from ast_cli.files.target import ReadFiles, check_target

if TYPE_CHECKING:
    from ast_cli.evaluation.evaluate import Evaluation


@dataclass(frozen=True, slots=True)
class EvaluationFiles:
    """The files to write, as named on the command line; None for those not requested.

    Attributes:
        format_name: Format of the result: ``table`` or ``json``.
        output: File for the result; None for standard output.
        thresholds: File for the best threshold of each label.
        plot: File for the picture.
        predictions: File for the scores of each example.
    """

    format_name: str
    output: Path | None = None
    thresholds: Path | None = None
    plot: Path | None = None
    predictions: Path | None = None

    def check(self, inputs: Iterable[str], *, force: bool) -> None:
        """Validate the file names before models are loaded.

        Raises:
            UsageError: If a file cannot be written, would replace another, or has the wrong suffix.
        """
        flags = {
            "--output": self.output,
            "--thresholds-output": self.thresholds,
            "--plot": self.plot,
            "--predictions": self.predictions,
        }
        named = {flag: file for flag, file in flags.items() if file is not None}
        if len({os.path.realpath(file) for file in named.values()}) < len(named):
            raise UsageError(f"two of {', '.join(named)} name the same file")
        sources = ReadFiles(inputs, "part of the data")
        for flag, file in named.items():
            check_target(file, sources, force=force, flag=flag)
        if self.plot is not None and self.plot.suffix.lower() != ".png":
            raise UsageError(f"--plot {self.plot}: the picture is a PNG; name a file that ends in .png")
        if self.predictions is not None and self.predictions.suffix.lower() not in PREDICTION_SUFFIXES:
            raise UsageError(f"--predictions {self.predictions}: name a file that ends in .jsonl or .csv")

    def write(self, result: Evaluation) -> None:
        """Write the requested files.

        Raises:
            AstError: If a file cannot be written.
        """
        if self.thresholds is not None:
            from ast_cli.evaluation.thresholds import write_thresholds

            write_thresholds(self.thresholds, result.thresholds(), [model.name for model in result.models], result.data)
        if self.plot is not None:
            from ast_cli.evaluation.plots import evaluation_picture

            write_whole(self.plot, evaluation_picture(result.metrics, _title(result)))
        if self.predictions is not None:
            from ast_cli.evaluation.predictions import predictions_text

            write_whole(
                self.predictions, predictions_text(result, self.predictions.suffix.lower()).encode("utf-8", "replace")
            )
        text = _text(result, self.format_name)
        if self.output is not None:
            write_whole(self.output, text.encode("utf-8", "replace"))
            return
        with results_stream() as stream, writing_stdout():
            stream.write(text)
            stream.flush()


def _title(result: Evaluation) -> str:
    """Return the names of models and data without their parent folders."""
    models = " + ".join(Path(model.name).name for model in result.models)
    return f"{models} on {Path(result.data).name}"


def _text(result: Evaluation, format_name: str) -> str:
    if format_name == "json":
        import json

        return json.dumps(result.to_dict(), indent=2, allow_nan=False) + "\n"
    from ast_cli.evaluation.table import evaluation_text

    return evaluation_text(result)
