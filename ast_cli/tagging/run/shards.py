"""Shards: a stable split of the inputs over several jobs, in which the shard of a file depends on its path alone.

Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import re

from ast_cli.errors import UsageError
from ast_cli.tagging.inputs import Input, RealPaths

Shard = tuple[int, int]  # index, from 0, and number of shards
_SHARD = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


def parse_shard(text: str) -> Shard:
    """Return the shard of a flag's value ``I/N``: shard I, counted from 0, of N.

    Raises:
        UsageError: If the value is not of this form, or there is no such shard.
    """
    match = _SHARD.fullmatch(text)
    if match is None:
        raise UsageError(f"--shard must be I/N, such as 0/8 for the first of eight, not {text!r}")
    index, num_shards = int(match[1]), int(match[2])
    if num_shards == 0:
        raise UsageError(f"--shard {text}: the number of shards must be at least 1")
    if index >= num_shards:
        last = f"{num_shards - 1}/{num_shards}"
        raise UsageError(f"--shard {text} does not exist: shards are counted from 0, the last one is {last}")
    return index, num_shards


def format_shard(shard: Shard | None) -> str | None:
    """Return a shard in the form of the command line, ``I/N``."""
    return None if shard is None else f"{shard[0]}/{shard[1]}"


def in_shard(item: Input, shard: Shard, real_path: RealPaths | None = None) -> bool:
    """Return whether an input belongs to a shard: by the SHA-256 of its real path, in every process and release.

    Args:
        item: The input.
        shard: The shard.
        real_path: Cache of folders, to be shared by the calls for many inputs.
    """
    index, num_shards = shard
    digest = hashlib.sha256(os.fsencode((real_path or RealPaths())(item))).digest()
    return int.from_bytes(digest[:8], "big") % num_shards == index
