"""Tensors that lie in a mapped file: their pages come when they are looked at, and can be given back."""

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

# Every mapping that a tensor still lies in, with its address. Nothing else may be given back: of memory that no file
# stands behind, the content would be gone.
_addresses: WeakKeyDictionary[mmap.mmap, int] = WeakKeyDictionary()
_lock = threading.Lock()

# What Linux says of a page in /proc/self/pagemap (its Documentation/admin-guide/mm/pagemap.rst).
PAGEMAP = "/proc/self/pagemap"
ENTRY_BYTES = 8
PRESENT, SWAPPED, OF_A_FILE = (np.uint64(1 << bit) for bit in (63, 62, 61))


def map_file(stream: IO[bytes]) -> mmap.mmap:
    """Map a whole file; what is written to the mapping does not reach the file."""
    mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    address = torch.frombuffer(mapping, dtype=torch.uint8, count=1).data_ptr()
    with _lock:
        _addresses[mapping] = address
    return mapping


def tensor_at(mapping: mmap.mmap, offset: int, like: Tensor) -> Tensor:
    """Return the tensor whose bytes begin at an offset of a mapping, of the shape and type of another."""
    if not like.numel():
        return torch.empty_like(like)
    return torch.frombuffer(mapping, dtype=like.dtype, count=like.numel(), offset=offset).view(like.shape)


def give_back(tensors: Iterable[Tensor]) -> int:
    """Give the pages of tensors in mapped files back to the system, which has them in its cache for who looks next.

    Tensors elsewhere stay as they are, and so do those that were written to since: their pages are not the file's any
    more. Where the system has no such call, or refuses it, everything stays.

    Returns:
        How many bytes were the system's to take; pages at either end may be shared with other tensors, and stay.
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
    """Give back the whole pages between two offsets of a mapping, unless one was written to; return their bytes."""
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    length = end // mmap.PAGESIZE * mmap.PAGESIZE - first
    with contextlib.suppress(OSError):  # memory that is locked, a system that hides its pages
        if length > 0 and not _was_written(address + first, length):
            mapping.madvise(mmap.MADV_DONTNEED, first, length)
            return length
    return 0


def _was_written(address: int, length: int) -> bool:
    """Tell whether a page was written to: then it is a copy, and the file's own is no longer there.

    Raises:
        OSError: The system does not say.
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
