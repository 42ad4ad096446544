"""Selection of the channels of a recording: their mix, one of them, or each by itself. Standard library only."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, TypeAlias

from ast_cli.errors import AudioError, ErrorCode, UsageError, WarningCode

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ast_cli.audio.sample_stream import SampleStream

MIX: Literal["mix"] = "mix"
EACH: Literal["each"] = "each"
MAX_CHANNELS = 64
# The mean of all channels, all of them apart, or one by its number. Numbers start at 1, as in sox and Audacity.
Channels: TypeAlias = int | Literal["mix", "each"]


def parsed_channels(value: object) -> Channels:
    """Return a choice of channels, a number in digits as an integer.

    Raises:
        UsageError: If it is neither ``mix`` nor ``each`` nor a number from 1 to 64.
    """
    if value in (MIX, EACH):
        return MIX if value == MIX else EACH
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_CHANNELS:
        raise UsageError(f"--channels must be mix, each, or a channel's number from 1 to {MAX_CHANNELS}, not {value!r}")
    return value


def check_channel(name: str, channels: Channels, num_channels: int) -> None:
    """Validate that a recording has the channel that is to be read.

    Raises:
        AudioError: If there is no channel of that number.
    """
    if isinstance(channels, int) and channels > num_channels:
        counted = f"{num_channels} channel{'' if num_channels == 1 else 's'}"
        raise AudioError(
            ErrorCode.BAD_CHANNELS, f"{name}: there is no channel {channels} (--channels {channels}): it has {counted}"
        )


def split_channels(stream: SampleStream) -> list[ChannelStream]:
    """Return one stream per channel of a stream with blocks of shape (num_channels, num_samples).

    The file is decoded once. Whichever channel runs out of samples first reads the next block for all of them, so that
    channels that are read in turns hold one block and what one window needs, never the whole recording.
    """
    splitter = _Splitter(stream)
    return [ChannelStream(splitter, index) for index in range(stream.num_channels)]


class _Splitter:
    """Distributes the rows of a stream's blocks to its channels."""

    def __init__(self, stream: SampleStream) -> None:
        self.stream = stream
        self._blocks = iter(stream)
        self._waiting: list[deque[NDArray[np.float32]]] = [deque() for _ in range(stream.num_channels)]

    def next_row(self, index: int) -> NDArray[np.float32] | None:
        """Return the next samples (num_samples,) of a channel, None at the end."""
        if not self._waiting[index]:
            block = next(self._blocks, None)
            if block is None:
                return None
            for row, waiting in zip(block, self._waiting, strict=True):
                waiting.append(row)
        return self._waiting[index].popleft()


class ChannelStream:
    """One channel of a recording that behaves as an opened file.

    Attributes:
        sampling_rate: Sampling rate of the file in Hz.
        num_channels: Number of channels of the file.
        start_s: Start of the part that is read, in seconds.
    """

    def __init__(self, splitter: _Splitter, index: int) -> None:
        stream = splitter.stream
        self.sampling_rate, self.num_channels, self.start_s = stream.sampling_rate, stream.num_channels, stream.start_s
        self._splitter = splitter
        self._index = index

    @property
    def duration_s(self) -> float:
        """Seconds read so far, of all channels."""
        return self._splitter.stream.duration_s

    @property
    def header_duration_s(self) -> float | None:
        """Seconds that the header states."""
        return self._splitter.stream.header_duration_s

    @property
    def warnings(self) -> set[WarningCode]:
        """Warnings about the file."""
        return self._splitter.stream.warnings

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield blocks of shape (num_samples,)."""
        while (row := self._splitter.next_row(self._index)) is not None:
            yield row

    def close(self) -> None:
        """Release the file. The channels end together, so the first to end may close it."""
        self._splitter.stream.close()
