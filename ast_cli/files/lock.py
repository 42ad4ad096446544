"""A lock that lets one run at a time write an output, and that ends with its process. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from ast_cli.errors import AstError, AstWarning
from ast_cli.files.atomic import writing

_held_locks: set[str] = set()  # the system's locks do not exclude a second run in the same process


def lock_file(output: Path) -> Path:
    """Return the path of the lock file for an output file or a folder of outputs."""
    return output.with_name(f"{output.name}.ast-lock")


@contextlib.contextmanager
def only_run(output: Path, lock: Path | None = None) -> Iterator[None]:
    """Hold the lock of an output for the duration of a ``with`` block.

    Args:
        output: File or folder that is written.
        lock: File to lock; None for the one beside the output.

    Raises:
        AstError: If another run holds the lock; the message names its process.
    """
    lock = lock or lock_file(output)
    identity = os.path.realpath(lock)
    if identity in _held_locks:
        raise AstError(f"{output} is already being written by this process")
    with writing(lock):
        descriptor = _locked(output, lock)
    _held_locks.add(identity)
    try:
        with writing(lock):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        _held_locks.discard(identity)
        with contextlib.suppress(OSError):
            lock.unlink()
        os.close(descriptor)


def _locked(output: Path, lock: Path) -> int:
    """Open and lock the lock file; the lock of a process that has ended is free."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _try_lock(descriptor):
                holder = os.read(descriptor, 200).decode("utf-8", "replace") or "another process"
                raise AstError(f"{output} is being written by another run ({holder}): wait for it or stop it")
            if os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                return descriptor
        except FileNotFoundError:
            pass  # the previous holder removed the file after we opened it and before we locked it
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """Lock an open file for this process; the system releases the lock whenever the process ends, even if killed."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # far beyond the text: locked bytes cannot be read
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock, which forked workers would inherit
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            os.lseek(descriptor, 0, os.SEEK_SET)
            return False
        warnings.warn(
            f"locks do not work in this folder ({error.strerror}): do not start a second run with the same output",
            AstWarning,
            stacklevel=2,
        )
    return True
