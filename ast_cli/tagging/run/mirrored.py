"""Names of the files of each input in an output folder: always inside it, and never the same for two inputs.

Standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ast_cli.tagging.inputs import STDIN, Input, RealPaths

MAX_NAME_BYTES = 240  # file systems allow 255; a temporary name is a little longer than the final one


def mirrored(
    inputs: Sequence[Input], folder: Path, endings: Sequence[str], known_names: Mapping[str, tuple[str, ...]]
) -> list[tuple[Path, ...]]:
    """Return the files of each input, one for each ending, in the order of the inputs.

    The folders common to all inputs are left out, and an ending is added to the whole name: ``a/x.wav.npz``,
    ``a/x.mp3.npz``. Names that differ in case only get a number, as if the file system did not distinguish them.

    Args:
        inputs: The inputs.
        folder: The output folder.
        endings: Endings of the files of an input, such as ``.npz``.
        known_names: Names in the folder that earlier runs gave to inputs, by the real path of the input; they stay.
    """
    absolute = [os.path.abspath("stdin" if item.path == STDIN else item.path) for item in inputs]
    common = os.path.commonpath([os.path.dirname(path) for path in absolute]) if _one_root(absolute) else ""
    real_path = RealPaths()
    files: list[tuple[Path, ...]] = []
    taken = {name.casefold() for names in known_names.values() for name in names}
    for item, path in zip(inputs, absolute, strict=True):
        if known_names and (known := known_names.get(real_path(item))):
            files.append(tuple(folder / name for name in known))
            continue
        relative = os.path.relpath(path, common) if common else os.path.splitdrive(path)[1].lstrip("\\/")
        above, stem = os.path.split(relative)
        names, number = _names(above, stem, endings), 2
        while not taken.isdisjoint(map(_folded, names)):
            names, number = _names(above, stem, [f".{number}{ending}" for ending in endings]), number + 1
        taken.update(map(_folded, names))
        files.append(tuple(folder / name for name in names))
    return files


def _names(above: str, stem: str, endings: Sequence[str]) -> list[str]:
    return [os.path.join(above, _fitting(stem, ending)) for ending in endings]


def _folded(name: str) -> str:
    """Return a name as a file system compares it that does not distinguish case."""
    return Path(name).as_posix().casefold()


def _fitting(stem: str, ending: str) -> str:
    """Return a name with an ending, shortened to what file systems allow."""
    while len(os.fsencode(stem + ending)) > MAX_NAME_BYTES:
        stem = stem[:-1]
    return stem + ending


def _one_root(paths: Sequence[str]) -> bool:
    """Return whether all paths are on one drive."""
    return len({os.path.splitdrive(path)[0].casefold() for path in paths}) == 1
