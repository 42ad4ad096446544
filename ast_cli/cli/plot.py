"""``ast plot``: pictures of recordings."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ast_cli.cli import parameters as p
from ast_cli.cli.option_flags import with_flags
from ast_cli.cli.progress import RunProgress, watched
from ast_cli.cli.signals import nothing_to_save, raise_if_ended
from ast_cli.cli.streams import note, notice, print_faults, quiet_native_libraries, writing_stdout
from ast_cli.cli.tag_run import summarized
from ast_cli.errors import ExitCode, UsageError
from ast_cli.report.panels import PICTURE_FORMATS, PictureFormat
from ast_cli.report.text import printable
from ast_cli.styles import display_name
from ast_cli.tagging.extract.targets import plan_targets
from ast_cli.tagging.inputs import STDIN
from ast_cli.tagging.options import DecodeOptions, LoadOptions, PlotOptions


@with_flags
def plot(
    *,
    paths: p.Paths = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE_OR_FOLDER", help="A file for one input, a folder for several."),
    ],
    options: PlotOptions,
    results: Annotated[
        str | None,
        typer.Option(
            "--results",
            metavar="FILE",
            help="Take the lanes from results of ast classify (JSON Lines or JSON) instead of a model; without PATHS, "
            "plot all recordings in it.",
        ),
    ] = None,
    format_name: Annotated[
        PictureFormat | None,
        typer.Option(
            "--format",
            "-f",
            help="Format of the files. [default: by the suffix of --output, else png]",
            show_default=False,
        ),
    ] = None,
    model: p.Model = None,
    force: p.Force = False,
    run: DecodeOptions,
    load: LoadOptions,
    files_from: p.FilesFrom = None,
    nul_separated: p.NulSeparated = False,
    exclude: p.Exclude = None,
    quiet: p.Quiet = False,
) -> None:
    """Draw recordings: waveform, spectrogram, and a lane for each label over time, one picture per input.

    For a single file, prints the name of the picture and its labels; otherwise nothing on stdout, and progress and a
    summary on stderr. Sub-folders are kept, and nothing is overwritten without --force.

    Examples: `ast plot song.wav --output song.png`, `ast plot clips/ --what spectrogram --output pictures/`
    """
    if results is not None and model is not None:
        raise UsageError("--results are drawn without a model: leave out --model, or --results to tag again")
    if results == STDIN and STDIN in (*(paths or ()), files_from):
        raise UsageError("standard input cannot be both the results and an input")
    reads_names = results is None or paths or files_from is not None
    inputs = p.read_inputs(paths, files_from, nul_separated, exclude) if reads_names else []
    known = None
    if results is not None:
        from ast_cli.tagging.plot.plot_files import results_to_plot

        num_named = len(inputs)
        inputs, known = results_to_plot(results, inputs or None, options)
        if len(inputs) < num_named:
            note(f"note: {num_named - len(inputs)} of {num_named} inputs have no result in {results}", quiet=quiet)
    is_single = len(inputs) == 1 and (paths == [inputs[0].path] or not (paths or files_from))
    targets = plan_targets(inputs, output, format_name, force=force, resume=None, formats=PICTURE_FORMATS)

    from ast_cli.tagging.decode.opening import start_decoding

    reads_audio = known is None or options.panels != ("timeline",)
    with quiet_native_libraries(), start_decoding(run, len(inputs), start_now=reads_audio) as workers:
        with nothing_to_save():
            from ast_cli.tagging.plot.plot_files import PlotRun

            tagger = None
            if known is None and "timeline" in options.panels:
                from ast_cli.tagging.tagger import Tagger

                tagger = Tagger.load(p.choose_model(model, quiet=quiet), load, partial(notice, quiet=quiet))
                p.note_license(tagger.name, tagger.license, quiet=quiet)
        running = PlotRun(inputs, targets, options, tagger=tagger, results=known)
        progress = RunProgress(running.tally)
        missing = set[str]()
        with (
            closing(running.plot(workers, lambda _tally: raise_if_ended())) as outcomes,
            summarized(running, progress, output, "", quiet=quiet),
        ):
            for outcome in watched(outcomes, progress, quiet=quiet, to_stdout=is_single):
                print_faults(outcome.path, outcome.error, outcome.warnings, quiet=quiet)
                missing |= set(outcome.missing_characters)
                if is_single and outcome.error is None:
                    with writing_stdout():
                        parts = [str(outcome.target), "; ".join(map(display_name, outcome.labels))]
                        typer.echo("  ".join(printable(part) for part in parts if part))
    if missing:
        note(f"note: no installed font has {''.join(sorted(missing))}; with such a font, draw again", quiet=quiet)
    if running.tally.num_failed:
        raise typer.Exit(ExitCode.SOME_FAILED)
