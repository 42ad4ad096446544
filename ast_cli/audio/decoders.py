"""The two decoders: libsndfile (soundfile) and FFmpeg (PyAV), behind one small interface.

Headers are not believed: both count what they decode, and `Decoder.claimed_s` is only kept to compare. Both libraries
raise whatever they like on malformed files, so the file boundary catches `Exception` and classifies by what it finds.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, BinaryIO, Protocol

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from ast_cli.audio.claims import is_cut, xing_num_samples
from ast_cli.audio.samples import scale_to_float32
from ast_cli.errors import AudioError, ErrorCode, WarningCode

BLOCK_SAMPLES = 65_536  # read at a time, per channel
MESSAGE_LENGTH = 500  # of a decoder's own words
LENGTH_TOLERANCE_S = 0.1  # container time stamps of lossy codecs count priming and padding
MAX_DAMAGED_PACKETS = 1_000_000  # then give up on a file of nothing but damage
UNKNOWN_LENGTH = 1 << 62

# The first bytes of formats that are meant to hold audio: a file with them that cannot be decoded is damaged, a file
# without them is no audio.
AUDIO_MAGIC = (
    *(b"RIFF", b"RIFX", b"RF64", b"riff\x2e\x91\xcf\x11", b"fLaC", b"OggS", b"ID3", b"FORM", b"caff", b".snd"),
    *(
        b"\xff\xfb",
        b"\xff\xfa",
        b"\xff\xf3",
        b"\xff\xf2",
        b"\xff\xf1",
        b"\xff\xf9",
        b"\x1aE\xdf\xa3",
        b"0&\xb2u\x8ef\xcf",
    ),
)
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

# FFmpeg chooses the demuxer by content. These open other files, read text as media, or show pictures.
REFUSED_DEMUXERS = {
    *("concat", "dash", "hls", "imf", "webm_dash_manifest", "sdp", "rtsp", "rtp", "sap", "lavfi", "vobsub", "image2"),
    *("image2pipe", "apng", "gif", "ico", "mjpeg", "mjpeg_2000", "mpjpeg", "fits", "tty", "bin", "xbin", "adf", "idf"),
    *("aqtitle", "ass", "jacosub", "lrc", "mcc", "microdvd", "mpl2", "mpsub", "pjs", "rcwt", "realtext", "sami", "scc"),
    *("srt", "stl", "subviewer", "subviewer1", "sup", "tedcaptions", "vplayer", "webvtt", "ffmetadata", "data"),
    *("alsa", "fbdev", "kmsgrab", "oss", "video4linux2,v4l2", "x11grab", "rawvideo", "dvbsub", "dvbtxt"),
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where encoded audio comes from: a path, or bytes already in memory (standard input)."""

    name: str
    data: bytes | None = None

    def open(self) -> BinaryIO:
        """Open for reading; the caller closes."""
        return io.BytesIO(self.data) if self.data is not None else open(self.name, "rb")

    def for_decoder(self) -> Any:
        """Return what both decoders take; an absolute path, so that no name reads as a protocol (``concat:x``)."""
        return io.BytesIO(self.data) if self.data is not None else os.path.abspath(self.name)


class Decoder(Protocol):
    """One opened file, by either library."""

    sampling_rate: int
    num_channels: int
    claimed_s: float | None
    warnings: set[WarningCode]

    def seek(self, start_s: float) -> float:
        """Skip to a time if that can be done exactly; return the seconds skipped."""

    def blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield (sampling rate, samples of shape (num_samples, num_channels))."""

    def close(self) -> None:
        """Release the file."""


class SoundFileDecoder:
    """libsndfile: WAV, FLAC, Ogg, MP3, AIFF, AU, CAF, W64 and their kin."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.file = soundfile.SoundFile(source.for_decoder())
        self.sampling_rate: int = self.file.samplerate
        self.num_channels: int = self.file.channels
        self.warnings: set[WarningCode] = set()
        with source.open() as raw:
            self.file_size = raw.seek(0, os.SEEK_END)
            if is_cut(raw, self.file_size):
                self.warnings.add(WarningCode.TRUNCATED)
            claimed = self.file.frames if self.file.format != "MP3" else xing_num_samples(raw)
        self.claimed_s = None if claimed is None else claimed / max(1, self.sampling_rate)

    def is_credible(self) -> bool:
        """Tell whether the length libsndfile will read explains the size of the file.

        Not so: a FLAC of unknown length (2^63 - 1, where libsndfile loses the last block), a WAV whose data size is 0
        because the recorder lost power, a size that wrapped at 4 GiB, a FLAC that claims one sample.
        """
        frames = int(self.file.frames)
        if frames <= 1 or frames >= UNKNOWN_LENGTH:
            return False
        if self.file.format not in SEEKABLE_FORMATS or self.file.subtype not in PCM_BYTES:
            return True  # compressed at an unknown rate
        largest = frames * self.num_channels * PCM_BYTES[self.file.subtype]
        return largest >= self.file_size / 2

    def seek(self, start_s: float) -> float:
        """Skip to a time where libsndfile does so to the sample: not in MP3 and Ogg."""
        if self.file.format not in SEEKABLE_FORMATS or self.file.subtype not in PCM_BYTES:
            return 0.0
        start = min(round(start_s * self.sampling_rate), self.file.frames)
        return float(self.file.seek(start)) / self.sampling_rate

    def blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Read until nothing comes; on damage let FFmpeg go on where libsndfile stopped."""
        first = num_read = self.file.tell()
        error: Exception | None = None
        while True:
            try:
                block: NDArray[np.float32] = self.file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True)  # type: ignore[assignment]
            except Exception as raised:
                error = raised
                break
            if not len(block):
                break
            num_read += len(block)
            yield self.sampling_rate, block
        stopped_early = self.file.format == "FLAC" and num_read < self.file.frames
        if error is None and not stopped_early:
            return
        rest = 0
        for rate, block in self._rest_by_ffmpeg(num_read):
            rest += len(block)
            yield rate, block
        if rest:
            self.warnings.add(WarningCode.PARTIAL)
        elif num_read > first:
            self.warnings.add(WarningCode.TRUNCATED)
        else:
            raise AudioError(ErrorCode.DECODE_ERROR, f"{self.source.name}: cannot be decoded ({own_words(error)})")

    def _rest_by_ffmpeg(self, num_read: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield what FFmpeg decodes beyond the first ``num_read`` samples."""
        try:
            other = PyAVDecoder(self.source)
        except AudioError:
            return
        try:
            for rate, block in other.blocks():
                if num_read < len(block):
                    yield rate, block[num_read:]
                num_read = max(0, num_read - len(block))
        except AudioError:
            return
        finally:
            other.close()

    def close(self) -> None:
        """Release the file."""
        self.file.close()


class PyAVDecoder:
    """FFmpeg: everything else, and what libsndfile misreads. No network, no playlists, no second file."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.warnings: set[WarningCode] = set()
        with source.open() as raw:
            head, size = raw.read(16), raw.seek(0, os.SEEK_END)
        options = {"protocol_whitelist": "file", "format_whitelist": allowed_demuxers()}
        if head.startswith(b"RIFF") and size >= 1 << 32:
            options["ignore_length"] = "1"  # a 32-bit size has wrapped
        try:
            self.container = av.open(source.for_decoder(), options=options, metadata_errors="ignore")
        except MemoryError:
            raise
        except Exception as error:
            raise undecodable(source, error) from error
        try:
            self._choose_stream(head)
        except BaseException:
            self.container.close()
            raise

    def _choose_stream(self, head: bytes) -> None:
        name = self.source.name
        if not self.container.streams.audio:
            if self.container.streams.video:
                raise AudioError(ErrorCode.NO_AUDIO_STREAM, f"{name}: this video has no audio")
            raise AudioError(ErrorCode.NO_AUDIO_STREAM, f"{name}: the file has no audio stream")
        self.stream = self.container.streams.audio[0]
        codec = self.stream.codec_context
        if codec is None:
            raise AudioError(
                ErrorCode.UNSUPPORTED_CODEC, f"{name}: its audio codec is unknown; convert it to WAV or FLAC"
            )
        if codec.codec_tag in ("enca", "drms", "aavd"):
            raise AudioError(ErrorCode.ENCRYPTED, f"{name}: the audio is encrypted")
        self.sampling_rate = int(codec.sample_rate or 0)
        self.num_channels = int(codec.channels or 0)
        self.claimed_s = self._claimed_s()
        if head.startswith(b"OggS"):
            with self.source.open() as raw:
                if is_cut(raw, raw.seek(0, os.SEEK_END)):
                    self.warnings.add(WarningCode.TRUNCATED)

    def _claimed_s(self) -> float | None:
        """Return the length that the container's tables state; None where FFmpeg only estimates it."""
        if "mov" in self.container.format.name and self.stream.duration and self.stream.time_base:
            return float(self.stream.duration * self.stream.time_base)
        if "matroska" in self.container.format.name and self.container.duration:
            return float(self.container.duration) / 1_000_000  # AV_TIME_BASE is microseconds
        return None

    def seek(self, start_s: float) -> float:
        """Skip nothing: seeking compressed audio is not exact to the sample."""
        return 0.0

    def blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Decode packet by packet; a damaged packet is left out and the next one tried."""
        num_decoded, num_damaged = 0, 0
        error: Exception | None = None
        packets = self.container.demux(self.stream)
        while num_damaged < MAX_DAMAGED_PACKETS:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except MemoryError:
                raise
            except Exception as raised:
                error = raised
                break
            try:
                frames = packet.decode()
            except MemoryError:
                raise
            except Exception as raised:
                error = raised
                num_damaged += 1
                continue
            for frame in frames:
                samples = frame_samples(frame)
                num_decoded += len(samples)
                yield int(frame.sample_rate), samples
        if error is not None:
            if not num_decoded:
                raise undecodable(self.source, error)
            self.warnings.add(WarningCode.PARTIAL)

    def close(self) -> None:
        """Release the file."""
        self.container.close()


def frame_samples(frame: Any) -> NDArray[np.float32]:
    """Return an FFmpeg audio frame as float32 samples in [-1, 1], shape (num_samples, num_channels)."""
    array = frame.to_ndarray()
    array = array.T if frame.format.is_planar else array.reshape(-1, frame.layout.nb_channels)
    if array.dtype == np.int64:
        wide: NDArray[np.float32] = (array / 2.0**63).astype(np.float32)
        return wide
    samples = scale_to_float32(array)
    if samples is None:
        raise ValueError(f"samples of type {array.dtype}")
    return samples


@cache
def allowed_demuxers() -> str:
    """Return FFmpeg's ``format_whitelist``: every demuxer of this build but the refused ones."""
    names = sorted(av.formats_available)
    return ",".join(name for name in names if name not in REFUSED_DEMUXERS and not name.endswith("_pipe"))


def undecodable(source: Source, error: Exception) -> AudioError:
    """Say why no decoder reads a file: damaged audio, or no audio at all."""
    with source.open() as raw:
        head = raw.read(16)
    if isinstance(error, av.error.DecoderNotFoundError):
        return AudioError(
            ErrorCode.UNSUPPORTED_CODEC, f"{source.name}: no decoder for its audio codec; convert it to WAV or FLAC"
        )
    if head.startswith(AUDIO_MAGIC) or head[4:8] == b"ftyp":
        return AudioError(ErrorCode.DECODE_ERROR, f"{source.name}: damaged audio ({own_words(error)})")
    return AudioError(ErrorCode.NOT_AUDIO, f"{source.name}: this is no audio that can be decoded ({own_words(error)})")


def own_words(error: Exception | None) -> str:
    """Return a decoder's message, cut to a sensible length."""
    if isinstance(error, av.error.FFmpegError):
        return (error.strerror or "FFmpeg error")[:MESSAGE_LENGTH]
    return (str(error) or type(error).__name__)[:MESSAGE_LENGTH]
