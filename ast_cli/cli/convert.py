"""``ast convert``: results that exist, chosen again and written in another format."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, TextIO

import typer

from ast_cli.cli import parameters as p
from ast_cli.cli.option_flags import with_flags
from ast_cli.cli.streams import note, results_stream, writing_stdout
from ast_cli.errors import UsageError
from ast_cli.evaluation.thresholds import read_thresholds
from ast_cli.report import FORMATS, ONE_RECORDING, check_format, format_for, open_writer
from ast_cli.report.spans import one_recording_only
from ast_cli.report.text import either, printable
from ast_cli.tagging.recorded.convert import Conversion, open_conversion
from ast_cli.tagging.recorded.options import ConvertOptions
from ast_cli.tagging.run.whole_output import as_text, check_whole_output, whole_output


@with_flags
def convert(
    *,
    files: Annotated[
        list[str],
        typer.Argument(metavar="RESULTS...", help="Outputs of ast classify as JSON Lines or JSON; - for stdin."),
    ],
    options: ConvertOptions,
    thresholds: p.Thresholds = None,
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help=f"Format to write: {either(FORMATS)}. [default: by the suffix of --output, else table]",
            show_default=False,
            autocompletion=lambda: list(FORMATS),
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write a file, whole or not at all, not to stdout."),
    ] = None,
    force: p.Force = False,
    quiet: p.Quiet = False,
) -> None:
    """Convert results that exist to another format, with other labels and thresholds; no model is run.

    Only what was recorded can be kept: record with a large --top-k and without --threshold what you will choose from.
    With a threshold, events are made again from the windows where there are windows, else kept by their mean scores.

    Examples: `ast convert tags.jsonl -o tags.csv`, `ast convert tags.jsonl --labels Rain --threshold 0.5`
    """
    if format_name is not None:
        check_format(format_name)
    chosen_format = format_name or format_for(output, FORMATS)
    if output is not None:
        also_read = [str(thresholds)] if thresholds else []
        check_whole_output(output, [*files, *also_read], "one of the files that are read", force=force)
    options = dataclasses.replace(options, thresholds=read_thresholds(thresholds) if thresholds else ())
    with open_conversion(files, options) as conversion:
        survey = conversion.survey
        if chosen_format in ONE_RECORDING and survey.other_path and not options.matches_only:
            first, other = (printable(path or "-") for path in (survey.first_path, survey.other_path))
            raise UsageError(f"{one_recording_only(chosen_format)}, not {first} and {other}: choose another format")
        if output is None:
            with results_stream() as stream, writing_stdout():
                _write(conversion, chosen_format, stream)
        else:
            with whole_output(output) as file, as_text(file) as stream:
                _write(conversion, chosen_format, stream)
    _note_missing(conversion, quiet=quiet)


def _write(conversion: Conversion, format_name: str, stream: TextIO) -> None:
    survey = conversion.survey
    writer = open_writer(format_name, stream, has_channels=survey.has_channels, labels=list(survey.labels))
    for result in conversion:
        writer.write(result)
    writer.close()


def _note_missing(conversion: Conversion, *, quiet: bool) -> None:
    """Note how many results may be others because not all labels were recorded."""
    survey, chooser = conversion.survey, conversion.chooser
    longest = max(survey.recordings.longest, survey.windows.longest)
    lowest = min(survey.recordings.lowest, survey.windows.lowest)
    recorded = f"lists of at most {longest} labels were recorded"
    if chooser.num_incomplete:
        scores = f", with scores of {lowest:g} and more" if longest else ""
        note(
            f"note: {chooser.num_incomplete} of {conversion.num_read} results may lack labels that reach the "
            f"threshold: {recorded}{scores}",
            quiet=quiet,
        )
    if chooser.num_general:
        note(
            f"note: {chooser.num_general} of {conversion.num_read} results may have a general label because one below "
            f"it is missing: {recorded}",
            quiet=quiet,
        )
