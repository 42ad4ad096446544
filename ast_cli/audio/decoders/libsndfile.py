"""libsndfile, by the package soundfile."""

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
from ast_cli.audio.containers.longer_than_header import chunks_hold_more, holds_more
from ast_cli.audio.containers.mpeg import mp3_length, sampling_rates
from ast_cli.audio.decoders.interface import DATA_ERRORS, LENGTH_TOLERANCE_S, Block
from ast_cli.audio.source import Source
from ast_cli.errors import AudioError, ErrorCode, WarningCode

BLOCK_SAMPLES = 65_536  # read at a time, per channel
RAW_EXTENSION = ".raw"
OPUS_RATE = 48_000  # Hz, to which FFmpeg decodes whatever was encoded
MP3_STOPPED_EARLY = 0.98  # of the length that was foreseen
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


class _ReadOn(soundfile.SoundFile):
    """A file whose reads are not followed by a seek to where they ended.

    The package seeks so after every read, and libsndfile refuses that in a FLAC that states wrong block sizes.
    """

    def seekable(self) -> bool:
        """Say no, which the package asks before it seeks by itself; `seek` works as ever."""
        return False


class SoundFileDecoder:
    """libsndfile: WAV, FLAC, Ogg, MP3, AIFF, AU, CAF, W64 and their kin."""

    def __init__(self, source: Source) -> None:
        self.source = source
        if extension_of(source) == RAW_EXTENSION:  # libsndfile would go by the name, and ask for rate and channels
            raise AudioError(ErrorCode.NOT_AUDIO, f"{source.name}: nothing in it says that it is audio")
        self.file = _ReadOn(source.for_soundfile())
        if self.file.format == "RAW" and not self._is_vox():  # no header: libsndfile went by the name alone
            self.file.close()
            raise AudioError(ErrorCode.NOT_AUDIO, f"{source.name}: nothing in it says that it is audio")
        self.sampling_rate: int = self.file.samplerate
        self.num_channels: int = self.file.channels
        self.warnings: set[WarningCode] = set()
        with source.open() as raw:
            self.file_size = raw.seek(0, os.SEEK_END)
            self.header_duration_s = self._header_duration_s(raw)
            self.is_misread = holds_more(raw, self.file_size, self.file.format) or self._mistakes_rate(raw)
            if chunks_hold_more(raw, self.file_size, self.file.format):
                self.warnings.add(WarningCode.LENGTH_MISMATCH)
        # MP3 encoders disagree on whether they count the frame that states the length.
        self.tolerance_s = 1152 / max(1, self.sampling_rate) if self.file.format == "MP3" else LENGTH_TOLERANCE_S
        self._first = 0  # sample that was sought
        self.num_read = 0  # samples from there on
        self.error: Exception | None = None  # at which reading stopped

    def _is_vox(self) -> bool:
        return extension_of(self.source) == VOX_EXTENSION and may_be_headerless(self.source)

    def _header_duration_s(self, raw: BinaryIO) -> float | None:
        """Return the length that the file states; libsndfile's own figure is an estimate for MP3 and Ogg."""
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
        """Tell whether an MP3's frames have another rate than libsndfile took from junk in front of them."""
        rates = sampling_rates(raw, self.file_size) if self.file.format == "MP3" else set()
        return bool(rates) and self.sampling_rate not in rates

    def is_credible(self) -> bool:
        """Tell whether the length libsndfile will read explains the size of the file.

        Not so: a FLAC of unknown length (2^63 - 1, where libsndfile loses the last block) or that claims one sample, a
        WAV whose data size is 0 because the recorder lost power, a size that wrapped at 4 GiB, Ogg or MP3 files that
        were joined, of which libsndfile reads the first, an MP3 of changing bit rate, of which it reads as much as the
        first frame's would give, or in front of which junk looks like a frame, an Ogg whose audio begins on a page of
        headers.
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
        """Whether FFmpeg decodes the same samples much faster: Opus at its own rate, 2.1 times (benchmarks)."""
        return self.file.subtype == "OPUS" and self.sampling_rate == OPUS_RATE

    def seek(self, start_s: int) -> int:
        """Skip whole seconds where libsndfile does so to the sample: not in MP3 and Ogg."""
        if self.file.format not in SEEKABLE_FORMATS or self.file.subtype not in PCM_BYTES:
            return 0
        start_s = min(start_s, int(self.file.frames) // self.sampling_rate)
        self._first = self.file.seek(start_s * self.sampling_rate)
        return start_s

    def blocks(self) -> Iterator[Block]:
        """Read until nothing comes; on damage stop, and keep what libsndfile said of it."""
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
        """Samples of the file up to where it was read; not tell(), which some codecs (GSM, G.721) refuse."""
        return self._first + self.num_read

    @property
    def stopped_early(self) -> bool:
        """Whether it stopped at damage, or may have, without a word, as in FLAC, MP3 and short Ogg."""
        if self.error is not None or not self.position:
            return True
        if self.file.format == "MP3":  # its length may be an estimate
            return self.position < MP3_STOPPED_EARLY * int(self.file.frames)
        return self.file.format == "FLAC" and self.position < int(self.file.frames)

    def close(self) -> None:
        """Release the file."""
        self.file.close()
