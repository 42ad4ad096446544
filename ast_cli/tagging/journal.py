"""The journal of a run: results reach the output once, whatever stops the run and however often it is continued.

Beside ``tags.jsonl`` lies ``tags.jsonl.ast-journal``, JSON Lines: a header with the settings, then one line for each
input whose text is whole in the output. A result's text is written first, its line second; what has no line is cut
off when the run is continued. Both files are replaced together by writing new ones and renaming the journal first: a
journal of generation n owns ``tags.jsonl.ast-output.n``, if that is still there. ``tags.jsonl.ast-lock`` keeps a
second run away. Standard library only.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import errno
import io
import json
import os
import socket
import stat
import sys
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ast_cli.errors import AstError, AstWarning, ErrorCode, UsageError
from ast_cli.json_object import shown
from ast_cli.report import open_writer
from ast_cli.results import Event, FileError, StreamedPart, Tag, TaggingResult, Window, path_fields
from ast_cli.tagging.inputs import STDIN, Input
from ast_cli.tagging.shards import RealPaths, Shard, format_shard

JOURNAL_VERSION = 1
SYNC_INTERVAL_S = 5.0  # what a power cut can cost; a killed process loses nothing
BLOCK_BYTES = 1 << 16
FINISHED_LINE = b'{"finished": true}\n'  # the last line of a run that came to its end
OK = "ok"
REMEDY = "; what was written before is whole, and --resume goes on from there"


@dataclass(frozen=True, slots=True)
class Key:
    """Which state of which file a result belongs to.

    Attributes:
        path: Its real path; ``-`` for standard input.
        size: In bytes; None where the file cannot be looked at.
        mtime_ns: Time of the last change, in nanoseconds; None likewise.
    """

    path: str
    size: int | None
    mtime_ns: int | None

    @classmethod
    def of(cls, path: str) -> Key:
        """Look at the file of a real path as it is now."""
        if path == STDIN:
            return cls(path, None, None)
        try:
            status = os.stat(path)
        except (OSError, ValueError):  # ValueError: a NUL in the name
            return cls(path, None, None)
        return cls(path, status.st_size, status.st_mtime_ns)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Key:
        """Read the JSON form."""
        return cls(_exact_path(fields) or "", fields["size"], fields["mtime_ns"])

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**path_fields(self.path), "size": self.size, "mtime_ns": self.mtime_ns}


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a journal.

    Attributes:
        format_name: Of the output.
        fingerprint: All that changes results: model, options.
        shard: Which part of the inputs the run took, if not all.
        generation: Counts how often output and journal were replaced.
        offset_end: Bytes of the output before the first result, such as the names of columns.
        crc32: Of those bytes.
    """

    format_name: str
    fingerprint: dict[str, Any]
    shard: Shard | None
    generation: int
    offset_end: int = 0
    crc32: int = 0

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Header:
        """Read the JSON form."""
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

    def differences(self, other: Header) -> list[str]:
        """Name the settings that another header has otherwise."""
        mine, others = ({**_flat(header.fingerprint), "shard": format_shard(header.shard)} for header in (self, other))
        names = [name for name in sorted(mine | others) if mine.get(name) != others.get(name)]
        return [_difference(name, shown(mine.get(name)), shown(others.get(name))) for name in names]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings within settings under names with a dot, each on its own."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _difference(name: str, old: str, new: str) -> str:
    return f"{name} was {old} and is {new}" if old != new else f"{name} is another"  # long values are cut when shown


@dataclass(frozen=True, slots=True)
class Entry:
    """One finished input.

    Attributes:
        key: Of the file that was read.
        outcome: ``ok`` or the error's code.
        offset_end: Bytes of the output up to the end of this input's text.
        crc32: Of this input's text.
        record: The whole result; None for JSON Lines, where the output holds it.
        line_end: Bytes of the journal up to the end of this line.
    """

    key: Key
    outcome: str
    offset_end: int
    crc32: int
    record: dict[str, Any] | None
    line_end: int


class TornTailError(AstError):
    """The output ends before the last text that its journal knows of."""


class Sidecars:
    """The names of an output and of the files beside it."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.journal = output.with_name(f"{output.name}.ast-journal")
        self.new_journal = output.with_name(f"{output.name}.ast-journal.new")
        self.lock = output.with_name(f"{output.name}.ast-lock")

    def new_output(self, generation: int) -> Path:
        """Return where an output is written before it takes its place."""
        return self.output.with_name(f"{self.output.name}.ast-output.{generation}")


def read_journal(file: Path) -> tuple[Header, Iterator[Entry]]:
    """Read a journal; a torn last line is left out.

    Raises:
        AstError: It cannot be read, or another line is damaged; the message names it. The entries raise it too.
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
    """Yield number, end in bytes and object of each line that was written to its end."""
    end = 0
    try:
        with open(file, "rb") as stream:
            for number, line in enumerate(stream, start=1):
                end += len(line)
                if not line.endswith(b"\n"):  # torn, or the NULs of a power cut
                    return
                try:
                    fields = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise _damaged(file, number) from error
                if not isinstance(fields, dict):
                    raise _damaged(file, number)
                yield number, end, fields
    except OSError as error:
        raise AstError(f"{file}: cannot be read ({error.strerror})") from error


def _written_bytes(stream: io.BufferedReader) -> int:
    """Return a file's length without the NULs that a power cut may leave at its end; the stream is at its start."""
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


def _damaged(file: Path, line: int) -> AstError:
    return AstError(f"{file}: line {line} is damaged; --force starts anew")


def is_finished(journal: Path) -> bool:
    """Tell whether a journal's run came to its end."""
    try:
        with open(journal, "rb") as stream:
            stream.seek(-min(len(FINISHED_LINE), stream.seek(0, os.SEEK_END)), os.SEEK_END)
            return stream.read() == FINISHED_LINE
    except OSError as error:
        raise AstError(f"{journal}: cannot be read ({error.strerror})") from error


def verified(output: Path, header: Header, entries: Iterable[Entry]) -> Iterator[tuple[Entry, bytes, int]]:
    """Yield entries with their text in the output and the number of its first line.

    Raises:
        TornTailError: The output ends before an entry's end, NULs not counted; later entries have no text either.
        AstError: An entry's text is not what was written; the message names the line.
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


def _checked_text(
    output: Path, stream: io.BufferedReader, line: int, num_bytes: int, offset_end: int, crc32: int
) -> bytes:
    """Read the output from where the stream is to an offset."""
    if offset_end > num_bytes:
        raise TornTailError(f"{output}: torn at line {line}: its run was cut off; finish it with --resume")
    start = stream.tell()
    text = stream.read(offset_end - start) if offset_end >= start else b""
    if start + len(text) != offset_end or zlib.crc32(text) != crc32:
        separator = text[: len(text) - len(text.lstrip(b"[,\n"))]  # of a JSON list the record is on the next line
        line += separator.count(b"\n")
        raise AstError(f"{output}: line {line} is damaged or was changed by hand; --force starts anew")
    return text


class AppendFile:
    """A file that grows at its end and knows what of it is confirmed; written through, without a buffer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = -1
        self.is_regular = False
        self.confirmed_end = self.end = 0  # in bytes
        self.crc32 = 0  # of what is not confirmed yet
        self.remedy = ""  # what can be done after a failed write, for the message

    def open(self, num_bytes: int) -> None:
        """Make the file, or keep the first bytes of it and cut off the rest."""
        self._open(self.path)
        self.confirmed_end = num_bytes
        self.cut_back()

    def reopen(self, path: Path) -> None:
        """Go on with a file that was closed and has another name now."""
        self.path = path
        self._open(path)

    def _open(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        with _writing(path, self.remedy):
            self.descriptor = os.open(path, flags, 0o666)
            self.is_regular = stat.S_ISREG(os.fstat(self.descriptor).st_mode)

    def append(self, data: bytes) -> None:
        """Write all of the data."""
        self.crc32 = zlib.crc32(data, self.crc32)
        rest = memoryview(data)
        with _writing(self.path, self.remedy):
            while rest:
                rest = rest[os.write(self.descriptor, rest) :]
        self.end += len(data)

    def confirm(self) -> None:
        """Keep what was written so far."""
        self.confirmed_end, self.crc32 = self.end, 0

    def cut_back(self) -> None:
        """Cut off what is not confirmed."""
        self.end, self.crc32 = self.confirmed_end, 0
        if self.is_regular and self.descriptor >= 0:
            with _writing(self.path, self.remedy):
                os.ftruncate(self.descriptor, self.confirmed_end)

    def sync(self) -> None:
        """Wait until the disk has it."""
        if self.is_regular and self.descriptor >= 0:
            with _writing(self.path, self.remedy):
                os.fsync(self.descriptor)

    def close(self) -> None:
        """Close the file; nothing waits to be written."""
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            os.close(descriptor)


class Journal:
    """Writes results to an output and knows which inputs are done; made by `open_journal`.

    Attributes:
        skipped: What earlier runs made of the inputs that are done: ``ok`` or an error's code, and how often.
    """

    def __init__(self, sidecars: Sidecars, header: Header, *, retry_errors: bool = False) -> None:
        self.sidecars = sidecars
        self.header = header
        self.skipped: Counter[str] = Counter()
        self._retry_errors = retry_errors
        self._done: dict[str, tuple[Key, str]] = {}  # by earlier runs, with the outcome; by real path
        self._in_flight: dict[str, Key] = {}  # handed out and not written yet; by path as named
        self._all_handed_out = False
        self._num_results = 0  # in the output
        self._output = AppendFile(sidecars.output)
        self._journal = AppendFile(sidecars.journal)
        self._is_in_place = True  # else both files have their temporary names
        self._synced_at_s = time.monotonic()
        self._lock = contextlib.ExitStack()
        self._real_path = RealPaths()
        self._text = io.StringIO(newline="")  # what the format's writer has written
        self._reset_writer()

    @property
    def num_skipped(self) -> int:
        """How many inputs were done by earlier runs."""
        return self.skipped.total()

    def pending(self, inputs: Iterable[Input]) -> Iterator[Input]:
        """Yield the inputs that are not done, and count the others as skipped; to be called once.

        The old results of files that have changed since, and with ``retry_errors`` of all that failed, are taken out
        of the output first.

        Raises:
            AstError: The output cannot be written anew without the old results.
        """
        keyed: Iterable[tuple[Input, Key]] = ((item, Key.of(self._real_path(item))) for item in inputs)
        if self._done:
            keyed = list(keyed)  # looked at once: two looks could differ, and leave two results
            self._drop_stale({key.path: key for _, key in keyed})
        for item, key in keyed:
            if key.path in self._done:
                self.skipped[self._done[key.path][1]] += 1
            else:
                self._in_flight[item.path] = key
                yield item
        self._all_handed_out = True

    def write(self, result: TaggingResult | StreamedPart, item: Input) -> None:
        """Write an input's result, which makes it done, or a window or event that comes before its result.

        Raises:
            AstError: The disk is full, for example; what was written before stays whole.
        """
        try:
            if isinstance(result, StreamedPart):
                self._output.append(_json_line(result.to_dict()))
            else:
                self._write_result(result, self._in_flight.get(item.path) or Key.of(self._real_path(item)))
                self._in_flight.pop(item.path, None)
            if not self._is_in_place:
                self._put_in_place()
            elif time.monotonic() - self._synced_at_s >= SYNC_INTERVAL_S:
                self._sync()
        except BaseException:
            self._cut_back()
            raise

    def close(self) -> None:
        """Write what the format needs at its end, wait for the disk, and let go of the lock.

        Raises:
            AstError: The end cannot be written.
        """
        try:
            if self._output.descriptor >= 0:
                self._write_end()
        except BaseException:
            self._cut_back()
            raise
        finally:
            self._release()

    def __enter__(self) -> Journal:
        """Return the journal."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close; after an error, new files without a result do not replace old ones."""
        if error is None:
            self.close()
        elif self._is_in_place:
            with contextlib.suppress(AstError):  # the first error is the one to tell
                self.close()
        self._release()

    def start(self, *, resume: bool, force: bool) -> None:
        """Take the lock and open the files, old or new; for `open_journal`, which names what is raised."""
        names = self.sidecars
        self._lock.enter_context(_only_run(names))
        exists = os.path.lexists(names.output) or os.path.lexists(names.journal)
        if exists and not resume and not force:
            raise UsageError(f"--output {names.output} exists: --resume continues it, --force replaces it")
        if exists and resume:
            self._continue()
        else:
            self._start_anew(dataclasses.replace(self.header, generation=_generation(names.journal) + 1))

    def start_plain(self) -> None:
        """Open an output that is no regular file: nothing lies beside it, nothing can be continued."""
        self._journal = AppendFile(Path(os.devnull))
        self._output.open(0)
        self._journal.open(0)
        self._output.append(self._reset_writer())
        self._output.confirm()

    def _start_anew(self, header: Header) -> None:
        """Open a new output and journal under temporary names; old ones stay as they are until `_put_in_place`."""
        self.header, self._num_results, self._is_in_place = header, 0, False
        self._output = AppendFile(self.sidecars.new_output(header.generation))
        self._journal = AppendFile(self.sidecars.new_journal)
        self._output.open(0)
        self._journal.open(0)
        self._output.append(self._reset_writer())
        beginning = {"offset_end": self._output.end, "crc32": self._output.crc32}
        self._journal.append(_json_line(header.to_dict() | beginning))
        self._confirm()

    def _put_in_place(self) -> None:
        """Give both new files their names; from the journal's renaming on, the new output is the valid one."""
        self._sync()
        self._close_files()
        names = self.sidecars
        with _writing(names.output):
            os.replace(names.new_journal, names.journal)
            self._is_in_place = True
            os.replace(names.new_output(self.header.generation), names.output)
            names.new_output(self.header.generation - 1).unlink(missing_ok=True)
        _sync_folder(names.output.parent)
        self._output.remedy = self._journal.remedy = REMEDY
        self._output.reopen(names.output)
        self._journal.reopen(names.journal)

    def _continue(self) -> None:
        """Open the output and journal of earlier runs at the end of what both hold."""
        names, wanted = self.sidecars, self.header
        if not names.journal.exists():
            raise UsageError(f"{names.output} has no journal beside it and cannot be continued; --force replaces it")
        self.header, entries = read_journal(names.journal)
        differences = self.header.differences(wanted)
        if differences:
            raise UsageError(
                f"{names.output} was begun otherwise: {'; '.join(differences)}; --resume needs the same, "
                "--force starts anew"
            )
        self._finish_replacing()
        output_end, journal_end = self._take_up(entries)
        if not self._num_results:
            self._start_anew(dataclasses.replace(wanted, generation=self.header.generation + 1))
            return
        self._output.remedy = self._journal.remedy = REMEDY
        self._output.open(output_end)
        self._journal.open(journal_end)
        self._reset_writer()
        if self.header.format_name != wanted.format_name:
            self._write_anew(wanted.format_name, frozenset())

    def _finish_replacing(self) -> None:
        """End a replacement of both files that was cut off, or forget it where it had not come to count."""
        names, generation = self.sidecars, self.header.generation
        with _writing(names.output):
            if names.new_output(generation).exists():
                os.replace(names.new_output(generation), names.output)
            names.new_output(generation + 1).unlink(missing_ok=True)
            names.new_journal.unlink(missing_ok=True)

    def _take_up(self, entries: Iterable[Entry]) -> tuple[int, int]:
        """Note what is done; return the bytes of output and journal up to where they agree."""
        output_end = journal_end = 0
        if not self.sidecars.output.exists():
            return 0, 0
        with contextlib.suppress(TornTailError):
            for entry, _, _ in verified(self.sidecars.output, self.header, entries):
                self._done[entry.key.path] = (entry.key, entry.outcome)
                self._num_results += 1
                output_end, journal_end = entry.offset_end, entry.line_end
        return output_end, journal_end

    def _drop_stale(self, named: Mapping[str, Key]) -> None:
        """Take results out of the output that are to be redone: of changed files, and of failed ones if asked for."""
        stale = {
            path
            for path, (key, outcome) in self._done.items()
            if (self._retry_errors and outcome != OK) or named.get(path, key) != key
        }
        if stale:
            self._write_anew(self.header.format_name, stale)
            for path in stale:
                del self._done[path]

    def _write_anew(self, format_name: str, left_out: Set[str]) -> None:
        """Replace output and journal by ones in a format, without the results of some real paths."""
        old, entries = read_journal(self.sidecars.journal)
        self._close_files()
        self._start_anew(dataclasses.replace(old, format_name=format_name, generation=old.generation + 1))
        for entry, text, _ in verified(self.sidecars.output, old, entries):
            if entry.key.path in left_out:
                continue
            if format_name == old.format_name == "jsonl":
                self._append(text, entry.key, entry.outcome, None)
            else:
                self._write_result(_result_again(entry, text), entry.key)
        self._put_in_place()

    def _write_result(self, result: TaggingResult, key: Key) -> None:
        """Render a result and write it; the lines of JSON Lines are records themselves, and need no second copy."""
        self._writer.write(result)
        record = None if self.header.format_name == "jsonl" else result.to_dict()
        self._append(self._take_text(), key, str(result.error.code) if result.error else OK, record)

    def _append(self, text: bytes, key: Key, outcome: str, record: dict[str, Any] | None) -> None:
        """Write one input's text, then its line; from there on it is done."""
        self._output.append(text)
        fields: dict[str, Any] = {"key": key.to_dict(), "outcome": outcome}
        fields |= {"offset_end": self._output.end, "crc32": self._output.crc32}
        self._journal.append(_json_line(fields if record is None else fields | {"record": record}))
        self._confirm()
        self._num_results += 1

    def _write_end(self) -> None:
        """Write the format's end and, if every input handed out came back, that the run is finished."""
        self._cut_back()
        self._writer.close()
        self._output.append(self._take_text())
        if self._all_handed_out and not self._in_flight:
            self._journal.append(FINISHED_LINE)
        if self._is_in_place:
            self._sync()
        else:
            self._put_in_place()

    def _take_text(self) -> bytes:
        """Return what the format's writer has written since the last call."""
        text = self._text.getvalue()
        self._text.seek(0)
        self._text.truncate()
        return text.encode("utf-8", "replace")

    def _reset_writer(self) -> bytes:
        """Make a writer that goes on after the results there are; return what it writes before the first."""
        self._take_text()
        self._writer = open_writer(self.header.format_name, self._text)
        beginning = self._take_text()
        if self._num_results:  # what comes between results does not depend on them: any will do to set the writer going
            self._writer.write(TaggingResult(path="", model="", activation="none"))
            self._take_text()
        return beginning

    def _confirm(self) -> None:
        self._output.confirm()
        self._journal.confirm()

    def _cut_back(self) -> None:
        """Leave whole results alone in both files: after a failure, and before the end."""
        for file in (self._output, self._journal):
            with contextlib.suppress(AstError):  # a later --resume cuts it off just as well
                file.cut_back()
        self._reset_writer()

    def _sync(self) -> None:
        """Bring both files to the disk: the texts before the lines that vouch for them."""
        self._output.sync()
        self._journal.sync()
        self._synced_at_s = time.monotonic()

    def _close_files(self) -> None:
        self._output.close()
        self._journal.close()

    def _release(self) -> None:
        """Close everything, remove new files that did not come to count, and let the next run have the lock."""
        with self._lock:
            self._close_files()
            if not self._is_in_place:
                for file in (self._output, self._journal):
                    with contextlib.suppress(OSError):
                        file.path.unlink(missing_ok=True)


def open_journal(
    output: Path,
    format_name: str,
    fingerprint: Mapping[str, Any],
    *,
    resume: bool = False,
    force: bool = False,
    retry_errors: bool = False,
    shard: Shard | None = None,
) -> Journal:
    """Begin an output, or go on with one.

    An output that exists stays as it is until the first new result is written. One that is no regular file, such as a
    named pipe, has no journal.

    Args:
        output: Where the results go.
        format_name: One of `ast_cli.report.FORMATS`; it may change from run to run, and the output with it.
        fingerprint: All that changes results, as JSON holds it: model, options.
        resume: Go on with an output that exists.
        force: Replace an output that exists.
        retry_errors: With ``resume``, redo the inputs that failed.
        shard: Which part of the inputs this is, if not all.

    Raises:
        UsageError: The output exists and neither or both were asked for; it cannot be continued, or not with these
            settings.
        AstError: Another run writes it; it cannot be written; it or its journal is damaged.
    """
    if resume and force:
        raise UsageError("--resume continues an output and --force replaces it: choose one")
    if retry_errors and not resume:
        raise UsageError("--retry-errors redoes the failures of an earlier run: it needs --resume")
    header = Header(format_name, json.loads(json.dumps(fingerprint)), shard, generation=1)
    journal = Journal(Sidecars(output), header, retry_errors=retry_errors)
    try:
        if output.exists() and not output.is_file():
            if resume:
                raise UsageError(f"--output {output} is no regular file: there is nothing to --resume")
            journal.start_plain()
        else:
            journal.start(resume=resume, force=force)
    except BaseException:
        journal._release()
        raise
    return journal


def result_of(record: Mapping[str, Any]) -> TaggingResult:
    """Read `ast_cli.results.TaggingResult.to_dict` back; scores are those of the record, rounded."""
    windows, events, error = record.get("windows"), record.get("events"), record["error"]
    return TaggingResult(
        path=_exact_path(record),
        model=record["model"],
        activation=record["activation"],
        duration_s=record["duration_s"],
        sampling_rate=record["sampling_rate"],
        num_channels=record["num_channels"],
        tags=_tags(record["tags"]),
        windows=None
        if windows is None
        else tuple(Window(window["start_s"], window["end_s"], _tags(window["tags"])) for window in windows),
        events=None if events is None else tuple(Event(**event) for event in events),
        warnings=tuple(record["warnings"]),
        error=None if error is None else FileError(ErrorCode(error["code"]), error["message"]),
    )


def _result_again(entry: Entry, text: bytes) -> TaggingResult:
    """Return the result of an entry: from its record, or from the last line of its text if that is JSON Lines."""
    try:
        return result_of(entry.record or json.loads(text.splitlines()[-1]))
    except (LookupError, TypeError, ValueError) as error:
        raise AstError(f"the journal's record of {entry.key.path} is damaged; --force starts anew") from error


def _tags(records: Iterable[dict[str, Any]]) -> tuple[Tag, ...]:
    return tuple(Tag(**tag) for tag in records)


def _exact_path(fields: Mapping[str, Any]) -> str | None:
    """Undo `ast_cli.results.path_fields`."""
    if "path_b64" not in fields:
        path: str | None = fields["path"]
        return path
    raw = base64.b64decode(fields["path_b64"])
    return os.fsdecode(raw) if os.name == "posix" else raw.decode("utf-8", "surrogatepass")


def _json_line(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, allow_nan=False).encode("ascii") + b"\n"


def _generation(journal: Path) -> int:
    """Return the generation of a journal that is to be replaced; 0 where there is none to read."""
    try:
        return read_journal(journal)[0].generation
    except AstError:
        return 0


@contextlib.contextmanager
def _writing(path: Path, remedy: str = "") -> Iterator[None]:
    """Turn a failure of the file system into a sentence."""
    try:
        yield
    except OSError as error:
        raise AstError(f"{path}: cannot be written ({error.strerror or error}){remedy}") from error


def _sync_folder(folder: Path) -> None:
    """Bring new names to the disk, where the system lets folders be opened for it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


_held_locks: set[str] = set()  # the system's locks do not keep a process from itself


@contextlib.contextmanager
def _only_run(names: Sidecars) -> Iterator[None]:
    """Hold the lock of an output.

    Raises:
        AstError: Another run has it, which is named.
    """
    identity = os.path.realpath(names.lock)
    if identity in _held_locks:
        raise AstError(f"{names.output} is being written already, by this process")
    with _writing(names.lock):
        descriptor = _locked(names)
    _held_locks.add(identity)
    try:
        with _writing(names.lock):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        _held_locks.discard(identity)
        with contextlib.suppress(OSError):
            names.lock.unlink()
        os.close(descriptor)


def _locked(names: Sidecars) -> int:
    """Open and lock the lock file; a dead holder's lock is free."""
    while True:
        descriptor = os.open(names.lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _try_lock(descriptor):
                holder = os.read(descriptor, 200).decode("utf-8", "replace") or "another process"
                raise AstError(f"{names.output} is being written by another run, {holder}: wait for it, or stop it")
            if os.path.samestat(os.fstat(descriptor), os.stat(names.lock)):
                return descriptor
        except FileNotFoundError:
            pass  # its last holder removed it between our opening and locking
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """Lock an open file for this process; the system unlocks it when the process ends, however it does."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # far behind the text: what is locked there cannot be read
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock: forked workers would inherit it
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            os.lseek(descriptor, 0, os.SEEK_SET)
            return False
        warnings.warn(f"two runs on one output cannot be kept apart here: {error.strerror}", AstWarning, stacklevel=2)
    return True
