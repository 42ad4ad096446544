"""``ast diff``: the recordings and labels that changed between two runs or models."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer

from ast_cli.cli import parameters as p
from ast_cli.cli.streams import note, results_stream, writing_stdout
from ast_cli.errors import ExitCode, UsageError
from ast_cli.report.reading import STDIN, read_results
from ast_cli.report.text import clock, counted, label_text, printable
from ast_cli.results import SCHEMA_VERSION
from ast_cli.tagging.recorded.difference import Comparison, EventChange, LabelChange, RecordingDifference, Spans

MAX_SPANS = 4  # events of a label that a line lists


def diff(
    *,
    old: Annotated[str, typer.Argument(metavar="OLD", help="Output of the first run; - for stdin.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Output of the second run; - for stdin.")],
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="Greatest difference of a score that does not count.")
    ] = 0.01,
    format_name: Annotated[
        Literal["table", "json", "jsonl"], typer.Option("--format", "-f", help="Format of the differences.")
    ] = "table",
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with code 5 if anything differs; without this flag with 0.")
    ] = False,
    quiet: p.Quiet = False,
) -> None:
    """Show what changed between two outputs of ast classify: recordings, their status, labels, scores and events.

    Recordings are compared by their paths as written, labels by their names, so that two models can be compared.

    Example: `ast diff before.jsonl after.jsonl --tolerance 0.05`
    """
    if old == new == STDIN:
        raise UsageError("standard input can be read once: name a file for OLD or NEW")
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise UsageError(f"--tolerance must be at least 0, not {tolerance:g}")
    comparison = Comparison(read_results(old), read_results(new), tolerance)
    with results_stream() as stream, writing_stdout():
        {"table": _write_table, "json": _write_json, "jsonl": _write_json_lines}[format_name](comparison, stream.write)
        stream.flush()
    if not comparison.num_compared and comparison.counts:
        note("note: no recording is in both: they are compared by their paths as written", quiet=quiet)
    if exit_code and comparison.counts:
        raise typer.Exit(ExitCode.DIFFERENT)


def _write_table(comparison: Comparison, write: Callable[[str], object]) -> None:
    """Write a paragraph for each recording that changed, one line for each other, and one line about all."""
    for difference in comparison:
        name = printable(difference.path or "(waveform)")
        if difference.channel is not None:
            name += f" [channel {difference.channel}]"
        write(f"{name}{_status(difference)}\n")
        for label in difference.labels:
            write(f"  {_label_line(label)}\n")
        for event in difference.events:
            write(f"  {_event_line(event)}\n")
    counts = comparison.counts
    num_same = comparison.num_compared - counts["status"] - counts["labels"]
    write(
        f"{counted(comparison.num_compared, 'recording')} in both: {num_same} the same, {counts['labels']} with other "
        f"labels or events, {counts['status']} with another status; {counts['only_in_old']} only in the first, "
        f"{counts['only_in_new']} only in the second\n"
    )


def _status(difference: RecordingDifference) -> str:
    kind = difference.kind
    if kind == "labels":
        return ""
    if kind == "status":
        return f"  {difference.old_status} -> {difference.new_status}"
    which, status = ("first", difference.old_status) if kind == "only_in_old" else ("second", difference.new_status)
    return f"  only in the {which}" + ("" if status == "ok" else f": {status}")


def _label_line(change: LabelChange) -> str:
    label = label_text(change.label)
    if change.old is None or change.new is None:
        sign, score = ("-", change.old) if change.new is None else ("+", change.new)
        return f"{sign} {score:7.4f}            {label}"
    return f"  {change.old:7.4f} -> {change.new:7.4f}  {label}"


def _event_line(change: EventChange) -> str:
    return f"events of {label_text(change.label)}: {_spans(change.old)} -> {_spans(change.new)}"


def _spans(spans: Spans) -> str:
    listed = ", ".join(f"{clock(start_s)} - {clock(end_s)}" for start_s, end_s in spans[:MAX_SPANS])
    return (f"{listed} and {len(spans) - MAX_SPANS} more" if len(spans) > MAX_SPANS else listed) or "none"


def _summary(comparison: Comparison) -> dict[str, Any]:
    kinds = ("only_in_old", "only_in_new", "status", "labels")
    return {"num_compared": comparison.num_compared, **{f"num_{kind}": comparison.counts[kind] for kind in kinds}}


def _write_json_lines(comparison: Comparison, write: Callable[[str], object]) -> None:
    """Write a line for each difference, and one about all at the end."""
    for difference in comparison:
        write(f"{json.dumps(difference.to_dict(), allow_nan=False)}\n")
    summary = {"schema_version": SCHEMA_VERSION, "type": "difference_summary", **_summary(comparison)}
    write(f"{json.dumps(summary)}\n")


def _write_json(comparison: Comparison, write: Callable[[str], object]) -> None:
    """Write one document, difference by difference."""
    write(f'{{"schema_version": {SCHEMA_VERSION}, "type": "differences", "differences": [')
    for number, difference in enumerate(comparison):
        write(f"{',' if number else ''}\n{json.dumps(difference.to_dict(), allow_nan=False)}")
    write(f"\n], {json.dumps(_summary(comparison))[1:]}\n")
