"""A run over many inputs: each result is written once, however the run ends, and the run can be continued later."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ast_cli.audio.channels import EACH, MIX
from ast_cli.engine.batch_size import BatchSize, choose_batch_size
from ast_cli.engine.interface import Engine
from ast_cli.errors import UsageError
from ast_cli.report import FORMATS, WIDE, format_for
from ast_cli.results import SCHEMA_VERSION, Record, TaggingResult
from ast_cli.tagging.decode.opening import Turn, Workers
from ast_cli.tagging.inputs import STDIN, Input, RealPaths, list_inputs
from ast_cli.tagging.options import DEFAULT_TOP_K, ClassifyOptions, RunOptions
from ast_cli.tagging.run.check import check_run
from ast_cli.tagging.run.fingerprint import run_fingerprint
from ast_cli.tagging.run.folder_output import FolderPlan, open_folder_output
from ast_cli.tagging.run.journal import open_journal
from ast_cli.tagging.run.matches import MatchSelection
from ast_cli.tagging.run.parquet_output import open_parquet_output
from ast_cli.tagging.run.plan import remember_speed
from ast_cli.tagging.run.shards import in_shard
from ast_cli.tagging.run.tally import OnProgress, Tally
from ast_cli.tagging.score.classify import classify_inputs, classify_turns, own_thresholds, tag_chooser
from ast_cli.tagging.score.scoring import TagChooser
from ast_cli.tagging.tagger import Tagger

if TYPE_CHECKING:
    from ast_cli.audio.raw_stream import RawFormat


def tag_files(
    paths: Iterable[str | Path],
    tagger: Tagger,
    output: str | Path | None = None,
    *,
    output_dir: str | Path | None = None,
    options: ClassifyOptions | None = None,
    exclude: Sequence[str] = (),
    on_progress: OnProgress = lambda _tally: None,
    **run: Any,
) -> Tally:
    """Tag files and folders into one file, or into a folder with files for each, as ``ast classify`` does.

    The same call with ``resume=True`` continues a run that was killed: results in the output stay, the other inputs
    are tagged, and each input has one result.

    Args:
        paths: Files, folders, glob patterns.
        tagger: Tagger made by `Tagger.from_pretrained`, so that ``resume`` can compare the content of its checkpoint.
        output: File to write; its suffix selects the format.
        output_dir: Folder in which each input gets a file of its own, instead of ``output``; the formats are those of
            ``format_name``, such as ``"audacity,jsonl"``, by default JSON Lines.
        options: Options of the tagging; None for the defaults.
        exclude: Patterns of files and folders to leave out, see `ast_cli.tagging.inputs.Exclusion`.
        on_progress: Function that is called with the tally before each input and after each record; an exception that
            it raises ends the run.
        **run: Fields of `ast_cli.tagging.options.RunOptions`, e.g. ``resume=True, shard=(0, 8), num_workers=4``.

    Returns:
        Numbers of the inputs that were tagged, that failed, and that were done before.

    Raises:
        UsageError: If there is no output or there are two, it exists without ``resume`` or ``force``, or an option is
            invalid.
        AstError: If the output cannot be written, another run writes it, or too many inputs failed in a row.
    """
    if isinstance(paths, str | Path):
        raise UsageError(f"paths must be a list of paths, not the single path {str(paths)!r}")
    if output is None and output_dir is None:
        raise UsageError("name the file to write, output, or a folder of files, output_dir")
    file, folder = (None if path is None else Path(path) for path in (output, output_dir))
    format_name = "jsonl" if file is None else format_for(file, FORMATS)
    run_options = RunOptions(output=file, output_dir=folder, **{"format_name": format_name, **run})
    inputs = list(list_inputs((str(path) for path in paths), exclude=exclude))
    options = options or ClassifyOptions()
    plan = check_run(inputs, options, run_options)
    with open_run(tagger, inputs, options, run_options, plan=plan, on_progress=on_progress) as running:
        for _record in running:
            pass
    return running.tally


class RunOutput(Protocol):
    """What a run writes to: a file with its journal, or a folder with its journal."""

    @property
    def output(self) -> Path:
        """File or folder with the results that are done."""

    @property
    def num_skipped(self) -> int:
        """Number of inputs that earlier runs have done."""

    @property
    def num_skipped_failures(self) -> int:
        """Number of these inputs that failed."""

    @property
    def journal_file(self) -> Path | None:
        """The journal; None if there is none."""

    def pending(self, inputs: Iterable[Input]) -> Iterator[Input]:
        """Yield the inputs that are not done, and count the others."""

    def write(self, result: Record, item: Input, *, is_reported: bool = True) -> None:
        """Write the result of an input, which is then done."""


class TaggingRun:
    """An opened run, to be iterated once; it yields each record that is reported when it has been written.

    Attributes:
        tally: Counts of the inputs that are done.
        chooser: Labels that are reported, and their thresholds.
        batch_size: Number of windows per batch.
    """

    def __init__(
        self,
        records: Iterator[Record],
        tally: Tally,
        engine: Engine,
        chooser: TagChooser,
        batch_size: BatchSize,
        output: RunOutput | None,
    ) -> None:
        self.tally = tally
        self.chooser = chooser
        self.batch_size = batch_size
        self._engine = engine
        self._records = records
        self._output = output

    def __iter__(self) -> Iterator[Record]:
        """Return the records; a result is counted when the next record is taken.

        Raises:
            AstError: If the output cannot be written, or too many inputs failed.
        """
        return self._records

    @property
    def description(self) -> str:
        """Engine, device, data type and batch size, as text for messages."""
        engine = self._engine
        return f"{engine.name} engine on {engine.device_name} in {engine.dtype_name}; {self.batch_size}"

    @property
    def journal_file(self) -> Path | None:
        """Journal beside the output, or in its folder; None without an output, or if that is a pipe."""
        return None if self._output is None else self._output.journal_file

    @property
    def done_in(self) -> Path | None:
        """File or folder with the results that are done; None without an output."""
        return None if self._output is None else self._output.output

    @property
    def can_be_resumed(self) -> bool:
        """Whether the same run with ``resume`` finds the inputs that are done."""
        return self.journal_file is not None


@contextlib.contextmanager
def open_run(
    tagger: Tagger,
    inputs: list[Input],
    options: ClassifyOptions,
    run_options: RunOptions,
    *,
    plan: FolderPlan | None = None,
    workers: Workers | None = None,
    live: RawFormat | None = None,
    on_progress: OnProgress = lambda _tally: None,
) -> Iterator[TaggingRun]:
    """Open a run; without ``run_options.output`` and a plan its records are only yielded.

    Args:
        tagger: The loaded model.
        inputs: Inputs of all shards.
        options: Options of the tagging.
        run_options: Options of the run.
        plan: Files of the inputs, where they are written to a folder; from `check_run`.
        workers: Workers that are running; None to start them.
        live: Format of raw samples on standard input, which is then the only input; each window is tagged as soon as it
            is complete. None for files.
        on_progress: Function that is called with the tally before each input and after each record; an exception that
            it raises ends the run.

    Raises:
        AstError: If the output cannot be opened, or the options do not fit the model.
    """
    num_listed = None  # tags in other formats than wide
    if WIDE in run_options.formats and not (options.top_k or options.labels or options.thresholds):
        options, num_listed = dataclasses.replace(options, top_k=len(tagger.engine.config.id2label)), DEFAULT_TOP_K
    chooser = tag_chooser(tagger, options)  # validates the options before the output is opened
    if run_options.shard is not None:
        real_path, shard = RealPaths(), run_options.shard
        inputs = [item for item in inputs if in_shard(item, shard, real_path)]
    batch_size = choose_batch_size(tagger.engine, options.batch_size)
    tally = Tally(len(inputs), run_options.max_errors)
    with _output(tagger, options, run_options, plan, chooser.labels, num_listed) as output:
        pending = pending_inputs(inputs, output, tally, on_progress)
        if live is not None:
            tagged = _tagged_live(tagger, pending, options, live)
        else:
            tagged = classify_inputs(
                tagger,
                pending,
                options,
                workers or run_options,
                in_order=not run_options.unordered,
                batch_size=batch_size,
                watching=tally.watching,
            )
        select = None
        if run_options.matches_only:
            select, tally.num_matches = MatchSelection(options), 0
        records = _written(tagged, select, output, tally, on_progress)
        with contextlib.closing(tagged), contextlib.closing(records):
            started_s = time.monotonic()
            yield TaggingRun(records, tally, tagger.engine, chooser, batch_size, output)
        if live is None and options.channels != EACH:  # the speed of one channel, which mixed ones have too
            engine = tagger.engine
            how = f"{engine.name}, {engine.device_name}, {engine.dtype_name}"
            remember_speed(tagger.name, tally.audio_s, time.monotonic() - started_s, how)


def _output(
    tagger: Tagger,
    options: ClassifyOptions,
    run_options: RunOptions,
    plan: FolderPlan | None,
    labels: Sequence[str],
    num_listed: int | None,
) -> contextlib.AbstractContextManager[RunOutput | None]:
    """Open the output and its journal, if there is an output."""
    if run_options.output is None and plan is None:
        return contextlib.nullcontext()
    settings = fingerprint(tagger, options)
    if run_options.matches_only:  # an output contains either all inputs or only those that match
        settings["matches_only"] = True
    has_channels, shard = options.channels != MIX, run_options.shard
    if plan is not None:
        return open_folder_output(
            plan, settings, shard=shard, has_channels=has_channels, labels=labels, num_listed=num_listed
        )
    assert run_options.output is not None
    how: dict[str, Any] = {
        "resume": run_options.resume,
        "force": run_options.force,
        "retry_errors": run_options.retry_errors,
        "shard": shard,
    }
    if run_options.formats == ("parquet",):
        return open_parquet_output(run_options.output, settings, **how)
    return open_journal(
        run_options.output, run_options.format_name, settings, has_channels=has_channels, labels=labels, **how
    )


def pending_inputs(
    inputs: Iterable[Input], output: RunOutput | None, tally: Tally, on_progress: OnProgress
) -> Iterator[Input]:
    """Yield the inputs without a result, and count those that have one."""
    if output is None:
        for item in inputs:
            on_progress(tally)
            yield item
        return
    for item in output.pending(inputs):
        tally.num_skipped, tally.num_failed_before = output.num_skipped, output.num_skipped_failures
        on_progress(tally)
        yield item
    tally.num_skipped, tally.num_failed_before = output.num_skipped, output.num_skipped_failures
    on_progress(tally)


def _tagged_live(
    tagger: Tagger, pending: Iterator[Input], options: ClassifyOptions, live: RawFormat
) -> Generator[Record, None, None]:
    """Tag raw samples from standard input as they arrive; windows and events precede the result."""
    from ast_cli.audio.raw_stream import RawStream  # it imports decoders, which this process seldom needs

    (item,) = pending
    stream = RawStream(sys.stdin.buffer, live, tagger.feature_extractor.sampling_rate, options.channels)
    options = dataclasses.replace(options, batch_size=1, stream=True)
    yield from classify_turns(tagger, [Turn(item, lambda: stream)], options)


def _written(
    tagged: Iterable[Record],
    select: MatchSelection | None,
    output: RunOutput | None,
    tally: Tally,
    on_progress: OnProgress,
) -> Generator[Record, None, None]:
    """Write and yield the records that are reported, and count all results."""
    for record in tagged:
        reported = record if select is None else select(record)
        if output is not None:
            output.write(reported or record, Input(record.path or STDIN), is_reported=reported is not None)
        if reported is not None:
            yield reported
        if isinstance(record, TaggingResult):
            tally.add(record, is_match=reported is not None)
        on_progress(tally)
    tally.check()


def fingerprint(tagger: Tagger, options: ClassifyOptions) -> dict[str, Any]:
    """Return the settings that results depend on; runs with different settings cannot share an output."""
    own = own_thresholds(tagger, options)
    return {
        "schema_version": SCHEMA_VERSION,
        **({"model_thresholds": sorted(own.items())} if own else {}),
        **run_fingerprint(tagger.name, tagger.engine, tagger.feature_extractor, options),
    }
