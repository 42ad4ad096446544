"""The journal of a run: results reach the output once, whatever stops the run and however often it is continued.

Beside ``tags.jsonl`` lies ``tags.jsonl.ast-journal``, JSON Lines: a header with the settings, then one line for each
input whose text is whole in the output. A result's text is written first, its line second; what has no line is cut
off when the run is continued. Both files are replaced together by writing new ones and renaming the journal first: a
journal of generation n owns ``tags.jsonl.ast-output.n``, if that is still there. ``tags.jsonl.ast-lock`` keeps a
second run away. Standard library only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from types import TracebackType
from typing import Any

from ast_cli.errors import AstError, UsageError
from ast_cli.files.append import AppendFile, sync_folder
from ast_cli.files.atomic import writing
from ast_cli.files.lock import only_run
from ast_cli.report import open_writer
from ast_cli.results import StreamedPart, TaggingResult
from ast_cli.tagging.inputs import Input, RealPaths
from ast_cli.tagging.run.journal_lines import (
    FINISHED_LINE,
    OK,
    Entry,
    Header,
    Key,
    Sidecars,
    TornTailError,
    json_line,
    read_journal,
    verified,
)
from ast_cli.tagging.run.shards import Shard

SYNC_INTERVAL_S = 5.0  # what a power cut can cost; a killed process loses nothing
REMEDY = "; what was written before is whole, and --resume goes on from there"


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
        self._num_results = 0  # in the journal
        self._num_texts = 0  # in the output: inputs that are not reported have no text there
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

    @property
    def num_skipped_failures(self) -> int:
        """Those of them that failed."""
        return self.num_skipped - self.skipped[OK]

    @property
    def exists(self) -> bool:
        """Whether a later run would find it: from the first result on, and never beside a pipe."""
        return self.sidecars.journal.exists()

    def pending(self, inputs: Iterable[Input]) -> Iterator[Input]:
        """Yield the inputs that are not done, and count the others as skipped; to be called once.

        The old results of those that have changed since, and with ``retry_errors`` of those that failed, are taken out
        of the output first; results of inputs that are not named this time stay.

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

    def write(self, result: TaggingResult | StreamedPart, item: Input, *, is_reported: bool = True) -> None:
        """Write the result of an input, which is then done, or a window or event that precedes its result.

        Args:
            result: The result, window or event.
            item: The input.
            is_reported: Whether it is written to the output; if not, a result is only noted as done in the journal.

        Raises:
            AstError: If a file cannot be written, for example to a full disk; earlier results stay whole.
        """
        try:
            if isinstance(result, StreamedPart):
                if is_reported:
                    self._output.append(json_line(result.to_dict()))
            else:
                key = self._in_flight.get(item.path) or Key.of(self._real_path(item))
                if is_reported:
                    self._write_result(result, key)
                else:
                    self._append(b"", key, OK, None)
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
        self._lock.enter_context(only_run(names.output))
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
        self.header, self._is_in_place = header, False
        self._num_results = self._num_texts = 0
        self._output = AppendFile(self.sidecars.new_output(header.generation))
        self._journal = AppendFile(self.sidecars.new_journal)
        self._output.open(0)
        self._journal.open(0)
        self._output.append(self._reset_writer())
        beginning = {"offset_end": self._output.end, "crc32": self._output.crc32}
        self._journal.append(json_line(header.to_dict() | beginning))
        self._confirm()

    def _put_in_place(self) -> None:
        """Give both new files their names; from the journal's renaming on, the new output is the valid one."""
        self._sync()
        self._close_files()
        names = self.sidecars
        with writing(names.output):
            os.replace(names.new_journal, names.journal)
            self._is_in_place = True
            os.replace(names.new_output(self.header.generation), names.output)
            names.new_output(self.header.generation - 1).unlink(missing_ok=True)
        sync_folder(names.output.parent)
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
            changed = "; ".join(difference.over_time() for difference in differences)
            raise UsageError(
                f"{names.output} was begun with other settings: {changed}; --resume needs the same settings, "
                "--force starts over"
            )
        self._finish_replacing()
        output_end, journal_end = self._take_up(entries)
        if not self._num_results:
            self._start_anew(dataclasses.replace(wanted, generation=self.header.generation + 1))
            return
        self._output.remedy = self._journal.remedy = REMEDY
        self._output.open(output_end)
        self._journal.open(journal_end)
        beginning = self._reset_writer()
        has_other_beginning = (len(beginning), zlib.crc32(beginning)) != (self.header.offset_end, self.header.crc32)
        if self.header.format_name != wanted.format_name or has_other_beginning:  # such as an earlier version's columns
            self._write_anew(wanted.format_name, frozenset())

    def _finish_replacing(self) -> None:
        """End a replacement of both files that was cut off, or forget it where it had not come to count."""
        names, generation = self.sidecars, self.header.generation
        with writing(names.output):
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
            for entry, text, _ in verified(self.sidecars.output, self.header, entries):
                self._done[entry.key.path] = (entry.key, entry.outcome)
                self._num_results += 1
                self._num_texts += bool(text)
                output_end, journal_end = entry.offset_end, entry.line_end
        return output_end, journal_end

    def _drop_stale(self, named: Mapping[str, Key]) -> None:
        """Take results of this run's inputs out that are to be redone: of changed files, and of failed if asked for."""
        stale = {
            path
            for path, (key, outcome) in self._done.items()
            if path in named and ((self._retry_errors and outcome != OK) or named[path] != key)
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
            if not text or format_name == old.format_name == "jsonl":
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
        self._journal.append(json_line(fields if record is None else fields | {"record": record}))
        self._confirm()
        self._num_results += 1
        self._num_texts += bool(text)

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
        if self._num_texts:  # what comes between results does not depend on them: any will do to set the writer going
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
        retry_errors: With ``resume``, redo those of the run's inputs that failed.
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


def _result_again(entry: Entry, text: bytes) -> TaggingResult:
    """Return the result of an entry: from its record, or from the last line of its text if that is JSON Lines."""
    try:
        return TaggingResult.from_dict(entry.record or json.loads(text.splitlines()[-1]))
    except (LookupError, TypeError, ValueError) as error:
        raise AstError(f"the journal's record of {entry.key.path} is damaged; --force starts anew") from error


def _generation(journal: Path) -> int:
    """Return the generation of a journal that is to be replaced; 0 where there is none to read."""
    try:
        return read_journal(journal)[0].generation
    except AstError:
        return 0
