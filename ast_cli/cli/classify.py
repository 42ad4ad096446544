"""``ast classify``: tags of recordings."""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ast_cli.cli import parameters as p
from ast_cli.cli.option_flags import with_flags
from ast_cli.cli.report import check_page_of_run, page_of_run
from ast_cli.cli.signals import nothing_to_save, raise_if_ended
from ast_cli.cli.streams import note, notice, quiet_native_libraries
from ast_cli.cli.tag_run import show_run
from ast_cli.errors import ExitCode, UsageError
from ast_cli.evaluation.thresholds import read_thresholds
from ast_cli.hub.folders import is_here, thresholds_file
from ast_cli.hub.names import THRESHOLDS_NAME
from ast_cli.report import FORMATS, format_for, parsed_formats
from ast_cli.tagging.options import DEFAULT_THRESHOLD, ClassifyOptions, LoadOptions, RunOptions
from ast_cli.tagging.run.check import check_run
from ast_cli.tagging.run.shards import parse_shard

if TYPE_CHECKING:
    from ast_cli.tagging.decode.opening import Workers
    from ast_cli.tagging.inputs import Input
    from ast_cli.tagging.run.tally import Tally

DEFAULT_RAW_FORMAT = "s16le"


@with_flags
def classify(
    *,
    paths: p.Paths = None,
    options: ClassifyOptions,
    thresholds: p.Thresholds = None,
    model: p.Model = None,
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help=f"Format of the results: {', '.join(FORMATS)}; for --output-dir also several, separated by commas. "
            "[default: by the suffix of --output, jsonl for --output-dir, else table]",
            autocompletion=lambda incomplete: [name for name in FORMATS if name.startswith(incomplete)],
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="Also write a page to look at and listen to, as .html."),
    ] = None,
    run: RunOptions,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failed input.")] = False,
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="I/N", help="Process part I (from 0) of N only, for job arrays."),
    ] = None,
    load: LoadOptions,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List the inputs with their lengths and estimate the time; tag nothing."),
    ] = False,
    files_from: p.FilesFrom = None,
    nul_separated: p.NulSeparated = False,
    exclude: p.Exclude = None,
    raw_rate: Annotated[
        int | None, typer.Option("--raw-rate", metavar="HZ", help="Standard input is raw samples at this rate.")
    ] = None,
    raw_format: Annotated[
        str, typer.Option("--raw-format", help="Format of raw samples: s16le, s32le, f32le, u8 ...")
    ] = DEFAULT_RAW_FORMAT,
    raw_channels: Annotated[
        int, typer.Option("--raw-channels", help="Number of interleaved channels of raw samples.")
    ] = 1,
    verbose: p.Verbose = False,
    quiet: p.Quiet = False,
) -> None:
    """Tag audio files with the model's labels and their scores.

    Examples: `ast classify song.wav --top-k 5`, `ast classify recordings/ --output tags.jsonl`
    """
    options = dataclasses.replace(
        options,
        thresholds=read_thresholds(thresholds) if thresholds else (),
        stream=options.stream or raw_rate is not None,
    )
    if quiet and verbose:
        raise UsageError("--quiet and --verbose contradict each other: choose one")
    if as_json and format_name not in (None, "json"):
        raise UsageError(f"--json and --format {format_name} contradict each other")
    chosen_format = _chosen_format("json" if as_json else format_name, run)
    if raw_rate is None and (raw_format, raw_channels) != (DEFAULT_RAW_FORMAT, 1):
        raise UsageError("--raw-format and --raw-channels describe raw samples: add --raw-rate")
    run = dataclasses.replace(
        run,
        format_name=chosen_format,
        shard=parse_shard(shard) if shard else None,
        max_errors=1 if fail_fast else run.max_errors,
    )
    inputs = p.read_inputs(paths, files_from, nul_separated, exclude)
    plan = check_run(
        inputs,
        options,
        run,
        is_live=raw_rate is not None,
        also_read=[str(file) for file in (files_from, thresholds) if file],
    )
    if options.stream and chosen_format != "jsonl":
        flag = "--stream" if raw_rate is None else "--raw-rate"
        raise UsageError(f"{flag} writes windows and events as JSON Lines: add --format jsonl")
    if report is not None:
        check_page_of_run(report, inputs, options, run)
    if dry_run:
        _list_inputs(inputs, options, run, format_name or "table", model, is_live=raw_rate is not None, quiet=quiet)
        return
    live = None
    if raw_rate is not None:
        from ast_cli.audio.raw_stream import RawFormat

        live = RawFormat(raw_rate, raw_format, raw_channels)
        live.check_channel(options.channels)
    title = ", ".join(paths or [str(files_from)])
    with (
        quiet_native_libraries(),
        page_of_run(report, run, title, quiet=quiet) as also,
        _decoding(len(inputs), run, is_live=live is not None) as workers,
    ):
        with nothing_to_save():
            from ast_cli.tagging.run.tag_files import open_run
            from ast_cli.tagging.tagger import Tagger

            tagger = Tagger.load(p.choose_model(model, quiet=quiet), load, partial(notice, quiet=quiet))
            p.note_license(tagger.name, tagger.license, quiet=quiet)
        with open_run(
            tagger, inputs, options, run, plan=plan, workers=workers, live=live, on_progress=_check_signals
        ) as running:
            any_failed = show_run(
                running, options, run, quiet=quiet, verbose=verbose, is_live=live is not None, also=also
            )
    if any_failed:
        raise typer.Exit(ExitCode.SOME_FAILED)


def _chosen_format(names: str | None, run: RunOptions) -> str:
    """Return the formats that were named, or the default of the output."""
    if names is not None:
        return ",".join(parsed_formats(names))
    return format_for(run.output, FORMATS) if run.output_dir is None else "jsonl"


def _check_signals(_tally: Tally) -> None:
    """End the run after the first signal."""
    raise_if_ended()


def _list_inputs(
    inputs: list[Input],
    options: ClassifyOptions,
    run: RunOptions,
    format_name: str,
    model: str | None,
    *,
    is_live: bool,
    quiet: bool,
) -> None:
    """Show what the run would process; exit as the run would where some inputs cannot be opened."""
    if is_live:
        raise UsageError("--dry-run cannot list live input: leave out --raw-rate")
    from ast_cli.cli.dry_run import show_plan
    from ast_cli.tagging.run.plan import plan_run, speed_of

    name = p.choose_model(model, quiet=True)
    with quiet_native_libraries():
        planned = plan_run(inputs, options, run, run)
        any_failed = show_plan(planned, name, speed_of(name), format_name, quiet=quiet)
    if options.leave_events_to_model and options.activation == "auto" and is_here(name):
        file = thresholds_file(name)
        if file is not None and file.name == THRESHOLDS_NAME:
            note(f"events would use the thresholds in {file}, and {DEFAULT_THRESHOLD:g} for other labels", quiet=quiet)
    if any_failed:
        raise typer.Exit(ExitCode.SOME_FAILED)


def _decoding(num_inputs: int, run: RunOptions, *, is_live: bool) -> AbstractContextManager[Workers | None]:
    """Start the decoding processes; live input needs none."""
    if is_live:
        return nullcontext()
    from ast_cli.tagging.decode.opening import start_decoding

    return start_decoding(run, num_inputs, in_order=not run.unordered)
