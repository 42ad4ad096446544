"""Decoding with libsndfile, through the package soundfile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from ast_cli.audio.containers import ogg
from ast_cli.audio.containers.demuxers import VOX_EXTENSION, extension_of, may_be_headerless
from ast_cli.audio.containers.lengths import UNKNOWN_LENGTH
from ast_cli.audio.containers.longer_than_header import chunks_exceed_header, exceeds_header
from ast_cli.audio.containers.mpeg import mp3_length, sampling_rates
from ast_cli.audio.decoders.interface import DATA_ERRORS, LENGTH_TOLERANCE_S, Block
from ast_cli.audio.source import Source
from ast_cli.errors import AudioError, ErrorCode, WarningCode

BLOCK_SAMPLES = 65_536  # read at a time, per channel
RAW_EXTENSION = ".raw"
OPUS_RATE = 48_000  # Hz; FFmpeg decodes all Opus files at this rate
MP3_STOPPED_EARLY = 0.98  # fraction of the expected length below which decoding stopped early
PCM_BYTES = {
    "PCM_S8": 1,
    "PCM_U8": 1,
    "PCM_16": 2,
    "PCM_24": 3,
    "PCM_32": 4,
    "FLOAT": 4,
    "DOUBLE": 8,
    "ULAW": 1,
    "ALAW": 1,
}
SEEKABLE_FORMATS = {"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC"}


class _WithoutSeekAfterRead(soundfile.SoundFile):
    """A file that is read without seeking.

    After every read, the package seeks to the end of that read, which libsndfile refuses in a FLAC that states wrong
    block sizes.
    """

    def seekable(self) -> bool:
        """Return False, so that the package does not seek on its own; explicit calls of `seek` still work."""
        return False


class SoundFileDecoder:
    """libsndfile's decoder for WAV, FLAC, Ogg, MP3, AIFF, AU, CAF, W64 and related formats."""

    def __init__(self, source: Source) -> None:
        self.source = source
        if extension_of(source) == RAW_EXTENSION:  # by this name alone, libsndfile would require rate and channels
            raise AudioError(ErrorCode.NOT_AUDIO, f"{source.name}: the content is not identifiable as audio")
        self.file = _WithoutSeekAfterRead(source.for_soundfile())
        if self.file.format == "RAW" and not self._is_vox():  # no header: libsndfile used the name alone
            self.file.close()
            raise AudioError(ErrorCode.NOT_AUDIO, f"{source.name}: the content is not identifiable as audio")
        self.sampling_rate: int = self.file.samplerate
        self.num_channels: int = self.file.channels
        self.warnings: set[WarningCode] = set()
        with source.open() as raw:
            self.file_size = raw.seek(0, os.SEEK_END)
            self.header_duration_s = self._header_duration_s(raw)
            self.is_misread = exceeds_header(raw, self.file_size, self.file.format) or self._mistakes_rate(raw)
            if chunks_exceed_header(raw, self.file_size, self.file.format):
                self.warnings.add(WarningCode.LENGTH_MISMATCH)
        # MP3 encoders differ in whether they count the frame that states the length.
        self.tolerance_s = 1152 / max(1, self.sampling_rate) if self.file.format == "MP3" else LENGTH_TOLERANCE_S
        self._first = 0  # position in samples after `seek`
        self.num_read = 0  # number of samples read from there on
        self.error: Exception | None = None  # the error at which reading stopped

    def _is_vox(self) -> bool:
        return extension_of(self.source) == VOX_EXTENSION and may_be_headerless(self.source)

    def _header_duration_s(self, raw: BinaryIO) -> float | None:
        """Return the length that the file states; for MP3 and Ogg, libsndfile's own value is an estimate."""
        num_samples: int | None = int(self.file.frames)
        if self.file.format == "OGG":
            stated_s = ogg.duration_s(raw, self.file_size)
            if stated_s is not None:
                return stated_s
        if self.file.format == "MP3":
            length = mp3_length(raw)
            num_samples = None if length is None else length.num_samples
        if num_samples is None or not 0 < num_samples < UNKNOWN_LENGTH:
            return None
        return num_samples / max(1, self.sampling_rate)

    def _mistakes_rate(self, raw: BinaryIO) -> bool:
        """Return whether libsndfile took an MP3's sampling rate from junk before its frames."""
        rates = sampling_rates(raw, self.file_size) if self.file.format == "MP3" else set()
        return bool(rates) and self.sampling_rate not in rates

    def is_credible(self) -> bool:
        """Return whether the length that libsndfile will read is consistent with the size of the file.

        It is not consistent for:

        - a FLAC of unknown length (2^63 - 1, where libsndfile loses the last block) or with a stated length of 1,
        - a WAV whose data size is 0 because the recorder lost power, or whose size wrapped at 4 GiB,
        - joined Ogg or MP3 files, of which libsndfile reads the first one,
        - an MP3 of changing bit rate, of which libsndfile reads as much as the first frame's bit rate implies,
        - an MP3 after junk that looks like a frame,
        - an Ogg whose audio begins on a page of headers.
        """
        frames = int(self.file.frames)
        if frames <= 1 or frames >= UNKNOWN_LENGTH or self.is_misread:
            return False
        if self.file.format in ("OGG", "MP3") and self.header_duration_s is not None:
            return frames / max(1, self.sampling_rate) >= self.header_duration_s - self.tolerance_s
        if self.file.format not in SEEKABLE_FORMATS or self.file.subtype not in PCM_BYTES:
            return True  # compressed at an unknown rate
        largest = frames * self.num_channels * PCM_BYTES[self.file.subtype]
        return largest >= self.file_size / 2

    @property
    def is_slower(self) -> bool:
        """Whether FFmpeg decodes the same samples much faster: Opus at 48 kHz, 2.1 times (see benchmarks/)."""
        return self.file.subtype == "OPUS" and self.sampling_rate == OPUS_RATE

    @property
    def has_own_channel_order(self) -> bool:
        """Whether channels come in another order than WAV's, which FFmpeg has: left, center, right of Ogg surround."""
        return self.file.format == "OGG" and self.num_channels > 2

    def seek(self, start_s: int) -> int:
        """Skip whole seconds in the formats where libsndfile seeks exactly to the sample, so not in MP3 and Ogg."""
        if self.file.format not in SEEKABLE_FORMATS or self.file.subtype not in PCM_BYTES:
            return 0
        start_s = min(start_s, int(self.file.frames) // self.sampling_rate)
        self._first = self.file.seek(start_s * self.sampling_rate)
        return start_s

    def blocks(self) -> Iterator[Block]:
        """Yield blocks up to the end of the file or to damage; libsndfile's error is then stored in ``error``."""
        while (wanted := min(BLOCK_SAMPLES, int(self.file.frames) - self.position)) > 0:
            try:
                block: NDArray[np.float32] = self.file.read(wanted, dtype="float32", always_2d=True)  # type: ignore[assignment]
            except MemoryError:
                raise
            except DATA_ERRORS as error:
                self.error = error
                return
            if not len(block):
                return
            self.num_read += len(block)
            yield self.sampling_rate, block

    @property
    def position(self) -> int:
        """Position of the next sample to read; counted here because some codecs (GSM, G.721) do not support tell()."""
        return self._first + self.num_read

    @property
    def stopped_early(self) -> bool:
        """Whether reading stopped at damage, or may have: in FLAC, MP3 and short Ogg, libsndfile may give no error."""
        if self.error is not None or not self.position:
            return True
        if self.file.format == "MP3":  # its length may be an estimate
            return self.position < MP3_STOPPED_EARLY * int(self.file.frames)
        return self.file.format == "FLAC" and self.position < int(self.file.frames)

    def close(self) -> None:
        """Close the file."""
        self.file.close()
