"""Results as text: one module for each format, and a dictionary of writers that are imported on first use."""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TextIO

from ast_cli.errors import UsageError
from ast_cli.report.text import either


class Writer(Protocol):
    """Writes results in one format, one by one."""

    def write(self, result: Any) -> None:
        """Write one `TaggingResult` and flush it, a record per channel where it holds several.

        The JSON Lines writer also takes a `StreamedPart`.

        Raises:
            UsageError: If the format is one of `ONE_RECORDING`, and the result is of a second recording.
        """

    def close(self) -> None:
        """Write the end of the document, if the format has one; the stream stays open."""


_WRITERS = {
    "table": "table.TableWriter",
    "json": "json_lines.JSONWriter",
    "jsonl": "json_lines.JSONLinesWriter",
    "csv": "comma_separated.CSVWriter",
    "tsv": "comma_separated.TSVWriter",
    "audacity": "audacity.AudacityWriter",
    "raven": "raven.RavenWriter",
    "srt": "subtitles.SRTWriter",
    "vtt": "subtitles.VTTWriter",
    "rttm": "rttm.RTTMWriter",
    "dcase": "dcase.DCASEWriter",
}
FORMATS = tuple(_WRITERS)
# The end of the name of an output file; of several that fit, the longest counts.
SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".dcase.tsv": "dcase",
    ".srt": "srt",
    ".vtt": "vtt",
    ".rttm": "rttm",
    ".labels.txt": "audacity",
    ".selections.txt": "raven",
    ".txt": "table",
}
ONE_RECORDING = ("audacity", "srt", "vtt")  # formats without a place for the name of a recording
NUMBERED = ("raven", *ONE_RECORDING)  # formats in which the text of a result depends on the results before it
_WITH_CHANNEL_COLUMN = ("csv", "tsv")


def suffixes_of(formats: Collection[str]) -> str:
    """List the file suffixes of some formats: ``.json, .csv or .txt``."""
    return either(suffix for suffix, name in SUFFIXES.items() if name in formats)


def format_for(output: Path | None, formats: Collection[str]) -> str:
    """Return the format that belongs to the suffix of an output file; ``table`` without a file or a suffix.

    Args:
        output: File to write; None for standard output.
        formats: Formats to choose from.

    Raises:
        UsageError: If the suffix belongs to none of the formats: the file would not be what its name says.
    """
    if output is None or not output.suffix:
        return "table"
    name = output.name.lower()
    fitting = [suffix for suffix, format_name in SUFFIXES.items() if format_name in formats and name.endswith(suffix)]
    if not fitting:
        raise UsageError(
            f"--output {output}: {output.suffix} is not a supported format; name a file that ends in "
            f"{suffixes_of(formats)} (table), or choose with --format"
        )
    return SUFFIXES[max(fitting, key=len)]


def suffix_of(format_name: str) -> str:
    """Return the end of the names of files in a format: ``.labels.txt`` for ``audacity``."""
    return next(suffix for suffix, name in SUFFIXES.items() if name == format_name)


def parsed_formats(names: str) -> tuple[str, ...]:
    """Return the formats of a list that is separated by commas, each once, in the order of `FORMATS`.

    Raises:
        UsageError: If a name is none of `FORMATS`.
    """
    chosen = [name.strip().lower() for name in names.split(",")]
    for name in chosen:
        if name not in FORMATS:
            raise UsageError(f"--format must be one of {', '.join(FORMATS)}, not {name!r}")
    return tuple(name for name in FORMATS if name in chosen)


def open_writer(format_name: str, stream: TextIO, *, has_channels: bool = False) -> Writer:
    """Return a writer for one of `FORMATS` that writes to a text stream.

    Args:
        format_name: Name of the format.
        stream: Text stream to write to.
        has_channels: Whether results are of single channels: CSV and TSV then have a column for their numbers.
    """
    module, name = _WRITERS[format_name].split(".")
    kind: Callable[..., Writer] = getattr(import_module(f"ast_cli.report.{module}"), name)
    return kind(stream, has_channels=True) if has_channels and format_name in _WITH_CHANNEL_COLUMN else kind(stream)
