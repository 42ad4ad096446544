"""Results as text: one file a format, one dictionary of writers, each imported when it is used."""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TextIO

from ast_cli.errors import UsageError
from ast_cli.report.text import either


class Writer(Protocol):
    """Takes results one by one."""

    def write(self, result: Any) -> None:
        """Write one `TaggingResult` at once; JSON Lines take a `StreamedPart` too."""

    def close(self) -> None:
        """Write what the format needs at its end; the stream stays open."""


_WRITERS = {
    "table": "table.TableWriter",
    "json": "json_lines.JSONWriter",
    "jsonl": "json_lines.JSONLinesWriter",
    "csv": "comma_separated.CSVWriter",
}
FORMATS = tuple(_WRITERS)
SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".txt": "table"}  # of files


def suffixes_of(formats: Collection[str]) -> str:
    """Name the suffixes of files that hold one of some formats: ``.json, .csv or .txt``."""
    return either(suffix for suffix, name in SUFFIXES.items() if name in formats)


def format_for(output: Path | None, formats: Collection[str]) -> str:
    """Return which of some formats the suffix of a file of results asks for; a table where there is none.

    Raises:
        UsageError: The suffix is of none of them: the file would not be what its name says.
    """
    if output is None or not output.suffix:
        return "table"
    format_name = SUFFIXES.get(output.suffix.lower())
    if format_name is None or format_name not in formats:
        raise UsageError(
            f"--output {output}: {output.suffix} is not written; name a file that ends in {suffixes_of(formats)} "
            "(table), or choose with --format"
        )
    return format_name


def open_writer(format_name: str, stream: TextIO) -> Writer:
    """Return a writer of one of `FORMATS` onto a text stream."""
    module, name = _WRITERS[format_name].split(".")
    kind: Callable[[TextIO], Writer] = getattr(import_module(f"ast_cli.report.{module}"), name)
    return kind(stream)
