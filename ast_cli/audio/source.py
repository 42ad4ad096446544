"""Where encoded audio comes from, and whether its bytes can be had: a disk that fails is not a damaged file."""

from __future__ import annotations

import errno
import io
import os
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from ast_cli.audio.containers import ogg
from ast_cli.audio.containers.lengths import is_cut, oversized_chunk
from ast_cli.errors import AudioError, ErrorCode

READ_BYTES = 1 << 18  # at a time
OPENING_BYTES = 8 << 20  # more than either decoder reads before it says what a file is
# What the system says when a disk, a card reader or a server is the matter and not the file.
STORAGE_ERRORS = {
    getattr(errno, name)
    for name in "EIO ENXIO ENODEV ESTALE ETIMEDOUT EREMOTEIO ENOMEDIUM EHOSTDOWN ENOTCONN ESHUTDOWN".split()
    if hasattr(errno, name)
}

# The first bytes of formats that are meant to hold audio, or video with it: a file with them that cannot be decoded is
# damaged, a file without them is no audio.
AUDIO_MAGIC = (
    *(b"RIFF", b"RIFX", b"RF64", b"riff\x2e\x91\xcf\x11", b"fLaC", b"OggS", b"ID3", b"FORM", b"caff", b".snd"),
    *(b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2", b"\xff\xf1", b"\xff\xf9"),
    *(b"\x1aE\xdf\xa3", b"0&\xb2u\x8ef\xcf", b"FLV\x01", b".RMF", b".ra\xfd"),
    *(b"\0\0\x01\xba", b"\x06\x0e\x2b\x34\x02\x05"),  # MPEG program streams, MXF
    *(b"wvpk", b"MAC ", b"TTA1", b"TTA2", b"MPCK", b"MP+", b"DSD ", b"FRM8", b"tBaK", b"OFR ", b"ajkg", b"ADIF"),
    *(b"\x0b\x77", b"#!AMR", b"Creative Voice", b"NIST_1A"),
)
# What else comes in containers that may hold audio.
OTHER_FORMS = (b"WEBP", b"ACON", b"sfbk", b"RMID", b"PAL ", b"ILBM", b"PBM ", b"ANIM")
PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1", b"crx ", b"jxl ")
HEAD_BYTES = 256  # of a file, which tell what it is
TS_PACKETS = ((0, 188), (4, 192))  # an MPEG transport stream: where its first packet starts, and bytes to the next
TS_SYNC = b"\x47"


@dataclass(frozen=True, slots=True)
class Source:
    """Encoded audio: a path, or bytes already in memory (standard input).

    Attributes:
        name: The path, or what stands for it.
        data: The bytes, where they are in memory.
        gap: From which byte to which the file is read as if there were nothing; see `without_oversized_chunk`.
    """

    name: str
    data: bytes | None = None
    gap: tuple[int, int] | None = None

    def open(self) -> BinaryIO:
        """Open for reading; the caller closes.

        Raises:
            AudioError: The file has gone, or may not be read, since it was looked at.
        """
        raw = io.BytesIO(self.data) if self.data is not None else self._open_file()
        return raw if self.gap is None else io.BufferedReader(GappedFile(raw, *self.gap))

    def _open_file(self) -> BinaryIO:
        try:
            return open(self.name, "rb")
        except OSError as error:
            raise read_failure(self.name, error) from error

    def for_soundfile(self) -> Any:
        """Return what libsndfile opens: an absolute path, since ``-`` would be standard input.

        As bytes where names are bytes, since soundfile refuses to encode a name that is not UTF-8.
        """
        if self.data is not None or self.gap is not None:
            return self.open()
        path = os.path.abspath(self.name)
        return os.fsencode(path) if os.name == "posix" else path

    def head(self, num_bytes: int = HEAD_BYTES) -> bytes:
        """Return the first bytes."""
        with self.open() as raw:
            return raw.read(num_bytes)

    def is_cut(self) -> bool | None:
        """Tell whether bytes are missing by the container's own claim; None where it makes none."""
        with self.open() as raw:
            return is_cut(raw, raw.seek(0, os.SEEK_END))

    def is_damaged(self) -> bool:
        """Tell whether the container's checksums show damage that both decoders step over in silence: only in Ogg."""
        with self.open() as raw:
            return raw.read(4) == b"OggS" and ogg.is_damaged(raw)

    def check_readable(self, num_bytes: int | None = None) -> None:
        """Read the bytes again, from the start: libsndfile takes a read that fails for the end of the file.

        Args:
            num_bytes: How many; None for all.

        Raises:
            AudioError: The storage does not give them.
        """
        if self.data is not None:
            return
        left = num_bytes
        try:
            with self.open() as raw:
                while (left is None or left > 0) and (block := raw.read(READ_BYTES)):
                    left = None if left is None else left - len(block)
        except OSError as error:
            raise read_failure(self.name, error) from error


def without_oversized_chunk(source: Source) -> Source:
    """Return a source that leaves out a chunk whose false size hides the samples of a WAV; nearly always itself."""
    with source.open() as raw:
        gap = oversized_chunk(raw, raw.seek(0, os.SEEK_END))
    return source if gap is None else replace(source, gap=gap)


class GappedFile(io.RawIOBase):
    """A file read as if some of its bytes were not there; the file itself is not touched."""

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self._file, self._start, self._end = file, start, end
        self._position = 0

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that it can be sought."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position, counted without the gap."""
        size = self._file.seek(0, os.SEEK_END) - (self._end - self._start)
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read up to the gap, or behind it."""
        if self._position < self._start:
            self._file.seek(self._position)
            content = self._file.read(min(len(buffer), self._start - self._position))
        else:
            self._file.seek(self._position + self._end - self._start)
            content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


class NamelessFile:
    """An open file without the name by which FFmpeg would choose a demuxer where the content is none's.

    Attributes:
        name: Only an extension, where that may choose the demuxer.
        failure: Why the system gave no bytes; FFmpeg's own errors look alike, and mean nothing of the kind.
    """

    def __init__(self, file: BinaryIO, seekable: bool, extension: str = "") -> None:
        self._file = file
        self.failure: OSError | None = None
        if extension:
            self.name = f"nameless{extension}"
        if seekable:
            self.seek, self.tell = self._seek, file.tell

    def read(self, num_bytes: int) -> bytes:
        """Read, and keep the error if there is one."""
        try:
            return self._file.read(num_bytes)
        except OSError as error:
            self.failure = error
            return b""

    def _seek(self, offset: int, whence: int = 0) -> int:
        """Move, or return -1 where a damaged file asks for what cannot be; PyAV would print an exception."""
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError):
            return -1


def read_failure(name: str, error: OSError) -> AudioError:
    """Say why the system does not give a file's bytes.

    A storage that fails is ``vanished``, as a file that is gone: nothing is known about the file, and it is worth
    another try.
    """
    if isinstance(error, FileNotFoundError):
        return AudioError(ErrorCode.VANISHED, f"{name}: the file has vanished")
    if isinstance(error, PermissionError):
        return AudioError(ErrorCode.PERMISSION, f"{name}: permission denied")
    if error.errno in STORAGE_ERRORS:
        return AudioError(ErrorCode.VANISHED, f"{name}: its storage does not give its bytes ({error.strerror})")
    return AudioError(ErrorCode.DECODE_ERROR, f"{name}: cannot be read ({error.strerror})")


def looks_like_audio(head: bytes) -> bool:
    """Tell by its first `HEAD_BYTES` bytes whether a file is meant to hold audio, or video."""
    if is_other_content(head):
        return False
    return (
        head.startswith(AUDIO_MAGIC)
        or head[4:8] == b"ftyp"
        or any(
            head[first : first + 1] == head[first + step : first + step + 1] == TS_SYNC for first, step in TS_PACKETS
        )
    )


def is_other_content(head: bytes) -> bool:
    """Tell whether a container that may hold audio says that it holds something else."""
    kind = head[8:12]
    return kind in OTHER_FORMS if head[:4] in (b"RIFF", b"FORM") else head[4:8] == b"ftyp" and kind in PICTURE_BRANDS
