"""Arguments and options that several commands share, and reading them. Light: no torch, no numpy."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ast_cli.audio.front_ends.unstated import FrontEndName
from ast_cli.cli.completion import complete_models
from ast_cli.cli.option_flags import option_of
from ast_cli.cli.streams import note
from ast_cli.errors import NoInputsError, UsageError
from ast_cli.hub.folders import default_model
from ast_cli.hub.licenses import license_note
from ast_cli.hub.names import BUILTIN, MODEL_VARIABLE
from ast_cli.tagging.inputs import STDIN, Input, list_inputs, merged, no_audio_found, read_file_list
from ast_cli.tagging.options import LoadOptions

if TYPE_CHECKING:
    from ast_cli.dataset.examples import ExampleSet

Paths = Annotated[
    list[str] | None,
    typer.Argument(metavar="PATHS", help="Files, folders (searched by extension), glob patterns, or - for stdin."),
]
FilesFrom = Annotated[
    str | None,
    typer.Option("--files-from", metavar="FILE", help="File with more paths, one on each line; - for stdin."),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="PATTERN",
        help="Leave files and folders out of folders and patterns, by name ('*.mp3', drafts) or path ('old/*.wav'); "
        "repeatable. Hidden files are always left out.",
    ),
]
NulSeparated = Annotated[bool, typer.Option("-0", "--null", help="The paths of --files-from are separated by NUL.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="builtin, a folder (an exported one too), an alias (audioset, fast, speech-commands ...) or a hub id. "
        "[default: AST_MODEL, else audioset if downloaded, else builtin]",
        show_default=False,
        autocompletion=complete_models,
    ),
]
UnnamedLabels = Annotated[bool, option_of(LoadOptions, "unnamed_labels")]
Device = Annotated[str, option_of(LoadOptions, "device")]
Threads = Annotated[int | None, option_of(LoadOptions, "num_threads")]
FrontEnd = Annotated[FrontEndName | None, option_of(LoadOptions, "front_end")]
Split = Annotated[
    str | None, typer.Option("--split", help="Use only this split of the data: train, validation or test.")
]
Fold = Annotated[str | None, typer.Option("--fold", metavar="N[,N...]", help="Use only these folds of the data.")]
Thresholds = Annotated[
    Path | None,
    typer.Option(
        "--thresholds",
        metavar="FILE",
        help="Thresholds of single labels, as written by ast evaluate; other labels use --threshold, or 0.5.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing --output.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print the summary for a single input too, with engine and batch size.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors on stderr.")]

BUILTIN_NOTE = (
    "note: using the small built-in model; `ast download` fetches the AudioSet model of the paper, which knows far more"
)


def read_inputs(
    paths: list[str] | None, files_from: str | None, nul_separated: bool, exclude: list[str] | None
) -> list[Input]:
    """List the inputs that the command line names.

    Raises:
        UsageError: If there are no arguments, or standard input is named twice.
        NoInputsError: If the arguments match no file.
    """
    named, listed = list(paths or []), list[str]()
    if files_from is not None:
        if files_from == STDIN and STDIN in named:
            raise UsageError("standard input cannot be both the list of files and a file")
        listed = read_file_list(_read_bytes(files_from), nul_separated=nul_separated)
    elif nul_separated:
        raise UsageError("-0 needs --files-from")
    elif not named:
        raise UsageError("name files, folders or patterns to read, - for standard input, or --files-from")
    for name in named:
        if name.startswith("--") and not os.path.lexists(name):  # click takes it for an argument only after --
            raise UsageError(f"{name}: no such file; arguments after -- are names of files, so put options before it")
    if STDIN in named and sys.stdin.isatty():
        raise UsageError("standard input is a terminal: pipe a file into it, or name a file")
    found = list(list_inputs(named, exclude=exclude or ()))
    if listed:
        found = list(merged([*found, *list_inputs(listed, literal=True, exclude=exclude or ())]))
    if all(item.is_pattern for item in found):
        raise NoInputsError(no_audio_found(named if files_from is None else [*named, f"the list {files_from}"]))
    return found


def _read_bytes(file: str) -> bytes:
    if file == STDIN:
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"--files-from {file}: cannot be read ({error.strerror})") from error


def choose_examples(examples: ExampleSet, split: str | None, fold: str | None, *, quiet: bool) -> ExampleSet:
    """Return the examples of ``--split`` and ``--fold``; without either, note that all splits are used.

    Raises:
        UsageError: If the data has no such split or fold, or if ``fold`` is not a list of folds.
    """
    if split is None and fold is None and len(examples.splits) > 1:
        listed = ", ".join(examples.splits)
        note(f"note: all splits are used ({listed}); --split {examples.splits[0]} selects one", quiet=quiet)
    if split is not None:
        examples = examples.of_split(split)
    return examples if fold is None else examples.of_folds(_folds(fold))


def _folds(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--fold takes whole numbers with commas between them, not {text!r}") from error


def note_license(model: str, license_id: str | None, *, quiet: bool) -> None:
    """Say what the license of a model forbids, or that there is none."""
    if (text := license_note(model, license_id)) is not None:
        note(text, quiet=quiet)


def choose_model(model: str | None, *, quiet: bool) -> str:
    """Return the model to load; note on a terminal if the built-in one is used by default."""
    if model == "":
        raise UsageError("--model is empty: name a model")
    if model is not None:
        return model
    chosen = default_model()
    if chosen == BUILTIN and not os.environ.get(MODEL_VARIABLE):
        note(BUILTIN_NOTE, quiet=quiet)
    return chosen
