"""Keep converted or compiled models in the user's cache folder, and find them again by content.

The name of a file is a hash of everything it depends on: the content of the checkpoint, versions, processor and
options. A file is written under a temporary name and then renamed, so two processes can write the same one at once. It
ends in a seal, the SHA-256 of everything before it; incomplete and damaged files are written again. If the folder is
not writable, nothing is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import mmap
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ast_cli.engine.graph.onnx_file import varint
from ast_cli.files.atomic import replacing
from ast_cli.files.cache import cache_folder, file_digest

FOLDER = "models"
# Readers of Protocol Buffers see the footer as one more field and skip it, as no ONNX message has this field number.
FIELD_TAG = b"\xc2\xa9\x07"  # number 15000, bytes
DIGEST_BYTES = hashlib.sha256().digest_size
FOOTER_BYTES = DIGEST_BYTES + 8  # the digest, and the length of the facts before it
MAX_FACTS_BYTES = 1 << 24


def cached_model(depends_on: Mapping[str, str], suffix: str) -> tuple[Path, dict[str, Any]] | None:
    """Return the file that depends on these facts, and the facts stored in it; None if there is none.

    A damaged file is removed.
    """
    with contextlib.suppress(OSError, RuntimeError):
        file = _file(depends_on, suffix)
        if file.is_file():
            checked = file.stat()
            if (facts := _facts_if_whole(file)) is not None:
                return file, facts
            if os.path.samestat(checked, file.stat()):  # no other process has replaced it meanwhile
                file.unlink()
    return None


def keep_model(
    depends_on: Mapping[str, str], suffix: str, chunks: Iterable[bytes | memoryview], facts: Mapping[str, Any]
) -> Path | None:
    """Write a file for this and later runs, and return its path; None if it cannot be written.

    Args:
        depends_on: Everything that the content depends on.
        suffix: Suffix of the file name.
        chunks: Content of the file, in pieces.
        facts: Facts to store in the file, as JSON.
    """
    with contextlib.suppress(OSError, RuntimeError):
        file = _file(depends_on, suffix)
        with replacing(file, is_shared=True) as stream:
            _write_sealed(stream, chunks, json.dumps(facts).encode())
        return file
    return None


def can_keep_models() -> bool:
    """Return whether this process may create files in the folder of kept models, or that folder itself."""
    try:
        folder = cache_folder() / FOLDER
    except RuntimeError:  # there is no home folder
        return False
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def content_of(file: Path) -> memoryview:
    """Map a cached file copy-on-write into memory, and return its content without the footer."""
    with file.open("rb") as stream:
        mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    return memoryview(mapping)[: len(mapping) - _end_length(mapping[-FOOTER_BYTES:])]


def _file(depends_on: Mapping[str, str], suffix: str) -> Path:
    key = hashlib.sha256(json.dumps(dict(sorted(depends_on.items()))).encode()).hexdigest()
    return cache_folder() / FOLDER / f"{key[:40]}{suffix}"


def _write_sealed(stream: BinaryIO, chunks: Iterable[bytes | memoryview], facts: bytes) -> None:
    """Write the content, then one field with the facts, their length and the seal."""
    end = [FIELD_TAG, varint(len(facts) + FOOTER_BYTES), facts, len(facts).to_bytes(8, "little")]
    seal = hashlib.sha256()
    for chunk in itertools.chain(chunks, end):
        seal.update(chunk)
        stream.write(chunk)
    stream.write(seal.digest())


def _facts_if_whole(file: Path) -> dict[str, Any] | None:
    """Return the facts stored in a file, or None if its seal does not match."""
    with file.open("rb") as stream:
        num_bytes = stream.seek(0, os.SEEK_END)
        if num_bytes < FOOTER_BYTES:
            return None
        stream.seek(num_bytes - FOOTER_BYTES)
        footer = stream.read(FOOTER_BYTES)
        num_facts = int.from_bytes(footer[:8], "little")
        if num_facts > min(MAX_FACTS_BYTES, num_bytes - FOOTER_BYTES):
            return None
        stream.seek(num_bytes - FOOTER_BYTES - num_facts)
        facts = stream.read(num_facts)
    if file_digest(file, leave_out=DIGEST_BYTES) != footer[8:]:
        return None
    found = json.loads(facts)
    return found if isinstance(found, dict) else None


def _end_length(footer: bytes) -> int:
    num_facts = int.from_bytes(footer[:8], "little")
    return len(FIELD_TAG) + len(varint(num_facts + FOOTER_BYTES)) + num_facts + FOOTER_BYTES
