"""The library behind ``ast report``: from a file of results to one HTML file, in memory that does not grow with it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, quote_from_bytes

import numpy as np
from numpy.typing import NDArray

from ast_cli import __version__
from ast_cli.audio.channels import EACH, MIX, Channels, check_channel, split_channels
from ast_cli.audio.sample_stream import SampleStream
from ast_cli.audio.samples import MODEL_SAMPLING_RATE
from ast_cli.errors import AudioError
from ast_cli.files.atomic import replacing, writing
from ast_cli.report.reading import read_results
from ast_cli.report.text import printable
from ast_cli.report_page.answers import Item
from ast_cli.report_page.data import Audio, Labels, check_record, is_finite_duration, json_in_html, record_data
from ast_cli.report_page.document import write_document
from ast_cli.report_page.options import ReportOptions
from ast_cli.report_page.preview import BYTES_PER_S
from ast_cli.report_page.sound import MAX_COLUMNS, read_sounds
from ast_cli.results import TaggingResult
from ast_cli.tagging.decode.opening import Turn, open_inputs, start_decoding
from ast_cli.tagging.inputs import STDIN, Input

ALL_COLUMNS = 2_000_000  # of all spectrograms together: about 40 MB
MIN_COLUMNS = 64  # of one recording
MB = 1_000_000
SHOWN_MODELS = 3

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ReportSummary:
    """What is in a report page.

    Attributes:
        num_records: Number of recordings, or of their channels.
        num_failed: Number of those that could not be tagged.
        num_embedded: Number with a preview in the page.
        num_linked: Number that is played from its file.
        num_unread: Number that was tagged and whose audio could not be read for the page.
        num_answers: Number of earlier answers that belong to something in the results.
        num_unmatched_answers: Number of those that do not.
        num_bytes: Size of the page.
    """

    num_records: int
    num_failed: int
    num_embedded: int
    num_linked: int
    num_unread: int
    num_answers: int
    num_unmatched_answers: int
    num_bytes: int


def write_report(
    results: str | Path,
    output: str | Path,
    options: ReportOptions | None = None,
    *,
    answers: Mapping[Item, Mapping[str, Any]] | None = None,
    title: str | None = None,
    on_progress: OnProgress = lambda _done, _total: None,
) -> ReportSummary:
    """Write the report page of results, atomically.

    Each recording is read once more, for its pictures and its preview. One that is no longer there, or is no longer
    audio, is shown without them.

    Args:
        results: File that ``ast classify`` wrote as JSON Lines or JSON. Its paths are relative to the current folder.
        output: File to write; an existing one is replaced.
        options: Options of the page; None for the defaults.
        answers: Earlier answers, from `ast_cli.report_page.answers.read_answers`.
        title: Title of the page; None for the name of the file of results.
        on_progress: Function that is called with the numbers of records that are done and of all.

    Raises:
        UsageError: If there is no file of results.
        AstError: If it cannot be read, something in it is no record, or the page cannot be written.
    """
    output, options = Path(output), options or ReportOptions()
    num_records = sum(1 for _ in read_results(results))  # refuses a broken file before any audio is read
    page = _Page(output, options, answers or {}, num_records)
    with contextlib.ExitStack() as stack:
        page.index = stack.enter_context(_spool())
        page.details = stack.enter_context(_spool())
        workers = stack.enter_context(start_decoding(options, num_records, start_now=False))
        inputs = filter(None, map(page.input_of, recordings(read_results(results))))  # ahead of the records
        page.turns = stack.enter_context(open_inputs(inputs, MODEL_SAMPLING_RATE, workers=workers))
        with writing(output):
            num_done = 0
            for records in recordings(read_results(results)):
                on_progress(num_done, num_records)
                page.add(records)
                num_done += len(records)
            with replacing(output) as stream:
                page.write(stream, title or Path(results).name)
    return page.summary(output.stat().st_size)


def _spool() -> contextlib.AbstractContextManager[IO[str]]:
    """Return a temporary file for lines of JSON."""
    return tempfile.TemporaryFile("w+", encoding="ascii", prefix="ast-report-")


def recordings(results: Iterable[TaggingResult]) -> Iterator[list[TaggingResult]]:
    """Yield the records of each recording: one, or those of its channels, which follow each other.

    Raises:
        AstError: If a record has no path or channel that a recording can have.
    """
    pending: list[TaggingResult] = []
    for result in results:
        check_record(result)
        last = pending[-1] if pending else None
        if last and not (
            last.path == result.path and last.channel and result.channel and last.channel < result.channel
        ):
            yield pending
            pending = []
        pending.append(result)
    if pending:
        yield pending


class _Page:
    """The content of a page while it is collected, a line of JSON for each record."""

    index: IO[str]
    details: IO[str]
    turns: Iterator[Turn]  # of the inputs of all records, as `input_of` returns them

    def __init__(
        self, output: Path, options: ReportOptions, answers: Mapping[Item, Mapping[str, Any]], num_records: int
    ) -> None:
        self._folder = os.path.abspath(output.parent)
        self._options = options
        self._answers = answers
        self._max_columns = max(MIN_COLUMNS, min(MAX_COLUMNS, ALL_COLUMNS // max(1, num_records)))
        self._bytes_left = int(options.embed_mb * MB)
        self._labels = Labels()
        self._counts = {"embedded": 0, "linked": 0, "none": 0}
        self._num_failed = 0
        self._num_answers = 0
        self._models: dict[str, None] = {}

    def input_of(self, records: list[TaggingResult]) -> Input | None:
        """Return what is read of the records of one recording; None if nothing is."""
        path = records[0].path
        if self._options.results_only or records[0].error is not None or path is None or path == STDIN:
            return None
        return Input(path, listed=True, channels=_channels(records))

    def add(self, records: list[TaggingResult]) -> None:
        """Add the records of one recording: itself, or its channels."""
        for record, audio in zip(records, self._audio(records), strict=True):
            row, details, answered = record_data(record, audio, self._labels, self._answers)
            self.index.write(row + "\n")
            self.details.write(details + "\n")
            self._num_answers += len(answered)
            if record.error is not None:
                self._num_failed += 1
            else:
                self._counts[audio.mode] += 1
            if len(self._models) <= SHOWN_MODELS:
                self._models[str(record.model)] = None

    def _audio(self, records: list[TaggingResult]) -> list[Audio]:
        """Return what the page shows of the sound of each record."""
        path = records[0].path
        if self._options.results_only or records[0].error is not None:
            return [Audio() for _ in records]
        if path is None or path == STDIN:
            where = "standard input" if path == STDIN else "memory"
            return [Audio(problem=f"The audio came from {where}, so it cannot be shown here.") for _ in records]
        try:
            stream = next(self.turns).open_stream()
            with contextlib.closing(stream):
                is_split = _channels(records) == EACH
                return self._read(records, _chosen(stream, path, records) if is_split else [stream])
        except AudioError as error:
            reason = printable(str(error))
            return [Audio(problem=f"The audio could not be read when this page was made: {reason}") for _ in records]

    def _read(self, records: list[TaggingResult], streams: Sequence[Iterable[NDArray[np.float32]]]) -> list[Audio]:
        """Read the audio of records, and make previews of it while there is room in the page."""
        known_s = sum(each.duration_s for each in records if is_finite_duration(each.duration_s))  # type: ignore[misc]
        fits = known_s * BYTES_PER_S <= self._bytes_left
        sounds = read_sounds(
            streams,
            max_columns=max(MIN_COLUMNS, self._max_columns // len(records)),
            max_preview_bytes=self._bytes_left // len(records) if fits else 0,
        )
        self._bytes_left -= sum(len(sound.preview or b"") for sound in sounds)
        link = relative_address(records[0].path or "", self._folder)
        return [Audio(sound, link) for sound in sounds]

    def write(self, stream: Any, title: str) -> None:
        """Write the page to a binary stream."""
        for spool in (self.index, self.details):
            spool.seek(0)
        counts = self._counts
        facts = {
            "version": __version__,
            "source": title,
            "models": list(self._models)[:SHOWN_MODELS] + (["..."] if len(self._models) > SHOWN_MODELS else []),
            "labels": self._labels.rows(),
            "embedded": counts["embedded"],
            "linked": counts["linked"],
            "unread": 0 if self._options.results_only else counts["none"],
            "embedMb": self._options.embed_mb,
            "sound": not self._options.results_only,
        }
        write_document(
            stream,
            f"{title} - ast report",
            self._index_json(facts),
            (line.rstrip("\n") for line in self.details),
            has_links=counts["linked"] > 0,
        )

    def _index_json(self, facts: dict[str, Any]) -> Iterator[str]:
        yield f'{{"facts":{json_in_html(facts)},"rows":['
        for number, line in enumerate(self.index):
            yield f"{',' if number else ''}{line}"
        yield f'],"answers":{json_in_html(list(self._answers.values()))}}}'

    def summary(self, num_bytes: int) -> ReportSummary:
        """Return what is in the page."""
        counts = self._counts
        return ReportSummary(
            num_records=sum(counts.values()) + self._num_failed,
            num_failed=self._num_failed,
            num_embedded=counts["embedded"],
            num_linked=counts["linked"],
            num_unread=0 if self._options.results_only else counts["none"],
            num_answers=self._num_answers,
            num_unmatched_answers=len(self._answers) - self._num_answers,
            num_bytes=num_bytes,
        )


def _channels(records: list[TaggingResult]) -> Channels:
    """Return the channels that the records of one recording are about."""
    return EACH if len(records) > 1 else records[0].channel or MIX


def _chosen(stream: SampleStream, path: str, records: list[TaggingResult]) -> list[Iterable[NDArray[np.float32]]]:
    """Return the channels of a stream that records are about.

    Raises:
        AudioError: If the file has fewer channels than when it was tagged.
    """
    apart, numbers = split_channels(stream), [record.channel or 1 for record in records]
    for number in numbers:
        check_channel(path, number, len(apart))
    return [apart[number - 1] for number in numbers]


def relative_address(path: str, folder: str) -> str:
    """Return the address of a file as a page in a folder writes it, for names of any bytes.

    On Windows a file on another disk has no relative path, and its address begins with ``file:``.
    """
    file = os.path.abspath(path)
    try:
        relative = os.path.relpath(file, folder)
    except ValueError:
        return Path(file).as_uri()
    if os.name == "posix":
        return quote_from_bytes(os.fsencode(relative), safe="/")
    return quote(relative.replace(os.sep, "/"), safe="/")
