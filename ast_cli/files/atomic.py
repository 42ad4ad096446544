"""Atomic writes: a file has either its old or its new content, never a part. Standard library only."""

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

ABANDONED_S = 3600.0  # a shared temporary file that was not written to for this long is deleted
_numbers = itertools.count()  # numbers the shared temporary files of this process


@contextlib.contextmanager
def replacing(file: Path, *, is_shared: bool = False) -> Iterator[BinaryIO]:
    """Write a file atomically: it gets its final name only when all of its content is on the disk.

    The folder is created if needed.

    Args:
        file: File to create or replace; an existing file stays until the end of the block, or if the block raises.
        is_shared: Whether other processes may write the same file at the same time, as in a cache; the last one wins.

    Yields:
        Binary stream for the content.

    Raises:
        OSError: If the file cannot be written; see `writing`.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if is_shared:
        _clear_abandoned(file)
        temporary = file.with_name(f".{file.name}.{os.getpid()}-{next(_numbers)}.tmp")
    else:  # overwrites what a killed process may have left
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
    """Delete temporary files that killed processes have left of a shared file."""
    for old in file.parent.glob(f".{glob.escape(file.name)}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > ABANDONED_S:
                old.unlink()


@contextlib.contextmanager
def writing(path: Path, remedy: str = "", error_kind: type[AstError] = AstError) -> Iterator[None]:
    """Convert an `OSError` into an error with a one-sentence message.

    Args:
        path: File that is written, for the message.
        remedy: End of the message: what the user can do.
        error_kind: Class of the error.
    """
    try:
        yield
    except OSError as error:
        raise error_kind(f"{path}: cannot be written ({error.strerror or error}){remedy}") from error


def write_whole(file: Path, content: bytes, error_kind: type[AstError] = AstError) -> None:
    """Write a file atomically, as `replacing` does; the folder is created if needed.

    Args:
        file: File to create or replace.
        content: New content of the file.
        error_kind: Class of the error.

    Raises:
        AstError: If the file cannot be written; an existing file then stays as it was.
    """
    with writing(file, error_kind=error_kind), replacing(file) as stream:
        stream.write(content)
