"""What a decoder is, and how it says that it cannot decode.

Headers are not believed: both decoders count what they decode, and `header_duration_s` is only compared with. Both
libraries raise many types on malformed files: `DATA_ERRORS` lists those that say something about the data. Any other
exception is a bug, of this program or of the installed versions, and passes through.
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
PATCH_WELCOME = av.error.PatchWelcomeError  # "not yet implemented"
# What decoders raise on malformed data: FFmpeg's and libsndfile's own errors, PyAV's on text that is not UTF-8 or on
# numbers too large, and what reading a structure or an array from too few bytes raises here.
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
    """One opened file, by either library."""

    @property
    def sampling_rate(self) -> int:
        """The file's own, in Hz."""

    @property
    def num_channels(self) -> int:
        """The file's own."""

    @property
    def header_duration_s(self) -> float | None:
        """Seconds that the container states, None where it states nothing."""

    @property
    def tolerance_s(self) -> float:
        """By how much what is decoded may differ from that."""

    @property
    def warnings(self) -> set[WarningCode]:
        """What was odd so far."""

    def seek(self, start_s: int) -> int:
        """Skip whole seconds if that can be done exactly; return how many were skipped."""

    def blocks(self) -> Iterator[Block]:
        """Yield (sampling rate, samples of shape (num_samples, num_channels))."""

    def close(self) -> None:
        """Release the file."""


def undecodable(source: Source, error: Exception, *, has_stream: bool = False) -> AudioError:
    """Say why no decoder reads a file: damaged audio, a kind that FFmpeg does not know yet, or no audio at all."""
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
        return AudioError(ErrorCode.DECODE_ERROR, f"{source.name}: FFmpeg does not read this kind of file yet")
    if looks_like_audio(head):
        return AudioError(ErrorCode.DECODE_ERROR, f"{source.name}: damaged audio ({own_words(error)})")
    return AudioError(ErrorCode.NOT_AUDIO, f"{source.name}: this is no audio that can be decoded ({own_words(error)})")


def bad_sampling_rate(source: Source, rate: int) -> AudioError:
    """Say that a rate is none of audio's, before anything is allocated for it."""
    return AudioError(
        ErrorCode.BAD_SAMPLE_RATE,
        f"{source.name}: a sampling rate of {rate} Hz; {MIN_SAMPLING_RATE} to {MAX_SAMPLING_RATE} Hz can be read",
    )


def own_words(error: Exception | None) -> str:
    """Return a decoder's message, cut to a sensible length."""
    if isinstance(error, av.error.FFmpegError):
        return (error.strerror or "FFmpeg error")[:MESSAGE_LENGTH]
    return (str(error) or type(error).__name__)[:MESSAGE_LENGTH]
