"""What a reader of samples sees, whether they come from a file, a worker process, memory or a microphone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ast_cli.errors import WarningCode


class SampleStream(Protocol):
    """Mono samples in blocks at the model's rate, and what is known about where they come from."""

    sampling_rate: int
    num_channels: int
    start_s: float
    warnings: set[WarningCode]

    @property
    def duration_s(self) -> float:
        """Seconds read so far."""

    @property
    def header_duration_s(self) -> float | None:
        """Seconds that there are to read, as far as a header is to be believed; None where nothing tells."""

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield blocks of shape (num_samples,)."""

    def close(self) -> None:
        """Release the file."""
