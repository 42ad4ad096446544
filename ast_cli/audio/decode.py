"""Decoding of a file to float32 blocks at 16 kHz, mono or every channel, without holding the whole file in memory."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.channels import EACH, MAX_CHANNELS, MIX, Channels, check_channel, parsed_channels
from ast_cli.audio.decoders.choice import open_decoder
from ast_cli.audio.decoders.interface import Decoder, bad_sampling_rate
from ast_cli.audio.resampler import Resampler
from ast_cli.audio.samples import MAX_SAMPLING_RATE, MIN_SAMPLING_RATE, MODEL_SAMPLING_RATE, picked, replace_absurd
from ast_cli.audio.source import (
    OPENING_BYTES,
    STORAGE_ERRORS,
    Source,
    read_failure,
    read_file,
    without_oversized_chunk,
)
from ast_cli.errors import AstError, AudioError, ErrorCode, UsageError, WarningCode, internal_error

logger = logging.getLogger(__name__)

WARM_UP_S = 1  # decoded before a start in the middle of a file, as the resampler needs the preceding samples
# Errors that a decoder raises after a failed read.
MAY_BE_UNREAD = {ErrorCode.DECODE_ERROR, ErrorCode.NOT_AUDIO, ErrorCode.NO_AUDIO_STREAM, ErrorCode.NO_SAMPLES}
LOST = {WarningCode.TRUNCATED, WarningCode.PARTIAL}


def open_audio(
    audio: str | Path | bytes | BinaryIO,
    sampling_rate: int = MODEL_SAMPLING_RATE,
    start_s: float = 0.0,
    duration_s: float | None = None,
    channels: Channels = MIX,
) -> AudioStream:
    """Open encoded audio for reading as mono samples, or each channel apart.

    Args:
        audio: Path of a file, the content of a file as bytes, or a binary file open for reading.
        sampling_rate: Sampling rate of the returned samples in Hz.
        start_s: Start of the part to read, in seconds.
        duration_s: Length of the part to read, in seconds; None for the rest of the file.
        channels: ``mix`` for the mean of all channels, ``each`` for every channel by itself, or the number of one
            channel, from 1, in the order of WAV: left, right, center, low frequencies and so on.

    Raises:
        AudioError: If the file is missing, not a regular file, not audio, has an unsupported sampling rate or number
            of channels, or has no channel of that number.
        UsageError: If the start is negative, the duration is not positive, or ``channels`` has another value.
    """
    channels = parsed_channels(channels)
    if not 0 <= start_s < math.inf:
        raise UsageError(f"start_s must be finite and at least 0 s, not {start_s:g}")
    if duration_s is not None and not 0 < duration_s < math.inf:
        raise UsageError(f"duration_s must be finite and above 0 s, not {duration_s:g}")
    if not isinstance(audio, str | bytes | os.PathLike):
        audio = read_file(audio)
    if isinstance(audio, bytes):
        source = Source("-", audio)
        if not audio:
            raise AudioError(ErrorCode.EMPTY_FILE, "-: standard input is empty")
    else:
        source = Source(os.fspath(audio))
        check_regular_file(source.name)
    with _audio_errors(source, "open", OPENING_BYTES):
        return _open_stream(source, sampling_rate, start_s, duration_s, channels)


@contextlib.contextmanager
def _audio_errors(source: Source, verb: str, num_bytes: int | None = None) -> Iterator[None]:
    """Convert exceptions from opening or decoding a file into an `AudioError`, and log the traceback for ``--debug``.

    Args:
        source: Source of the audio.
        verb: Operation for messages, ``open`` or ``decode``.
        num_bytes: Number of bytes that may have been read, None for all. If they cannot be read again, the error is
            that of the storage device.
    """
    try:
        yield
    except MemoryError as error:
        raise AudioError(ErrorCode.OUT_OF_MEMORY, f"{source.name}: not enough memory to {verb} it") from error
    except OSError as error:  # while reading the length or the checksums of the container
        raise read_failure(source.name, error) from error
    except AudioError as error:
        logger.debug("%s: could not %s it", source.name, verb, exc_info=error)
        if error.code in MAY_BE_UNREAD:
            source.check_readable(num_bytes)
        raise
    except AstError:
        raise
    except Exception as error:
        logger.debug("%s: internal error", source.name, exc_info=error)
        raise internal_error(source.name, error) from error


def _open_stream(
    source: Source, sampling_rate: int, start_s: float, duration_s: float | None, channels: Channels
) -> AudioStream:
    source = without_oversized_chunk(source)
    decoder = open_decoder(source, mixes_channels=channels == MIX)
    try:
        _check_layout(source, decoder)
        check_channel(source.name, channels, decoder.num_channels)
        return AudioStream(source, decoder, sampling_rate, start_s, duration_s, channels)
    except BaseException:
        decoder.close()
        raise


def load_waveform(
    audio: str | Path | bytes | BinaryIO,
    sampling_rate: int = MODEL_SAMPLING_RATE,
    start_s: float = 0.0,
    duration_s: float | None = None,
    channels: Channels = MIX,
) -> NDArray[np.float32]:
    """Read a whole file into memory as mono samples, or each channel apart.

    Arguments and errors are those of `open_audio`.

    Returns:
        Samples in [-1, 1] at ``sampling_rate``, shape (num_samples,); with ``channels="each"`` (num_channels,
        num_samples).
    """
    with open_audio(audio, sampling_rate, start_s, duration_s, channels) as stream:
        return np.concatenate(list(stream), axis=-1)


class AudioStream:
    """A file as float32 blocks at one sampling rate; it can be iterated once.

    Duration and warnings are complete after the iteration.

    Attributes:
        sampling_rate: Sampling rate of the file in Hz.
        num_channels: Number of channels of the file.
        duration_s: Length in seconds of the audio read so far; after the iteration, that of the file or the requested
            part.
        warnings: Problems found so far.
    """

    def __init__(
        self,
        source: Source,
        decoder: Decoder,
        target_rate: int,
        start_s: float,
        duration_s: float | None,
        channels: Channels = MIX,
    ) -> None:
        self.sampling_rate = decoder.sampling_rate
        self.num_channels = decoder.num_channels
        self.start_s = start_s
        self.duration_s = 0.0
        self._is_cut = source.is_cut()
        self.warnings = {WarningCode.TRUNCATED} if self._is_cut else set()
        self._source = source
        self._decoder = decoder
        self._target_rate = target_rate
        self._channels = channels
        self._part = start_s > 0 or duration_s is not None
        self._num_wanted = None if duration_s is None else max(1, round(duration_s * target_rate))

    @property
    def header_duration_s(self) -> float | None:
        """Length in seconds of the audio to read according to the container's header, which may be wrong, or None."""
        whole_s = self._decoder.header_duration_s
        left_s = None if whole_s is None else max(0.0, whole_s - self.start_s)
        wanted_s = None if self._num_wanted is None else self._num_wanted / self._target_rate
        return min((seconds for seconds in (left_s, wanted_s) if seconds is not None), default=None)

    def __enter__(self) -> AudioStream:
        """Return the stream, which is closed at the end of the ``with`` block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._decoder.close()

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield samples in [-1, 1] in blocks of shape (num_samples,), or (num_channels, num_samples) for each channel.

        Raises:
            AudioError: If no sample can be decoded, or the file cannot be read to the end.
        """
        num_read = 0
        with _audio_errors(self._source, "decode"):
            for block in self._trimmed():
                num_read += block.shape[-1]
                if self._part:
                    self.duration_s = num_read / self._target_rate
                yield block
            self.warnings |= self._decoder.warnings
            if num_read == 0:
                raise self._nothing_read()
        if self.warnings & LOST:
            self._source.check_readable()

    def _nothing_read(self) -> AudioError:
        """Return the error for a file without a single sample."""
        name = self._source.name
        if self.start_s:
            return AudioError(ErrorCode.NO_SAMPLES, f"{name}: contains no audio after {self.start_s:g} s")
        if WarningCode.TRUNCATED in self.warnings:
            return AudioError(ErrorCode.DECODE_ERROR, f"{name}: cut off before the first sample that can be decoded")
        return AudioError(ErrorCode.NO_SAMPLES, f"{name}: contains no audio")

    def _trimmed(self) -> Iterator[NDArray[np.float32]]:
        """Yield the requested part of the resampled blocks."""
        # Whole seconds are whole samples at both rates, so the part is resampled exactly as in the whole file.
        skipped_s = self._decoder.seek(max(0, int(self.start_s) - WARM_UP_S)) if self.start_s else 0
        num_skip = round(self.start_s * self._target_rate) - skipped_s * self._target_rate
        num_left = self._num_wanted
        for block in self._resampled():
            skipped = min(num_skip, block.shape[-1])
            num_skip -= skipped
            block = block[..., skipped:]
            if num_left is not None:
                block = block[..., :num_left]
                num_left -= block.shape[-1]
            if block.size:
                yield block
            if num_left == 0:
                return
        if not self._part:
            self._compare_with_header()

    def _resampled(self) -> Iterator[NDArray[np.float32]]:
        """Resample block by block (soxr HQ); a change of the sampling rate within the file starts a new segment."""
        rate, resampler = 0, None
        earlier_s, num_samples, num_resampled = 0.0, 0, 0
        for block_rate, samples in self._decoder.blocks():
            if block_rate != rate:
                if resampler is not None:
                    yield resampler.rest()
                rate, resampler = block_rate, self._resampler(block_rate)
                earlier_s, num_samples = self.duration_s, 0
            block = self._mono(samples) if self._channels == MIX else self._picked(samples)
            if not self._part:
                num_samples += block.shape[-1]
                self.duration_s = earlier_s + num_samples / rate
            resampled = block if resampler is None else resampler.resampled(block)
            num_resampled += resampled.shape[-1]
            yield resampled
        if resampler is not None:
            rest = resampler.rest()
            # A single sample at 44.1 kHz would give none at 16 kHz.
            yield rest if rest.size or num_resampled else block[..., :1]

    def _resampler(self, rate: int) -> Resampler | None:
        """Return a resampler for a sampling rate, or None if it equals the target rate."""
        _check_rate(self._source, rate)
        if rate == self._target_rate:
            return None
        return Resampler(rate, self._target_rate, self.num_channels if self._channels == EACH else None)

    def _picked(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take one or each of the channels of (num_samples, num_channels), without NaN and Inf.

        Raises:
            AudioError: If the number of channels changes in the stream, as channels then cannot be identified.
        """
        if samples.shape[1] != self.num_channels:
            raise AudioError(
                ErrorCode.BAD_CHANNELS,
                f"{self._source.name}: the number of channels changes from {self.num_channels} to {samples.shape[1]}; "
                f"use --channels {MIX}",
            )
        samples, num_absurd = replace_absurd(picked(samples, self._channels))
        if num_absurd:
            self.warnings.add(WarningCode.NON_FINITE_SAMPLES)
        return samples

    def _mono(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mix samples of shape (num_samples, num_channels) down to their mean, and replace NaN and Inf by 0."""
        samples, num_absurd = replace_absurd(samples)
        if num_absurd:
            self.warnings.add(WarningCode.NON_FINITE_SAMPLES)
        mono = samples[:, 0].copy()
        for channel in samples.T[1:]:  # NumPy's own mean over a short axis takes five times as long
            mono += channel
        return mono / np.float32(samples.shape[1]) if samples.shape[1] > 1 else mono

    def _compare_with_header(self) -> None:
        """Add warnings if the decoded length differs from the stated length, or if checksums show damage."""
        header_duration_s, tolerance_s = self._decoder.header_duration_s, self._decoder.tolerance_s
        known = self.warnings | self._decoder.warnings
        if header_duration_s is not None and self.duration_s > header_duration_s + tolerance_s:
            self.warnings.add(WarningCode.LENGTH_MISMATCH)
        elif (
            header_duration_s is not None
            and self.duration_s < header_duration_s - tolerance_s
            and WarningCode.PARTIAL not in known
        ):
            # If the file is complete, audio in the middle was lost.
            self.warnings.add(WarningCode.PARTIAL if self._is_cut is False else WarningCode.TRUNCATED)
        elif not known and self._source.is_damaged():
            self.warnings.add(WarningCode.PARTIAL)


def check_regular_file(path: str) -> None:
    """Raise an error unless a path is a readable, non-empty regular file; a decoder would wait for a FIFO forever.

    Raises:
        AudioError: If the file must not be opened; the code gives the reason.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        if os.path.lexists(path):
            raise AudioError(ErrorCode.NOT_REGULAR, f"{path}: the link points to a missing file") from error
        reason = "no such file"
        if "://" in path or path.startswith(("concat:", "data:")):
            reason = "not a local file: download it first"
        raise AudioError(ErrorCode.NOT_FOUND, f"{path}: {reason}") from error
    except PermissionError as error:
        raise AudioError(ErrorCode.PERMISSION, f"{path}: permission denied") from error
    except (OSError, ValueError) as error:  # a loop of links, or a name with NUL
        if isinstance(error, OSError) and error.errno in STORAGE_ERRORS:
            raise read_failure(path, error) from error
        code = ErrorCode.NOT_REGULAR if os.path.lexists(path) else ErrorCode.NOT_FOUND
        raise AudioError(code, f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(ErrorCode.NOT_REGULAR, f"{path}: not a regular file")
    if status.st_size == 0:
        raise AudioError(ErrorCode.EMPTY_FILE, f"{path}: the file is empty")
    if not os.access(path, os.R_OK):
        raise AudioError(ErrorCode.PERMISSION, f"{path}: permission denied")


def _check_layout(source: Source, decoder: Decoder) -> None:
    """Validate the number of channels and the sampling rate before any memory is allocated for them."""
    if not 1 <= decoder.num_channels <= MAX_CHANNELS:
        raise AudioError(
            ErrorCode.BAD_CHANNELS,
            f"{source.name}: the number of channels is {decoder.num_channels}; 1 to {MAX_CHANNELS} are supported",
        )
    _check_rate(source, decoder.sampling_rate)


def _check_rate(source: Source, rate: int) -> None:
    if not MIN_SAMPLING_RATE <= rate <= MAX_SAMPLING_RATE:
        raise bad_sampling_rate(source, rate)
