"""Where each input's extraction goes: never outside the folder named, never two inputs in one file.

Standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ast_cli.errors import UsageError
from ast_cli.files.target import ReadFiles, check_target
from ast_cli.report.text import either
from ast_cli.tagging.inputs import STDIN, Input

MAX_NAME_BYTES = 240  # file systems take 255; a temporary name needs some more than its final one
EXTRACT_FORMATS = ("npz", "npy", "safetensors")


def plan_targets(inputs: Sequence[Input], output: Path, format_name: str | None, *, force: bool) -> list[Path]:
    """Return the file that each input's extraction is written to, in the inputs' order.

    A name with one of the formats' suffixes is a file, and takes one input; one without a suffix, or a folder that is
    there whatever its name, is a folder. ``v1.2`` has none: a suffix begins with a letter. In a folder, the folders
    common to all inputs are left away and the suffix is added to the whole name (``a/x.wav.npz``,
    ``a/x.mp3.npz``), so that no two inputs meet.

    Raises:
        UsageError: Several inputs for one file, a suffix that is not written or at odds with the format, or a file that
            exists.
    """
    suffix = output.suffix.removeprefix(".").lower()
    is_file = suffix[:1].isalpha() and not output.is_dir()
    if is_file and suffix not in EXTRACT_FORMATS:
        raise UsageError(
            f"--output {output}: {output.suffix} is not written; name a file that ends in "
            f"{either(f'.{known}' for known in EXTRACT_FORMATS)}, or a folder; "
            "one of such a name has to be there already"
        )
    if is_file and len(inputs) > 1:
        raise UsageError(f"--output {output} is one file and there are {len(inputs)} inputs: name a folder")
    if is_file and format_name not in (None, suffix):
        raise UsageError(f"--output {output} does not end in .{format_name}, the --format asked for")
    targets = [output] if is_file else _in_folder(inputs, output, format_name or "npz")
    sources = ReadFiles(item.path for item in inputs)
    for target in targets:
        check_target(target, sources, force=force, makes_folder=True)
    return targets


def _in_folder(inputs: Sequence[Input], folder: Path, suffix: str) -> list[Path]:
    """Mirror the inputs' folders below a folder; names that differ by case alone are numbered apart."""
    absolute = [os.path.abspath("stdin" if item.path == STDIN else item.path) for item in inputs]
    common = os.path.commonpath([os.path.dirname(path) for path in absolute]) if _one_root(absolute) else ""
    targets: list[Path] = []
    taken: set[str] = set()
    for path in absolute:
        relative = os.path.relpath(path, common) if common else os.path.splitdrive(path)[1].lstrip("\\/")
        above, stem = os.path.split(relative)
        name, number = os.path.join(above, _fitting(stem, f".{suffix}")), 2
        while name.casefold() in taken:
            name, number = os.path.join(above, _fitting(stem, f".{number}.{suffix}")), number + 1
        taken.add(name.casefold())
        targets.append(folder / name)
    return targets


def _fitting(stem: str, ending: str) -> str:
    """Join a name and its ending, the name cut where a file system would refuse the whole."""
    while len(os.fsencode(stem + ending)) > MAX_NAME_BYTES:
        stem = stem[:-1]
    return stem + ending


def _one_root(paths: Sequence[str]) -> bool:
    """Tell whether all paths are on one drive."""
    return len({os.path.splitdrive(path)[0].casefold() for path in paths}) == 1
