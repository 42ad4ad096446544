"""The front end of one recording: decoded, filtered and cut into windows, in constant memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.channels import EACH, check_channel, split_channels
from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.audio.sample_stream import SampleStream
from ast_cli.audio.samples import MAX_SAMPLING_RATE, MIN_SAMPLING_RATE
from ast_cli.audio.source import is_file
from ast_cli.audio.waveforms import as_float32, checked_waveform
from ast_cli.audio.windows import AudioWindow
from ast_cli.errors import AstWarning, UsageError, WarningCode
from ast_cli.tagging.options import ClassifyOptions, WindowOptions

if TYPE_CHECKING:
    from torch import Tensor

Audio: TypeAlias = "str | Path | bytes | BinaryIO | NDArray[Any] | Tensor"


class Recording:
    """An opened recording, to be iterated once.

    Args:
        stream: Mono samples of the recording, at the sampling rate of the feature extractor.
        feature_extractor: Feature extractor of the model.
        options: Options of the windows.
        channel: Number of the channel of the samples, from 1; None for a mix.

    Raises:
        UsageError: If the hop does not fit the model.
    """

    def __init__(
        self,
        stream: SampleStream,
        feature_extractor: FeatureExtractor,
        options: WindowOptions,
        channel: int | None = None,
    ) -> None:
        self.stream = stream
        self.channel = channel
        self.feature_extractor = feature_extractor
        self.hop_frames = feature_extractor.hop_frames(options.hop_s)
        self.num_windows = options.num_windows if isinstance(options, ClassifyOptions) else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Codes of anomalies, complete once the recording has been iterated."""
        codes = {str(code) for code in self.stream.warnings}
        bank = self.feature_extractor.filter_bank
        if round(self.stream.duration_s * bank.sampling_rate) < bank.frame_length_samples:
            codes.add(WarningCode.TOO_SHORT.value)
        return tuple(sorted(codes))

    def fbank_blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield consecutive frames, each block of shape (num_frames, num_mel_bins)."""
        try:
            yield from self.feature_extractor.fbank_blocks(self.stream)
        finally:
            self.stream.close()

    def windows(self) -> Iterator[AudioWindow]:
        """Yield the recording's windows in order, each a fbank of shape (num_frames, num_mel_bins).

        Raises:
            AudioError: If the audio cannot be decoded, or there is none.
        """
        try:
            if self.num_windows is None:
                yield from self.feature_extractor.windows(self.stream, self.hop_frames)
            else:
                known_s = self.stream.header_duration_s
                yield from self.feature_extractor.spread_windows(self.stream, self.num_windows, known_s)
        finally:
            self.stream.close()

    def waveform_windows(self) -> Iterator[AudioWindow]:
        """Yield the same windows as samples of shape (num_samples,), for a filter bank on another device.

        Raises:
            AudioError: If the audio cannot be decoded, or there is none.
        """
        try:
            if self.num_windows is None:
                yield from self.feature_extractor.waveform_windows(self.stream, self.hop_frames)
            else:
                known_s = self.stream.header_duration_s
                yield from self.feature_extractor.spread_waveform_windows(self.stream, self.num_windows, known_s)
        finally:
            self.stream.close()

    def place_s(self, window: AudioWindow) -> tuple[float, float]:
        """Return start and end of a window that has been read, in seconds; at most the end of the recording."""
        origin_s, extractor = self.stream.start_s, self.feature_extractor
        shift_ms = extractor.filter_bank.frame_shift_ms
        start_s = origin_s + window.start_frame * shift_ms / 1000
        end_s = origin_s + (window.start_frame + extractor.longest_hop_frames) * shift_ms / 1000
        return start_s, min(end_s, origin_s + self.stream.duration_s)


def recordings_of(stream: SampleStream, feature_extractor: FeatureExtractor, options: WindowOptions) -> list[Recording]:
    """Return the recording of an opened file, or with ``channels="each"`` one recording for each channel.

    The channels have the same windows. Read one window of each channel in turn: samples that are read for one channel
    are kept in memory for the others.
    """
    if options.channels != EACH:
        channel = options.channels if isinstance(options.channels, int) else None
        return [Recording(stream, feature_extractor, options, channel)]
    return [
        Recording(channel_stream, feature_extractor, options, number)
        for number, channel_stream in enumerate(split_channels(stream), start=1)
    ]


def open_stream(
    audio: Audio, target_rate: int, options: WindowOptions, sampling_rate: int | None = None
) -> SampleStream:
    """Open a recording in any form.

    Args:
        audio: A path, the bytes of one encoded file, a binary file open for reading, or a mono waveform of shape
            (num_samples,): integers, which are scaled by their type, or floats in [-1, 1], with a warning beyond 10
            times that.
        target_rate: Sampling rate to resample to, in Hz.
        options: Part of the recording to read.
        sampling_rate: Sampling rate of a waveform, in Hz.

    Raises:
        AudioError: If the recording cannot be opened, or does not have the channel to read.
        UsageError: If a waveform is not mono or is shorter than one frame of 25 ms, or a file is open as text.
    """
    if isinstance(audio, str | Path | bytes) or is_file(audio):
        from ast_cli.audio.decode import open_audio  # imports the decoders, which most runs need only in workers

        return open_audio(
            cast("str | Path | bytes | BinaryIO", audio),
            target_rate,
            options.start_s,
            options.duration_s,
            options.channels,
        )
    return WaveformStream(cast("NDArray[Any] | Tensor", audio), sampling_rate, target_rate, options)


class WaveformStream:
    """A waveform in memory with the interface of an opened file."""

    def __init__(
        self, waveform: NDArray[Any] | Tensor, sampling_rate: int | None, target_rate: int, options: WindowOptions
    ) -> None:
        if sampling_rate is None:
            warnings.warn(
                f"pass sampling_rate with a waveform: without it {target_rate} Hz is assumed, and a waveform of "
                "another rate gets wrong tags",
                AstWarning,
                stacklevel=4,
            )
        self.sampling_rate = target_rate if sampling_rate is None else sampling_rate
        if not MIN_SAMPLING_RATE <= self.sampling_rate <= MAX_SAMPLING_RATE:
            limits = f"{MIN_SAMPLING_RATE} to {MAX_SAMPLING_RATE}"
            raise UsageError(f"sampling_rate must be from {limits} Hz, not {sampling_rate}")
        samples = checked_waveform(waveform, self.sampling_rate, stacklevel=5)
        start = round(options.start_s * self.sampling_rate)
        length = None if options.duration_s is None else round(options.duration_s * self.sampling_rate)
        part = as_float32(samples[start:][:length])
        self.num_channels = 1
        check_channel("the waveform", options.channels, self.num_channels)
        self._has_rows = options.channels == EACH
        self.start_s = options.start_s
        self.duration_s = self.header_duration_s = part.size / self.sampling_rate
        self.warnings: set[WarningCode] = set()
        self._samples = part
        if self.sampling_rate != target_rate:
            import soxr

            self._samples = soxr.resample(part, self.sampling_rate, target_rate, quality="HQ")

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield the whole waveform as one block."""
        yield self._samples[None] if self._has_rows else self._samples

    def close(self) -> None:
        """Do nothing, because there is no file to close."""
