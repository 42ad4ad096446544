"""``ast benchmark``."""

from __future__ import annotations


def benchmark() -> None:
    """Not written yet."""
    raise NotImplementedError
