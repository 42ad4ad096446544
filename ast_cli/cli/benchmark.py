"""``ast benchmark``: measure the speed of a model on this machine."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ast_cli.cli import parameters as p
from ast_cli.cli.completion import complete_models
from ast_cli.cli.streams import note
from ast_cli.engine.options import EngineName
from ast_cli.errors import UsageError

if TYPE_CHECKING:
    from ast_cli.benchmark.report import BenchmarkReport, Measurement

LINE_WIDTH = 80  # characters
LEGEND = """\
ms: median time of a batch. Spread: interquartile range.
RTF: real-time factor, processing time / audio time.
TFLOP/s: operations of matrix products; --json contains the formula."""


def benchmark(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="base, small or tiny (random weights, no download), builtin, a folder (also of an exported model), "
            "an alias or a hub id.",
            autocompletion=complete_models,
        ),
    ] = "base",
    engine: Annotated[
        EngineName | None,
        typer.Option(
            "--engine",
            help="Engine to time; auto as in classify. [default: torch, or an exported model's own]",
            show_default=False,
        ),
    ] = None,
    attn: Annotated[
        str | None,
        typer.Option(
            "--attn",
            help="Attention implementations to compare (engines torch and compile): sdpa, eager or both. "
            "[default: sdpa,eager]",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        str, typer.Option("--dtype", help="Data types to compare: fp32, fp16, bf16. auto: fp16 on CUDA, else fp32.")
    ] = "auto",
    batch_size: Annotated[
        str | None,
        typer.Option("--batch-size", help="Batch sizes to compare, in windows. [default: 1,2,4,8; on a CPU 1,2]"),
    ] = None,
    device: p.Device = "auto",
    compare: Annotated[
        str | None, typer.Option("--compare", help="transformers: also measure the reference implementation.")
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option("--repeats", help="Timed passes per measurement. [default: as many as fit into 3 s, at least 3]"),
    ] = None,
    warmup: Annotated[
        int | None, typer.Option("--warmup", help="Untimed passes before the timed ones. [default: 1 on a CPU, else 5]")
    ] = None,
    threads: p.Threads = None,
    front_end: p.FrontEnd = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure the speed of an engine by attention, data type and batch size, and of decoding, fbank and model.

    Lists are separated by commas. Implementations that are compared take turns; the reported times are medians.
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
    """Return the parts of a comma-separated list."""
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def _whole_number(text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"--batch-size must be whole numbers separated by commas, not {text!r}")
    return int(text)


def _report_progress(what: str) -> None:
    """Print the next step if stderr is a terminal; there is no moving display, as it would disturb the measurement."""
    note(f"{what} ...", quiet=not sys.stderr.isatty())


def render(report: BenchmarkReport) -> None:
    """Print a report on stdout, with tables in Markdown, which reads well on a terminal and in a file."""
    parts = [
        "\n".join(_heading(report)),
        *_measurement_tables(report),
        *_speed_up_tables(report),
        _stages_table(report),
        LEGEND,
    ]
    typer.echo("\n\n".join(parts))


def _heading(report: BenchmarkReport) -> Iterator[str]:
    """Yield the lines that describe model and machine, wrapped between words."""
    machine, model = report.machine, report.model
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    size = "" if model.num_parameters is None else f"{model.num_parameters / 1e6:.1f} M parameters, "
    lines = [
        f"{model.name}: {model.weights} weights, {size}"
        f"{model.num_tokens} tokens, windows of {model.window_s:g} s with {model.flop_per_window / 1e9:.3g} GFLOP",
        f"{report.measurements[0].engine} engine on {machine.device}: {machine.device_name}, "
        f"{machine.num_threads} CPU thread(s)",
        f"{machine.platform}; {versions}",
    ]
    if report.max_abs_difference is not None:
        lines.append(f"logits equal those of transformers within {report.max_abs_difference:.1e} in float32")
    for line in lines:
        yield from textwrap.wrap(
            line, LINE_WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )


def _measurement_tables(report: BenchmarkReport) -> Iterator[str]:
    """Yield the name of each data type and the table of its measurements."""
    headers = ("Batch", "Engine", "ms", "Spread", "Windows/s", "RTF", "TFLOP/s")
    rows: dict[str, list[tuple[str, ...]]] = {}
    for measurement in report.measurements:
        rows.setdefault(measurement.dtype, []).append(_measurement_row(measurement))
    for dtype, dtype_rows in rows.items():
        yield f"{dtype}:"
        yield _table(headers, dtype_rows)


def _measurement_row(measurement: Measurement) -> tuple[str, ...]:
    return (
        str(measurement.batch_size),
        _with_engine(measurement.peer),
        _plain(measurement.median_ms),
        _plain(measurement.spread_ms),
        f"{measurement.windows_per_s:.3g}",
        _short(measurement.real_time_factor),
        _short(measurement.tflop_per_s),
    )


def _with_engine(peer: str) -> str:
    """Return the name of a peer with its engine, which reports leave out for torch: ``torch sdpa`` for ``sdpa``."""
    from ast_cli.model.attention import ATTN_IMPLEMENTATIONS

    return f"torch {peer}" if peer in ATTN_IMPLEMENTATIONS else peer


def _speed_up_tables(report: BenchmarkReport) -> list[str]:
    """Return one table for each pair of peers, in the layout of the documentation of transformers."""
    pairs: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for cell in report.speed_ups:
        row = (
            cell.dtype,
            str(cell.batch_size),
            _plain(cell.baseline_ms),
            _plain(cell.peer_ms),
            f"{cell.speed_up:.2f}",
        )
        pairs.setdefault((_with_engine(cell.baseline), _with_engine(cell.peer)), []).append(row)
    return [
        _table(("dtype", "Batch", f"{baseline}, ms", f"{peer}, ms", "Speed-up"), rows)
        for (baseline, peer), rows in pairs.items()
    ]


def _stages_table(report: BenchmarkReport) -> str:
    headers = ("Stage", "Device", "Batch", "ms per 10 s of audio", "Spread", "x real time")
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
    """Return a Markdown table whose columns are also aligned as plain text."""
    columns = [_column(header, cells) for header, *cells in zip(headers, *rows, strict=True)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in zip(*columns, strict=True))


def _column(header: str, cells: Sequence[str]) -> list[str]:
    """Return the padded cells of a column, with Markdown's rule after the header; numbers are aligned to the right."""
    width = max(map(len, (header, *cells)))
    if cells[0][0].isalpha():
        return [header.ljust(width), "-" * width, *(cell.ljust(width) for cell in cells)]
    return [header.rjust(width), "-" * (width - 1) + ":", *(cell.rjust(width) for cell in cells)]


def _plain(value: float) -> str:
    """Return a time or a ratio with at most two decimals, fewer for large numbers."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _short(value: float) -> str:
    """Return a number of three digits, or in scientific notation if it is small: at most 7 characters."""
    return f"{value:.3g}" if value >= 0.01 else f"{value:.1e}"
