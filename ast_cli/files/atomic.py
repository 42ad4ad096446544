"""Files that are old or new, never half. Standard library only."""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ast_cli.errors import AstError

ABANDONED_S = 3600.0  # since a shared file in the making was last written to
_numbers = itertools.count()  # of shared files in the making, of this process


@contextlib.contextmanager
def replacing(file: Path, *, is_shared: bool = False) -> Iterator[BinaryIO]:
    """Write a file that takes its name only when all of it is on the disk; its folder is made if needed.

    Args:
        file: To write, or to replace; what was there before stays until the end, and if anything is raised.
        is_shared: Whether other processes may write the same file now, as in a cache: the last one to end wins.

    Yields:
        The stream to write to.

    Raises:
        OSError: It cannot be written; see `writing`.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if is_shared:
        _clear_abandoned(file)
        temporary = file.with_name(f".{file.name}.{os.getpid()}-{next(_numbers)}.tmp")
    else:  # what a process that was killed has left is written over
        temporary = file.with_name(f".{file.name}.tmp")
    try:
        with open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _clear_abandoned(file: Path) -> None:
    """Delete what processes that were killed have left of a shared file."""
    for old in file.parent.glob(f".{glob.escape(file.name)}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > ABANDONED_S:
                old.unlink()


@contextlib.contextmanager
def writing(path: Path, remedy: str = "", error_kind: type[AstError] = AstError) -> Iterator[None]:
    """Turn a failure of the file system into a sentence.

    Args:
        path: What is being written.
        remedy: What can be done, for the end of the sentence.
        error_kind: What is raised.
    """
    try:
        yield
    except OSError as error:
        raise error_kind(f"{path}: cannot be written ({error.strerror or error}){remedy}") from error


def write_whole(file: Path, content: bytes, error_kind: type[AstError] = AstError) -> None:
    """Write a file that takes its name only when all of it is on the disk; its folder is made if needed.

    Args:
        file: To write, or to replace.
        content: Of it.
        error_kind: What is raised.

    Raises:
        AstError: It cannot be written; what was there before stays.
    """
    with writing(file, error_kind=error_kind), replacing(file) as stream:
        stream.write(content)
