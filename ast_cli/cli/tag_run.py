"""The display of a run over many inputs: results, progress, errors as they occur, and a summary at the end."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ast_cli.audio.channels import MIX
from ast_cli.cli.progress import RunProgress, watched
from ast_cli.cli.streams import note, print_faults, results_stream, writing_stdout
from ast_cli.report import open_writer
from ast_cli.results import Record, TaggingResult
from ast_cli.tagging.options import DEFAULT_THRESHOLD, ClassifyOptions, RunOptions
from ast_cli.tagging.run.shards import format_shard

if TYPE_CHECKING:
    from ast_cli.tagging.run.tag_files import TaggingRun
    from ast_cli.tagging.run.tally import Tally
    from ast_cli.tagging.score.scoring import TagChooser


class SummarizedRun(Protocol):
    """The part of a run that its summary needs."""

    @property
    def tally(self) -> Tally:
        """Counts of the inputs that are done."""

    @property
    def journal_file(self) -> Path | None:
        """Journal of the run; None if there is none."""

    @property
    def can_be_resumed(self) -> bool:
        """Whether the same command with ``--resume`` continues the run."""


def show_run(
    running: TaggingRun,
    options: ClassifyOptions,
    run: RunOptions,
    *,
    quiet: bool,
    verbose: bool,
    is_live: bool,
    also: Callable[[Record], None] = lambda _record: None,
) -> bool:
    """Carry out a run and display it; return whether any input failed, in this run or in the one that it continues.

    Args:
        running: The opened run.
        options: Options of the tagging.
        run: Options of the run.
        quiet: Whether only errors are printed on standard error.
        verbose: Whether the summary is printed for a single input too, and contains engine and batch size.
        is_live: Whether the input is live.
        also: Function that takes each record too.

    Raises:
        AstError: If the run cannot be completed.
    """
    tally, progress = running.tally, RunProgress(running.tally, is_live=is_live)
    # A table on the terminal contains the errors itself.
    prints_faults = run.format_name != "table" or run.destination is not None or not sys.stdout.isatty()
    kept_for = "--resume and ast merge" if run.output_dir is None else "--resume"
    _note_thresholds(running.chooser, quiet=quiet)
    with (
        summarized(running, progress, running.done_in, kept_for, quiet=quiet, verbose=verbose),
        _printing(run, running.chooser.labels, has_channels=options.channels != MIX) as print_record,
    ):
        for record in watched(running, progress, quiet=quiet, to_stdout=run.destination is None):
            print_record(record)
            also(record)
            if prints_faults and isinstance(record, TaggingResult):
                print_faults(record.path, record.error, record.warnings, quiet=quiet)
    if verbose:
        note(running.description)
    if run.shard is not None and not tally.num_inputs:
        note(f"shard {format_shard(run.shard)} contains none of the inputs", quiet=quiet)
    return tally.num_failed > 0 or tally.num_failed_before > 0


def _note_thresholds(chooser: TagChooser, *, quiet: bool) -> None:
    """Note where events use the thresholds that come with the model."""
    num_own, num_labels = chooser.num_model_thresholds, len(chooser.label_ids)
    if num_own:
        others = f" ({num_own} of {num_labels} labels, {DEFAULT_THRESHOLD:g} for the others)"
        which = "" if num_own == num_labels else others
        note(f"note: events use the model's own thresholds{which}; --threshold sets one for all labels", quiet=quiet)


@contextlib.contextmanager
def summarized(
    running: SummarizedRun,
    progress: RunProgress,
    output: Path | None,
    kept_for: str,
    *,
    quiet: bool,
    verbose: bool = False,
) -> Iterator[None]:
    """Print one line about the run after a ``with`` block, and after an error or a signal how to continue the run.

    Args:
        running: The run.
        progress: The progress of the run, which measures the time.
        output: File or folder of the results; None for standard output.
        kept_for: Purpose of the journal that stays beside the results.
        quiet: Whether nothing is printed.
        verbose: Whether the line is printed for a single input too.
    """
    tally = running.tally
    try:
        yield
    except BrokenPipeError:  # the reader has closed the pipe and needs no summary
        raise
    except BaseException:
        if tally.num_done:
            note(tally.summary(progress.elapsed_s), quiet=quiet)
        if running.can_be_resumed:
            note(f"to continue, run the same command with --resume; {output} contains what is done", quiet=quiet)
        raise
    if tally.num_inputs > 1 or verbose:
        journal = running.journal_file
        kept = f"; {journal.name} is kept for {kept_for}" if journal else ""
        note(tally.summary(progress.elapsed_s) + kept, quiet=quiet)


@contextlib.contextmanager
def _printing(run: RunOptions, labels: Sequence[str], *, has_channels: bool) -> Iterator[Callable[[Record], None]]:
    """Yield a function that prints a record on standard output, or does nothing if there is an output."""
    if run.destination is not None:
        yield lambda _record: None
        return
    with results_stream() as stream:
        with writing_stdout():
            writer = open_writer(run.format_name, stream, has_channels=has_channels, labels=labels)

        def print_record(record: Record) -> None:
            with writing_stdout():
                writer.write(record)

        try:
            yield print_record
        finally:
            with writing_stdout():
                writer.close()
