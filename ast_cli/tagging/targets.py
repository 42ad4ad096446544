"""Where each input's extraction goes: never outside the folder named, never two inputs in one file.

Standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ast_cli.errors import UsageError
from ast_cli.tagging.inputs import STDIN, Input

EXTRACT_FORMATS = ("npz", "npy", "safetensors")


def plan_targets(inputs: Sequence[Input], output: Path, format_name: str | None, *, force: bool) -> list[Path]:
    """Return the file that each input's extraction is written to, in the inputs' order.

    A name with one of the formats' suffixes is a file, and takes one input; anything else is a folder, in which the
    folders common to all inputs are left away and the suffix is added to the whole name (``a/x.wav.npz``,
    ``a/x.mp3.npz``), so that no two inputs meet.

    Raises:
        UsageError: Several inputs for one file, a suffix at odds with the format, or a file that exists.
    """
    suffix = output.suffix.removeprefix(".").lower()
    is_file = suffix in EXTRACT_FORMATS and not output.is_dir()
    if is_file and len(inputs) > 1:
        raise UsageError(f"--output {output} is one file and there are {len(inputs)} inputs: name a folder")
    if is_file and format_name not in (None, suffix):
        raise UsageError(f"--output {output} does not end in .{format_name}, the --format asked for")
    targets = [output] if is_file else _in_folder(inputs, output, format_name or "npz")
    for item, target in zip(inputs, targets, strict=True):
        if target.is_symlink():
            raise UsageError(f"{target} is a link: remove it, or name another --output")
        if target.exists() and (item.path == str(target) or not force):
            raise UsageError(f"{target} exists: add --force to replace it")
    return targets


def _in_folder(inputs: Sequence[Input], folder: Path, suffix: str) -> list[Path]:
    """Mirror the inputs' folders below a folder; names that differ by case alone are numbered apart."""
    absolute = [os.path.abspath("stdin" if item.path == STDIN else item.path) for item in inputs]
    common = os.path.commonpath([os.path.dirname(path) for path in absolute]) if _one_root(absolute) else ""
    targets: list[Path] = []
    taken: set[str] = set()
    for path in absolute:
        relative = os.path.relpath(path, common) if common else os.path.splitdrive(path)[1].lstrip("\\/")
        name, number = f"{relative}.{suffix}", 2
        while name.casefold() in taken:
            name, number = f"{relative}.{number}.{suffix}", number + 1
        taken.add(name.casefold())
        targets.append(folder / name)
    return targets


def _one_root(paths: Sequence[str]) -> bool:
    """Tell whether all paths are on one drive."""
    return len({os.path.splitdrive(path)[0].casefold() for path in paths}) == 1
