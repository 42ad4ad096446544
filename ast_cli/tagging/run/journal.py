"""The journal of a run: each result is written once, whatever stops the run and however often it is continued.

The journal of ``tags.jsonl`` is ``tags.jsonl.ast-journal``, a file of JSON Lines: a header with the settings, then one
line for each input whose text is whole in the output (empty, if the run reports only matches and the input does not
match). The text of a result is written first, its line second; text without a line is cut off when the run is
continued. Both files are replaced together: new ones are written, and the journal is renamed first. A journal of
generation n owns ``tags.jsonl.ast-output.n`` if that file still exists. ``tags.jsonl.ast-lock`` excludes a second run.
Standard library only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
import os
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from types import TracebackType
from typing import Any

from ast_cli.errors import AstError, UsageError
from ast_cli.files.append import AppendFile, sync_folder
from ast_cli.files.atomic import writing
from ast_cli.files.lock import only_run
from ast_cli.report import NUMBERED, open_writer
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
    check_same_settings,
    json_line,
    read_journal,
    result_again,
    verified,
)
from ast_cli.tagging.run.shards import Shard

SYNC_INTERVAL_S = 5.0  # work that a power cut can lose; a killed process loses nothing
REMEDY = "; earlier results are whole, and --resume continues from there"


class Journal:
    """Writes results to an output and records which inputs are done; made by `open_journal`.

    Attributes:
        skipped: Counts of the outcomes of inputs that earlier runs have done: ``ok`` or the code of an error.
    """

    def __init__(
        self,
        sidecars: Sidecars,
        header: Header,
        *,
        retry_errors: bool = False,
        has_channels: bool = False,
        labels: Sequence[str] = (),
    ) -> None:
        self.sidecars = sidecars
        self.header = header
        self.skipped: Counter[str] = Counter()
        self._retry_errors = retry_errors
        self._has_channels = has_channels
        self._labels = labels
        self._done: dict[str, tuple[Key, str]] = {}  # key and outcome of inputs done by earlier runs, by real path
        self._in_flight: dict[str, Key] = {}  # keys of inputs yielded and not written yet, by path as named
        self._all_handed_out = False
        self._num_results = 0  # lines in the journal
        self._num_texts = 0  # texts in the output; inputs that are not reported have none
        self._output = AppendFile(sidecars.output)
        self._journal = AppendFile(sidecars.journal)
        self._is_in_place = True  # whether both files have their final names, not temporary ones
        self._synced_at_s = time.monotonic()
        self._lock = contextlib.ExitStack()
        self._real_path = RealPaths()
        self._is_behind = False  # whether the writer does not know the existing results yet, and needs to
        self._text = io.StringIO(newline="")  # text that the writer of the format has written
        self._reset_writer()

    @property
    def num_skipped(self) -> int:
        """Number of inputs that earlier runs have done."""
        return self.skipped.total()

    @property
    def num_skipped_failures(self) -> int:
        """Number of inputs that failed in earlier runs."""
        return self.num_skipped - self.skipped[OK]

    @property
    def output(self) -> Path:
        """File with the results that are done."""
        return self.sidecars.output

    @property
    def journal_file(self) -> Path | None:
        """File of the journal if it has its final name: from the first result on, but never beside a pipe."""
        return self.sidecars.journal if self.sidecars.journal.exists() else None

    def pending(self, inputs: Iterable[Input]) -> Iterator[Input]:
        """Yield the inputs that are not done, and count the others as skipped; call this only once.

        First the results of inputs that have changed since, and with ``retry_errors`` of inputs that failed, are
        removed from the output. Results of inputs that are not named this time stay.

        Raises:
            AstError: If the output cannot be rewritten without the old results.
        """
        keyed: Iterable[tuple[Input, Key]] = ((item, Key.of(self._real_path(item))) for item in inputs)
        if self._done:
            keyed = list(keyed)  # keys are made once: a second look at a file could differ, and leave two results
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
        """Write the end of the document, wait for the disk, and release the lock.

        Raises:
            AstError: If the end cannot be written.
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
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the files; after an error, new files without a result do not replace old ones."""
        if error is None:
            self.close()
        elif self._is_in_place:
            with contextlib.suppress(AstError):  # the first error is raised
                self.close()
        self._release()

    def start(self, *, resume: bool, force: bool) -> None:
        """Open the files, old or new, under the lock, which is released again if that fails; see `open_journal`."""
        output = self.sidecars.output
        try:
            if not output.exists() or output.is_file():
                self._start_regular(resume=resume, force=force)
            elif resume:
                raise UsageError(f"--output {output} is not a regular file: leave out --resume")
            else:
                self._start_plain()
        except BaseException:
            self._release()
            raise

    def _start_regular(self, *, resume: bool, force: bool) -> None:
        """Take the lock and open the files, old or new."""
        names = self.sidecars
        self._lock.enter_context(only_run(names.output))
        exists = os.path.lexists(names.output) or os.path.lexists(names.journal)
        if exists and not resume and not force:
            raise UsageError(f"--output {names.output} exists: --resume continues it, --force replaces it")
        if exists and resume:
            self._continue()
        else:
            self._start_new_files(dataclasses.replace(self.header, generation=_generation(names.journal) + 1))

    def _start_plain(self) -> None:
        """Open an output that is not a regular file: it has no journal and cannot be continued."""
        self._journal = AppendFile(Path(os.devnull))
        self._output.open(0)
        self._journal.open(0)
        self._output.append(self._reset_writer())
        self._output.confirm()

    def _start_new_files(self, header: Header) -> None:
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
        """Rename both new files to their final names; once the journal is renamed, the new output is the valid one."""
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
        """Open the output and journal of earlier runs, cut off where they agree."""
        names, wanted = self.sidecars, self.header
        if not names.journal.exists():
            raise UsageError(f"{names.output} has no journal beside it and cannot be continued; --force replaces it")
        self.header, entries = read_journal(names.journal)
        check_same_settings(names.output, self.header, wanted)
        self._finish_replacing()
        output_end, journal_end = self._load_done(entries)
        if not self._num_results:
            self._start_new_files(dataclasses.replace(wanted, generation=self.header.generation + 1))
            return
        self._output.remedy = self._journal.remedy = REMEDY
        self._output.open(output_end)
        self._journal.open(journal_end)
        beginning = self._reset_writer()
        has_other_beginning = (len(beginning), zlib.crc32(beginning)) != (self.header.offset_end, self.header.crc32)
        if self.header.format_name != wanted.format_name or has_other_beginning:  # such as older columns
            self._rewrite(wanted.format_name, frozenset())

    def _finish_replacing(self) -> None:
        """Complete a replacement of both files that was interrupted, or undo it if the journal was not renamed yet."""
        names, generation = self.sidecars, self.header.generation
        with writing(names.output):
            if names.new_output(generation).exists():
                os.replace(names.new_output(generation), names.output)
            names.new_output(generation + 1).unlink(missing_ok=True)
            names.new_journal.unlink(missing_ok=True)

    def _load_done(self, entries: Iterable[Entry]) -> tuple[int, int]:
        """Record which inputs are done; return the numbers of bytes up to which output and journal agree."""
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
        """Remove the results of inputs of this run that are processed again: changed files, and failures on request.

        A file that is missing now is not a changed file: its disk may only be unmounted, so its result stays.
        """
        stale = {
            path
            for path, (key, outcome) in self._done.items()
            if path in named and ((self._retry_errors and outcome != OK) or named[path].has_changed_since(key))
        }
        if stale:
            self._rewrite(self.header.format_name, stale)
            for path in stale:
                del self._done[path]

    def _rewrite(self, format_name: str, left_out: Set[str]) -> None:
        """Replace output and journal by new ones in a format, without the results of some real paths."""
        old, entries = read_journal(self.sidecars.journal)
        self._close_files()
        self._start_new_files(dataclasses.replace(old, format_name=format_name, generation=old.generation + 1))
        for entry, text, _ in verified(self.sidecars.output, old, entries):
            if entry.key.path in left_out:
                continue
            is_reported = bool(text or entry.record)  # the text of a result may be empty, as of one without events
            if not is_reported or self._takes_text_over(old.format_name):
                self._append(text, entry.key, entry.outcome, None)
            else:
                self._write_result(result_again(entry, text), entry.key)
        self._put_in_place()

    def _takes_text_over(self, format_name: str) -> bool:
        """Return whether the text of a result in an older output, of a format, is its text in this one too."""
        return format_name == self.header.format_name == "jsonl"

    def _write_result(self, result: TaggingResult, key: Key) -> None:
        """Format a result and write it; for JSON Lines the journal needs no copy of the record."""
        if self._is_behind:
            self._catch_up()
        self._writer.write(result)
        record = None if self.header.format_name == "jsonl" else result.to_dict()
        self._append(self._take_text(), key, str(result.error.code) if result.error else OK, record)

    def _append(self, text: bytes, key: Key, outcome: str, record: dict[str, Any] | None) -> None:
        """Write the text of an input, then its line; after that the input is done."""
        self._output.append(text)
        fields: dict[str, Any] = {"key": key.to_dict(), "outcome": outcome}
        fields |= {"offset_end": self._output.end, "crc32": self._output.crc32}
        self._journal.append(json_line(fields if record is None else fields | {"record": record}))
        self._confirm()
        self._num_results += 1
        self._num_texts += bool(text)

    def _write_end(self) -> None:
        """Write the end of the document, and mark the run as finished if each input that was yielded has a result."""
        self._cut_back()
        self._output.append(self._end_text())
        if self._all_handed_out and not self._in_flight:
            self._journal.append(FINISHED_LINE)
        if self._is_in_place:
            self._sync()
        else:
            self._put_in_place()

    def _end_text(self) -> bytes:
        """Return the end of the document."""
        self._writer.close()
        return self._take_text()

    def _take_text(self) -> bytes:
        """Return the text that the writer of the format has written since the last call."""
        text = self._text.getvalue()
        self._text.seek(0)
        self._text.truncate()
        return text.encode("utf-8", "replace")

    def _reset_writer(self) -> bytes:
        """Make a writer that continues after the existing results; return the text that it writes before the first.

        In formats that number their lines it catches up with the results when there is another one to write.
        """
        self._take_text()
        self._writer = open_writer(
            self.header.format_name, self._text, has_channels=self._has_channels, labels=self._labels
        )
        beginning = self._take_text()
        self._is_behind = self.header.format_name in NUMBERED and self._num_results > 0
        if self._num_texts and not self._is_behind:  # a separator depends on no result, so any result brings it
            self._writer.write(TaggingResult(path="", model="", activation="none"))
            self._take_text()
        return beginning

    def _catch_up(self) -> None:
        """Bring the writer into the state after the existing results, by writing them once more to nowhere."""
        _, entries = read_journal(self._journal.path)
        for entry in itertools.islice(entries, self._num_results):
            if entry.record:
                self._writer.write(result_again(entry, b""))
                self._take_text()
        self._is_behind = False

    def _confirm(self) -> None:
        self._output.confirm()
        self._journal.confirm()

    def _cut_back(self) -> None:
        """Cut off everything but whole results in both files: after a failure, and before the end."""
        for file in (self._output, self._journal):
            with contextlib.suppress(AstError):  # a later --resume cuts it off too
                file.cut_back()
        self._reset_writer()

    def _sync(self) -> None:
        """Write both files to the disk: the texts before the lines that confirm them."""
        self._output.sync()
        self._journal.sync()
        self._synced_at_s = time.monotonic()

    def _close_files(self) -> None:
        self._output.close()
        self._journal.close()

    def _release(self) -> None:
        """Close the files, remove new ones without a result, and release the lock."""
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
    has_channels: bool = False,
    labels: Sequence[str] = (),
) -> Journal:
    """Start an output, or continue one.

    An existing output does not change until the first new result is written. An output that is not a regular file, such
    as a named pipe, has no journal.

    Args:
        output: File to write.
        format_name: One of `ast_cli.report.FORMATS` that is text; it may change from run to run, and then the output is
            converted.
        fingerprint: All settings that change results, as JSON represents them: model, options.
        resume: Whether to continue an output that exists.
        force: Whether to replace an output that exists.
        retry_errors: Whether inputs of the run that failed are processed again, with ``resume``.
        shard: Shard of the inputs; None for all inputs.
        has_channels: Whether results are those of single channels, for the columns of CSV.
        labels: Labels that may be reported, for the columns of wide.

    Raises:
        UsageError: If the output exists with neither or both of ``resume`` and ``force``, or cannot be continued, or
            not with these settings.
        AstError: If another run writes the output, it cannot be written, or it or its journal is damaged.
    """
    if resume and force:
        raise UsageError("--resume continues an output and --force replaces it: choose one")
    if retry_errors and not resume:
        raise UsageError("--retry-errors repeats the failures of an earlier run: it needs --resume")
    header = Header(format_name, json.loads(json.dumps(fingerprint)), shard, generation=1)
    journal = Journal(Sidecars(output), header, retry_errors=retry_errors, has_channels=has_channels, labels=labels)
    journal.start(resume=resume, force=force)
    return journal


def _generation(journal: Path) -> int:
    """Return the generation of a journal that is to be replaced; 0 if there is none or it is damaged."""
    try:
        return read_journal(journal)[0].generation
    except AstError:
        return 0
