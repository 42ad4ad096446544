"""Extraction from many inputs into one table: a run in constant memory that can be stopped and resumed."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator

from ast_cli.audio.channels import MIX
from ast_cli.errors import AudioError
from ast_cli.tagging.decode.opening import Turn, Workers, open_inputs
from ast_cli.tagging.extract.extract_files import ExtractedFile, ExtractionRun, Extractor
from ast_cli.tagging.extract.extraction import window_batches
from ast_cli.tagging.extract.table_journal import TableJournal
from ast_cli.tagging.extract.table_rows import TableColumns
from ast_cli.tagging.extract.targets import TablePlan
from ast_cli.tagging.options import ExtractRunOptions
from ast_cli.tagging.run.tag_files import pending_inputs
from ast_cli.tagging.run.tally import OnProgress, Tally
from ast_cli.tagging.score.batch import file_error


@contextlib.contextmanager
def open_table(
    extractor: Extractor,
    plan: TablePlan,
    run_options: ExtractRunOptions,
    *,
    workers: Workers | None = None,
    on_progress: OnProgress = lambda _tally: None,
) -> Iterator[ExtractionRun]:
    """Open a run that appends the rows of each input to one table; at the end of the block the table is complete.

    Args:
        extractor: The loaded model and the options.
        plan: The inputs and the table.
        run_options: Options of the run, the same that the plan was made with.
        workers: Decoding processes that run already; None to start them.
        on_progress: Called with the tally before each input and after each outcome; an exception ends the run.

    Raises:
        UsageError: If the table was begun with another model or other options.
        AstError: If the table cannot be written, or if another run writes to it.
    """
    tally = Tally(len(plan.inputs), run_options.max_errors)
    options = extractor.options
    columns = TableColumns.of(options.what, extractor.engine, has_channels=options.channels != MIX)
    journal = TableJournal(plan.rows, plan.format_name, extractor.fingerprint(), columns.heading())
    with journal.open(resume=run_options.resume, force=run_options.force):
        outcomes = _outcomes(extractor, columns, plan, journal, tally, workers or run_options, on_progress)
        with contextlib.closing(outcomes):
            yield ExtractionRun(outcomes, tally, journal)
    if plan.format_name == "parquet":
        from ast_cli.tagging.extract.parquet import write_parquet

        write_parquet(plan.rows, plan.output, columns, extractor)


def _outcomes(
    extractor: Extractor,
    columns: TableColumns,
    plan: TablePlan,
    journal: TableJournal,
    tally: Tally,
    workers: Workers,
    on_progress: OnProgress,
) -> Generator[ExtractedFile, None, None]:
    """Extract the inputs that have no rows yet, and count all of them."""
    pending = pending_inputs(plan.inputs, journal, tally, on_progress)
    rate = extractor.feature_extractor.sampling_rate
    with open_inputs(pending, rate, extractor.options, workers, tally.watching) as turns:
        for turn in turns:
            outcome = _extract(extractor, columns, turn, plan, journal)
            yield outcome
            tally.add(outcome)
            on_progress(tally)
    tally.check()
    on_progress(tally)


def _extract(
    extractor: Extractor, columns: TableColumns, turn: Turn, plan: TablePlan, journal: TableJournal
) -> ExtractedFile:
    """Append the rows of one input, batch by batch."""
    item, num_rows = turn.item, 0
    try:
        recordings = extractor.recordings(turn)
        for batch in window_batches(recordings, extractor.engine, extractor.options):
            journal.add_rows(columns.rows(item.path, batch))
            num_rows += len(batch.values)
    except AudioError as error:
        journal.discard_rows()
        return ExtractedFile(item.path, plan.output, error=item.error or file_error(item, error))
    journal.confirm_input(item)
    shapes: dict[str, tuple[int, ...]] = {columns.what: (num_rows, len(columns.features))}
    return ExtractedFile(item.path, plan.output, shapes, recordings[0].stream.duration_s, recordings[0].warnings)
