"""Tensors in memory-mapped files.

The system reads a page of the file when it is first accessed, and can take it back when it is no longer needed.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import threading
from collections.abc import Iterable
from typing import IO
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

# Every mapping that is still in use by a tensor, with its address. Only pages of these mappings may be given back:
# memory without a file behind it would lose its content.
_addresses: WeakKeyDictionary[mmap.mmap, int] = WeakKeyDictionary()
_lock = threading.Lock()

# Flags of a page in /proc/self/pagemap of Linux (Documentation/admin-guide/mm/pagemap.rst).
PAGEMAP = "/proc/self/pagemap"
ENTRY_BYTES = 8
PRESENT, SWAPPED, OF_A_FILE = (np.uint64(1 << bit) for bit in (63, 62, 61))


def map_file(stream: IO[bytes]) -> mmap.mmap:
    """Map a whole file into memory, copy-on-write: writing to the mapping does not change the file."""
    mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    address = torch.frombuffer(mapping, dtype=torch.uint8, count=1).data_ptr()
    with _lock:
        _addresses[mapping] = address
    return mapping


def tensor_at(mapping: mmap.mmap, offset: int, like: Tensor) -> Tensor:
    """Return the tensor whose bytes begin at an offset of a mapping, with the shape and type of ``like``."""
    if not like.numel():
        return torch.empty_like(like)
    return torch.frombuffer(mapping, dtype=like.dtype, count=like.numel(), offset=offset).view(like.shape)


def give_back(tensors: Iterable[Tensor]) -> int:
    """Give the pages of tensors in mapped files back to the system, which reads them again on the next access.

    The system keeps the pages in its file cache. Tensors outside mapped files are left alone, and so are tensors that
    were modified, as their pages no longer match the file. On systems other than Linux, or where the system refuses
    the call, nothing happens.

    Returns:
        Number of bytes given back. Pages at either end of a tensor may be shared with other tensors and are kept.
    """
    if sys.platform != "linux":
        return 0
    with _lock:
        mappings = list(_addresses.items())
    num_bytes = 0
    for tensor in tensors:
        start, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        for mapping, address in mappings:
            if address <= start and end <= address + len(mapping):
                num_bytes += _give_back(mapping, address, start - address, end - address)
    return num_bytes


def _give_back(mapping: mmap.mmap, address: int, start: int, end: int) -> int:
    """Give back the whole pages between two offsets of a mapping unless one was modified; return their size."""
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    length = end // mmap.PAGESIZE * mmap.PAGESIZE - first
    with contextlib.suppress(OSError):  # locked memory, or a system that hides its page map
        if length > 0 and not _was_written(address + first, length):
            mapping.madvise(mmap.MADV_DONTNEED, first, length)
            return length
    return 0


def _was_written(address: int, length: int) -> bool:
    """Return whether a page was modified, which makes it a private copy that the file cannot restore.

    Raises:
        OSError: If the system does not provide the information.
    """
    descriptor = os.open(PAGEMAP, os.O_RDONLY)
    try:
        num_bytes = length // mmap.PAGESIZE * ENTRY_BYTES
        entries = os.pread(descriptor, num_bytes, address // mmap.PAGESIZE * ENTRY_BYTES)
    finally:
        os.close(descriptor)
    if len(entries) != num_bytes:
        raise OSError("the map of pages ends early")
    pages = np.frombuffer(entries, np.uint64)
    return bool((pages & SWAPPED).any() or ((pages & (PRESENT | OF_A_FILE)) == PRESENT).any())
