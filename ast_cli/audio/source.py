"""Sources of encoded audio, and the distinction between a failing storage device and a damaged file."""

from __future__ import annotations

import errno
import io
import os
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from ast_cli.audio.containers import ogg
from ast_cli.audio.containers.lengths import is_cut, oversized_chunk
from ast_cli.errors import AudioError, ErrorCode, UsageError

READ_BYTES = 1 << 18  # per read
OPENING_BYTES = 8 << 20  # more than either decoder reads to open a file
# Error numbers of the operating system for a fault of a disk, a card reader or a server, as opposed to the file.
STORAGE_ERRORS = {
    getattr(errno, name)
    for name in "EIO ENXIO ENODEV ESTALE ETIMEDOUT EREMOTEIO ENOMEDIUM EHOSTDOWN ENOTCONN ESHUTDOWN".split()
    if hasattr(errno, name)
}

# First bytes of formats for audio, or for video with audio. A file that cannot be decoded is damaged if it starts with
# one of them; otherwise it is not audio.
AUDIO_MAGIC = (
    *(b"RIFF", b"RIFX", b"RF64", b"riff\x2e\x91\xcf\x11", b"fLaC", b"OggS", b"ID3", b"FORM", b"caff", b".snd"),
    *(b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2", b"\xff\xf1", b"\xff\xf9"),
    *(b"\x1aE\xdf\xa3", b"0&\xb2u\x8ef\xcf", b"FLV\x01", b".RMF", b".ra\xfd"),
    *(b"\0\0\x01\xba", b"\x06\x0e\x2b\x34\x02\x05"),  # MPEG program streams, MXF
    *(b"wvpk", b"MAC ", b"TTA1", b"TTA2", b"MPCK", b"MP+", b"DSD ", b"FRM8", b"tBaK", b"OFR ", b"ajkg", b"ADIF"),
    *(b"\x0b\x77", b"#!AMR", b"Creative Voice", b"NIST_1A"),
)
# Types of other content in containers that may contain audio.
OTHER_FORMS = (b"WEBP", b"ACON", b"sfbk", b"RMID", b"PAL ", b"ILBM", b"PBM ", b"ANIM")
PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1", b"crx ", b"jxl ")
HEAD_BYTES = 256  # number of first bytes by which a file's type is recognized
TS_PACKETS = ((0, 188), (4, 192))  # MPEG transport streams: offset of the first packet and distance to the next
TS_SYNC = b"\x47"


def is_file(audio: object) -> bool:
    """Return whether an argument is a file open for reading."""
    return callable(getattr(audio, "read", None))


def read_file(file: BinaryIO) -> bytes:
    """Return the rest of an open file.

    Raises:
        UsageError: If it is no file, or open as text.
    """
    if not is_file(file):
        raise UsageError(f"audio is a path, the bytes of a file, or a binary file, not {type(file).__name__}")
    content: object = file.read()
    if not isinstance(content, bytes):
        raise UsageError("the audio file is open as text: open it in binary mode, with open(path, 'rb')")
    return content


@dataclass(frozen=True, slots=True)
class Source:
    """Encoded audio: a path, or bytes already in memory (standard input).

    Attributes:
        name: Path of the file, or ``-`` for standard input.
        data: Content, if it is in memory.
        gap: Start and end of a range of bytes to skip when reading; see `without_oversized_chunk`.
    """

    name: str
    data: bytes | None = None
    gap: tuple[int, int] | None = None

    def open(self) -> BinaryIO:
        """Open the content for reading; the caller closes the file.

        Raises:
            AudioError: If the file has been deleted or become unreadable since it was checked.
        """
        raw = io.BytesIO(self.data) if self.data is not None else self._open_file()
        return raw if self.gap is None else io.BufferedReader(GappedFile(raw, *self.gap))

    def _open_file(self) -> BinaryIO:
        try:
            return open(self.name, "rb")
        except OSError as error:
            raise read_failure(self.name, error) from error

    def for_soundfile(self) -> Any:
        """Return the argument for soundfile: an absolute path, since ``-`` would mean standard input, or a file object.

        On systems where file names are bytes the path is given as bytes, since soundfile cannot encode a name that is
        not UTF-8.
        """
        if self.data is not None or self.gap is not None:
            return self.open()
        path = os.path.abspath(self.name)
        return os.fsencode(path) if os.name == "posix" else path

    def head(self, num_bytes: int = HEAD_BYTES) -> bytes:
        """Return the first ``num_bytes`` bytes of the content."""
        with self.open() as raw:
            return raw.read(num_bytes)

    def is_cut(self) -> bool | None:
        """Return whether bytes are missing by the length that the container states; None if it states no length."""
        with self.open() as raw:
            return is_cut(raw, raw.seek(0, os.SEEK_END))

    def is_damaged(self) -> bool:
        """Return whether the container's checksums (in Ogg only) show damage that both decoders silently skip."""
        with self.open() as raw:
            return raw.read(4) == b"OggS" and ogg.is_damaged(raw)

    def check_readable(self, num_bytes: int | None = None) -> None:
        """Read the file again from the start, because libsndfile takes a failed read for the end of the file.

        Args:
            num_bytes: Number of bytes to read; None for all.

        Raises:
            AudioError: If the storage device fails to deliver the bytes.
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
    """Return a source that skips a chunk of a WAV whose wrong size hides the samples, or else the source itself."""
    with source.open() as raw:
        gap = oversized_chunk(raw, raw.seek(0, os.SEEK_END))
    return source if gap is None else replace(source, gap=gap)


class GappedFile(io.RawIOBase):
    """A read-only view of a file without a range of its bytes."""

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self._file, self._start, self._end = file, start, end
        self._position = 0

    def readable(self) -> bool:
        """Return True, which `io.BufferedReader` requires."""
        return True

    def seekable(self) -> bool:
        """Return True: decoders may seek."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position in the file without the gap, and return it."""
        size = self._file.seek(0, os.SEEK_END) - (self._end - self._start)
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read bytes before the gap, or bytes after it, and return their number."""
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
        """Close this view and the file."""
        self._file.close()
        super().close()


class NamelessFile:
    """An open file without its name, by which FFmpeg would select a demuxer if none matches the content.

    Attributes:
        name: A neutral name with the file's extension; set only if the extension may select the demuxer.
        failure: Error of the operating system when it failed to read the file. FFmpeg's own errors are `OSError` too,
            but are due to the content.
    """

    def __init__(self, file: BinaryIO, seekable: bool, extension: str = "") -> None:
        self._file = file
        self.failure: OSError | None = None
        if extension:
            self.name = f"nameless{extension}"
        if seekable:
            self.seek, self.tell = self._seek, file.tell

    def read(self, num_bytes: int) -> bytes:
        """Read up to ``num_bytes`` bytes; an error is stored in ``failure``."""
        try:
            return self._file.read(num_bytes)
        except OSError as error:
            self.failure = error
            return b""

    def _seek(self, offset: int, whence: int = 0) -> int:
        """Move to a position, or return -1 if a damaged file gives an invalid one, as PyAV would print an exception."""
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError):
            return -1


def read_failure(name: str, error: OSError) -> AudioError:
    """Return the error for a file that the operating system fails to read.

    A failing storage device has the code ``vanished``, like a file that was deleted: the file itself may be fine, and
    another attempt may succeed.
    """
    if isinstance(error, FileNotFoundError):
        return AudioError(ErrorCode.VANISHED, f"{name}: the file has vanished")
    if isinstance(error, PermissionError):
        return AudioError(ErrorCode.PERMISSION, f"{name}: permission denied")
    if error.errno in STORAGE_ERRORS:
        return AudioError(ErrorCode.VANISHED, f"{name}: the storage device failed to read the file ({error.strerror})")
    return AudioError(ErrorCode.DECODE_ERROR, f"{name}: cannot be read ({error.strerror})")


def looks_like_audio(head: bytes) -> bool:
    """Return whether the first `HEAD_BYTES` bytes of a file belong to a format for audio or video."""
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
    """Return whether a container that may contain audio is marked as containing something else."""
    kind = head[8:12]
    return kind in OTHER_FORMS if head[:4] in (b"RIFF", b"FORM") else head[4:8] == b"ftyp" and kind in PICTURE_BRANDS
