"""Decoding with FFmpeg, through the package PyAV."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import av
import numpy as np
from av.audio.plane import AudioPlane
from numpy.typing import NDArray

from ast_cli.audio.containers import ogg
from ast_cli.audio.containers.demuxers import HEADERLESS_RATES, allowed_demuxers, choosing_extension
from ast_cli.audio.containers.lengths import UNKNOWN_LENGTH
from ast_cli.audio.containers.longer_than_header import riff_exceeds_header
from ast_cli.audio.decoders.interface import DATA_ERRORS, LENGTH_TOLERANCE_S, Block, undecodable
from ast_cli.audio.samples import scale_to_float32
from ast_cli.audio.source import NamelessFile, Source, looks_like_audio, read_failure
from ast_cli.errors import AudioError, ErrorCode, WarningCode

BUFFER_BYTES = 32_768  # FFmpeg's default for files: with a larger buffer it gives up on some damaged files
JOINED_SAMPLES = 16_384  # FFmpeg's frames are joined to blocks of about this many samples per channel
FIRST_PACKETS = 100  # one of the first packets must be decodable
MAX_DAMAGED_PACKETS = 1_000_000  # limit for files that contain only damage
ENCRYPTED_TAGS = {"enca", "drms", "aavd"}
ENCRYPTED_TRACK = "enc_key_id"  # metadata key that FFmpeg sets for encrypted WebM
LAYOUT_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b"caff", b".snd")
STATED_BY_HEADER = ("ape", "tak", "tta", "wv")  # containers whose header states the number of samples
TRACK_LENGTH = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")  # Matroska's DURATION tag
# PyAV 19 accepts metadata that is not UTF-8; older versions need an option.
OPEN_OPTIONS: dict[str, Any] = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "ignore"}

SAMPLE_TYPES = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "s64": np.int64, "flt": np.float32, "dbl": np.float64}


class PyAVDecoder:
    """FFmpeg's decoder for all other formats and for files that libsndfile misreads.

    It reads only the given file: no network, no playlists, no second file.
    """

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
        """Open the file with the demuxer that matches its content, or else the extension of its name."""
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
        """Open the file in FFmpeg through our file object, so that FFmpeg can access no other file and no protocol."""
        self._extension = extension
        if self.container is not None:
            self.container.close()
        options = {"protocol_whitelist": "none", "format_whitelist": allowed_demuxers()}
        if extension in HEADERLESS_RATES:
            options["sample_rate"] = str(HEADERLESS_RATES[extension])
        exceeds_header = riff_exceeds_header(self._raw, self._raw.seek(0, os.SEEK_END))
        if exceeds_header:
            options["ignore_length"] = "1"
        self._raw.seek(0)
        # In a seekable file, FFmpeg would first search for chunks after the stated size: in silence, 8 bytes at a time.
        self._file = NamelessFile(self._raw, seekable=not exceeds_header, extension=extension)
        self.container = av.open(self._file, options=options, buffer_size=BUFFER_BYTES, **OPEN_OPTIONS)

    def _check_reads(self) -> None:
        """Raise an error if the operating system failed to read the file."""
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
            self._read_layout_from_packets()
        if not (self.sampling_rate and self.num_channels) and not states_layout(self.source.head()):
            raise undecodable(self.source, ValueError("it states neither a sampling rate nor channels"))
        self.header_duration_s = self._header_duration_s()
        # Time stamps of lossy codecs include the samples that the encoder added at both ends: up to three frames.
        self.tolerance_s = max(LENGTH_TOLERANCE_S, 3 * (codec.frame_size or 0) / max(1, self.sampling_rate))

    def _read_layout_from_packets(self) -> None:
        """Take sampling rate and channels from the first packet that decodes, if FFmpeg did not find them at first."""
        index = self.stream.index
        for _, frames in islice(self._packets(), FIRST_PACKETS):
            if not isinstance(frames, Exception) and frames:
                frame, samples = frames[0]
                self.sampling_rate, self.num_channels = int(frame.sample_rate), samples.shape[1]
                break
        self._open_as(self._extension)  # back to the start
        self.stream = self.container.streams[index]

    def _encrypted(self) -> AudioError:
        return AudioError(ErrorCode.ENCRYPTED, f"{self.source.name}: the audio is encrypted")

    def _header_duration_s(self) -> float | None:
        """Return the length that the container's tables state, or None if FFmpeg only estimates it."""
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
        """Return the length in seconds that a Matroska file states for this track, or None.

        The container's duration is the end of the longest track; a tag of the track states its own end. The tag may be
        left over from another version of the file.
        """
        container_s = (self.container.duration or 0) / 1_000_000  # AV_TIME_BASE is microseconds
        match = TRACK_LENGTH.fullmatch(self.stream.metadata.get("DURATION", "").strip("\0 "))
        tag_s = 0.0 if match is None else int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])
        end_s = container_s if len(self.container.streams) == 1 else tag_s
        if not end_s or (container_s and end_s > container_s + LENGTH_TOLERANCE_S):
            return None
        return end_s - float((self.stream.start_time or 0) * self.stream.time_base)

    def seek(self, start_s: int) -> int:
        """Return 0 without seeking, as FFmpeg does not seek exactly to the sample in compressed audio."""
        return 0

    def blocks(self) -> Iterator[Block]:
        """Yield decoded blocks; short frames (20 ms in most codecs) are joined, as each block has a cost in Python."""
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
        """Yield decoded blocks without the encoder's padding.

        The padding is the part of the last frame beyond the length that the tables of an MP4 state.
        """
        if self.header_duration_s is None or "mov" not in self.container.format.name:
            yield from self._frames()
            return
        num_left = round(self.header_duration_s * self.sampling_rate)
        beyond: Block | None = None
        for rate, block in self._frames():
            if beyond is not None:  # it was not in the last frame: the tables state too short a length
                yield beyond
                beyond, num_left = None, UNKNOWN_LENGTH
            if len(block) > num_left:
                beyond = rate, block[num_left:]
                block = block[:num_left]
            num_left -= len(block)
            yield rate, block

    def _frames(self) -> Iterator[Block]:
        """Yield the frames of all packets; damaged packets are skipped."""
        num_decoded, stated_end = 0, 0
        error: Exception | None = None  # last error, reset when a packet decodes after it
        is_flac = self.container.format.name == "flac"
        for packet, frames in self._packets():
            if isinstance(frames, AudioError):  # encrypted, perhaps after an unencrypted beginning
                if not num_decoded:
                    raise frames
                self.warnings.add(WarningCode.PARTIAL)
                return
            if isinstance(frames, Exception):
                error = frames
                continue
            if error is not None and frames and packet.size:  # not frames that were flushed at the end of the file
                self.warnings.add(WarningCode.PARTIAL)
                error = None
            for frame, samples in frames:
                num_decoded += len(samples)
                if is_flac:  # FLAC numbers its frames
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
        """Yield packets with their decoded frames and samples, or with the error that decoding raised."""
        packets = self.container.demux(self.stream)
        num_damaged = 0
        while num_damaged < MAX_DAMAGED_PACKETS:
            packet: Any = None
            try:
                packet = next(packets)
                if packet.has_sidedata("encryption_info"):  # encrypted packets may decode to noise
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
        """Close the file."""
        if self.container is not None:
            self.container.close()
        self._raw.close()


def states_layout(head: bytes) -> bool:
    """Return whether the first bytes of a file state rate and channels, so that a 0 is the stated value."""
    return (head.startswith(LAYOUT_MAGIC) and looks_like_audio(head)) or ogg.states_no_channels(head)


def codec_tag(codec: Any) -> str:
    """Return a stream's four-character code; empty if PyAV cannot decode it as text."""
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
    # Not with to_ndarray or frame.planes: from eight channels on, PyAV assumes more planes than exist.
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
    assert samples is not None  # all SAMPLE_TYPES have a known scale
    return samples


def stated_end_samples(frame: Any) -> int:
    """Return the end of an FFmpeg audio frame in samples by its time stamp; 0 if it has no time stamp."""
    if frame.pts is None or frame.time_base is None:
        return 0
    return int(round(frame.pts * frame.time_base * frame.sample_rate) + frame.samples)
