"""Raw samples from a pipe that may never end, such as a microphone's, as blocks at the model's sampling rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.channels import EACH, MAX_CHANNELS, MIX, Channels
from ast_cli.audio.resampler import Resampler
from ast_cli.audio.samples import MAX_SAMPLING_RATE, MIN_SAMPLING_RATE, picked, replace_absurd, scale_to_float32
from ast_cli.errors import AudioError, ErrorCode, UsageError, WarningCode

RAW_DTYPES = {
    "u8": "u1",
    "s16le": "<i2",
    "s16be": ">i2",
    "s32le": "<i4",
    "s32be": ">i4",
    "f32le": "<f4",
    "f32be": ">f4",
    "f64le": "<f8",
    "f64be": ">f8",
}
READ_S = 0.1  # seconds per read; small, so that a window is available soon after its end


@dataclass(frozen=True, slots=True)
class RawFormat:
    """Format of the samples in a raw stream.

    Attributes:
        sampling_rate: Sampling rate in Hz.
        sample_format: Sample format by its FFmpeg name, one of `RAW_DTYPES`.
        num_channels: Number of interleaved channels.
    """

    sampling_rate: int
    sample_format: str = "s16le"
    num_channels: int = 1

    def __post_init__(self) -> None:
        """Validate the values."""
        if not MIN_SAMPLING_RATE <= self.sampling_rate <= MAX_SAMPLING_RATE:
            limits = f"{MIN_SAMPLING_RATE} to {MAX_SAMPLING_RATE}"
            raise UsageError(f"raw rate must be from {limits} Hz, not {self.sampling_rate}")
        if self.sample_format not in RAW_DTYPES:
            raise UsageError(f"raw format must be one of {', '.join(RAW_DTYPES)}, not {self.sample_format!r}")
        if not 1 <= self.num_channels <= MAX_CHANNELS:
            raise UsageError(f"raw channels must be from 1 to {MAX_CHANNELS}, not {self.num_channels}")

    def check_channel(self, channels: Channels) -> None:
        """Validate that the stream has the channel that is to be read.

        Raises:
            UsageError: If there is no channel of that number.
        """
        if isinstance(channels, int) and channels > self.num_channels:
            raise UsageError(
                f"--channels {channels} names a channel that --raw-channels {self.num_channels} does not have"
            )


class RawStream:
    """A `SampleStream` of raw samples, which are read as they arrive.

    Args:
        file: Binary file, unbuffered or buffered; a read returns the bytes that are available.
        raw: Format of the samples.
        target_rate: Sampling rate of the blocks in Hz.
        channels: Channels to read, as in `ast_cli.audio.decode.open_audio`.

    Raises:
        UsageError: If there is no channel of that number.
    """

    def __init__(self, file: BinaryIO, raw: RawFormat, target_rate: int, channels: Channels = MIX) -> None:
        raw.check_channel(channels)
        self.file = file
        self.channels = channels
        self.raw = raw
        self.target_rate = target_rate
        self.sampling_rate = raw.sampling_rate
        self.num_channels = raw.num_channels
        self.start_s = 0.0
        self.header_duration_s = None
        self.warnings: set[WarningCode] = set()
        self.num_read = 0  # samples per channel

    @property
    def duration_s(self) -> float:
        """Length in seconds of the audio read so far."""
        return self.num_read / self.sampling_rate

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield samples in [-1, 1], as `ast_cli.audio.decode.AudioStream` does, until the stream ends.

        Raises:
            AudioError: If the stream ends before the first sample.
        """
        resampler = None
        if self.sampling_rate != self.target_rate:
            num_rows = self.num_channels if self.channels == EACH else None
            resampler = Resampler(self.sampling_rate, self.target_rate, num_rows)
        for block in self._blocks():
            self.num_read += block.shape[-1]
            resampled = block if resampler is None else resampler.resampled(block)
            if resampled.size:
                yield resampled
        if not self.num_read:
            raise AudioError(ErrorCode.NO_SAMPLES, "-: the raw stream contains no samples")
        if resampler is not None:
            yield resampler.rest()

    def _blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield the available samples, mixed down or picked; an incomplete frame of samples waits for its rest."""
        dtype = np.dtype(RAW_DTYPES[self.raw.sample_format])
        frame_bytes = dtype.itemsize * self.num_channels
        most = max(1, round(READ_S * self.sampling_rate)) * frame_bytes
        read = getattr(self.file, "read1", self.file.read)
        rest = b""
        while data := read(most):
            data = rest + data
            whole = len(data) // frame_bytes * frame_bytes
            rest = data[whole:]
            frames = np.frombuffer(data[:whole], dtype).reshape(-1, self.num_channels)
            samples = scale_to_float32(frames.astype(dtype.newbyteorder("=")))
            if samples is None:
                raise UsageError(f"raw format {self.raw.sample_format} has no known scale")
            samples, num_absurd = replace_absurd(samples)
            if num_absurd:
                self.warnings.add(WarningCode.NON_FINITE_SAMPLES)
            if len(samples) and self.channels == MIX:
                yield np.ascontiguousarray(samples.mean(axis=1, dtype=np.float32))
            elif len(samples):
                yield picked(samples, self.channels)

    def close(self) -> None:
        """Do nothing, as the file belongs to the caller."""
