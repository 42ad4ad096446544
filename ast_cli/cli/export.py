"""``ast export``: convert a checkpoint for ONNX Runtime or OpenVINO."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from ast_cli.cli import parameters as p
from ast_cli.cli.streams import note, quiet_native_libraries
from ast_cli.hub.licenses import license_of
from ast_cli.report.text import printable


def export(
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FOLDER_OR_FILE", help="Output folder, or file with the suffix .onnx or .xml."
        ),
    ],
    model: p.Model = None,
    format_name: Annotated[
        Literal["onnx", "openvino"],
        typer.Option("--format", "-f", help="Format of the model; openvino needs OpenVINO."),
    ] = "onnx",
    dtype: Annotated[
        Literal["float32", "float16", "int8"],
        typer.Option("--dtype", help="Data type of the weights and the computation."),
    ] = "float32",
    calibrate: Annotated[
        Path | None,
        typer.Option(
            "--calibrate",
            metavar="FOLDER",
            help="Recordings to calibrate int8 on. Without them, the ranges are measured at run time, which makes the "
            "model several times slower; in ONNX Runtime it is then slower than float32.",
            show_default=False,
        ),
    ] = None,
    front_end: p.FrontEnd = None,
    unnamed_labels: p.UnnamedLabels = False,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
    quiet: p.Quiet = False,
) -> None:
    """Convert a model for ONNX Runtime or OpenVINO, with a description of its labels and features.

    Examples: `ast export --output exported/`, `ast export --format openvino --dtype int8 --calibrate clips/ -o small/`
    """
    with quiet_native_libraries():
        from ast_cli.export import ExportOptions, export_model

        chosen = p.choose_model(model, quiet=quiet)
        options = ExportOptions(chosen, output, format_name, dtype, calibrate, force, unnamed_labels, front_end)
        exported = export_model(options, partial(note, quiet=quiet))
        p.note_license(chosen, license_of(chosen), quiet=quiet)
    if exported.num_calibration_windows:
        note(f"calibrated on {exported.num_calibration_windows} windows", quiet=quiet)
    for file in exported.files:
        typer.echo(printable(str(file)))
