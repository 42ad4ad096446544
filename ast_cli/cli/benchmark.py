"""``ast benchmark``: how fast the model runs here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ast_cli.cli import parameters as p
from ast_cli.cli.streams import note
from ast_cli.errors import UsageError

if TYPE_CHECKING:
    from ast_cli.benchmark.report import BenchmarkReport


def benchmark(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="base, small or tiny (random weights, no download), builtin, a folder (an exported one too), "
            "an alias or a hub id.",
        ),
    ] = "base",
    engine: p.Engine = None,
    attn: Annotated[
        str | None,
        typer.Option(
            "--attn",
            help="Attentions to compare, of torch and compile: sdpa, eager or both. [default: sdpa,eager]",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        str, typer.Option("--dtype", help="Data types: fp32, fp16, bf16; auto is fp16 on CUDA, else fp32.")
    ] = "auto",
    batch_size: Annotated[
        str | None, typer.Option("--batch-size", help="Windows at once. [default: 1,2,4,8; on a CPU 1,2]")
    ] = None,
    device: p.Device = "auto",
    compare: Annotated[
        str | None, typer.Option("--compare", help="transformers: the reference implementation, in the same run.")
    ] = None,
    repeats: Annotated[
        int | None, typer.Option("--repeats", help="Timed passes a cell. [default: what fits 3 s, at least 3]")
    ] = None,
    warmup: Annotated[
        int | None, typer.Option("--warmup", help="Passes before those. [default: 1 on a CPU, else 5]")
    ] = None,
    threads: p.Threads = None,
    front_end: p.FrontEnd = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Time an engine: attention, data types and batch sizes against each other, and decode, fbank and model apart.

    Lists are separated by commas. Peers take turns; medians are reported, the spread is the interquartile range.
    """
    from ast_cli.benchmark.options import BenchmarkOptions
    from ast_cli.benchmark.run import run_benchmark

    options = BenchmarkOptions(
        model,
        engine,
        None if attn is None else _names(attn),
        _names(dtype),
        None if batch_size is None else tuple(_whole_number(name) for name in _names(batch_size)),
        device,
        compare,
        repeats,
        warmup,
        threads,
        front_end,
    )
    report = run_benchmark(options, _report_progress)
    if as_json:
        import json

        typer.echo(json.dumps(report.to_dict(), indent=2, allow_nan=False))
    else:
        render(report)


def _names(text: str) -> tuple[str, ...]:
    """Split a list at its commas."""
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def _whole_number(text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"batch size must be whole numbers separated by commas, not {text!r}")
    return int(text)


def _report_progress(what: str) -> None:
    """Say what comes next, on a terminal alone; nothing moves there, which would take time from what is timed."""
    note(f"{what} ...", quiet=not sys.stderr.isatty())


def render(report: BenchmarkReport) -> None:
    """Print a report on stdout, its tables as Markdown, which reads well on a terminal and in a file."""
    from ast_cli.benchmark.peers import FLOP_FORMULA

    parts = ["\n".join(_heading(report)), _measurements_table(report), *_speed_up_tables(report), _stages_table(report)]
    parts.append(f"FLOP of a window: {FLOP_FORMULA}")
    typer.echo("\n\n".join(parts))


def _heading(report: BenchmarkReport) -> list[str]:
    machine, model = report.machine, report.model
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    size = "" if model.num_parameters is None else f"{model.num_parameters / 1e6:.1f} M parameters, "
    lines = [
        f"{model.name}: {model.weights} weights, {size}"
        f"{model.num_tokens} tokens, windows of {model.window_s:g} s, {model.flop_per_window / 1e9:.3g} GFLOP each",
        f"{report.measurements[0].engine} engine on {machine.device}: {machine.device_name}, "
        f"{machine.num_threads} CPU thread(s)",
        f"{machine.platform}; {versions}",
    ]
    if report.max_abs_difference is not None:
        lines.append(f"logits equal those of transformers within {report.max_abs_difference:.1e} in float32")
    return lines


def _measurements_table(report: BenchmarkReport) -> str:
    headers = ("dtype", "Batch size", "Model", "ms", "Spread, ms", "Windows/s", "Real-time factor", "TFLOP/s")
    rows = [
        (
            measurement.dtype,
            str(measurement.batch_size),
            measurement.peer,
            _plain(measurement.median_ms),
            _plain(measurement.spread_ms),
            f"{measurement.windows_per_s:.3g}",
            f"{measurement.real_time_factor:.3g}",
            f"{measurement.tflop_per_s:.3g}",
        )
        for measurement in report.measurements
    ]
    return _table(headers, rows)


def _speed_up_tables(report: BenchmarkReport) -> list[str]:
    """Write one table, laid out as the reference's, for each pair of peers."""
    pairs: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for cell in report.speed_ups:
        row = (
            cell.dtype,
            str(cell.batch_size),
            _plain(cell.baseline_ms),
            _plain(cell.peer_ms),
            f"{cell.speed_up:.2f}",
        )
        pairs.setdefault((cell.baseline, cell.peer), []).append(row)
    return [
        _table(("dtype", "Batch size", f"{baseline}, ms", f"{peer}, ms", "Speed-up"), rows)
        for (baseline, peer), rows in pairs.items()
    ]


def _stages_table(report: BenchmarkReport) -> str:
    headers = ("Stage", "Device", "Batch size", "ms per 10 s of audio", "Spread, ms", "x real time")
    rows = [
        (
            stage.stage,
            stage.device,
            str(stage.batch_size),
            _plain(stage.ms_per_10_s),
            _plain(stage.spread_ms_per_10_s),
            _plain(stage.times_real_time),
        )
        for stage in report.stages
    ]
    return _table(headers, rows)


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a Markdown table whose columns also align as plain text."""
    columns = [_column(header, cells) for header, *cells in zip(headers, *rows, strict=True)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in zip(*columns, strict=True))


def _column(header: str, cells: Sequence[str]) -> list[str]:
    """Pad a column to one width, words to the left and numbers to the right, with Markdown's rule after the header."""
    width = max(map(len, (header, *cells)))
    if cells[0][0].isalpha():
        return [header.ljust(width), "-" * width, *(cell.ljust(width) for cell in cells)]
    return [header.rjust(width), "-" * (width - 1) + ":", *(cell.rjust(width) for cell in cells)]


def _plain(value: float) -> str:
    """Write a number with as many decimals as mean something."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
