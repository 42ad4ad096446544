"""A run of ``ast classify`` as a person sees it: progress, faults as they come, a summary at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ast_cli.cli.progress import RunProgress, watched
from ast_cli.cli.streams import note, results_stream, tell_faults, writing_stdout
from ast_cli.report import open_writer
from ast_cli.results import Record, TaggingResult
from ast_cli.tagging.options import RunOptions

if TYPE_CHECKING:
    from ast_cli.tagging.run.tag_files import TaggingRun


def show_run(running: TaggingRun, run: RunOptions, *, quiet: bool, is_live: bool) -> bool:
    """Take a run to its end, whatever that is; return whether any input failed, now or in the run that is continued.

    Raises:
        AstError: The run cannot be completed.
    """
    tally, progress = running.tally, RunProgress(running.tally, is_live=is_live)
    # A table on standard output shows errors itself.
    tells_faults = run.format_name != "table" or run.output is not None
    try:
        with _printing(run) as print_record:
            for record in watched(running, progress, quiet=quiet, to_stdout=run.output is None):
                print_record(record)
                if tells_faults and isinstance(record, TaggingResult):
                    tell_faults(record.path, record.error, record.warnings, quiet=quiet)
    except BrokenPipeError:  # the reader has seen enough and wants no summary
        raise
    except BaseException:
        if tally.num_done:
            note(tally.summary(progress.elapsed_s), quiet=quiet)
        if running.can_be_resumed:
            note(f"to go on, run the same command with --resume; {run.output} holds what is done", quiet=quiet)
        raise
    if tally.num_inputs > 1 or tally.num_failed:
        batches = f"; {running.batch_size}" if not is_live and tally.num_ok > 1 else ""
        note(tally.summary(progress.elapsed_s) + batches, quiet=quiet)
    return tally.num_failed > 0 or tally.num_failed_before > 0


@contextlib.contextmanager
def _printing(run: RunOptions) -> Iterator[Callable[[Record], None]]:
    """Give what prints a record on standard output, where there is no other output."""
    if run.output is not None:
        yield lambda _record: None
        return
    with results_stream() as stream:
        with writing_stdout():
            writer = open_writer(run.format_name, stream)

        def print_record(record: Record) -> None:
            with writing_stdout():
                writer.write(record)

        try:
            yield print_record
        finally:
            with writing_stdout():
                writer.close()
