"""Comparison of the length that a container's header states with the size of the file.

Decoders silently reduce a stated length to what the file contains, so a recording that lost its end seems complete.
Sizes that recorders and pipes write for "unknown" (0, all ones, 2^31 - 1, -1) do not count as a stated length.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

from ast_cli.audio.containers import ogg
from ast_cli.audio.containers.mpeg import mp3_length

UNKNOWN_SIZES = (0, -1, 0xFFFFFFFF)
STREAMED_SIZES = range(0x7FFFF000, 0x80000000)  # written by sox and others if the output is a pipe
UNKNOWN_LENGTH = 1 << 62
PADDING_BYTES = 1  # chunks are padded to an even size, but some writers omit the byte
CHUNK_HEADER_BYTES = 8  # RIFF: name and size
LARGEST_METADATA_BYTES = 1 << 20  # before the samples; cover images are the largest metadata
MAX_CHUNKS = 10_000
# Limits that keep the search for a hidden chunk cheap: places that look like a chunk, and chunks after each place.
MAX_PLACES, MAX_FOLLOWING_CHUNKS = 1_000, 32
ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # GUID of the object


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk of a RIFF, AIFF or CAF file.

    Attributes:
        name: Four-character code.
        start: Offset of the content in the file, in bytes.
        size: Size of the content in bytes, as stated by the chunk's header.
    """

    name: bytes
    start: int
    size: int


def is_cut(file: BinaryIO, file_size: int) -> bool | None:
    """Return whether the file ends before the length that its container states.

    The stated length is the size in RIFF, RF64, AIFF, W64, CAF, AU, MP4, ASF and Matroska, the Xing or VBRI frame of an
    MP3, and the end-of-stream flag of Ogg.

    Args:
        file: File opened for reading; its position changes.
        file_size: Size of the file in bytes.

    Returns:
        True if bytes are missing, False if the file is complete, None if the format or the file states no length.
    """
    file.seek(0)
    head = file.read(16)
    for offset, magic, check in _CHECKS:
        if head[offset:].startswith(magic):
            try:
                return check(file, file_size)
            except (struct.error, IndexError):  # the header itself is cut off
                return True
    return None


def chunks(file: BinaryIO, file_size: int, first: int, layout: str, padding: int = 1) -> Iterator[Chunk]:
    """Yield the chunks from byte ``first`` on, up to the end of the file or a chunk that extends beyond it.

    Args:
        file: File opened for reading; its position changes.
        file_size: Size of the file in bytes.
        first: Offset of the first chunk in bytes.
        layout: Format of a chunk's header (name and size) for ``struct``.
        padding: 1 if chunks are padded to an even size, else 0.
    """
    position, header_bytes = first, struct.calcsize(layout)
    long_data_size = 0xFFFFFFFF
    for _ in range(MAX_CHUNKS):
        if file_size - position <= PADDING_BYTES:
            return
        file.seek(position)
        name, size = struct.unpack(layout, file.read(header_bytes))
        if name == b"ds64":  # RF64 stores the size of the samples here, as the second 64-bit number
            long_data_size = struct.unpack("<QQ", file.read(16))[1]
        if name == b"data" and size == 0xFFFFFFFF:
            size = long_data_size
        yield Chunk(name, position + header_bytes, size)
        position += header_bytes + max(0, size) + (size & padding)


def oversized_chunk(file: BinaryIO, file_size: int) -> tuple[int, int] | None:
    """Find a chunk of a WAV that precedes the samples, states more bytes than the file has, and thereby hides them.

    Decoders skip such a chunk and the samples with it. The samples (or the format, if it has not come yet) are searched
    for inside the chunk; a match counts only if valid chunks follow one another from there to the end of the file.

    Args:
        file: File opened for reading; its position changes.
        file_size: Size of the file in bytes.

    Returns:
        Offsets in bytes of the oversized chunk and of the chunk that it hides; None if there is no such chunk.
    """
    file.seek(0)
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    hidden = b"fmt "
    try:
        for chunk in chunks(file, file_size, first=12, layout="<4sI"):
            if chunk.name == b"data":
                return None
            if chunk.start + chunk.size > file_size:
                found = _find_chunk(file, file_size, chunk.start, hidden)
                return None if found is None else (chunk.start - CHUNK_HEADER_BYTES, found)
            if chunk.name == b"fmt ":
                hidden = b"data"
    except struct.error:  # the file ends in a chunk's header
        pass
    return None


def _find_chunk(file: BinaryIO, file_size: int, start: int, name: bytes) -> int | None:
    """Return the offset of a chunk of a given name from which valid chunks reach to the end of the file.

    Searches `LARGEST_METADATA_BYTES` bytes from ``start`` on.
    """
    file.seek(start)
    places = (start + match.start() for match in re.finditer(re.escape(name), file.read(LARGEST_METADATA_BYTES)))
    return next((place for place in islice(places, MAX_PLACES) if _is_complete_from(file, file_size, place)), None)


def _is_complete_from(file: BinaryIO, file_size: int, first: int) -> bool:
    """Return whether chunks, one of them with samples, follow one another from a place to the end of a WAV."""
    has_samples, end = False, 0
    try:
        for chunk in islice(chunks(file, file_size, first, layout="<4sI"), MAX_FOLLOWING_CHUNKS):
            has_samples |= chunk.name == b"data" and chunk.size > 0
            end = chunk.start + chunk.size
    except struct.error:  # fewer bytes than a chunk's header
        return False
    return has_samples and end <= file_size <= end + PADDING_BYTES


def _chunks_are_cut(file: BinaryIO, file_size: int, first: int, layout: str, padding: int = 1) -> bool | None:
    """Return whether the chunk with the samples, or one before it, extends beyond the end of the file."""
    end = first
    for chunk in chunks(file, file_size, first, layout, padding):
        end = chunk.start + chunk.size
        if chunk.name in (b"data", b"SSND"):
            unknown = chunk.size in UNKNOWN_SIZES or chunk.size in STREAMED_SIZES
            return None if unknown or not 0 < chunk.size < UNKNOWN_LENGTH else end > file_size
    return end > file_size


def _riff_is_cut(file: BinaryIO, file_size: int) -> bool | None:
    return _chunks_are_cut(file, file_size, first=12, layout="<4sI")


def _big_endian_is_cut(file: BinaryIO, file_size: int) -> bool | None:
    """Return `is_cut` for AIFF and RIFX."""
    return _chunks_are_cut(file, file_size, first=12, layout=">4sI")


def _caf_is_cut(file: BinaryIO, file_size: int) -> bool | None:
    return _chunks_are_cut(file, file_size, first=8, layout=">4sq", padding=0)


def _w64_is_cut(file: BinaryIO, file_size: int) -> bool | None:
    """Return `is_cut` for W64, which has the size of the whole file in 8 bytes after a 16-byte GUID."""
    file.seek(16)
    (size,) = struct.unpack("<q", file.read(8))
    return file_size < size if 0 < size < UNKNOWN_LENGTH else None


def _au_is_cut(file: BinaryIO, file_size: int) -> bool | None:
    """Return `is_cut` for AU, which starts with a magic number, the offset and the size of the data."""
    file.seek(4)
    offset, size = struct.unpack(">II", file.read(8))
    return None if size in UNKNOWN_SIZES or size in STREAMED_SIZES else offset + size > file_size


def _mp4_is_cut(file: BinaryIO, file_size: int) -> bool | None:
    """Return `is_cut` for MP4, a sequence of boxes of (size, name).

    A size of 1 means that 8 bytes of size follow, 0 that the box extends to the end of the file.
    """
    position = 0
    for _ in range(MAX_CHUNKS):
        if position >= file_size:
            return position > file_size
        file.seek(position)
        size, name = struct.unpack(">I4s", file.read(8))
        if not name.isascii():  # not a box but junk after the audio
            return None
        if size == 0:
            return None
        position += struct.unpack(">Q", file.read(8))[0] if size == 1 else size
    return None


def _asf_is_cut(file: BinaryIO, file_size: int) -> bool | None:
    """Return `is_cut` for ASF (WMA), where an object in the header states the file's size unless it was broadcast."""
    position, (header_size,) = 30, struct.unpack_from("<16xQ", _read_at(file, 0, 24))
    for _ in range(MAX_CHUNKS):
        if position >= header_size:
            return None
        if position + 24 > file_size:
            return True
        name, size = struct.unpack("<16sQ", _read_at(file, position, 24))
        if name == ASF_FILE_PROPERTIES:
            stated, flags = struct.unpack("<40xQ40xI", _read_at(file, position, 92))
            return None if flags & 1 or not stated else file_size < int(stated)
        position += max(size, 24)
    return None


def _read_at(file: BinaryIO, position: int, num_bytes: int) -> bytes:
    file.seek(position)
    return file.read(num_bytes)


def _matroska_is_cut(file: BinaryIO, file_size: int) -> bool | None:
    """Return `is_cut` for Matroska and WebM: an EBML header and one segment; live recorders do not state its size."""
    file.seek(4)
    header_size = _ebml_number(file)
    file.seek(header_size or 0, 1)
    if file.read(4) != b"\x18\x53\x80\x67":
        return None
    segment_size = _ebml_number(file)
    return None if segment_size is None else file.tell() + segment_size > file_size


def _ebml_number(file: BinaryIO) -> int | None:
    """Read a number whose length in bytes is the position of its first 1 bit; None if all ones, which means unknown."""
    first = file.read(1)[0]
    num_bytes = 9 - first.bit_length()
    rest = file.read(num_bytes - 1)
    value = int.from_bytes(bytes([first]) + rest) - (1 << 7 * num_bytes)
    return None if value == (1 << 7 * num_bytes) - 1 else value


def riff_sampling_rate(file: BinaryIO, file_size: int) -> int | None:
    """Return the sampling rate in Hz that a WAV states, for messages about rates that decoders reject."""
    file.seek(0)
    if file.read(4) not in (b"RIFF", b"RF64"):
        return None
    try:
        for chunk in chunks(file, file_size, first=12, layout="<4sI"):
            if chunk.name == b"fmt ":
                file.seek(chunk.start + 4)
                return int(struct.unpack("<I", file.read(4))[0])
    except struct.error:
        pass
    return None


def _mp3_is_cut(file: BinaryIO, file_size: int) -> bool | None:
    length = mp3_length(file)
    return None if length is None or length.end_byte is None else length.end_byte > file_size


_CHECKS: tuple[tuple[int, bytes, Callable[[BinaryIO, int], bool | None]], ...] = (
    (0, b"RIFF", _riff_is_cut),
    (0, b"RF64", _riff_is_cut),
    (0, b"RIFX", _big_endian_is_cut),
    (0, b"FORM", _big_endian_is_cut),
    (0, b"caff", _caf_is_cut),
    (0, b"riff", _w64_is_cut),
    (0, b".snd", _au_is_cut),
    (0, b"OggS", ogg.is_cut),
    (4, b"ftyp", _mp4_is_cut),
    (0, b"\x1aE\xdf\xa3", _matroska_is_cut),
    (0, b"0&\xb2u\x8ef\xcf", _asf_is_cut),
    (0, b"ID3", _mp3_is_cut),
    (0, b"\xff", _mp3_is_cut),
)
