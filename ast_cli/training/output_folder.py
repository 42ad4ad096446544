"""The folder that a run writes: whether it may, only one run at a time, and clearing what an earlier one left."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ast_cli.errors import AstError, UsageError
from ast_cli.files.lock import only_run
from ast_cli.hub.names import WEIGHTS_NAME
from ast_cli.training.state import StateFolder

CHECKPOINT_NAME = "checkpoint"
FOLD_PREFIX = "fold-"
FOLD_NAME = re.compile(rf"{FOLD_PREFIX}-?\d+")
OPTIONS_NAME = "training_options.toml"
RESULTS_NAME = "results.json"
FOLDS_NAME = "folds.json"
CARD_NAME = "README.md"
OWN_NAMES = (
    WEIGHTS_NAME,
    "config.json",
    "preprocessor_config.json",
    CARD_NAME,
    OPTIONS_NAME,
    "history.csv",
    "curves.png",
    RESULTS_NAME,
    FOLDS_NAME,
)


def check_output(output: Path, sources: Mapping[str, str], *, resume: bool, force: bool) -> None:
    """Refuse to write where something is already, unless it was asked for.

    Args:
        output: Of the run.
        sources: What it reads, by a name for messages: it must not be written over.
        resume: Whether a run may be there.
        force: Whether it may be replaced.

    Raises:
        UsageError: With what to do.
    """
    if resume and force:
        raise UsageError("--resume continues a run and --force replaces it: choose one")
    if output.is_symlink() and not output.exists():
        raise UsageError(f"--output {output} is a link to nothing: name a folder")
    if output.exists() and not output.is_dir():
        raise UsageError(f"--output {output} is a file: name a folder")
    for name, source in sources.items():
        if output.exists() and os.path.exists(source) and os.path.samefile(output, source):
            raise UsageError(f"--output {output} is the {name} itself: name another folder")
    if resume and not output.is_dir():
        raise UsageError(f"--resume: there is no run in {output}")
    if output.is_dir() and any(output.iterdir()) and not (resume or force):
        raise UsageError(
            f"--output {output} exists and is not empty: add --resume to go on with its run, or --force to replace it"
        )


def fold_folder(output: Path, fold: int) -> Path:
    """Return where the run that holds out a fold writes."""
    return output / f"{FOLD_PREFIX}{fold}"


def is_interrupted(output: Path) -> bool:
    """Tell whether a run that did not come to its end can go on here."""
    return StateFolder(output / CHECKPOINT_NAME).run_file.is_file()


def is_finished(output: Path) -> bool:
    """Tell whether a run came to its end here: its weights are there and nothing to go on with."""
    return (output / WEIGHTS_NAME).is_file() and not is_interrupted(output)


@contextlib.contextmanager
def writing(output: Path) -> Iterator[None]:
    """Hold the folder's lock, so that two runs cannot write it.

    Raises:
        AstError: Another run has it, or the folder cannot be made.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AstError(f"{output}: cannot be made ({error.strerror})") from error
    with only_run(output):
        yield


def begin(output: Path, facts: Mapping[str, Any], *, resume: bool) -> StateFolder:
    """Return the state of the run: a new one, or the one to go on with.

    Raises:
        UsageError: The run there was asked for other things.
    """
    state = StateFolder(output / CHECKPOINT_NAME)
    if resume and state.run_file.is_file():
        state.check(facts)
        return state
    if resume and any((output / name).exists() for name in OWN_NAMES):
        raise UsageError(f"--resume: {output} holds no interrupted run; --force starts anew")
    _clear(output)
    for folder in _fold_folders(output):
        _clear(folder)
        _remove_empty(folder / CHECKPOINT_NAME)
        _remove_empty(folder)
    state.begin(facts)
    return state


def _fold_folders(output: Path) -> list[Path]:
    """Return the folders of single folds that earlier runs made; a user's own ``fold-notes`` is none."""
    return [folder for folder in output.iterdir() if FOLD_NAME.fullmatch(folder.name) and folder.is_dir()]


def _clear(output: Path) -> None:
    """Remove what an earlier run wrote, and nothing else."""
    state = StateFolder(output / CHECKPOINT_NAME)
    for file in (state.state_file, state.run_file, *(output / name for name in OWN_NAMES)):
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise AstError(f"{file}: an earlier run's, cannot be removed ({error.strerror})") from error


def _remove_empty(folder: Path) -> None:
    """Remove a folder that an earlier run made, unless there is something in it or it cannot be."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def remove_checkpoint(output: Path) -> None:
    """Remove what only an interrupted run needs; the note of what the run was first, which marks it as finished."""
    StateFolder(output / CHECKPOINT_NAME).run_file.unlink(missing_ok=True)
    shutil.rmtree(output / CHECKPOINT_NAME, ignore_errors=True)
