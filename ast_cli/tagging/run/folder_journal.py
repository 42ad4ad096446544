"""The journal of an output folder: each input gets its files once, whatever stops the run, however often it resumes.

The folder contains ``.ast-journal``, JSON Lines in the form of `ast_cli.tagging.run.journal_lines`: a header with the
settings, then one line for each input whose files are complete. The header is written before the first file, the files
of an input before its line; files without a line are written again. A line contains the names of the files, their size
together and the CRC-32 of their content one after another, so that a file that was damaged or removed is written again
too. Failed inputs have no line. ``.ast-lock`` excludes a second run. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ast_cli.errors import AstError, UsageError
from ast_cli.files.append import AppendFile
from ast_cli.files.atomic import write_whole, writing
from ast_cli.files.lock import only_run
from ast_cli.results import exact_path, path_fields
from ast_cli.tagging.run.journal_lines import OK, Entry, Header, Key, check_same_settings, json_line, read_journal
from ast_cli.tagging.run.shards import Shard

JOURNAL_NAME = ".ast-journal"
LOCK_NAME = ".ast-lock"
BLOCK_BYTES = 1 << 20


class FolderJournal:
    """The record of the inputs that have their files in an output folder.

    The constructor reads the journal of the folder; `open` takes the lock, and then inputs can be recorded.

    Args:
        folder: The output folder, which need not exist.
        resume: Whether to continue a folder that was begun.
        force: Whether to start a folder over that was begun.
        flag: Option that named the folder, for messages.

    Attributes:
        folder: The output folder.
        path: The journal.
        names: Names of the recorded files below the folder, by the real path of their input.

    Raises:
        UsageError: If the folder was begun, and neither ``resume`` nor ``force`` is set.
        AstError: If the journal is damaged or cannot be read.
    """

    def __init__(self, folder: Path, *, resume: bool = False, force: bool = False, flag: str = "--output") -> None:
        self.folder = folder
        self.path = folder / JOURNAL_NAME
        self.names: dict[str, tuple[str, ...]] = {}
        self._entries: dict[str, Entry] = {}  # by the real path of the input
        self._file = AppendFile(self.path)
        self._end = 0  # of the whole lines, in bytes
        self._old_header: Header | None = None  # of the journal that is continued
        self._header: Header | None = None
        self._state = Key.of(str(self.path))  # when it was read
        if not self.exists or force:
            return
        if not resume:
            raise UsageError(f"{flag} {folder} was begun by an earlier run: --resume continues it, --force replaces it")
        self._old_header, entries = read_journal(self.path)
        for entry in entries:
            self._entries[entry.key.path], self._end = entry, entry.line_end
            self.names[entry.key.path] = self._names_in(entry)

    @property
    def exists(self) -> bool:
        """Whether the folder has a journal, which a later run with ``resume`` continues."""
        return self.path.is_file()

    def check_begun(self, files: Iterable[Path]) -> None:
        """Check that a folder to be continued has a journal if it has files.

        Args:
            files: Files of the inputs of the run.

        Raises:
            UsageError: If one of the files exists and there is no journal.
        """
        if self.exists:
            return
        for file in files:
            if file.exists():
                raise UsageError(
                    f"{self.folder} contains {file.name} but no journal, and cannot be continued; --force replaces it"
                )

    @contextlib.contextmanager
    def open(self, format_name: str, fingerprint: Mapping[str, Any], shard: Shard | None = None) -> Iterator[None]:
        """Hold the lock of the folder within the ``with`` block, in which files can be recorded.

        Args:
            format_name: Format of the files, or several separated by commas.
            fingerprint: All settings that change the files, as JSON represents them: model, options.
            shard: Shard of the inputs; None for all inputs.

        Raises:
            UsageError: If the folder was begun with other settings; the message names them.
            AstError: If another run writes to the folder, or if the folder cannot be created.
        """
        settings = json.loads(json.dumps({**fingerprint, "format": format_name}))
        self._header = Header(format_name, settings, shard, generation=1)
        if self._old_header is not None:
            check_same_settings(self.folder, self._old_header, self._header)
        is_new = not self.folder.exists()
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with only_run(self.folder, self.folder / LOCK_NAME):
                if Key.of(str(self.path)) != self._state:
                    raise AstError(f"{self.folder} was written by another run a moment ago: run the same command again")
                try:
                    yield
                finally:
                    with contextlib.suppress(AstError):  # the files are on the disk; lost lines cost time only
                        self._file.sync()
                    self._file.close()
        finally:
            if is_new:
                with contextlib.suppress(OSError):  # it contains files
                    self.folder.rmdir()

    def has(self, key: Key) -> bool:
        """Return whether the files of an input are complete and were made from this state of the input."""
        entry = self._entries.get(key.path)
        if entry is None or entry.key != key or key.size is None:
            return False
        files = [self.folder / name for name in self.names[key.path]]
        try:
            num_bytes = sum(file.stat().st_size for file in files)
            return num_bytes == entry.offset_end and _crc32(files) == entry.crc32
        except OSError:
            return False

    @contextlib.contextmanager
    def recording(self, key: Key, *files: Path) -> Iterator[None]:
        """Record an input whose files the block writes.

        Args:
            key: State of the input before it was read.
            *files: The files, in the folder; none for an input that is done without one.

        Raises:
            AstError: If the journal cannot be written.
        """
        self._begin()
        yield
        with writing(files[0] if files else self.path):
            num_bytes, crc32 = sum(file.stat().st_size for file in files), _crc32(files)
        fields: dict[str, Any] = {"key": key.to_dict(), "outcome": OK, "offset_end": num_bytes, "crc32": crc32}
        names = [path_fields(file.relative_to(self.folder).as_posix()) for file in files]
        fields["record"] = names[0] if len(names) == 1 else {"files": names}
        self._file.append(json_line(fields))
        self._file.confirm()

    def _begin(self) -> None:
        """Open the journal before the first file is written; until then the old content of the folder stays."""
        if self._file.descriptor >= 0:
            return
        if not self._entries:
            assert self._header is not None, "recording needs an open journal"
            header = json_line(self._header.to_dict())
            write_whole(self.path, header)
            self._end = len(header)
        self._file.open(self._end)  # without a torn last line

    def _names_in(self, entry: Entry) -> tuple[str, ...]:
        """Return the names of the files that an entry records, all of them below the folder."""
        try:
            record = entry.record or {}
            names = [exact_path(fields) or "" for fields in record.get("files", [record])]
        except (LookupError, TypeError, ValueError, AttributeError):
            names = [""]
        if not all(map(_is_below, names)):
            raise AstError(f"{self.path}: the record of {entry.key.path} is damaged; --force starts over")
        return tuple(names)


def _is_below(name: str) -> bool:
    """Return whether a name leads to a file below the folder that it is joined to."""
    is_absolute = PurePosixPath(name).is_absolute() or os.path.isabs(name)
    return bool(name) and not is_absolute and ".." not in PurePosixPath(name).parts


def _crc32(files: Iterable[Path]) -> int:
    """Return the CRC-32 of the content of files, one after another."""
    crc32 = 0
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(BLOCK_BYTES):
                crc32 = zlib.crc32(block, crc32)
    return crc32
