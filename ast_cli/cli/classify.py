"""``ast classify``."""

from __future__ import annotations


def classify() -> None:
    """Not written yet."""
    raise NotImplementedError
