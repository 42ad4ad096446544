"""From a path to mono float32 blocks at 16 kHz, never the whole file."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from ast_cli.audio.decoders.choice import open_decoder
from ast_cli.audio.decoders.interface import Decoder, bad_sampling_rate
from ast_cli.audio.samples import MAX_SAMPLING_RATE, MIN_SAMPLING_RATE, MODEL_SAMPLING_RATE, replace_absurd
from ast_cli.audio.source import OPENING_BYTES, STORAGE_ERRORS, Source, read_failure, without_oversized_chunk
from ast_cli.errors import AstError, AudioError, ErrorCode, UsageError, WarningCode, internal_error

logger = logging.getLogger(__name__)

WARM_UP_S = 1  # decoded before a start in mid-file, so that the resampler has heard what came before
MAX_CHANNELS = 64
# What a read that failed looks like to a decoder.
MAY_BE_UNREAD = {ErrorCode.DECODE_ERROR, ErrorCode.NOT_AUDIO, ErrorCode.NO_AUDIO_STREAM, ErrorCode.NO_SAMPLES}
LOST = {WarningCode.TRUNCATED, WarningCode.PARTIAL}


def open_audio(
    audio: str | Path | bytes,
    sampling_rate: int = MODEL_SAMPLING_RATE,
    start_s: float = 0.0,
    duration_s: float | None = None,
) -> AudioStream:
    """Open encoded audio for reading as mono samples.

    Args:
        audio: A path, or the bytes of one file.
        sampling_rate: To resample to, in Hz.
        start_s: Where to start, in seconds.
        duration_s: How much to read, in seconds; None for the rest.

    Raises:
        AudioError: The file is missing, not a regular file, no audio, or of a rate or channel count that cannot be.
        UsageError: A negative start, or no duration.
    """
    if not 0 <= start_s < math.inf or (duration_s is not None and not 0 < duration_s < math.inf):
        raise UsageError(f"start must be at least 0 s and duration above 0 s, not {start_s:g} s and {duration_s} s")
    if isinstance(audio, bytes):
        source = Source("-", audio)
        if not audio:
            raise AudioError(ErrorCode.EMPTY_FILE, "-: standard input was empty")
    else:
        source = Source(os.fspath(audio))
        check_regular_file(source.name)
    with _audio_errors(source, "open", OPENING_BYTES):
        return _open_stream(source, sampling_rate, start_s, duration_s)


@contextlib.contextmanager
def _audio_errors(source: Source, verb: str, num_bytes: int | None = None) -> Iterator[None]:
    """Turn whatever opening or decoding a file raises into one `AudioError`, and log its trace for ``--debug``.

    Args:
        source: The file.
        verb: What is being done with it, for the message.
        num_bytes: How many of its bytes may have been read, all if None: where the storage does not give them, that is
            the error.
    """
    try:
        yield
    except MemoryError as error:
        raise AudioError(ErrorCode.OUT_OF_MEMORY, f"{source.name}: not enough memory to {verb} it") from error
    except OSError as error:  # of a look at the container's claims or checksums
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


def _open_stream(source: Source, sampling_rate: int, start_s: float, duration_s: float | None) -> AudioStream:
    source = without_oversized_chunk(source)
    decoder = open_decoder(source)
    try:
        _check_layout(source, decoder)
        return AudioStream(source, decoder, sampling_rate, start_s, duration_s)
    except BaseException:
        decoder.close()
        raise


def load_waveform(
    audio: str | Path | bytes,
    sampling_rate: int = MODEL_SAMPLING_RATE,
    start_s: float = 0.0,
    duration_s: float | None = None,
) -> NDArray[np.float32]:
    """Read a whole file into memory as mono samples.

    Arguments and errors as in `open_audio`.

    Returns:
        Samples in [-1, 1], shape (num_samples,), at ``sampling_rate``.
    """
    with open_audio(audio, sampling_rate, start_s, duration_s) as stream:
        return np.concatenate(list(stream))


class AudioStream:
    """Mono float32 blocks at one rate, to be iterated once; facts about the file are complete after that.

    Attributes:
        sampling_rate: The file's own, in Hz.
        num_channels: The file's own.
        duration_s: Seconds of audio read so far: of the whole file once iterated, or of the part asked for.
        warnings: What was odd.
    """

    def __init__(
        self, source: Source, decoder: Decoder, target_rate: int, start_s: float, duration_s: float | None
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
        self._part = start_s > 0 or duration_s is not None
        self._num_wanted = None if duration_s is None else max(1, round(duration_s * target_rate))

    @property
    def header_duration_s(self) -> float | None:
        """Seconds that there are to read by what the container states, which may be wrong; None where it is silent."""
        whole_s = self._decoder.header_duration_s
        left_s = None if whole_s is None else max(0.0, whole_s - self.start_s)
        wanted_s = None if self._num_wanted is None else self._num_wanted / self._target_rate
        return min((seconds for seconds in (left_s, wanted_s) if seconds is not None), default=None)

    def __enter__(self) -> AudioStream:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._decoder.close()

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield samples in [-1, 1], each block of shape (num_samples,).

        Raises:
            AudioError: Nothing, or nothing more than damage, could be decoded.
        """
        num_read = 0
        with _audio_errors(self._source, "decode"):
            for block in self._trimmed():
                num_read += block.size
                if self._part:
                    self.duration_s = num_read / self._target_rate
                yield block
            self.warnings |= self._decoder.warnings
            if num_read == 0:
                raise self._nothing_read()
        if self.warnings & LOST:
            self._source.check_readable()

    def _nothing_read(self) -> AudioError:
        """Say why there is not one sample."""
        name = self._source.name
        if self.start_s:
            return AudioError(ErrorCode.NO_SAMPLES, f"{name}: holds no audio after {self.start_s:g} s")
        if WarningCode.TRUNCATED in self.warnings:
            return AudioError(ErrorCode.DECODE_ERROR, f"{name}: cut off before the first sample that can be decoded")
        return AudioError(ErrorCode.NO_SAMPLES, f"{name}: holds no audio")

    def _trimmed(self) -> Iterator[NDArray[np.float32]]:
        """Cut the part asked for out of the resampled blocks."""
        # Whole seconds are whole samples at both rates: what follows is resampled as it would be in the whole file.
        skipped_s = self._decoder.seek(max(0, int(self.start_s) - WARM_UP_S)) if self.start_s else 0
        num_skip = round(self.start_s * self._target_rate) - skipped_s * self._target_rate
        num_left = self._num_wanted
        for block in self._resampled():
            skipped = min(num_skip, block.size)
            num_skip -= skipped
            block = block[skipped:]
            if num_left is not None:
                block = block[:num_left]
                num_left -= block.size
            if block.size:
                yield block
            if num_left == 0:
                return
        if not self._part:
            self._compare_with_header()

    def _resampled(self) -> Iterator[NDArray[np.float32]]:
        """Resample block by block (soxr HQ); a rate that changes in mid-stream starts a new segment."""
        rate, resampler = 0, None
        earlier_s, num_samples, num_resampled = 0.0, 0, 0
        for block_rate, samples in self._decoder.blocks():
            if block_rate != rate:
                if resampler is not None:
                    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
                rate, resampler = block_rate, self._resampler(block_rate)
                earlier_s, num_samples = self.duration_s, 0
            mono = self._mono(samples)
            if not self._part:
                num_samples += mono.size
                self.duration_s = earlier_s + num_samples / rate
            resampled = mono if resampler is None else resampler.resample_chunk(mono)
            num_resampled += resampled.size
            yield resampled
        if resampler is not None:
            rest = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
            yield rest if rest.size or num_resampled else mono[:1]  # one sample at 44.1 kHz is none at 16 kHz

    def _resampler(self, rate: int) -> soxr.ResampleStream | None:
        """Return a resampler from a rate, or None where it is the target rate."""
        _check_rate(self._source, rate)
        if rate == self._target_rate:
            return None
        return soxr.ResampleStream(rate, self._target_rate, num_channels=1, dtype="float32", quality="HQ")

    def _mono(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mix (num_samples, num_channels) down by the mean of the channels, without NaN and Inf."""
        samples, num_absurd = replace_absurd(samples)
        if num_absurd:
            self.warnings.add(WarningCode.NON_FINITE_SAMPLES)
        mono = samples[:, 0].copy()
        for channel in samples.T[1:]:  # NumPy's own mean over a short axis takes five times as long
            mono += channel
        return mono / np.float32(samples.shape[1]) if samples.shape[1] > 1 else mono

    def _compare_with_header(self) -> None:
        """Compare what was decoded with what the container says."""
        header_duration_s, tolerance_s = self._decoder.header_duration_s, self._decoder.tolerance_s
        known = self.warnings | self._decoder.warnings
        if header_duration_s is not None and self.duration_s > header_duration_s + tolerance_s:
            self.warnings.add(WarningCode.LENGTH_MISMATCH)
        elif (
            header_duration_s is not None
            and self.duration_s < header_duration_s - tolerance_s
            and WarningCode.PARTIAL not in known
        ):
            # With all bytes there, something in the middle was lost.
            self.warnings.add(WarningCode.PARTIAL if self._is_cut is False else WarningCode.TRUNCATED)
        elif not known and self._source.is_damaged():
            self.warnings.add(WarningCode.PARTIAL)


def check_regular_file(path: str) -> None:
    """Refuse what must not reach a decoder: a FIFO would hang it for ever.

    Raises:
        AudioError: With the code that says why.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        if os.path.lexists(path):
            raise AudioError(ErrorCode.NOT_REGULAR, f"{path}: a link to nothing") from error
        reason = "no such file"
        if "://" in path or path.startswith(("concat:", "data:")):
            reason = "not a local file: fetch it first"
        raise AudioError(ErrorCode.NOT_FOUND, f"{path}: {reason}") from error
    except PermissionError as error:
        raise AudioError(ErrorCode.PERMISSION, f"{path}: permission denied") from error
    except (OSError, ValueError) as error:  # a loop of links; a name that holds NUL
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
    """Refuse rates and channel counts before anything is allocated for them."""
    if not 1 <= decoder.num_channels <= MAX_CHANNELS:
        raise AudioError(
            ErrorCode.BAD_CHANNELS, f"{source.name}: {decoder.num_channels} channels; 1 to {MAX_CHANNELS} can be read"
        )
    _check_rate(source, decoder.sampling_rate)


def _check_rate(source: Source, rate: int) -> None:
    if not MIN_SAMPLING_RATE <= rate <= MAX_SAMPLING_RATE:
        raise bad_sampling_rate(source, rate)
