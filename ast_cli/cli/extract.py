"""``ast extract``: recordings to features, embeddings, logits, hidden states or attentions."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ast_cli.cli import parameters as p
from ast_cli.cli.option_flags import with_flags
from ast_cli.cli.progress import RunProgress, watched
from ast_cli.cli.signals import nothing_to_save, raise_if_ended
from ast_cli.cli.streams import notice, print_faults, quiet_native_libraries, writing_stdout
from ast_cli.cli.tag_run import summarized
from ast_cli.errors import ExitCode
from ast_cli.report.text import printable
from ast_cli.tagging.extract.targets import ExtractFormat, plan_extraction
from ast_cli.tagging.options import ExtractOptions, ExtractRunOptions, LoadOptions


@with_flags
def extract(
    *,
    paths: p.Paths = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE_OR_FOLDER", help="A file for one input, a folder for several."),
    ],
    options: ExtractOptions,
    format_name: Annotated[
        ExtractFormat | None,
        typer.Option(
            "--format",
            "-f",
            help="Format of the files. [default: by the suffix of --output, else npz]",
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
    """Extract features, embeddings or logits, one file per input.

    For a single file, prints the name of the new file and the shapes of its arrays; otherwise
    nothing on stdout, and progress and a summary on stderr. Files are written atomically. After a kill or Ctrl-C the
    same command with --resume continues.

    Examples: `ast extract song.wav --output song.npz`, `ast extract clips/ --what fbank --output features/`
    """
    inputs = p.read_inputs(paths, files_from, nul_separated, exclude)
    is_single = len(inputs) == 1 and paths == [inputs[0].path]
    plan = plan_extraction(inputs, output, format_name, run, is_single=is_single)

    from ast_cli.tagging.decode.opening import start_decoding

    with quiet_native_libraries(), start_decoding(run, len(inputs)) as workers:
        with nothing_to_save():
            from ast_cli.tagging.extract.extract_files import Extractor, open_extraction

            chosen = None if options.what == "fbank" and model is None else p.choose_model(model, quiet=quiet)
            extractor = Extractor.load(chosen, options, load, partial(notice, quiet=quiet))
        with open_extraction(
            extractor, plan, run, workers=workers, on_progress=lambda _tally: raise_if_ended()
        ) as running:
            progress = RunProgress(running.tally)
            with summarized(running, progress, output, "--resume", quiet=quiet):
                for outcome in watched(running, progress, quiet=quiet, to_stdout=is_single):
                    print_faults(outcome.path, outcome.error, outcome.warnings, quiet=quiet)
                    if is_single and outcome.error is None:
                        with writing_stdout():
                            typer.echo(f"{printable(str(outcome.target))}  {outcome.summary}")
    if running.tally.num_failed:
        raise typer.Exit(ExitCode.SOME_FAILED)
