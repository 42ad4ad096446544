"""Early validation of output files, before anything slow is loaded. Standard library only."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from ast_cli.errors import UsageError


class ReadFiles:
    """Files that the command reads and must not overwrite, recognized under any name.

    The files are looked up only when an existing file is tested for membership.

    Args:
        paths: Paths of the files; paths that do not exist are ignored.
        name: Description of one of these files, for messages.
    """

    def __init__(self, paths: Iterable[str], name: str = "one of the inputs") -> None:
        self.name = name
        self._paths = paths

    def __contains__(self, file: Path) -> bool:
        """Return whether a path, which may be a symbolic or hard link, leads to one of these files."""
        try:
            status = os.stat(file)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) in self._identities

    @cached_property
    def _identities(self) -> set[tuple[int, int]]:
        identities = set()
        for path in self._paths:
            with contextlib.suppress(OSError, ValueError):
                status = os.stat(path)
                identities.add((status.st_dev, status.st_ino))
        return identities


def check_target(
    file: Path,
    sources: ReadFiles,
    *,
    force: bool,
    flag: str = "--output",
    resume: bool | None = None,
    may_be_pipe: bool = False,
    makes_folder: bool = False,
) -> None:
    """Validate an output file: it must not be a folder, a link, one of the inputs, or an existing file by accident.

    Args:
        file: Output file.
        sources: Files that the command reads.
        force: Whether an existing file may be replaced.
        flag: Option that named the file, for messages.
        resume: Whether a run continues with an existing file; None if the command has no ``--resume``.
        may_be_pipe: Whether the output may be something other than a regular file, such as a named pipe.
        makes_folder: Whether the command creates the folder if it is missing.

    Raises:
        UsageError: If the file must not be written; the message says what to do.
    """
    what = f"{flag} {file}"
    if file.is_dir():
        raise UsageError(f"{what} is a folder: name a file in it")
    if file in sources:
        raise UsageError(f"{what} is {sources.name}: name another file")
    if file.is_symlink():
        raise UsageError(f"{what} is a link: name the file itself")
    if file.exists() and not file.is_file() and not may_be_pipe:
        raise UsageError(f"{what} is not a regular file and would be replaced by one: name another file")
    if file.is_file() and not (force or resume):
        remedy = "--force to replace it" if resume is None else "--resume to continue it, or --force to replace it"
        raise UsageError(f"{what} exists: add {remedy}")
    if not makes_folder and not file.parent.is_dir():
        raise UsageError(f"{what}: the folder {file.parent} does not exist")
