"""``ast models``: the models that are known by name."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from ast_cli.cli.streams import results_stream, writing_stdout
from ast_cli.cli.terminal import terminal_width
from ast_cli.errors import UsageError

ListFormat = Literal["table", "json", "csv"]


def models(
    *,
    format_name: Annotated[
        ListFormat | None, typer.Option("--format", "-f", help="Format of the list. [default: table]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """List the models known by name: what they tag, how well, at what cost, and under which license.

    Quality is what the authors report. GMAC are the multiply-adds for a minute of audio, in units of 1e9. Nothing is
    loaded, and the network is not used.

    Examples: `ast models`, `ast models --json`
    """
    if as_json and format_name not in (None, "json"):
        raise UsageError(f"--json and --format {format_name} contradict each other")
    write_models("json" if as_json else format_name or "table")


def write_models(format_name: ListFormat) -> None:
    """Write the list of models to standard output."""
    from ast_cli.cli.model_table import csv_text, json_text, table_text
    from ast_cli.model_list import list_models

    listed = list_models()
    if format_name == "table":
        text = table_text(listed, terminal_width(sys.stdout))
    else:
        text = {"json": json_text, "csv": csv_text}[format_name](listed)
    with results_stream() as stream, writing_stdout():
        stream.write(text)
        stream.flush()
