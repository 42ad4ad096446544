"""One scale for samples of every type: full scale is 1.0."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# What one step of an integer type is worth. 64-bit integers have no agreed scale in arrays from memory.
INTEGER_SCALES = {np.dtype(np.int8): 2.0**-7, np.dtype(np.int16): 2.0**-15, np.dtype(np.int32): 2.0**-31}
MODEL_SAMPLING_RATE = 16000  # Hz; what every published AST was trained on
MIN_SAMPLING_RATE, MAX_SAMPLING_RATE = 1_000, 768_000  # Hz; from telephone toys to oversampling converters
MAX_PEAK = 10.0  # times full scale, in arrays from memory; floats beyond it are integers that nobody scaled
LOUDEST_SAMPLE = 1e15  # above it the power of a frame leaves float32


def scale_to_float32(samples: NDArray[Any]) -> NDArray[np.float32] | None:
    """Return samples of any shape as float32 in [-1, 1], or None where their type has no known scale."""
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):  # a double of 1e300 becomes Inf, which `replace_absurd` finds
            return np.ascontiguousarray(samples, dtype=np.float32)
    if samples.dtype in INTEGER_SCALES:
        return samples.astype(np.float32) * np.float32(INTEGER_SCALES[samples.dtype])
    if samples.dtype == np.uint8:  # the unsigned 8 bits of WAV: silence is 128
        return (samples.astype(np.float32) - 128) / np.float32(128)
    return None


def replace_absurd(samples: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """Replace NaN, Inf and samples louder than 1e15 by 0.

    One NaN sample would make every feature of its window NaN.

    Returns:
        The samples, shape unchanged, and how many were replaced.
    """
    sound = np.abs(samples) <= LOUDEST_SAMPLE  # False for NaN
    num_absurd = int(samples.size - np.count_nonzero(sound))
    return (samples, 0) if num_absurd == 0 else (np.where(sound, samples, np.float32(0)), num_absurd)
