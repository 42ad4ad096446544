"""``ast extract``: recordings to features, embeddings, logits, hidden states or attentions."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from ast_cli.cli import parameters as p
from ast_cli.cli.option_flags import with_flags
from ast_cli.cli.streams import note, notice, quiet_native_libraries, tell_faults
from ast_cli.errors import ExitCode
from ast_cli.report.text import counted, printable
from ast_cli.tagging.options import DecodeOptions, ExtractOptions, LoadOptions


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
        Literal["npz", "npy", "safetensors"] | None,
        typer.Option("--format", "-f", help="[default: by the suffix of --output, else npz]", show_default=False),
    ] = None,
    model: p.Model = None,
    load: LoadOptions,
    decode: DecodeOptions,
    files_from: p.FilesFrom = None,
    nul_separated: p.NulSeparated = False,
    exclude: p.Exclude = None,
    force: p.Force = False,
    quiet: p.Quiet = False,
) -> None:
    """Write numbers instead of tags, one file an input; prints where they went.

    Examples: `ast extract song.wav --output song.npz`, `ast extract clips/ --what fbank --output features/`
    """
    inputs = p.read_inputs(paths, files_from, nul_separated, exclude)

    from ast_cli.tagging.decode.opening import start_decoding
    from ast_cli.tagging.extract.targets import plan_targets

    targets = plan_targets(inputs, output, format_name, force=force)
    num_failed = 0
    with quiet_native_libraries(), start_decoding(decode, len(inputs)) as started:
        from ast_cli.tagging.extract.files import ExtractionRun

        run = ExtractionRun.load(
            None if options.what == "fbank" and model is None else p.choose_model(model, quiet=quiet),
            options,
            load,
            partial(notice, quiet=quiet),
        )
        for item, target, outcome in run.extract(inputs, targets, started):
            tell_faults(item.path, outcome.error, outcome.warnings, quiet=quiet)
            if outcome.error is not None:
                num_failed += 1
                continue
            typer.echo(f"{printable(str(target))}  {outcome.summary}")
    if num_failed:
        note(
            f"{len(inputs) - num_failed} of {counted(len(inputs), 'input')} extracted, {num_failed} failed", quiet=quiet
        )
        raise typer.Exit(ExitCode.SOME_FAILED)
