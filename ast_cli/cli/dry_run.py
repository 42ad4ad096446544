"""``--dry-run``: the inputs of a run with their lengths, and an estimate of its time."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from typing import Any

from ast_cli.cli.streams import note, results_stream, writing_stdout
from ast_cli.report.text import clock, counted, harmless_cell, printable, waiting_time
from ast_cli.results import path_fields
from ast_cli.tagging.run.plan import PlannedInput, Speed

CSV_COLUMNS = ("path", "duration_s", "error")


def show_plan(
    planned: Iterable[PlannedInput], model: str, speed: Speed | None, format_name: str, *, quiet: bool
) -> bool:
    """Print one line for each input on standard output and a summary on standard error.

    Args:
        planned: The inputs in order.
        model: Name of the model, for the summary.
        speed: The speed of the last run with that model; None if it is unknown.
        format_name: ``table``, ``jsonl``, ``json`` or ``csv``.
        quiet: Leave the summary out.

    Returns:
        Whether any input cannot be opened.
    """
    num_inputs = num_failed = num_unstated = 0
    audio_s, records = 0.0, list[dict[str, Any]]()
    with results_stream() as stream, writing_stdout():
        table = csv.writer(stream, lineterminator="\n")
        if format_name == "csv":
            table.writerow(CSV_COLUMNS)
        for item in planned:
            num_inputs += 1
            num_failed += item.error is not None
            num_unstated += item.error is None and item.duration_s is None
            audio_s += item.duration_s or 0.0
            record = {**path_fields(item.path), "duration_s": item.duration_s, "error": item.error}
            if format_name == "json":
                records.append(record)
            elif format_name == "jsonl":
                stream.write(json.dumps(record, allow_nan=False) + "\n")
            elif format_name == "csv":
                table.writerow([harmless_cell(item.path), _seconds(item.duration_s), harmless_cell(item.error or "")])
            else:
                stream.write(f"{_line(item)}\n")
        if format_name == "json":
            stream.write(json.dumps(records, indent=2, allow_nan=False) + "\n")
    parts = [counted(num_inputs, "input"), f"{audio_s / 3600:.2f} h of audio"]
    if num_unstated:
        parts.append(f"{num_unstated} of unknown length")
    if num_failed:
        parts.append(f"{num_failed} cannot be opened")
    estimate = _estimate(audio_s, model, speed) if num_inputs else "nothing is left to process"
    note(f"dry run: {', '.join(parts)}; {estimate}", quiet=quiet)
    return num_failed > 0


def _line(item: PlannedInput) -> str:
    if item.error is not None:
        return f"error: {printable(item.error)}"
    length = "unknown length" if item.duration_s is None else clock(item.duration_s)
    return f"{printable(item.path)}  {length}"


def _seconds(duration_s: float | None) -> str:
    return "" if duration_s is None else f"{duration_s:.2f}"


def _estimate(audio_s: float, model: str, speed: Speed | None) -> str:
    if speed is None:
        return f"no run with {model} on this machine is known, so its time is not estimated"
    wait = waiting_time(max(1.0, audio_s / speed.times_real_time))
    return f"about {wait} at {speed.times_real_time:.3g} x real time, as the last run with {model} ({speed.how})"
