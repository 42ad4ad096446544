"""The output folder of a run: checks before writing, a lock against a second run, and removal of an earlier run."""

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
from ast_cli.hub.names import LABELS_NAME, THRESHOLDS_NAME, WEIGHTS_NAME
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
    THRESHOLDS_NAME,  # not written by a run: found by `ast evaluate` for the weights that a new run replaces
    LABELS_NAME,  # not written by a run either: facts about the training of these weights
)


def check_output(output: Path, sources: Mapping[str, str], *, resume: bool, force: bool) -> None:
    """Check that a run may write to a folder.

    Args:
        output: Output folder of the run.
        sources: Paths that the run reads and must not overwrite, by their names in messages.
        resume: Whether the folder must contain a run.
        force: Whether a run in the folder may be replaced.

    Raises:
        UsageError: If the folder cannot be used; the message states what to do.
    """
    if resume and force:
        raise UsageError("--resume continues a run and --force replaces it: choose one")
    if output.is_symlink() and not output.exists():
        raise UsageError(f"--output {output} is a broken link: name a folder")
    if output.exists() and not output.is_dir():
        raise UsageError(f"--output {output} is a file: name a folder")
    for name, source in sources.items():
        if output.exists() and os.path.exists(source) and os.path.samefile(output, source):
            raise UsageError(f"--output {output} is the {name} itself: name another folder")
    if resume and not output.is_dir():
        raise UsageError(f"--resume: there is no run in {output}")
    if output.is_dir() and any(output.iterdir()) and not (resume or force):
        raise UsageError(
            f"--output {output} exists and is not empty: add --resume to continue its run, or --force to replace it"
        )


def fold_folder(output: Path, fold: int) -> Path:
    """Return the output folder of the run that holds out a fold."""
    return output / f"{FOLD_PREFIX}{fold}"


def is_interrupted(output: Path) -> bool:
    """Return whether the folder contains a run that can be resumed."""
    return StateFolder(output / CHECKPOINT_NAME).run_file.is_file()


def is_finished(output: Path) -> bool:
    """Return whether the folder contains a finished run: weights, and no state to resume from."""
    return (output / WEIGHTS_NAME).is_file() and not is_interrupted(output)


@contextlib.contextmanager
def writing(output: Path) -> Iterator[None]:
    """Create the folder and hold its lock, so that two runs cannot write to it.

    Raises:
        AstError: If another run holds the lock, or the folder cannot be created.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AstError(f"{output}: cannot be created ({error.strerror})") from error
    with only_run(output):
        yield


def begin(output: Path, facts: Mapping[str, Any], *, resume: bool) -> StateFolder:
    """Return the state folder of a new run, or of the run to resume.

    Raises:
        UsageError: If there is no run to resume, or its facts differ.
    """
    state = StateFolder(output / CHECKPOINT_NAME)
    if resume and state.run_file.is_file():
        state.check(facts)
        return state
    if resume and any((output / name).exists() for name in OWN_NAMES):
        raise UsageError(f"--resume: {output} contains no interrupted run; start over with --force")
    _clear(output)
    for folder in _fold_folders(output):
        _clear(folder)
        _remove_empty(folder / CHECKPOINT_NAME)
        _remove_empty(folder)
    state.begin(facts)
    return state


def _fold_folders(output: Path) -> list[Path]:
    """Return the fold folders that earlier runs created; a user's own ``fold-notes`` is none of them."""
    return [folder for folder in output.iterdir() if FOLD_NAME.fullmatch(folder.name) and folder.is_dir()]


def _clear(output: Path) -> None:
    """Remove the files that an earlier run wrote, and no others."""
    state = StateFolder(output / CHECKPOINT_NAME)
    for file in (state.state_file, state.run_file, *(output / name for name in OWN_NAMES)):
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise AstError(f"{file}: this file of an earlier run cannot be removed ({error.strerror})") from error


def _remove_empty(folder: Path) -> None:
    """Remove a folder of an earlier run if it is empty and can be removed."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def remove_checkpoint(output: Path) -> None:
    """Remove the state of a run; the file of its facts goes first, which marks the run as finished."""
    StateFolder(output / CHECKPOINT_NAME).run_file.unlink(missing_ok=True)
    shutil.rmtree(output / CHECKPOINT_NAME, ignore_errors=True)
