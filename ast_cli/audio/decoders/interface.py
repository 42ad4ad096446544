"""The interface of decoders, and the errors for files that cannot be decoded.

Headers are not trusted: both decoders count the samples that they decode, and `header_duration_s` is used for
comparison only. On malformed files both libraries raise exceptions of many types; `DATA_ERRORS` lists the types that
are due to the data. Any other exception is a bug of this program or of the installed versions and propagates.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Protocol

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from ast_cli.audio.containers.lengths import riff_sampling_rate
from ast_cli.audio.samples import MAX_SAMPLING_RATE, MIN_SAMPLING_RATE
from ast_cli.audio.source import HEAD_BYTES, Source, looks_like_audio
from ast_cli.errors import MESSAGE_LENGTH, AudioError, ErrorCode, WarningCode

LENGTH_TOLERANCE_S = 0.1
PATCH_WELCOME = av.error.PatchWelcomeError  # FFmpeg's "not yet implemented"
# Exceptions due to malformed data: those of FFmpeg and libsndfile, PyAV's for text that is not UTF-8 and for numbers
# that are too large, and Python's for a structure or an array with too few bytes.
DATA_ERRORS = (
    av.error.FFmpegError,
    soundfile.SoundFileError,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    struct.error,
)

Block = tuple[int, NDArray[np.float32]]  # sampling rate in Hz, samples of shape (num_samples, num_channels)


class Decoder(Protocol):
    """A file opened by one of the libraries."""

    @property
    def sampling_rate(self) -> int:
        """Sampling rate of the file in Hz."""

    @property
    def num_channels(self) -> int:
        """Number of channels of the file."""

    @property
    def header_duration_s(self) -> float | None:
        """Length in seconds as the container states it; None if it states no length."""

    @property
    def tolerance_s(self) -> float:
        """Allowed difference in seconds between the decoded length and the stated length."""

    @property
    def warnings(self) -> set[WarningCode]:
        """Problems found so far."""

    def seek(self, start_s: int) -> int:
        """Skip whole seconds if the decoder can do so exactly, and return the number of seconds skipped."""

    def blocks(self) -> Iterator[Block]:
        """Yield pairs of the sampling rate in Hz and samples of shape (num_samples, num_channels)."""

    def close(self) -> None:
        """Close the file."""


def undecodable(source: Source, error: Exception, *, has_stream: bool = False) -> AudioError:
    """Return the error for a file that no decoder reads: damaged audio, an unsupported kind of audio, or not audio."""
    with source.open() as raw:
        head = raw.read(HEAD_BYTES)
        rate = riff_sampling_rate(raw, raw.seek(0, os.SEEK_END))
    if isinstance(error, av.error.DecoderNotFoundError) or (has_stream and isinstance(error, PATCH_WELCOME)):
        return AudioError(
            ErrorCode.UNSUPPORTED_CODEC, f"{source.name}: no decoder for its audio codec; convert it to WAV or FLAC"
        )
    if rate is not None and not MIN_SAMPLING_RATE <= rate <= MAX_SAMPLING_RATE:  # FFmpeg only says "invalid data"
        return bad_sampling_rate(source, rate)
    if isinstance(error, PATCH_WELCOME):
        return AudioError(ErrorCode.DECODE_ERROR, f"{source.name}: FFmpeg does not support this kind of file yet")
    if looks_like_audio(head):
        return AudioError(ErrorCode.DECODE_ERROR, f"{source.name}: damaged audio ({short_message(error)})")
    return AudioError(ErrorCode.NOT_AUDIO, f"{source.name}: not an audio file ({short_message(error)})")


def bad_sampling_rate(source: Source, rate: int) -> AudioError:
    """Return the error for an unsupported sampling rate."""
    return AudioError(
        ErrorCode.BAD_SAMPLE_RATE,
        f"{source.name}: the sampling rate is {rate} Hz; {MIN_SAMPLING_RATE} to {MAX_SAMPLING_RATE} Hz are supported",
    )


def short_message(error: Exception | None) -> str:
    """Return a decoder's error message, cut to `MESSAGE_LENGTH` characters."""
    if isinstance(error, av.error.FFmpegError):
        return (error.strerror or "FFmpeg error")[:MESSAGE_LENGTH]
    return (str(error) or type(error).__name__)[:MESSAGE_LENGTH]
