"""A run of ``ast classify``: inputs through worker processes and the model into an output, watched and counted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from ast_cli.cli.progress import Progress, Record, watched
from ast_cli.cli.signals import raise_if_ended
from ast_cli.cli.streams import note, results_stream, writing_stdout
from ast_cli.errors import UsageError
from ast_cli.report import open_writer
from ast_cli.report.text import printable
from ast_cli.results import TaggingResult
from ast_cli.tagging.inputs import STDIN, Input, RealPaths
from ast_cli.tagging.options import ClassifyOptions, check_workers
from ast_cli.tagging.run.shards import Shard, in_shard
from ast_cli.tagging.run.tally import Tally

if TYPE_CHECKING:
    from ast_cli.engine.micro_batch import MicroBatch
    from ast_cli.tagging.decode.pool import DecodePool
    from ast_cli.tagging.run.journal import Journal
    from ast_cli.tagging.tagger import Tagger

MIN_UNORDERED_WORKERS = 2  # while one waits in a long recording, the other decodes short ones


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run goes, apart from what it computes.

    Attributes:
        format_name: One of `ast_cli.report.FORMATS`.
        output: A file; None for standard output.
        resume: Go on with an output that was begun.
        retry_errors: With ``resume``, redo inputs that failed.
        force: Replace an output that exists.
        shard: Which part of the inputs, of how many.
        num_workers: Processes that decode; 0 for none, None to let the machine decide.
        timeout_s: Until a file that yields nothing is given up.
        unordered: Write results as they come, not in input order.
        max_errors: Failed inputs at which to stop; None for never.
        quiet: Say nothing on standard error but errors.
    """

    format_name: str
    output: Path | None = None
    resume: bool = False
    retry_errors: bool = False
    force: bool = False
    shard: Shard | None = None
    num_workers: int | None = None
    timeout_s: float = 60.0
    unordered: bool = False
    max_errors: int | None = None
    quiet: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.output is None and self.resume:
            raise UsageError("--resume needs --output: what goes to standard output cannot be continued")
        check_workers(self.num_workers, self.timeout_s)
        if self.max_errors is not None and self.max_errors < 1:
            raise UsageError(f"max errors must be at least 1, not {self.max_errors}")


class _Sink(Protocol):
    """Where records go."""

    @property
    def num_skipped(self) -> int:
        """Inputs that had their record before this run."""

    @property
    def can_go_on(self) -> bool:
        """Whether ``--resume`` would find what is done."""

    @property
    def num_failed_before(self) -> int:
        """Those of them whose record is an error."""

    def pending(self, inputs: Iterable[Input]) -> Iterator[Input]:
        """Yield the inputs that need a record."""

    def write(self, record: Record) -> None:
        """Write one record."""


@contextlib.contextmanager
def decoders(inputs: list[Input], options: ClassifyOptions, run: RunOptions) -> Iterator[DecodePool | None]:
    """Start the processes that decode; None with 0 workers.

    Before torch is imported and the model read: they have found their libraries when it is ready.
    """
    if run.num_workers == 0:
        yield None
        return
    from ast_cli.audio.samples import MODEL_SAMPLING_RATE

    with _pool(len(inputs), MODEL_SAMPLING_RATE, options, run) as pool:
        yield pool


def _pool(most: int, sampling_rate: int, options: ClassifyOptions, run: RunOptions) -> DecodePool:
    """Return a pool of at most so many workers, started."""
    from ast_cli.tagging.decode.pool import DecodePool, default_num_workers

    least = MIN_UNORDERED_WORKERS if run.unordered else 1
    num_workers = min(run.num_workers or max(least, default_num_workers()), most)
    return DecodePool(num_workers, sampling_rate, options, run.timeout_s, start_now=True)


def tag_inputs(
    tagger: Tagger, inputs: list[Input], options: ClassifyOptions, run: RunOptions, pool: DecodePool | None
) -> bool:
    """Tag inputs into the output; return whether any failed, now or in the run that is continued.

    Args:
        tagger: The loaded model.
        inputs: All that the command names.
        options: How they are tagged.
        run: How the run goes.
        pool: Of `decoders`.

    Raises:
        AstError: The run cannot be completed.
    """
    tagger.check_options(options)
    if run.shard is not None:
        real_path = RealPaths()
        inputs = [item for item in inputs if in_shard(item, run.shard, real_path)]
    micro_batch = tagger.choose_micro_batch(options, len(inputs))
    with (
        _sink(tagger, options, run) as sink,
        _fitting(pool, tagger, options, run) as fitting,
    ):
        tally = Tally(run.max_errors)
        records = _results(tagger, _pending(inputs, sink, tally), fitting, options, run, tally, micro_batch)
        return _record(records, sink, Progress(tally, len(inputs)), run, micro_batch)


def _pending(inputs: Iterable[Input], sink: _Sink, tally: Tally) -> Iterator[Input]:
    """Pass on the inputs that need a record until a signal has ended the run; count those that do not."""
    for item in sink.pending(inputs):
        raise_if_ended()
        _count_skipped(sink, tally)
        yield item
    _count_skipped(sink, tally)


def _count_skipped(sink: _Sink, tally: Tally) -> None:
    tally.num_skipped, tally.num_failed_before = sink.num_skipped, sink.num_failed_before


def tag_live(tagger: Tagger, raw: tuple[int, str, int], options: ClassifyOptions, run: RunOptions) -> bool:
    """Tag raw samples of standard input (rate, format, channels) while they come; otherwise as `tag_inputs`."""
    tagger.check_options(options)
    with _sink(tagger, options, run) as sink:
        list(sink.pending([Input(STDIN)]))  # never resumed, so always to be tagged
        progress = Progress(Tally(run.max_errors), 1, is_live=True)
        return _record(tagger.classify_live(*raw, options), sink, progress, run)


@contextlib.contextmanager
def _fitting(
    pool: DecodePool | None, tagger: Tagger, options: ClassifyOptions, run: RunOptions
) -> Iterator[DecodePool | None]:
    """Return the pool, or another for a model unlike all published ones, which hears another sampling rate."""
    rate = tagger.feature_extractor.sampling_rate
    if pool is None or rate == pool.sampling_rate:
        yield pool
        return
    with _pool(pool.num_workers, rate, options, run) as other:
        yield other


def _results(
    tagger: Tagger,
    inputs: Iterable[Input],
    pool: DecodePool | None,
    options: ClassifyOptions,
    run: RunOptions,
    tally: Tally,
    micro_batch: MicroBatch,
) -> Iterator[Record]:
    """Tag inputs, decoded by a pool or in this process, where they come one after another, which is their order."""
    if pool is None:
        sources = ((item, tally.watching(item.path, opener)) for item, opener in tagger.sources(inputs, options))
        return tagger.classify_sources(sources, options, micro_batch)
    if run.unordered:
        return tagger.classify_turns(pool.turns(inputs, tally.watching), options, micro_batch)
    return tagger.classify_sources(pool.open_streams(inputs, tally.watching), options, micro_batch)


def _record(
    records: Iterable[Record], sink: _Sink, progress: Progress, run: RunOptions, micro_batch: MicroBatch | None = None
) -> bool:
    """Write records as they come, keep the tally, and sum up at the end, whatever the end is."""
    tally = progress.tally
    try:
        for record in watched(records, progress, quiet=run.quiet, to_stdout=run.output is None):
            _take(record, sink, tally, run)
            raise_if_ended()
        tally.check(progress.num_inputs)
    except BrokenPipeError:  # the reader has seen enough and wants no summary
        raise
    except BaseException:
        if tally.num_done:
            note(tally.summary(progress.elapsed_s, progress.num_inputs), quiet=run.quiet)
        if sink.can_go_on:
            note(f"to go on, run the same command with --resume; {run.output} holds what is done", quiet=run.quiet)
        raise
    if progress.num_inputs > 1 or tally.num_failed:
        batches = f"; {micro_batch}" if micro_batch is not None and tally.num_ok > 1 else ""
        note(tally.summary(progress.elapsed_s, progress.num_inputs) + batches, quiet=run.quiet)
    return tally.num_failed > 0 or tally.num_failed_before > 0


def _take(record: Record, sink: _Sink, tally: Tally, run: RunOptions) -> None:
    """Write one record and count it."""
    sink.write(record)
    if isinstance(record, TaggingResult):
        if run.format_name != "table" or run.output is not None:  # a table on standard output shows errors itself
            _tell(record, quiet=run.quiet)
        tally.add(record)


def _tell(result: TaggingResult, *, quiet: bool) -> None:
    """Repeat on standard error what went wrong with one input."""
    if result.error is not None:
        note(f"error: {printable(result.error.message)}")
    elif result.warnings:
        note(f"warning: {printable(result.path or '')}: {', '.join(result.warnings)}", quiet=quiet)


@contextlib.contextmanager
def _sink(tagger: Tagger, options: ClassifyOptions, run: RunOptions) -> Iterator[_Sink]:
    """Open the output: with a journal beside a file, plainly for standard output."""
    if run.output is None:
        with results_stream() as stream, contextlib.closing(_StandardOutput(run.format_name, stream)) as plain:
            yield plain
        return
    from ast_cli.tagging.run.fingerprint import fingerprint
    from ast_cli.tagging.run.journal import open_journal

    journal = open_journal(
        run.output,
        run.format_name,
        fingerprint(tagger, options),
        resume=run.resume,
        force=run.force,
        retry_errors=run.retry_errors,
        shard=run.shard,
    )
    with journal:
        yield _Journalled(journal)


class _StandardOutput:
    """Standard output: every input needs a record."""

    num_skipped = num_failed_before = 0
    can_go_on = False

    def __init__(self, format_name: str, stream: TextIO) -> None:
        with writing_stdout():
            self._writer = open_writer(format_name, stream)

    def pending(self, inputs: Iterable[Input]) -> Iterator[Input]:
        yield from inputs

    def write(self, record: Record) -> None:
        with writing_stdout():
            self._writer.write(record)

    def close(self) -> None:
        with writing_stdout():
            self._writer.close()


class _Journalled:
    """A file with its journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    @property
    def can_go_on(self) -> bool:
        return self._journal.sidecars.journal.exists()

    @property
    def num_skipped(self) -> int:
        return self._journal.num_skipped

    @property
    def num_failed_before(self) -> int:
        return self._journal.num_skipped - self._journal.skipped["ok"]

    def pending(self, inputs: Iterable[Input]) -> Iterator[Input]:
        return self._journal.pending(inputs)

    def write(self, record: Record) -> None:
        self._journal.write(record, Input(record.path or STDIN))
