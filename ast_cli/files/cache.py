"""The user's cache folder, and a cache of file digests in it. Standard library only.

A digest is stored together with the file's metadata (device, inode, size, times of the last change of content and of
inode) and with a digest of samples of the content, as the times of some file systems are unreliable. Version control
systems recognize unchanged files in the same way. A base-size checkpoint of 346 MB is thus hashed once instead of at
each start. The cache misses a change of a few bytes between two samples if it was made through a memory map or directly
on the disk.
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
SMALLEST_REMEMBERED = 1 << 22  # bytes; hashing a smaller file is as fast as a lookup
NUM_SAMPLES, SAMPLE_BYTES = 64, 4096  # spread evenly over the file
# A digest is stored only if the last change is older: a younger file may change again within one tick of the file
# system's clock.
SETTLED_NS = 2_000_000_000


def cache_folder() -> Path:
    """Return the user's cache folder for this program: ``AST_CACHE``, or else ``ast`` in the system's cache folder.

    Raises:
        RuntimeError: If there is no home folder.
    """
    if folder := os.environ.get(CACHE_VARIABLE):
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "ast"


def file_digest(file: Path, leave_out: int = 0) -> bytes:
    """Return the SHA-256 of a file, from the cache if the file has not changed since it was hashed.

    Args:
        file: File of any size.
        leave_out: Number of bytes at the end of the file to leave out.

    Raises:
        OSError: If the file cannot be read.
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
            with contextlib.suppress(Exception):  # the cache folder may be read-only
                write_whole(memo, json.dumps([identity, digest.hex()]).encode())
    return digest


def _identity(stream: BinaryIO, leave_out: int) -> list[int | str]:
    """Return values that change whenever the file changes, without reading all of it."""
    status = os.fstat(stream.fileno())
    samples = hashlib.sha256()
    for i in range(NUM_SAMPLES):
        stream.seek(i * status.st_size // NUM_SAMPLES)
        samples.update(stream.read(SAMPLE_BYTES))
    times = [status.st_mtime_ns, status.st_ctime_ns]
    return [status.st_dev, status.st_ino, status.st_size, *times, leave_out, samples.hexdigest()]


def _memo_file(file: Path) -> Path | None:
    """Return the cache file for a file's digest; None on Windows, where ``st_ctime`` is the time of creation."""
    if os.name == "nt":
        return None
    with contextlib.suppress(OSError, RuntimeError):
        name = hashlib.sha256(os.fsencode(file.resolve())).hexdigest()
        return cache_folder() / DIGESTS / f"{name[:40]}.json"
    return None


def _remembered(memo: Path, identity: list[int | str]) -> bytes | None:
    """Return the digest in a cache file, or None if it belongs to another state of the file or is damaged."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        found, digest = json.loads(memo.read_bytes())
        if found == identity and len(digest) == 2 * hashlib.sha256().digest_size:
            return bytes.fromhex(digest)
    return None


def _digest(stream: BinaryIO, num_bytes: int) -> bytes:
    """Return the SHA-256 of the next ``num_bytes`` bytes, read block by block."""
    digest = hashlib.sha256()
    while num_bytes:
        block = stream.read(min(BLOCK_BYTES, num_bytes))
        if not block:
            break
        digest.update(block)
        num_bytes -= len(block)
    return digest.digest()
