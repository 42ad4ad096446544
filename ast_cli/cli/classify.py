"""``ast classify``: recordings to tags."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ast_cli.cli import parameters as p
from ast_cli.cli.progress import Record, watched
from ast_cli.cli.streams import check_output, note, quiet_native_libraries, results_stream
from ast_cli.errors import ExitCode, UsageError
from ast_cli.report import Writer, open_writer
from ast_cli.report.text import printable
from ast_cli.results import TaggingResult
from ast_cli.tagging.inputs import STDIN, Input
from ast_cli.tagging.options import ClassifyOptions
from ast_cli.tagging.tally import Tally

if TYPE_CHECKING:
    from ast_cli.tagging.batch import Source
    from ast_cli.tagging.tagger import Tagger

MAX_WORKERS = 256


def classify(
    paths: p.Paths = None,
    top_k: Annotated[
        int | None,
        typer.Option("--top-k", "-k", help="Labels to keep. [default: 5, or all of --labels]", show_default=False),
    ] = None,
    threshold: Annotated[float | None, typer.Option("--threshold", help="The lowest score to keep.")] = None,
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
    aggregate: Annotated[
        Literal["mean", "max"], typer.Option("--aggregate", help="From the windows' scores to the recording's.")
    ] = "mean",
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
        Literal["table", "json", "jsonl", "csv"], typer.Option("--format", "-f", help="Of the results.")
    ] = "table",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the results to a file, not to stdout.")
    ] = None,
    model: p.Model = None,
    device: p.Device = "auto",
    dtype: p.Dtype = "auto",
    attn: p.Attn = "sdpa",
    batch_size: p.BatchSize = None,
    fbank: p.Fbank = "native",
    files_from: p.FilesFrom = None,
    nul_separated: p.NulSeparated = False,
    unnamed_labels: p.UnnamedLabels = False,
    workers: Annotated[
        int | None,
        typer.Option("--workers", help="Processes that decode; 0 to decode in this one. [default: half of the cores]"),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option("--timeout", metavar="SECONDS", help="Give up on a file that yields nothing for so long."),
    ] = 60.0,
    max_errors: Annotated[int | None, typer.Option("--max-errors", help="Stop after so many failed inputs.")] = None,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failed input.")] = False,
    force: p.Force = False,
    quiet: p.Quiet = False,
) -> None:
    """Tag audio files: which of the model's labels are heard, and how surely.

    Examples: `ast classify song.wav --top-k 5`, `ast classify recordings/ --format jsonl --output tags.jsonl`
    """
    options = ClassifyOptions(
        start_s=start,
        duration_s=duration,
        hop_s=hop,
        batch_size=batch_size,
        top_k=top_k,
        threshold=threshold,
        labels=tuple(labels or ()),
        exclude_labels=tuple(exclude_labels or ()),
        aggregate=aggregate,
        timestamps=timestamps,
        events=events,
        stream=stream or raw_rate is not None,
        activation=activation,
    )
    if as_json and format_name not in ("table", "json"):
        raise UsageError(f"--json and --format {format_name} contradict each other")
    chosen_format = "json" if as_json else format_name
    if options.stream and chosen_format != "jsonl":
        raise UsageError("windows and events can be streamed as JSON Lines only: add --format jsonl")
    if workers is not None and not 0 <= workers <= MAX_WORKERS:
        raise UsageError(f"workers must be from 0 to {MAX_WORKERS}, not {workers}")
    if not timeout > 0:
        raise UsageError(f"timeout must be above 0 s, not {timeout:g}")
    if max_errors is not None and max_errors < 1:
        raise UsageError(f"max errors must be at least 1, not {max_errors}")
    inputs = p.read_inputs(paths, files_from, nul_separated)
    if raw_rate is not None and [item.path for item in inputs] != [STDIN]:
        raise UsageError("raw samples are read from standard input: name - and nothing else")
    check_output(output, [item.path for item in inputs], force=force)
    if not inputs:
        note("error: nothing matched: no audio file in the folders or patterns named")
        raise typer.Exit(ExitCode.NO_INPUTS)

    with quiet_native_libraries():
        from ast_cli.tagging.tagger import Tagger

        tagger = Tagger.from_pretrained(
            p.choose_model(model, quiet=quiet),
            device=device,
            dtype=dtype,
            attn_implementation=attn,
            fbank_backend=fbank,
            unnamed_labels=unnamed_labels,
        )
        tally = Tally(1 if fail_fast else max_errors)
        with _decoding(tagger, inputs, options, workers, timeout) as sources, results_stream(output) as stream_out:
            if raw_rate is None:
                records = tagger.classify_sources(sources, options)
            else:
                records = tagger.classify_live(raw_rate, raw_format, raw_channels, options)
            shows_errors = chosen_format == "table" and output is None
            writer = open_writer(chosen_format, stream_out)
            _write(records, writer, tally, len(inputs), quiet=quiet, tells=not shows_errors)
    if tally.num_failed:
        raise typer.Exit(ExitCode.SOME_FAILED)


@contextlib.contextmanager
def _decoding(
    tagger: Tagger, inputs: Iterable[Input], options: ClassifyOptions, num_workers: int | None, timeout_s: float
) -> Iterator[Iterable[Source]]:
    """Decode inputs in worker processes, which a broken file may kill or hang, or with 0 workers in this one."""
    if num_workers == 0:
        yield tagger.sources(inputs, options)
        return
    from ast_cli.tagging.decode_pool import DecodePool, default_num_workers

    rate = tagger.feature_extractor.sampling_rate
    with DecodePool(num_workers or default_num_workers(), rate, options, timeout_s) as pool:
        yield pool.open_streams(inputs)


def _write(
    records: Iterable[Record], writer: Writer, tally: Tally, num_inputs: int, *, quiet: bool, tells: bool
) -> None:
    """Write records as they come, keep the tally, and sum up at the end, whatever the end is."""
    started = time.monotonic()
    try:
        with contextlib.closing(writer):
            for record in watched(records, tally, num_inputs, quiet=quiet):
                writer.write(record)
                if isinstance(record, TaggingResult):
                    if tells:
                        _tell(record, quiet=quiet)
                    tally.add(record)
        tally.check(num_inputs)
    except BrokenPipeError:  # the reader has seen enough and wants no summary
        raise
    except BaseException:
        note(tally.summary(time.monotonic() - started), quiet=quiet)
        raise
    if num_inputs > 1 or tally.num_failed:
        note(tally.summary(time.monotonic() - started), quiet=quiet)


def _tell(result: TaggingResult, *, quiet: bool) -> None:
    """Repeat on standard error what went wrong with one input."""
    if result.error is not None:
        note(f"error: {printable(result.error.message)}")
    elif result.warnings:
        note(f"warning: {printable(result.path or '')}: {', '.join(result.warnings)}", quiet=quiet)
