"""``ast report``: results that exist as a page to look at, listen to and check."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ast_cli.cli import parameters as p
from ast_cli.cli.live_line import PLAIN_INTERVAL_S, live_line
from ast_cli.cli.option_flags import with_flags
from ast_cli.cli.signals import raise_if_ended
from ast_cli.cli.streams import note, quiet_native_libraries
from ast_cli.errors import UsageError
from ast_cli.files.target import ReadFiles, check_target
from ast_cli.report.json_lines import JSONLinesWriter
from ast_cli.report.reading import STDIN
from ast_cli.report.text import counted
from ast_cli.report_page.answers import Item, read_answers
from ast_cli.report_page.options import ReportOptions
from ast_cli.results import Record
from ast_cli.tagging.options import ClassifyOptions, RunOptions

if TYPE_CHECKING:
    from ast_cli.report_page.page import ReportSummary
    from ast_cli.tagging.inputs import Input


@with_flags
def report(
    *,
    results: Annotated[
        str, typer.Argument(metavar="RESULTS", help="Results of ast classify, as .jsonl or .json; - for stdin.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The page to write, as .html.")],
    answers: Annotated[
        Path | None,
        typer.Option("--answers", metavar="FILE", help="Answers that a page has downloaded, to go on from there."),
    ] = None,
    options: ReportOptions,
    force: p.Force = False,
    quiet: p.Quiet = False,
) -> None:
    """Write one HTML page with players, spectrograms and lanes of labels, from results that exist.

    The page needs no network and no server. On it each label can be accepted or rejected, and the answers downloaded.
    Paths in the results are relative to the current folder.

    Example: `ast report tags.jsonl --output report.html`
    """
    read = [results] if answers is None else [results, str(answers)]
    check_target(output, ReadFiles(read, "a file that the page is made from"), force=force)
    known = read_answers(answers) if answers is not None else {}
    with quiet_native_libraries(), _file_of(results) as file:
        title = "standard input" if results == STDIN else file.name
        summary = _write(file, output, options, known, title, quiet=quiet)
    if summary.num_unmatched_answers:
        note(
            f"warning: {answers}: {counted(summary.num_unmatched_answers, 'answer')} to nothing in these results; kept "
            "in the page",
            quiet=quiet,
        )


def check_page_of_run(file: Path, inputs: Sequence[Input], options: ClassifyOptions, run: RunOptions) -> None:
    """Check before a run that the page about it can be written after it.

    Raises:
        UsageError: If it cannot; the message says what to do.
    """
    check_target(
        file, ReadFiles([item.path for item in inputs]), force=run.force, flag="--report", resume=run.resume or None
    )
    if run.output is not None and file.absolute() == run.output.absolute():
        raise UsageError(f"--report {file} is the --output too: name another file")
    if options.stream:
        raise UsageError("--report shows recordings that are complete: leave out --stream and --raw-rate")
    if run.resume and run.format_name not in ("jsonl", "json"):
        raise UsageError("--report with --resume reads the earlier results: choose an --output in .jsonl or .json")


@contextlib.contextmanager
def page_of_run(file: Path | None, run: RunOptions, title: str, *, quiet: bool) -> Iterator[Callable[[Record], None]]:
    """Write a page about a run after the ``with`` block, unless that raises.

    The page is made from the output, if that is JSON Lines, else from a temporary copy of the results as such. Memory
    does not grow with the run.

    Args:
        file: File of the page; None for no page.
        run: Options of the run.
        title: Title of the page.
        quiet: Whether only errors are printed.

    Yields:
        Function that takes each record of the run.
    """
    if file is None:
        yield lambda _record: None
        return
    options = ReportOptions(num_workers=run.num_workers, timeout_s=run.timeout_s)
    is_kept = run.output is not None and (run.resume or (run.format_name == "jsonl" and not _is_pipe(run.output)))
    if run.output is not None and is_kept:
        yield lambda _record: None
        _write(run.output, file, options, {}, title, quiet=quiet)
        return
    with tempfile.TemporaryDirectory(prefix="ast-report-") as folder:
        results = Path(folder, "results.jsonl")
        with open(results, "w", encoding="ascii") as stream:
            yield JSONLinesWriter(stream).write
        _write(results, file, options, {}, title, quiet=quiet)


def _is_pipe(file: Path) -> bool:
    return file.exists() and not file.is_file()


def _write(
    results: Path,
    output: Path,
    options: ReportOptions,
    answers: Mapping[Item, Mapping[str, Any]],
    title: str,
    *,
    quiet: bool,
) -> ReportSummary:
    """Write the page while progress is shown, and print one line about it."""
    from ast_cli.report_page.page import write_report

    with _showing_progress(quiet=quiet) as on_progress:
        summary = write_report(results, output, options, answers=answers, title=title, on_progress=on_progress)
    note(_described(summary, output), quiet=quiet)
    return summary


@contextlib.contextmanager
def _file_of(results: str) -> Iterator[Path]:
    """Yield the file of results, which is read twice: standard input as a temporary file."""
    if results != STDIN:
        yield Path(results)
        return
    with tempfile.TemporaryDirectory(prefix="ast-report-") as folder:
        file = Path(folder, "results.jsonl")
        with open(file, "wb") as stream:
            shutil.copyfileobj(sys.stdin.buffer, stream)
        yield file


@contextlib.contextmanager
def _showing_progress(*, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show on standard error how many recordings are in the page; yield the function that says it."""
    text, said_s = "", time.monotonic()

    def on_progress(num_done: int, num_records: int) -> None:
        nonlocal text, said_s
        raise_if_ended()
        text = f"page: {num_done} of {counted(num_records, 'recording')}"
        if not sys.stderr.isatty() and time.monotonic() - said_s > PLAIN_INTERVAL_S:
            said_s = time.monotonic()
            note(text, quiet=quiet)

    is_live = sys.stderr.isatty() and not quiet
    with live_line(lambda _columns: text) if is_live else contextlib.nullcontext():
        yield on_progress


def _described(summary: ReportSummary, output: Path) -> str:
    """Return one line about a page that was written."""
    parts = [counted(summary.num_records, "recording")]
    parts += [f"{summary.num_failed} failed"] if summary.num_failed else []
    parts += [f"audio of {summary.num_embedded} in the page"] if summary.num_embedded else []
    parts += [f"audio of {summary.num_linked} by its path"] if summary.num_linked else []
    parts += [f"audio of {summary.num_unread} not found"] if summary.num_unread else []
    parts += [counted(summary.num_answers, "answer")] if summary.num_answers else []
    return f"{output}: {', '.join(parts)}; {summary.num_bytes / 1e6:.1f} MB"
