"""``ast extract``: recordings to features, embeddings, logits, hidden states or attentions."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from ast_cli.cli import parameters as p
from ast_cli.cli.option_flags import with_flags
from ast_cli.cli.progress import RunProgress, watched
from ast_cli.cli.signals import nothing_to_save, raise_if_ended
from ast_cli.cli.streams import notice, print_faults, quiet_native_libraries, writing_stdout
from ast_cli.cli.tag_run import summarized
from ast_cli.errors import ExitCode
from ast_cli.report.text import printable
from ast_cli.tagging.extract.targets import (
    ExtractFormat,
    ExtractionPlan,
    TableFormat,
    TablePlan,
    plan_extraction,
    plan_table,
    table_format,
)
from ast_cli.tagging.options import ExtractOptions, ExtractRunOptions, LoadOptions
from ast_cli.tagging.run.tally import Tally

AnyFormat = Literal[ExtractFormat, TableFormat]


@with_flags
def extract(
    *,
    paths: p.Paths = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE_OR_FOLDER", help="A file for one input or a table, a folder for several."
        ),
    ],
    options: ExtractOptions,
    format_name: Annotated[
        AnyFormat | None,
        typer.Option(
            "--format",
            "-f",
            help="Format of the files; csv and parquet are one table with a row for each window. "
            "[default: by the suffix of --output, else npz]",
            show_default=False,
        ),
    ] = None,
    model: p.Model = None,
    run: ExtractRunOptions,
    load: LoadOptions,
    files_from: p.FilesFrom = None,
    nul_separated: p.NulSeparated = False,
    exclude: p.Exclude = None,
    quiet: p.Quiet = False,
) -> None:
    """Extract features, embeddings or logits, one file per input, or one table of all.

    For a single file, prints the name of the new file and the shapes of its arrays; otherwise
    nothing on stdout, and progress and a summary on stderr. Files are written atomically. After a kill or Ctrl-C the
    same command with --resume continues.

    Examples: `ast extract song.wav --output song.npz`, `ast extract clips/ --what fbank --output features/`,
    `ast extract clips/ --output embeddings.csv`
    """
    inputs = p.read_inputs(paths, files_from, nul_separated, exclude)
    is_single = len(inputs) == 1 and paths == [inputs[0].path]
    table = table_format(output, format_name)
    plan: ExtractionPlan | TablePlan
    if table is not None:
        plan = plan_table(inputs, output, table, options.what, run)
    else:
        plan = plan_extraction(inputs, output, cast(ExtractFormat | None, format_name), run, is_single=is_single)

    from ast_cli.tagging.decode.opening import start_decoding

    with quiet_native_libraries(), start_decoding(run, len(inputs)) as workers:
        with nothing_to_save():
            from ast_cli.tagging.extract.extract_files import Extractor, open_extraction
            from ast_cli.tagging.extract.extract_table import open_table

            chosen = None if options.what == "fbank" and model is None else p.choose_model(model, quiet=quiet)
            extractor = Extractor.load(chosen, options, load, partial(notice, quiet=quiet))
            if extractor.engine is not None and chosen is not None:  # not for the front end alone
                p.note_license(chosen, extractor.license, quiet=quiet)
            if isinstance(plan, TablePlan):
                opened = open_table(extractor, plan, run, workers=workers, on_progress=_raise_if_ended)
            else:
                opened = open_extraction(extractor, plan, run, workers=workers, on_progress=_raise_if_ended)
        with opened as running:
            progress = RunProgress(running.tally)
            written = plan.rows if isinstance(plan, TablePlan) else output
            with summarized(running, progress, written, "--resume", quiet=quiet):
                for outcome in watched(running, progress, quiet=quiet, to_stdout=is_single):
                    print_faults(outcome.path, outcome.error, outcome.warnings, quiet=quiet)
                    if is_single and outcome.error is None:
                        with writing_stdout():
                            typer.echo(f"{printable(str(outcome.target))}  {outcome.summary}")
    if running.tally.num_failed:
        raise typer.Exit(ExitCode.SOME_FAILED)


def _raise_if_ended(_tally: Tally) -> None:
    raise_if_ended()
