"""Splitting a list of inputs over job arrays, stably: a file's shard depends on its own path alone.

Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import re

from ast_cli.errors import UsageError
from ast_cli.tagging.inputs import Input, RealPaths

Shard = tuple[int, int]  # which one, from 0, and of how many
_SHARD = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


def parse_shard(text: str) -> Shard:
    """Read ``I/N``: the shard I, counted from 0, of N.

    Raises:
        UsageError: Anything else.
    """
    match = _SHARD.fullmatch(text)
    if match is None:
        raise UsageError(f"a shard is written I/N, such as 0/8 for the first of eight, not {text!r}")
    index, num_shards = int(match[1]), int(match[2])
    if index >= num_shards:
        last = f"the last of {num_shards} is {num_shards - 1}/{num_shards}" if num_shards else "there is none of 0"
        raise UsageError(f"there is no shard {text}: shards are counted from 0, {last}")
    return index, num_shards


def format_shard(shard: Shard | None) -> str | None:
    """Return a shard as it is written on the command line."""
    return None if shard is None else f"{shard[0]}/{shard[1]}"


def in_shard(item: Input, shard: Shard, real_path: RealPaths | None = None) -> bool:
    """Tell whether an input belongs to a shard: by SHA-256 of its real path, the same in every process and release.

    Args:
        item: The input.
        shard: Which one.
        real_path: One for many inputs looks up each folder once.
    """
    index, num_shards = shard
    digest = hashlib.sha256(os.fsencode((real_path or RealPaths())(item))).digest()
    return int.from_bytes(digest[:8], "big") % num_shards == index
