"""``ast classify``: recordings to tags."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer

from ast_cli.cli import parameters as p
from ast_cli.cli.streams import check_output, note, quiet_native_libraries, results_stream
from ast_cli.errors import ExitCode, UsageError
from ast_cli.report import open_writer
from ast_cli.results import TaggingResult
from ast_cli.tagging.inputs import Input
from ast_cli.tagging.options import ClassifyOptions


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
        activation=activation,
    )
    if as_json and format_name not in ("table", "json"):
        raise UsageError(f"--json and --format {format_name} contradict each other")
    inputs = p.read_inputs(paths, files_from, nul_separated)
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
        results = tagger.classify_inputs(inputs, options)
        if not quiet and (output is not None or not sys.stdout.isatty()):
            results = _with_progress(results, inputs)
        outcomes = _write(results, "json" if as_json else format_name, output, quiet=quiet)
    _finish(outcomes, quiet=quiet)


def _write(results: Iterable[TaggingResult], format_name: str, output: Path | None, *, quiet: bool) -> Counter[str]:
    """Write results as they come; return how many ended how, ``ok`` or an error code."""
    outcomes: Counter[str] = Counter()
    with results_stream(output) as stream:
        writer = open_writer(format_name, stream)
        shows_errors = format_name == "table" and output is None
        try:
            for result in results:
                writer.write(result)
                outcomes[result.error.code if result.error else "ok"] += 1
                if result.error and not shows_errors:
                    note(f"error: {result.error.message}")
                elif result.warnings and not shows_errors:
                    note(f"warning: {result.path}: {', '.join(result.warnings)}", quiet=quiet)
        finally:
            writer.close()
    return outcomes


def _with_progress(results: Iterator[TaggingResult], inputs: list[Input]) -> Iterator[TaggingResult]:
    """Show a bar on standard error while results come, if that is a terminal."""
    if not sys.stderr.isatty() or len(inputs) < 2:
        yield from results
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("tagging"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(inputs))
        for result in results:
            yield result
            progress.advance(task)


def _finish(outcomes: Counter[str], *, quiet: bool) -> None:
    """Say how many inputs failed, and end with the exit code that says so too."""
    num_failed = outcomes.total() - outcomes["ok"]
    if num_failed:
        codes = ", ".join(f"{code} {count}" for code, count in sorted(outcomes.items()) if code != "ok")
        note(f"{outcomes['ok']} of {outcomes.total()} inputs tagged, {num_failed} failed: {codes}", quiet=quiet)
        raise typer.Exit(ExitCode.SOME_FAILED)
