"""One input on its way through the decode pool: what came of it so far, its samples to read, its turn to be read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ast_cli.errors import AudioError, WarningCode
from ast_cli.tagging.decode_worker import Request
from ast_cli.tagging.inputs import STDIN, Input

if TYPE_CHECKING:
    from ast_cli.tagging.decode_pool import DecodePool
    from ast_cli.tagging.recording import SampleStream  # which imports torch: this module is light without it

TURN_BYTES = 1 << 20  # 16 s at 16 kHz, more than a window: who reads one window of so much seldom waits


class Opening(NamedTuple):
    """What a worker says of a file that it has opened: its own rate in Hz and channels, the seconds it claims."""

    sampling_rate: int
    num_channels: int
    claimed_s: float | None


class Decoding:
    """One input on its way through the pool: what its worker has sent and nobody has taken yet.

    Attributes:
        request: What is decoded.
        opening: What is known of the file once it is open.
        blocks: Seconds decoded up to the block's end, and its samples of shape (num_samples,).
        num_bytes: Of ``blocks``.
        num_taken: Blocks handed out.
        is_held_up: Whether its worker waits for room in the buffers.
        closing: Duration in seconds and warnings, once all is decoded.
        error: Why there is no more.
        is_abandoned: Whether nobody wants the rest.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.opening: Opening | None = None
        self.blocks: deque[tuple[float, NDArray[np.float32]]] = deque()
        self.num_bytes = 0
        self.num_taken = 0
        self.is_held_up = False
        self.closing: tuple[float, set[WarningCode]] | None = None
        self.error: AudioError | None = None
        self.is_abandoned = False

    @property
    def is_complete(self) -> bool:
        """Whether nothing more will come."""
        return self.closing is not None or self.error is not None


class PooledStream:
    """A file that a worker decodes; behaves as `ast_cli.audio.decode.AudioStream`."""

    def __init__(self, pool: DecodePool, decoding: Decoding, opening: Opening) -> None:
        self.sampling_rate, self.num_channels, self.claimed_s = opening
        self.start_s = decoding.request.start_s
        self.duration_s = 0.0
        self.warnings: set[WarningCode] = set()
        self._pool = pool
        self._decoding = decoding

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield samples in [-1, 1], each block of shape (num_samples,).

        Raises:
            AudioError: The file cannot be decoded, its worker died or fell silent.
        """
        while (block := self._pool.take(self._decoding)) is not None:
            self.duration_s, samples = block
            yield samples
        assert self._decoding.closing is not None
        self.duration_s, self.warnings = self._decoding.closing

    def close(self) -> None:
        """Give up what has not been read."""
        self._pool.abandon(self._decoding)


class Turn:
    """An input that is to be read now: all that is left of it where its decoding has ended, else one window.

    Args:
        item: The input.
        decoding: Its way through the pool.
        open_stream: Returns its samples, or raises the AudioError that says why there are none.

    Attributes:
        is_over: To be set by the reader once nothing is left of the input.
    """

    def __init__(self, item: Input, decoding: Decoding, open_stream: Callable[[], SampleStream]) -> None:
        self.item = item
        self.decoding = decoding
        self.open_stream = open_stream
        self.is_over = False

    @property
    def is_whole(self) -> bool:
        """Whether reading it to its end waits for nobody; standard input is read here, all of it at once."""
        return self.item.error is not None or self.item.path == STDIN or self.decoding.is_complete

    @property
    def is_due(self) -> bool:
        """Whether there is something to read, and if its decoder waits until it is read, even a little."""
        return self.is_whole or self.decoding.is_held_up or self.decoding.num_bytes >= TURN_BYTES
