"""The user's cache folder, and digests of files remembered in it. Standard library only.

A digest is remembered with all that the file system says of the file: device, inode, size, the times of the last change
of its content and of its entry; and with a digest of samples of its content, for file systems whose times say little.
So does version control know an unchanged file. A base-size checkpoint, of 346 MB, is hashed once instead of at each
start. What this does not see: a few bytes that are changed through a memory map, or on the disk itself, between two
samples.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from typing import BinaryIO

from ast_cli.files.atomic import write_whole

CACHE_VARIABLE = "AST_CACHE"
DIGESTS = "digests"
BLOCK_BYTES = 1 << 20
SMALLEST_REMEMBERED = 1 << 22  # bytes; what is smaller is hashed as fast as looked up
NUM_SAMPLES, SAMPLE_BYTES = 64, 4096  # spread evenly over the file
SETTLED_NS = 2_000_000_000  # since the last change: younger files may change again within one tick of their clock


def cache_folder() -> Path:
    """Return the user's cache folder for this program: ``AST_CACHE``, else ``ast`` in the system's.

    Raises:
        RuntimeError: There is no home folder.
    """
    if folder := os.environ.get(CACHE_VARIABLE):
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "ast"


def file_digest(file: Path, leave_out: int = 0) -> bytes:
    """Return the SHA-256 of a file, read now or remembered from when it was the same.

    Args:
        file: Of any size.
        leave_out: How many bytes at its end do not count.

    Raises:
        OSError: It cannot be read.
    """
    with file.open("rb") as stream:
        status = os.fstat(stream.fileno())
        num_bytes = max(0, status.st_size - leave_out)
        memo = _memo_file(file) if num_bytes >= SMALLEST_REMEMBERED else None
        if memo is None:
            return _digest(stream, num_bytes)
        identity = _identity(stream, leave_out)
        if known := _remembered(memo, identity):
            return known
        is_settled = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED_NS
        stream.seek(0)
        digest = _digest(stream, num_bytes)
        if is_settled and identity == _identity(stream, leave_out):
            with contextlib.suppress(Exception):  # a folder that cannot be written remembers nothing
                write_whole(memo, json.dumps([identity, digest.hex()]).encode())
    return digest


def _identity(stream: BinaryIO, leave_out: int) -> list[int | str]:
    """Return what tells one state of a file from another without reading all of it."""
    status = os.fstat(stream.fileno())
    samples = hashlib.sha256()
    for i in range(NUM_SAMPLES):
        stream.seek(i * status.st_size // NUM_SAMPLES)
        samples.update(stream.read(SAMPLE_BYTES))
    times = [status.st_mtime_ns, status.st_ctime_ns]
    return [status.st_dev, status.st_ino, status.st_size, *times, leave_out, samples.hexdigest()]


def _memo_file(file: Path) -> Path | None:
    """Return where a file's digest is remembered; None on Windows, where the second time is that of its making."""
    if os.name == "nt":
        return None
    with contextlib.suppress(OSError, RuntimeError):
        name = hashlib.sha256(os.fsencode(file.resolve())).hexdigest()
        return cache_folder() / DIGESTS / f"{name[:40]}.json"
    return None


def _remembered(memo: Path, identity: list[int | str]) -> bytes | None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        found, digest = json.loads(memo.read_bytes())
        if found == identity and len(digest) == 2 * hashlib.sha256().digest_size:
            return bytes.fromhex(digest)
    return None


def _digest(stream: BinaryIO, num_bytes: int) -> bytes:
    """Return the SHA-256 of so many bytes, read block by block."""
    digest = hashlib.sha256()
    while num_bytes:
        block = stream.read(min(BLOCK_BYTES, num_bytes))
        if not block:
            break
        digest.update(block)
        num_bytes -= len(block)
    return digest.digest()
