"""``ast extract``."""

from __future__ import annotations


def extract() -> None:
    """Not written yet."""
    raise NotImplementedError
