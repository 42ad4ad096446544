"""Tensors that lie in a mapped file: their pages come when they are looked at, and can be given back."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterable
from typing import IO
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

# Every mapping that a tensor still lies in, with its address. Nothing else may be given back: of memory that no file
# stands behind, the content would be gone.
_addresses: WeakKeyDictionary[mmap.mmap, int] = WeakKeyDictionary()


def map_file(stream: IO[bytes]) -> mmap.mmap:
    """Map a whole file; what is written to the mapping does not reach the file."""
    mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    _addresses[mapping] = torch.frombuffer(mapping, dtype=torch.uint8, count=1).data_ptr()
    return mapping


def tensor_at(mapping: mmap.mmap, offset: int, like: Tensor) -> Tensor:
    """Return the tensor whose bytes begin at an offset of a mapping, of the shape and type of another."""
    if not like.numel():
        return torch.empty_like(like)
    return torch.frombuffer(mapping, dtype=like.dtype, count=like.numel(), offset=offset).view(like.shape)


def give_back(tensors: Iterable[Tensor]) -> int:
    """Give the pages of tensors in mapped files back to the system, which has them in its cache for who looks next.

    For tensors as they came from the file: what was written to them since is lost. Tensors elsewhere stay as they are,
    and so does everything where the system has no such call.

    Returns:
        How many bytes there were to give back; pages at either end may be shared with other tensors, and stay.
    """
    if sys.platform != "linux":
        return 0
    num_bytes = 0
    for tensor in tensors:
        start, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        for mapping, address in list(_addresses.items()):
            if address <= start and end <= address + len(mapping):
                first = -(-(start - address) // mmap.PAGESIZE) * mmap.PAGESIZE
                last = (end - address) // mmap.PAGESIZE * mmap.PAGESIZE
                if first < last:
                    mapping.madvise(mmap.MADV_DONTNEED, first, last - first)
                    num_bytes += last - first
    return num_bytes
