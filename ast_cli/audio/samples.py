"""Conversion of samples of any type to float32 with full scale 1.0, and replacement of invalid samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.channels import EACH, Channels

# Value of one step of an integer type. For 64-bit integers in arrays from memory there is no common scale.
INTEGER_SCALES = {np.dtype(np.int8): 2.0**-7, np.dtype(np.int16): 2.0**-15, np.dtype(np.int32): 2.0**-31}
MODEL_SAMPLING_RATE = 16000  # Hz; the rate of most published checkpoints
MIN_SAMPLING_RATE, MAX_SAMPLING_RATE = 1_000, 768_000  # Hz; from telephone toys to oversampling converters
MAX_PEAK = 10.0  # times full scale, for arrays from memory; larger floats are probably integers that were not scaled
LOUDEST_SAMPLE = 1e15  # above it, the power of a frame overflows float32


def scale_to_float32(samples: NDArray[Any]) -> NDArray[np.float32] | None:
    """Return samples of any shape as float32 in [-1, 1], or None if their type has no known scale."""
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):  # a double of 1e300 becomes Inf, which `replace_absurd` replaces
            return np.ascontiguousarray(samples, dtype=np.float32)
    if samples.dtype in INTEGER_SCALES:
        return samples.astype(np.float32) * np.float32(INTEGER_SCALES[samples.dtype])
    if samples.dtype == np.uint8:  # unsigned 8-bit samples, as in WAV: silence is 128
        return (samples.astype(np.float32) - 128) / np.float32(128)
    return None


def replace_absurd(samples: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """Replace NaN, Inf and samples with a magnitude above 1e15 by 0.

    A single NaN sample would turn every feature of its window into NaN.

    Returns:
        Samples of unchanged shape, and the number of replaced samples.
    """
    is_valid = np.abs(samples) <= LOUDEST_SAMPLE  # False for NaN
    num_absurd = int(samples.size - np.count_nonzero(is_valid))
    return (samples, 0) if num_absurd == 0 else (np.where(is_valid, samples, np.float32(0)), num_absurd)


def picked(samples: NDArray[np.float32], channels: Channels) -> NDArray[np.float32]:
    """Return one channel (num_samples,), or with ``each`` all (num_channels, num_samples).

    Args:
        samples: All channels, shape (num_samples, num_channels).
        channels: ``each`` or the number of a channel; not ``mix``.
    """
    if channels == EACH:
        return np.ascontiguousarray(samples.T)
    assert isinstance(channels, int)
    return np.ascontiguousarray(samples[:, channels - 1])
