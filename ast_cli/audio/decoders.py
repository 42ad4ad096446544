"""The two decoders: libsndfile (soundfile) and FFmpeg (PyAV), behind one small interface.

Headers are not believed: both count what they decode, and `Decoder.claimed_s` is only kept to compare. Both libraries
raise many types on malformed files: `DATA_ERRORS` lists those that say something about the data. Any other exception is
a bug, of this program or of the installed versions, and passes through.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO, Protocol

import av
import numpy as np
import soundfile
from av.audio.plane import AudioPlane
from numpy.typing import NDArray

from ast_cli.audio.containers import ogg
from ast_cli.audio.containers.claims import UNKNOWN_LENGTH, riff_sampling_rate
from ast_cli.audio.containers.demuxers import (
    HEADERLESS_RATES,
    VOX_EXTENSION,
    allowed_demuxers,
    choosing_extension,
    extension_of,
    may_be_headerless,
)
from ast_cli.audio.containers.mpeg import mp3_claim, sampling_rates
from ast_cli.audio.containers.understated import chunks_hold_more, holds_more, riff_goes_on
from ast_cli.audio.samples import MAX_SAMPLING_RATE, MIN_SAMPLING_RATE, scale_to_float32
from ast_cli.audio.source import HEAD_BYTES, NamelessFile, Source, looks_like_audio, read_failure
from ast_cli.errors import MESSAGE_LENGTH, AudioError, ErrorCode, WarningCode

BLOCK_SAMPLES = 65_536  # read at a time, per channel
BUFFER_BYTES = 32_768  # FFmpeg's own for files: with a larger one it gives up on some damaged files
JOINED_SAMPLES = 16_384  # frames of FFmpeg are joined to about so many, per channel
LENGTH_TOLERANCE_S = 0.1
RAW_EXTENSION = ".raw"
OPUS_RATE = 48_000  # Hz, to which FFmpeg decodes whatever was encoded
FIRST_PACKETS = 100  # in which one that decodes must come
MAX_DAMAGED_PACKETS = 1_000_000  # then give up on a file of nothing but damage
MP3_STOPPED_EARLY = 0.98  # of the length that was foreseen
MP3_DECODERS_DIFFER_SAMPLES = 2304  # by at most two frames, in what they drop at both ends
ENCRYPTED_TAGS = {"enca", "drms", "aavd"}
ENCRYPTED_TRACK = "enc_key_id"  # how FFmpeg tells of a key in WebM
LAYOUT_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b"caff", b".snd")
STATED_BY_HEADER = ("ape", "tak", "tta", "wv")  # containers whose header counts the samples
TRACK_LENGTH = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")  # Matroska's tag
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
# PyAV 19 keeps text that is not UTF-8 as it is; before, it had to be told not to refuse it.
OPEN_OPTIONS: dict[str, Any] = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "ignore"}
UNREACHABLE = {ErrorCode.VANISHED, ErrorCode.PERMISSION}  # for a second decoder too

SAMPLE_TYPES = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "s64": np.int64, "flt": np.float32, "dbl": np.float64}
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
    def claimed_s(self) -> float | None:
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


class SoundFileDecoder:
    """libsndfile: WAV, FLAC, Ogg, MP3, AIFF, AU, CAF, W64 and their kin."""

    def __init__(self, source: Source) -> None:
        self.source = source
        if extension_of(source) == RAW_EXTENSION:  # libsndfile would go by the name, and ask for rate and channels
            raise AudioError(ErrorCode.NOT_AUDIO, f"{source.name}: nothing in it says that it is audio")
        self.file = soundfile.SoundFile(source.for_soundfile())
        if self.file.format == "RAW" and not self._is_vox():  # no header: libsndfile went by the name alone
            self.file.close()
            raise AudioError(ErrorCode.NOT_AUDIO, f"{source.name}: nothing in it says that it is audio")
        self.sampling_rate: int = self.file.samplerate
        self.num_channels: int = self.file.channels
        self.warnings: set[WarningCode] = set()
        with source.open() as raw:
            self.file_size = raw.seek(0, os.SEEK_END)
            self.claimed_s = self._claimed_s(raw)
            self.is_misread = holds_more(raw, self.file_size, self.file.format) or self._mistakes_rate(raw)
            if chunks_hold_more(raw, self.file_size, self.file.format):
                self.warnings.add(WarningCode.LENGTH_MISMATCH)
        # MP3 encoders disagree on whether they count the frame that holds the claim.
        self.tolerance_s = 1152 / max(1, self.sampling_rate) if self.file.format == "MP3" else LENGTH_TOLERANCE_S
        self._position = 0

    def _is_vox(self) -> bool:
        return extension_of(self.source) == VOX_EXTENSION and may_be_headerless(self.source)

    def _claimed_s(self, raw: BinaryIO) -> float | None:
        """Return the length that the file states; libsndfile's own figure is an estimate for MP3 and Ogg."""
        claimed: int | None = int(self.file.frames)
        if self.file.format == "OGG":
            stated_s = ogg.duration_s(raw, self.file_size)
            if stated_s is not None:
                return stated_s
        if self.file.format == "MP3":
            claim = mp3_claim(raw)
            claimed = None if claim is None else claim.num_samples
        if claimed is None or not 0 < claimed < UNKNOWN_LENGTH:
            return None
        return claimed / max(1, self.sampling_rate)

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
        if self.file.format in ("OGG", "MP3") and self.claimed_s is not None:
            return frames / max(1, self.sampling_rate) >= self.claimed_s - self.tolerance_s
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
        self._position = self.file.seek(start_s * self.sampling_rate)
        return start_s

    def blocks(self) -> Iterator[Block]:
        """Read until nothing comes; on damage let FFmpeg go on where libsndfile stopped."""
        first = num_read = self._position  # not tell(), which some codecs (GSM, G.721) refuse
        error: Exception | None = None
        while True:
            try:
                block: NDArray[np.float32] = self.file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True)  # type: ignore[assignment]
            except MemoryError:
                raise
            except DATA_ERRORS as raised:
                error = raised
                break
            if not len(block):
                break
            num_read += len(block)
            yield self.sampling_rate, block
        if error is None and not self._stopped_early(num_read):
            return
        num_rest = 0
        for rate, block in self._rest_by_ffmpeg(num_read):
            num_rest += len(block)
            yield rate, block
        if error is not None and num_read + num_rest == first:
            raise AudioError(ErrorCode.DECODE_ERROR, f"{self.source.name}: cannot be decoded ({own_words(error)})")
        self._judge(error, num_rest)

    def _judge(self, error: Exception | None, num_rest: int) -> None:
        """Say what was lost, where FFmpeg has not said it."""
        if self.warnings:
            return
        if self.file.format == "FLAC":  # FFmpeg would have seen a gap in its numbered frames: the end is missing
            self.warnings.add(WarningCode.TRUNCATED)
        elif num_rest:
            self.warnings.add(WarningCode.PARTIAL)
        elif error is not None:
            self.warnings.add(WarningCode.TRUNCATED)

    def _stopped_early(self, num_read: int) -> bool:
        """Tell whether libsndfile may have given up at damage without a word, as it does in FLAC, MP3 and short Ogg."""
        if not num_read:
            return True
        if self.file.format == "MP3":  # its length may be an estimate
            return num_read < MP3_STOPPED_EARLY * int(self.file.frames)
        return self.file.format == "FLAC" and num_read < int(self.file.frames)

    def _rest_by_ffmpeg(self, num_read: int) -> Iterator[Block]:
        """Yield what FFmpeg decodes beyond the first ``num_read`` samples."""
        if self.file.format == "MP3":
            num_read += MP3_DECODERS_DIFFER_SAMPLES
        try:
            other = PyAVDecoder(self.source)
        except AudioError as error:
            if error.code in UNREACHABLE:
                raise
            return
        try:
            for rate, block in other.blocks():
                if num_read < len(block):
                    yield rate, block[num_read:]
                num_read = max(0, num_read - len(block))
        except AudioError as error:
            if error.code in UNREACHABLE:
                raise
            return
        finally:
            self.warnings |= other.warnings
            other.close()

    def close(self) -> None:
        """Release the file."""
        self.file.close()


class PyAVDecoder:
    """FFmpeg: everything else, and what libsndfile misreads. No network, no playlists, no second file."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.warnings: set[WarningCode] = set()
        self.container: Any = None
        self._raw = source.open()
        self._file: NamelessFile | None = None
        try:
            self._open_container()
        except BaseException as error:
            self.close()
            self._check_reads()
            if isinstance(error, MemoryError) or not isinstance(error, DATA_ERRORS):
                raise
            raise undecodable(source, error) from error

    def _open_container(self) -> None:
        """Let the content choose the demuxer; where that leads nowhere, the name's extension."""
        try:
            self._open_as("")
            self._choose_stream()
        except MemoryError:
            raise
        except (AudioError, *DATA_ERRORS) as error:
            self._check_reads()
            extension = choosing_extension(self.source)
            if not extension or getattr(error, "code", ErrorCode.NOT_AUDIO) != ErrorCode.NOT_AUDIO:
                raise
            self._open_as(extension)
            self._choose_stream()

    def _open_as(self, extension: str) -> None:
        """Let FFmpeg read our open file: no other file and no protocol is in reach."""
        self._extension = extension
        if self.container is not None:
            self.container.close()
        options = {"protocol_whitelist": "none", "format_whitelist": allowed_demuxers()}
        if extension in HEADERLESS_RATES:
            options["sample_rate"] = str(HEADERLESS_RATES[extension])
        goes_on = riff_goes_on(self._raw, self._raw.seek(0, os.SEEK_END))
        if goes_on:
            options["ignore_length"] = "1"
        self._raw.seek(0)
        # Where it can seek, FFmpeg would first look for chunks behind the stated size: in silence, 8 bytes at a time.
        self._file = NamelessFile(self._raw, seekable=not goes_on, extension=extension)
        self.container = av.open(self._file, options=options, buffer_size=BUFFER_BYTES, **OPEN_OPTIONS)

    def _check_reads(self) -> None:
        """Raise what the system said when it gave no bytes, if it did."""
        if self._file is not None and self._file.failure is not None:
            raise read_failure(self.source.name, self._file.failure) from self._file.failure

    def _choose_stream(self) -> None:
        name = self.source.name
        if not self.container.streams and self.source.is_cut():
            raise undecodable(self.source, EOFError("cut off in its header"))
        if not self.container.streams.audio:
            what = "this video has no audio" if self.container.streams.video else "the file has no audio stream"
            raise AudioError(ErrorCode.NO_AUDIO_STREAM, f"{name}: {what}")
        self.stream = self.container.streams.audio[0]
        codec = self.stream.codec_context
        if codec is None:
            raise AudioError(
                ErrorCode.UNSUPPORTED_CODEC, f"{name}: its audio codec is unknown; convert it to WAV or FLAC"
            )
        if codec_tag(codec) in ENCRYPTED_TAGS or ENCRYPTED_TRACK in self.stream.metadata:
            raise self._encrypted()
        self.sampling_rate = int(codec.sample_rate or 0)
        self.num_channels = int(codec.channels or 0)
        if not (self.sampling_rate and self.num_channels):
            self._learn_layout()
        if not (self.sampling_rate and self.num_channels) and not states_layout(self.source.head()):
            raise undecodable(self.source, ValueError("neither a sampling rate nor channels"))
        self.claimed_s = self._claimed_s()
        # Time stamps of lossy codecs count what the encoder added at both ends: up to three of its frames.
        self.tolerance_s = max(LENGTH_TOLERANCE_S, 3 * (codec.frame_size or 0) / max(1, self.sampling_rate))

    def _learn_layout(self) -> None:
        """Take rate and channels from the first packet that decodes, where damage hid them from FFmpeg's first look."""
        index = self.stream.index
        for _, frames in islice(self._packets(), FIRST_PACKETS):
            if not isinstance(frames, Exception) and frames:
                frame, samples = frames[0]
                self.sampling_rate, self.num_channels = int(frame.sample_rate), samples.shape[1]
                break
        self._open_as(self._extension)  # from the start again
        self.stream = self.container.streams[index]

    def _encrypted(self) -> AudioError:
        return AudioError(ErrorCode.ENCRYPTED, f"{self.source.name}: the audio is encrypted")

    def _claimed_s(self) -> float | None:
        """Return the length that the container's tables state; None where FFmpeg only estimates it."""
        name = self.container.format.name
        is_stated = "mov" in name or name in STATED_BY_HEADER
        if is_stated and self.stream.duration and self.stream.time_base:
            return float(self.stream.duration * self.stream.time_base)
        if "matroska" in name:
            return self._matroska_s()
        if name == "ogg":
            with self.source.open() as raw:
                return ogg.duration_s(raw, raw.seek(0, os.SEEK_END))
        return None

    def _matroska_s(self) -> float | None:
        """Return what Matroska states of this track.

        A tag of its own says when it ends, as the container's duration does of the longest track. The tag may be left
        over from another version of the file.
        """
        container_s = (self.container.duration or 0) / 1_000_000  # AV_TIME_BASE is microseconds
        match = TRACK_LENGTH.fullmatch(self.stream.metadata.get("DURATION", "").strip("\0 "))
        tag_s = 0.0 if match is None else int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])
        end_s = container_s if len(self.container.streams) == 1 else tag_s
        if not end_s or (container_s and end_s > container_s + LENGTH_TOLERANCE_S):
            return None
        return end_s - float((self.stream.start_time or 0) * self.stream.time_base)

    def seek(self, start_s: int) -> int:
        """Skip nothing: seeking compressed audio is not exact to the sample."""
        return 0

    def blocks(self) -> Iterator[Block]:
        """Decode; the 20 ms frames of most codecs are joined, since every block costs its steps in Python."""
        rate, held = 0, list[NDArray[np.float32]]()
        for frame_rate, block in self._without_padding():
            if held and (frame_rate, block.shape[1]) != (rate, held[0].shape[1]):
                yield rate, np.concatenate(held)
                held = []
            rate = frame_rate
            held.append(block)
            if len(held) * len(block) >= JOINED_SAMPLES:
                yield rate, np.concatenate(held)
                held = []
        if held:
            yield rate, np.concatenate(held)

    def _without_padding(self) -> Iterator[Block]:
        """Decode, without the encoder's padding: what the last frame holds beyond the length that MP4 tables state."""
        if self.claimed_s is None or "mov" not in self.container.format.name:
            yield from self._frames()
            return
        num_left = round(self.claimed_s * self.sampling_rate)
        beyond: Block | None = None
        for rate, block in self._frames():
            if beyond is not None:  # not the last frame after all: the tables understate the length
                yield beyond
                beyond, num_left = None, UNKNOWN_LENGTH
            if len(block) > num_left:
                beyond = rate, block[num_left:]
                block = block[:num_left]
            num_left -= len(block)
            yield rate, block

    def _frames(self) -> Iterator[Block]:
        """Decode packet by packet; a damaged packet is left out and the next one tried."""
        num_decoded, stated_end = 0, 0
        error: Exception | None = None  # the last one, while nothing good has followed it
        is_flac = self.container.format.name == "flac"
        for packet, frames in self._packets():
            if isinstance(frames, AudioError):  # encrypted, perhaps behind a beginning that is not
                if not num_decoded:
                    raise frames
                self.warnings.add(WarningCode.PARTIAL)
                return
            if isinstance(frames, Exception):
                error = frames
                continue
            if error is not None and frames and packet.size:  # not what only the end of the file flushed out
                self.warnings.add(WarningCode.PARTIAL)
                error = None
            for frame, samples in frames:
                num_decoded += len(samples)
                if is_flac:  # its frames are numbered
                    stated_end = stated_end_samples(frame)
                yield int(frame.sample_rate), samples
        self._check_reads()
        if error is not None and not num_decoded:
            raise undecodable(self.source, error, has_stream=True)
        if error is not None:
            self.warnings.add(WarningCode.TRUNCATED)
        if stated_end > num_decoded:
            self.warnings.add(WarningCode.PARTIAL)

    def _packets(self) -> Iterator[tuple[Any, list[tuple[Any, NDArray[np.float32]]] | Exception]]:
        """Yield packets with the frames and samples in them, or with the error that decoding ended in."""
        packets = self.container.demux(self.stream)
        num_damaged = 0
        while num_damaged < MAX_DAMAGED_PACKETS:
            packet: Any = None
            try:
                packet = next(packets)
                if packet.has_sidedata("encryption_info"):  # scrambled packets may decode, to noise
                    yield packet, self._encrypted()
                    return
                yield packet, [(frame, frame_samples(frame)) for frame in packet.decode()]
            except StopIteration:
                return
            except MemoryError:
                raise
            except DATA_ERRORS as error:
                num_damaged += 1
                yield packet, error
                if packet is None:  # the container itself is broken
                    return

    def close(self) -> None:
        """Release the file."""
        if self.container is not None:
            self.container.close()
        self._raw.close()


def states_layout(head: bytes) -> bool:
    """Tell by its first bytes whether a file's header states rate and channels, so that 0 is what it says."""
    return (head.startswith(LAYOUT_MAGIC) and looks_like_audio(head)) or ogg.states_no_channels(head)


def codec_tag(codec: Any) -> str:
    """Return a stream's four-character code; empty where it is a number that PyAV cannot spell."""
    try:
        return str(codec.codec_tag)
    except UnicodeError:
        return ""


def frame_samples(frame: Any) -> NDArray[np.float32]:
    """Return an FFmpeg audio frame as float32 samples in [-1, 1], shape (num_samples, num_channels)."""
    num_channels = frame.layout.nb_channels
    dtype = SAMPLE_TYPES.get(frame.format.name.removesuffix("p"))
    if dtype is None:
        raise ValueError(f"samples of type {frame.format.name}")
    # Neither by to_ndarray nor by frame.planes: from eight channels on, PyAV sees more planes than there are.
    if frame.format.is_planar:
        views: list[Any] = [AudioPlane(frame, i) for i in range(num_channels)]
        planes = [np.frombuffer(view, dtype, frame.samples) for view in views]
        array = np.stack(planes, axis=-1)
    else:
        view: Any = AudioPlane(frame, 0)
        array = np.frombuffer(view, dtype, frame.samples * num_channels).reshape(-1, num_channels)
    if dtype == np.int64:
        array = array / 2.0**63
    samples = scale_to_float32(array)
    assert samples is not None  # SAMPLE_TYPES are types that have a scale
    return samples


def stated_end_samples(frame: Any) -> int:
    """Return where an FFmpeg audio frame ends by its own time stamp, in samples; 0 where it has none."""
    if frame.pts is None or frame.time_base is None:
        return 0
    return int(round(frame.pts * frame.time_base * frame.sample_rate) + frame.samples)


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
