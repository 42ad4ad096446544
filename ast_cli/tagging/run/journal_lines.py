"""The lines of a journal: which inputs are done, and where the text of each ends in the output. Standard library only.

A journal is a file of JSON Lines: a header with the settings, one line for each input whose text is whole in the
output, and a last line if the run is finished.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ast_cli.about import flag_of
from ast_cli.errors import AstError, UsageError
from ast_cli.files.json_object import shown
from ast_cli.files.lock import lock_file
from ast_cli.results import TaggingResult, exact_path, path_fields
from ast_cli.tagging.inputs import STDIN
from ast_cli.tagging.options import ClassifyOptions
from ast_cli.tagging.run.shards import Shard, format_shard

JOURNAL_VERSION = 1
BLOCK_BYTES = 1 << 16
FINISHED_LINE = b'{"finished": true}\n'  # the last line of a finished run
OK = "ok"
FLAGS = {  # flags of the settings in a fingerprint that are not fields of `ClassifyOptions`
    "model": "--model",
    "labels": "--model",
    "schema_version": "the version of the output's format",
    "dtype": "--dtype",
    "fbank": "--fbank",
    "model_thresholds": "the model's thresholds.json",
    "shard": "--shard",
}
# Settings whose values are digests or long lists.
OPAQUE = frozenset({"model", "labels", "options.thresholds", "model_thresholds"})
# The values of settings in journals of versions that had no such flag.
ADDED_SETTINGS = {"options.channels": "mix", "options.by_genre": False}


@dataclass(frozen=True, slots=True)
class Key:
    """The file that a result belongs to, and its state.

    Attributes:
        path: Real path of the file; ``-`` for standard input.
        size: Size in bytes; None if the file cannot be accessed.
        mtime_ns: Time of the last change in nanoseconds; None if the file cannot be accessed.
    """

    path: str
    size: int | None
    mtime_ns: int | None

    @classmethod
    def of(cls, path: str) -> Key:
        """Return the key of a real path with the present state of its file."""
        if path == STDIN:
            return cls(path, None, None)
        try:
            status = os.stat(path)
        except (OSError, ValueError):  # ValueError: a NUL in the name
            return cls(path, None, None)
        return cls(path, status.st_size, status.st_mtime_ns)

    def has_changed_since(self, earlier: Key) -> bool:
        """Return whether the file can be accessed now and is another than it was; a missing file has not changed."""
        return self != earlier and self.size is not None

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Key:
        """Return the key of a JSON form."""
        return cls(exact_path(fields) or "", fields["size"], fields["mtime_ns"])

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**path_fields(self.path), "size": self.size, "mtime_ns": self.mtime_ns}


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a journal.

    Attributes:
        format_name: Format of the output.
        fingerprint: All settings that change results: model, options.
        shard: Shard of the inputs; None for all inputs.
        generation: Number of times that output and journal were replaced.
        offset_end: Number of bytes of the output before the first result, such as the names of columns.
        crc32: Checksum of those bytes.
    """

    format_name: str
    fingerprint: dict[str, Any]
    shard: Shard | None
    generation: int
    offset_end: int = 0
    crc32: int = 0

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Header:
        """Return the header of a JSON form."""
        if fields["version"] != JOURNAL_VERSION:
            raise ValueError(f"version {fields['version']}")
        shard = None if fields["shard"] is None else (int(fields["shard"][0]), int(fields["shard"][1]))
        generation, offset_end, crc32 = int(fields["generation"]), int(fields["offset_end"]), int(fields["crc32"])
        return cls(fields["format"], dict(fields["fingerprint"]), shard, generation, offset_end, crc32)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "version": JOURNAL_VERSION,
            "format": self.format_name,
            "fingerprint": self.fingerprint,
            "shard": self.shard,
            "generation": self.generation,
            "offset_end": self.offset_end,
            "crc32": self.crc32,
        }

    def differences(self, other: Header) -> list[Difference]:
        """Return the settings that differ in another header, by flag."""
        mine, others = (
            {**ADDED_SETTINGS, **_flat(header.fingerprint), "shard": format_shard(header.shard)}
            for header in (self, other)
        )
        found: dict[str, Difference] = {}
        for name in sorted(mine | others):
            old, new = _given(mine.get(name)), _given(others.get(name))
            if old != new:
                flag = _flag(name)
                values = None if name in OPAQUE or flag == "--front-end" else (_shown(old), _shown(new))
                found.setdefault(flag, Difference(flag, values))
        return list(found.values())


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting that differs between two runs.

    Attributes:
        flag: Flag of the setting.
        values: Values in the first and in the second run; None if they mean nothing to a reader.
    """

    flag: str
    values: tuple[str, str] | None

    def over_time(self) -> str:
        """Return what changed from an earlier run to the present one."""
        if self.values is None or self.values[0] == self.values[1]:  # long values are cut when shown
            return f"{self.flag} was another"
        return f"{self.flag} was {self.values[0]} and is now {self.values[1]}"

    def side_by_side(self) -> str:
        """Return how the second run differs from the first."""
        if self.values is None or self.values[0] == self.values[1]:
            return f"{self.flag} is another"
        return f"{self.flag} is {self.values[1]} instead of {self.values[0]}"


def check_same_settings(output: Path, old: Header, new: Header) -> None:
    """Check that a run has the settings of the run that began its output.

    Raises:
        UsageError: If settings differ; the message names them.
    """
    if differences := old.differences(new):
        # Which arrays are extracted decides whether there are a model and a data type at all.
        differences = [each for each in differences if each.flag == "--what"] or differences
        changed = "; ".join(difference.over_time() for difference in differences)
        raise UsageError(
            f"{output} was begun with other settings: {changed}; --resume needs the same settings"
            f"{_remedy_for_fbank(old, new)}, --force starts over"
        )


def _remedy_for_fbank(begun: Header, wanted: Header) -> str:
    """Return the option that brings back the filter bank of an output; the engine decides it by default.

    Version 0.1 ran torch by default, later versions a runtime on a CPU.
    """
    engines = {"native": "torch", "numpy": "onnxruntime"}
    old, new = (header.fingerprint.get("fbank") for header in (begun, wanted))
    return f" (here --engine {engines[old]})" if old != new and old in engines and new in engines else ""


def _flag(name: str) -> str:
    """Return the flag of a setting in a fingerprint."""
    section, _, field = name.rpartition(".")
    if section.startswith("front_end"):
        return "--front-end"
    return FLAGS.get(name) or flag_of(ClassifyOptions, field)


def _given(value: object) -> object:
    """Return the value of a setting; None if its flag was not given, since earlier versions may not have it."""
    return None if value is False or value == [] else value


def _shown(value: object) -> str:
    if value is None:
        return "not given"
    if value is True:
        return "given"
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return shown(value)[1:-1] if isinstance(value, str) else shown(value)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one mapping, with dots in the names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


@dataclass(frozen=True, slots=True)
class Entry:
    """The line of an input that is done.

    Attributes:
        key: Key of the file that was read.
        outcome: ``ok`` or the code of the error.
        offset_end: Number of bytes of the output up to the end of this input's text.
        crc32: Checksum of this input's text, which is empty if the input is not reported.
        record: The whole result; None for JSON Lines, since the output contains it, and for an empty text.
        line_end: Number of bytes of the journal up to the end of this line.
    """

    key: Key
    outcome: str
    offset_end: int
    crc32: int
    record: dict[str, Any] | None
    line_end: int


class TornTailError(AstError):
    """An output that ends before the last text in its journal."""


class Sidecars:
    """The paths of an output and of the files beside it."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.journal = output.with_name(f"{output.name}.ast-journal")
        self.new_journal = output.with_name(f"{output.name}.ast-journal.new")
        self.lock = lock_file(output)

    def new_output(self, generation: int) -> Path:
        """Return the path of a new output before it replaces the old one."""
        return self.output.with_name(f"{self.output.name}.ast-output.{generation}")


def records_file(output: Path) -> Path:
    """Return the file that keeps the results of a Parquet file, as JSON Lines."""
    return output.with_name(f"{output.name}.ast-records")


def json_line(fields: Mapping[str, Any]) -> bytes:
    """Return one line of strict JSON in ASCII, which preserves names that are not UTF-8."""
    return json.dumps(fields, allow_nan=False).encode("ascii") + b"\n"


def read_journal(file: Path) -> tuple[Header, Iterator[Entry]]:
    """Return the header and the entries of a journal, without a torn last line.

    Raises:
        AstError: If the journal cannot be read, or another line is damaged; iterating the entries raises it too.
    """
    lines = _whole_lines(file)
    first = next(lines, None)
    if first is None:
        raise _damaged(file, 1)
    try:
        header = Header.from_dict(first[2])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise _damaged(file, 1) from error
    return header, _entries(file, lines)


def _entries(file: Path, lines: Iterator[tuple[int, int, dict[str, Any]]]) -> Iterator[Entry]:
    for line, line_end, fields in lines:
        if "finished" in fields:
            continue
        try:
            key, offset_end, crc32 = Key.from_dict(fields["key"]), int(fields["offset_end"]), int(fields["crc32"])
            yield Entry(key, fields["outcome"], offset_end, crc32, fields.get("record"), line_end)
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(file, line) from error


def _whole_lines(file: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield number, end in bytes and content of each complete line."""
    end = 0
    try:
        with open(file, "rb") as stream:
            for number, line in enumerate(stream, start=1):
                end += len(line)
                if not line.endswith(b"\n"):  # torn, or the NULs of a power cut
                    return
                try:
                    fields = json.loads(line.decode("ascii"))  # of bytes, json would guess the encoding
                except (ValueError, RecursionError) as error:
                    raise _damaged(file, number) from error
                if not isinstance(fields, dict):
                    raise _damaged(file, number)
                yield number, end, fields
    except OSError as error:
        raise AstError(f"{file}: cannot be read ({error.strerror})") from error


def _damaged(file: Path, line: int) -> AstError:
    return AstError(f"{file}: line {line} is damaged; --force starts over")


def is_finished(journal: Path) -> bool:
    """Return whether the run of a journal is finished."""
    try:
        with open(journal, "rb") as stream:
            stream.seek(-min(len(FINISHED_LINE), stream.seek(0, os.SEEK_END)), os.SEEK_END)
            return stream.read() == FINISHED_LINE
    except OSError as error:
        raise AstError(f"{journal}: cannot be read ({error.strerror})") from error


def verified(output: Path, header: Header, entries: Iterable[Entry]) -> Iterator[tuple[Entry, bytes, int]]:
    """Yield entries with their text in the output and the number of its first line.

    Raises:
        TornTailError: If the output, without NULs at its end, ends before the text of an entry.
        AstError: If the text of an entry has changed; the message names the line.
    """
    try:
        with open(output, "rb") as stream:
            num_bytes = _written_bytes(stream)
            line = 1 + _checked_text(output, stream, 1, num_bytes, header.offset_end, header.crc32).count(b"\n")
            for entry in entries:
                text = _checked_text(output, stream, line, num_bytes, entry.offset_end, entry.crc32)
                yield entry, text, line
                line += text.count(b"\n")
    except OSError as error:
        raise AstError(f"{output}: cannot be read ({error.strerror})") from error


def result_again(entry: Entry, text: bytes) -> TaggingResult:
    """Return the result of an entry: its record, or in JSON Lines the last lines of its text."""
    try:
        if entry.record:
            return TaggingResult.from_dict(entry.record)
        records = [json.loads(line) for line in text.splitlines()]
        results = [TaggingResult.from_dict(record) for record in records if record["type"] == "file"]
        return results[0] if len(results) == 1 else TaggingResult.from_channels(results)
    except (LookupError, TypeError, ValueError) as error:
        raise AstError(f"the journal's record of {entry.key.path} is damaged; --force starts over") from error


def _checked_text(
    output: Path, stream: io.BufferedReader, line: int, num_bytes: int, offset_end: int, crc32: int
) -> bytes:
    """Return the bytes of the output from the position of the stream to an offset, after checking them."""
    if offset_end > num_bytes:
        raise TornTailError(f"{output}: torn at line {line}: the run was interrupted; continue it with --resume")
    start = stream.tell()
    text = stream.read(offset_end - start) if offset_end >= start else b""
    if start + len(text) != offset_end or zlib.crc32(text) != crc32:
        separator = text[: len(text) - len(text.lstrip(b"[,\n"))]  # in a JSON list, before the record
        line += separator.count(b"\n")
        raise AstError(f"{output}: line {line} is damaged or was changed by hand; --force starts over")
    return text


def _written_bytes(stream: io.BufferedReader) -> int:
    """Return the length of a file without the NULs that a power cut may leave at its end; rewind the stream."""
    end = stream.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - BLOCK_BYTES)
        stream.seek(start)
        kept = stream.read(end - start).rstrip(b"\0")
        end = start + len(kept)
        if kept:
            break
    stream.seek(0)
    return end
