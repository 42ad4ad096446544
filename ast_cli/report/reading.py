"""Results from files that ``ast classify`` wrote: JSON Lines or JSON. Standard library only."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from ast_cli.errors import AstError, UsageError
from ast_cli.report.text import printable
from ast_cli.results import SCHEMA_VERSION, TaggingResult

STDIN = "-"
PARTS = {"window": "windows", "event": "events"}  # types of streamed records, and their keys in a record of a file
PLACE = frozenset(
    {"schema_version", "type", "path", "path_b64", "channel"}
)  # keys of a streamed record around its part
REMEDY = "name an output of ast classify with --format jsonl or json"


def read_results(file: str | Path, *, name: str = "") -> Iterator[TaggingResult]:
    """Yield the records of a file of results, one for each recording, or for each channel.

    JSON Lines are read line by line, whatever the length of the file; a JSON document is read whole. Windows and events
    that ``--stream`` wrote before the record of their recording become part of it.

    Args:
        file: File that ``ast classify`` wrote as JSON Lines or JSON; ``-`` for standard input.
        name: Name of the file in messages, if it is not its path.

    Raises:
        UsageError: If there is no such file.
        AstError: If it cannot be read, or something in it is no record; the message names the line.
    """
    name = name or ("standard input" if str(file) == STDIN else printable(str(file)))
    with _opened(file, name) as stream:
        yield from _records(stream, name)


@contextlib.contextmanager
def _opened(file: str | Path, name: str) -> Iterator[TextIO]:
    if str(file) == STDIN:
        yield sys.stdin
        return
    try:
        with open(file, encoding="utf-8-sig") as stream:
            yield stream
    except FileNotFoundError:
        raise UsageError(f"{name}: no such file; {REMEDY}") from None
    except OSError as error:
        raise AstError(f"{name}: cannot be read: {error.strerror}") from None


def _records(stream: TextIO, name: str) -> Iterator[TaggingResult]:
    """Yield the records of a stream; a document that starts with ``[`` is JSON."""
    number, is_empty = 0, True
    streamed = _StreamedParts()
    try:
        for number, line in enumerate(stream, start=1):
            if is_empty and line.lstrip().startswith("["):
                for record in _parsed(line + stream.read(), name, number):
                    yield _result(record, name, number)
                return
            if not line.isspace():
                is_empty = False
                record = _parsed(line, name, number)
                if isinstance(record, dict) and record.get("type") in PARTS:
                    streamed.add(record)
                else:
                    yield _result(streamed.joined_to(record), name, number)
    except UnicodeDecodeError:
        raise AstError(f"{name}: after line {number}: not UTF-8 text; {REMEDY}") from None


class _StreamedParts:
    """The windows and events, as JSON, that precede the record of their recording, or those of its channels."""

    def __init__(self) -> None:
        self._path: object = None
        self._parts: dict[tuple[object, str], list[Any]] = {}  # by channel and key of the record

    def add(self, record: dict[str, Any]) -> None:
        """Add a window or an event; those of another recording, which has no record, are forgotten."""
        if self._path != (path := _path_in(record)):
            self._path, self._parts = path, {}
        part = {key: value for key, value in record.items() if key not in PLACE}
        self._parts.setdefault((record.get("channel"), PARTS[record["type"]]), []).append(part)

    def joined_to(self, record: Any) -> Any:
        """Return the record of a recording, or of a channel, with its parts, unless it has windows or events itself."""
        if not self._parts or not isinstance(record, dict) or _path_in(record) != self._path:
            return record
        found = {key: self._parts.pop((record.get("channel"), key), None) for key in PARTS.values()}
        return {key: parts for key, parts in found.items() if parts is not None} | record


def _path_in(record: dict[str, Any]) -> object:
    return record.get("path_b64"), record.get("path")


def _parsed(text: str, name: str, number: int) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        line = number + error.lineno - 1 if isinstance(error, json.JSONDecodeError) else number
        raise AstError(f"{name}: line {line}: not JSON, or cut off; {REMEDY}") from None


def _result(record: Any, name: str, number: int) -> TaggingResult:
    """Return the result of a record.

    Raises:
        AstError: If it is no record of this version.
    """
    version = record.get("schema_version") if isinstance(record, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise AstError(f"{name}: line {number}: schema_version {version} is of a newer version of ast; update ast")
    try:
        return TaggingResult.from_dict(record)
    except (LookupError, TypeError, ValueError, AttributeError):
        raise AstError(f"{name}: line {number}: not a record of a recording; {REMEDY}") from None
