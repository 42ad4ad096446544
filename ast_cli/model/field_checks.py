"""Checks of single values in a ``config.json``, and their limits. Does not import torch."""

from __future__ import annotations

from typing import Any

from ast_cli.errors import UsageError
from ast_cli.files.json_object import shown

MAX_LABELS = 100_000
MAX_TOKENS = 1_000_000  # limit on position embeddings; a larger number can only be an attack on the memory
# Far above every published AST (hidden_size 768, 12 layers). Larger values are rejected before anything is built.
LIMITS = {
    "hidden_size": 16_384,
    "num_hidden_layers": 512,
    "num_attention_heads": 1_024,
    "intermediate_size": 131_072,
    "patch_size": 1_024,
    "frequency_stride": 1_024,
    "time_stride": 10_000,
    "max_length": 100_000,
    "num_mel_bins": 1_024,
}


def check_whole_number(name: str, value: Any, limit: int) -> None:
    """Check that a value is a whole number from 1 to a limit.

    Raises:
        UsageError: If it is not.
    """
    if type(value) is not int or not 1 <= value <= limit:
        raise UsageError(f"{name} must be a whole number from 1 to {limit}, not {shown(value)}")


def check_number(name: str, value: Any, low: float, high: float) -> None:
    """Check that a value is a number in a range; NaN is not.

    Raises:
        UsageError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise UsageError(f"{name} must be a number from {low:g} to {high:g}, not {shown(value)}")


def check_flag(name: str, value: Any) -> None:
    """Check that a value is true or false.

    Raises:
        UsageError: If it is not.
    """
    if type(value) is not bool:
        raise UsageError(f"{name} must be true or false, not {shown(value)}")
