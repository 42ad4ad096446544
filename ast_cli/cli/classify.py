"""``ast classify``: recordings to tags."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ast_cli.cli import parameters as p
from ast_cli.cli.signals import nothing_to_save, raise_if_ended
from ast_cli.cli.streams import note, quiet_native_libraries
from ast_cli.cli.tag_run import show_run
from ast_cli.errors import ExitCode, UsageError
from ast_cli.evaluation.thresholds import read_thresholds
from ast_cli.files.target import Sources, check_target
from ast_cli.report import FORMATS, format_for
from ast_cli.tagging.inputs import STDIN, Input
from ast_cli.tagging.options import ClassifyOptions, LoadOptions, RunOptions
from ast_cli.tagging.run.shards import parse_shard

if TYPE_CHECKING:
    from ast_cli.tagging.decode.opening import Workers

MIN_UNORDERED_WORKERS = 2  # while one waits in a long recording, the other decodes short ones


def classify(
    paths: p.Paths = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k",
            "-k",
            help="Labels to keep. [default: 5, or all with --labels or --thresholds]",
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[float | None, typer.Option("--threshold", help="The lowest score to keep.")] = None,
    thresholds: Annotated[
        Path | None,
        typer.Option(
            "--thresholds",
            metavar="FILE",
            help="Each label's own threshold, as ast evaluate writes them; for other labels --threshold, else 0.5.",
        ),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option("--labels", metavar="NAMES", help="Only these labels, by name or /m/ id; commas or repeated."),
    ] = None,
    exclude_labels: Annotated[
        list[str] | None, typer.Option("--exclude-labels", metavar="NAMES", help="Not these labels.")
    ] = None,
    start: p.Start = 0.0,
    duration: p.Duration = None,
    hop: p.Hop = None,
    aggregate: p.Aggregate = "mean",
    timestamps: Annotated[bool, typer.Option("--timestamps", help="Report each window too.")] = False,
    events: Annotated[
        bool,
        typer.Option("--events", help="Report events: consecutive windows over --threshold (0.5), merged per label."),
    ] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Write windows and events as they close, as records of their own (jsonl).")
    ] = False,
    raw_rate: Annotated[
        int | None, typer.Option("--raw-rate", metavar="HZ", help="Standard input is raw samples at this rate.")
    ] = None,
    raw_format: Annotated[
        str, typer.Option("--raw-format", help="Of raw samples: s16le, s32le, f32le, u8 ...")
    ] = "s16le",
    raw_channels: Annotated[int, typer.Option("--raw-channels", help="Of raw samples, interleaved.")] = 1,
    activation: Annotated[
        Literal["auto", "sigmoid", "softmax", "none"],
        typer.Option("--activation", help="From logits to scores. auto: by the checkpoint."),
    ] = "auto",
    format_name: Annotated[
        Literal["table", "json", "jsonl", "csv"] | None,
        typer.Option("--format", "-f", help="Of the results. By default by the suffix of --output, else a table."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the results to a file, not to stdout.")
    ] = None,
    model: p.Model = None,
    engine: p.Engine = None,
    device: p.Device = "auto",
    dtype: p.Dtype = "auto",
    attn: p.Attn = "sdpa",
    batch_size: p.BatchSize = None,
    threads: p.Threads = None,
    fbank: p.Fbank = "native",
    front_end: p.FrontEnd = None,
    files_from: p.FilesFrom = None,
    nul_separated: p.NulSeparated = False,
    unnamed_labels: p.UnnamedLabels = False,
    workers: p.Workers = None,
    unordered: Annotated[
        bool, typer.Option("--unordered", help="Write results as they come, not in the order of the inputs.")
    ] = False,
    timeout: p.Timeout = 60.0,
    max_errors: Annotated[int | None, typer.Option("--max-errors", help="Stop after so many failed inputs.")] = None,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failed input.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an --output that was begun: what is done is left out.")
    ] = False,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="With --resume, redo those of the inputs that failed.")
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="I/N", help="Only part I (from 0) of N, for job arrays."),
    ] = None,
    force: p.Force = False,
    quiet: p.Quiet = False,
) -> None:
    """Tag audio files: which of the model's labels are heard, and how surely.

    Examples: `ast classify song.wav --top-k 5`, `ast classify recordings/ --output tags.jsonl`
    """
    options = ClassifyOptions(
        start_s=start,
        duration_s=duration,
        hop_s=hop,
        batch_size=batch_size,
        top_k=top_k,
        threshold=threshold,
        thresholds=read_thresholds(thresholds) if thresholds else (),
        labels=tuple(labels or ()),
        exclude_labels=tuple(exclude_labels or ()),
        aggregate=aggregate,
        timestamps=timestamps,
        events=events,
        stream=stream or raw_rate is not None,
        activation=activation,
    )
    load_options = LoadOptions(engine, device, dtype, attn, unnamed_labels, threads, fbank, front_end)
    if as_json and format_name not in (None, "json"):
        raise UsageError(f"--json and --format {format_name} contradict each other")
    chosen_format = "json" if as_json else format_name or format_for(output, FORMATS)
    if options.stream and chosen_format != "jsonl":
        raise UsageError("windows and events can be streamed as JSON Lines only: add --format jsonl")
    run = RunOptions(
        format_name=chosen_format,
        output=output,
        resume=resume,
        retry_errors=retry_errors,
        force=force,
        shard=parse_shard(shard) if shard else None,
        num_workers=workers,
        timeout_s=timeout,
        unordered=unordered,
        max_errors=1 if fail_fast else max_errors,
    )
    inputs = p.read_inputs(paths, files_from, nul_separated)
    if resume and raw_rate is None and STDIN in [item.path for item in inputs]:
        raise UsageError("--resume cannot tell what standard input held the last time: leave out - or --resume")
    if raw_rate is not None:
        if [item.path for item in inputs] != [STDIN]:
            raise UsageError("raw samples are read from standard input: name - and nothing else")
        if resume:
            raise UsageError("live input cannot be resumed: leave out --resume")
    sources = [item.path for item in inputs] + [str(file) for file in (files_from, thresholds) if file]
    if output is not None:
        check_target(output, Sources(sources), force=force, resume=resume, may_be_pipe=True)

    live = None
    if raw_rate is not None:
        from ast_cli.audio.raw_stream import RawFormat

        live = RawFormat(raw_rate, raw_format, raw_channels)
    with quiet_native_libraries(), _decoding(inputs, run, is_live=live is not None) as started:
        with nothing_to_save():
            from ast_cli.tagging.run.tag_files import open_run
            from ast_cli.tagging.tagger import Tagger

            tagger = Tagger.load(p.choose_model(model, quiet=quiet), load_options, partial(note, quiet=quiet))
        with open_run(
            tagger, inputs, options, run, workers=started, live=live, on_progress=lambda _tally: raise_if_ended()
        ) as running:
            any_failed = show_run(running, run, quiet=quiet, is_live=live is not None)
    if any_failed:
        raise typer.Exit(ExitCode.SOME_FAILED)


@contextmanager
def _decoding(inputs: list[Input], run: RunOptions, *, is_live: bool) -> Iterator[Workers | None]:
    """Start the processes that decode, where there is anything to decode."""
    if is_live:
        yield None
        return
    from ast_cli.tagging.decode.opening import start_decoding

    with start_decoding(run, len(inputs), least=MIN_UNORDERED_WORKERS if run.unordered else 1) as started:
        yield started
