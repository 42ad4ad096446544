"""Resampling of samples that arrive in blocks (soxr HQ), each channel by itself."""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray


class Resampler:
    """Resamples one waveform, or several of the same length, block by block.

    Each channel has its own resampler, so it is resampled exactly as in a mono file.

    Args:
        rate: Sampling rate of the blocks, in Hz.
        target_rate: Sampling rate of the result, in Hz.
        num_channels: Rows of a block of shape (num_channels, num_samples); None for blocks of shape (num_samples,).
    """

    def __init__(self, rate: int, target_rate: int, num_channels: int | None = None) -> None:
        self._is_mono = num_channels is None
        self._streams = [
            soxr.ResampleStream(rate, target_rate, num_channels=1, dtype="float32", quality="HQ")
            for _ in range(num_channels or 1)
        ]

    def resampled(self, block: NDArray[np.float32], *, is_last: bool = False) -> NDArray[np.float32]:
        """Return the samples that a block completes, with the dimensions of the block."""
        if self._is_mono:
            return self._streams[0].resample_chunk(block, last=is_last)
        rows = zip(self._streams, block, strict=True)
        return np.stack([stream.resample_chunk(row, last=is_last) for stream, row in rows])

    def rest(self) -> NDArray[np.float32]:
        """Return the remaining samples at the end."""
        shape = (0,) if self._is_mono else (len(self._streams), 0)
        return self.resampled(np.zeros(shape, np.float32), is_last=True)
