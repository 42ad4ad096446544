"""Whether a file may be written: asked early, before anything heavy is loaded. Standard library only."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from ast_cli.errors import UsageError


class ReadFiles:
    """Files that must not be written over, under whatever name; looked at only when something exists that might be one.

    Args:
        paths: Of files; what is no file is left out.
        name: What one of them is, for messages.
    """

    def __init__(self, paths: Iterable[str], name: str = "one of the inputs") -> None:
        self.name = name
        self._paths = paths

    def __contains__(self, file: Path) -> bool:
        """Tell whether a file is one of them: links and hard links count."""
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
    """Refuse to write over a source, a link, a folder, or what exists unless that was asked for.

    Args:
        file: To be written.
        sources: Which the command reads.
        force: Whether a file that exists may be replaced.
        flag: That named it.
        resume: Whether a file that exists is gone on with; None where that cannot be asked for.
        may_be_pipe: Whether something else than a regular file will do, such as a named pipe.
        makes_folder: Whether its folder is made where it is missing.

    Raises:
        UsageError: With what to do.
    """
    what = f"{flag} {file}"
    if file.is_dir():
        raise UsageError(f"{what} is a folder: name a file in it")
    if file in sources:
        raise UsageError(f"{what} is {sources.name}: name another file")
    if file.is_symlink():
        raise UsageError(f"{what} is a link: name the file itself")
    if file.exists() and not file.is_file() and not may_be_pipe:
        raise UsageError(f"{what} is no regular file, and would be replaced by one: name another")
    if file.is_file() and not (force or resume):
        remedy = "--force to replace it" if resume is None else "--resume to go on with it, or --force to replace it"
        raise UsageError(f"{what} exists: add {remedy}")
    if not makes_folder and not file.parent.is_dir():
        raise UsageError(f"{what}: there is no folder {file.parent}")
