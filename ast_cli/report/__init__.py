"""Results in files: one module for each format, and a dictionary of writers that are imported on first use."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TextIO

from ast_cli.errors import UsageError
from ast_cli.report.text import either
from ast_cli.results import TaggingResult


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
    "wide": "wide.WideWriter",
    "parquet": "parquet.ParquetWriter",
}
FORMATS = tuple(_WRITERS)
# The end of the name of an output file; of several that fit, the longest counts.
SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".wide.csv": "wide",
    ".tsv": "tsv",
    ".dcase.tsv": "dcase",
    ".srt": "srt",
    ".vtt": "vtt",
    ".rttm": "rttm",
    ".parquet": "parquet",
    ".labels.txt": "audacity",
    ".selections.txt": "raven",
    ".txt": "table",
}
ONE_RECORDING = ("audacity", "srt", "vtt")  # formats without a place for the name of a recording
NUMBERED = ("raven", *ONE_RECORDING)  # formats in which the text of a result depends on the results before it
WIDE = "wide"  # the format with a column for each label, for which a run reports all labels
BINARY = ("parquet",)  # formats that are no text, and complete only at the end
_TAKES = {  # keyword arguments of writers
    "csv": ("has_channels",),
    "tsv": ("has_channels",),
    "wide": ("has_channels", "labels"),
}


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
    named = named_format(output, formats)
    if named is None:
        raise UsageError(
            f"--output {output}: {output.suffix} is not a supported format; name a file that ends in "
            f"{suffixes_of(formats)} (table), or choose with --format"
        )
    return named


def named_format(file: Path, formats: Collection[str] = FORMATS) -> str | None:
    """Return the format that the suffix of a file belongs to, of those to choose from; None if it is no such suffix."""
    name = file.name.lower()
    fitting = [suffix for suffix, format_name in SUFFIXES.items() if format_name in formats and name.endswith(suffix)]
    return SUFFIXES[max(fitting, key=len)] if fitting else None


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
        check_format(name)
    return tuple(name for name in FORMATS if name in chosen)


def check_format(name: str) -> None:
    """Check that there is a format.

    Raises:
        UsageError: If it is none of `FORMATS`.
    """
    if name not in FORMATS:
        raise UsageError(f"--format must be one of {', '.join(FORMATS)}, not {name!r}")


def open_writer(
    format_name: str, stream: TextIO, *, has_channels: bool = False, labels: Sequence[str] | None = None
) -> Writer:
    """Return a writer for one of `FORMATS` that writes to a text stream.

    Args:
        format_name: Name of the format.
        stream: Text stream to write to. Formats of `BINARY` write to the binary stream below it, its ``buffer``.
        has_channels: Whether results are of single channels: CSV, TSV and wide then have a column for their numbers.
        labels: Labels of the columns of wide; None for those of the results, which are then kept until the end.

    Raises:
        UsageError: If the format is binary and the stream takes text alone, or a library is missing.
    """
    module, name = _WRITERS[format_name].split(".")
    kind: Callable[..., Writer] = getattr(import_module(f"ast_cli.report.{module}"), name)
    given = {"has_channels": has_channels, "labels": labels}
    return kind(stream, **{keyword: given[keyword] for keyword in _TAKES.get(format_name, ())})


def rendered(
    result: TaggingResult, format_name: str, *, has_channels: bool = False, labels: Sequence[str] | None = None
) -> bytes:
    """Return the content of a file that contains one result; the arguments are those of `open_writer`."""
    content = io.BytesIO()
    stream = io.TextIOWrapper(content, encoding="utf-8", errors="replace", newline="")
    writer = open_writer(format_name, stream, has_channels=has_channels, labels=labels)
    writer.write(result)
    writer.close()
    stream.flush()
    return content.getvalue()
