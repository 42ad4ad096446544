"""The interface of sample streams, which come from a file, a worker process, memory or a microphone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ast_cli.errors import WarningCode


class SampleStream(Protocol):
    """Samples in blocks at the model's sampling rate, with facts about their source.

    They are mono. With ``channels="each"`` a block contains every channel, until
    `ast_cli.audio.channels.split_channels` separates them.

    Attributes:
        sampling_rate: Sampling rate of the source in Hz, before resampling.
        num_channels: Number of channels of the source.
        start_s: Position in the source at which the stream starts, in seconds.
        warnings: Problems found so far.
    """

    sampling_rate: int
    num_channels: int
    start_s: float

    @property
    def warnings(self) -> set[WarningCode]:
        """Problems found so far."""

    @property
    def duration_s(self) -> float:
        """Length in seconds of the audio read so far."""

    @property
    def header_duration_s(self) -> float | None:
        """Length in seconds of the audio to read according to the source's header, which may be wrong, or None."""

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield samples in [-1, 1] in blocks of shape (num_samples,); with each channel (num_channels, num_samples)."""

    def close(self) -> None:
        """Close the source."""
