"""``ast export``: a checkpoint as a model for other runtimes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from ast_cli.cli import parameters as p
from ast_cli.cli.streams import note, quiet_native_libraries
from ast_cli.report.text import printable


def export(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FOLDER_OR_FILE", help="A folder, or a file named .onnx or .xml."),
    ],
    model: p.Model = None,
    format_name: Annotated[
        Literal["onnx", "openvino"], typer.Option("--format", "-f", help="openvino needs OpenVINO installed.")
    ] = "onnx",
    dtype: Annotated[
        Literal["float32", "float16", "int8"], typer.Option("--dtype", help="Of the weights, and of the computation.")
    ] = "float32",
    calibrate: Annotated[
        Path | None,
        typer.Option(
            "--calibrate",
            metavar="FOLDER",
            help="For int8: recordings to find the range of each layer on. Without, each token is measured while the "
            "model runs, which makes it several times slower, in ONNX Runtime slower than float32.",
            show_default=False,
        ),
    ] = None,
    front_end: p.FrontEnd = None,
    unnamed_labels: p.UnnamedLabels = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    quiet: p.Quiet = False,
) -> None:
    """Write a model that ONNX Runtime or OpenVINO runs alone, labels and features described in it.

    Examples: `ast export --output exported/`, `ast export --format openvino --dtype int8 --calibrate clips/ -o small/`
    """
    with quiet_native_libraries():
        from ast_cli.export import ExportOptions, export_model

        chosen = p.choose_model(model, quiet=quiet)
        options = ExportOptions(chosen, output, format_name, dtype, calibrate, force, unnamed_labels, front_end)
        exported = export_model(options, partial(note, quiet=quiet))
    if exported.num_calibration_windows:
        note(f"calibrated on {exported.num_calibration_windows} windows", quiet=quiet)
    for file in exported.files:
        typer.echo(printable(str(file)))
