"""What a container claims about its own length, checked against the bytes that are there.

Decoders clamp a length that the file does not hold and say nothing, so a recording that lost its tail looks whole.
Sizes that recorders and pipes write for "unknown" (0, all ones, 2^31 - 1, -1) are no claim.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import BinaryIO

UNKNOWN_SIZES_32 = (0, 0xFFFFFFFF)
STREAMED_SIZE_32 = 0x7FFFFF00  # sizes from here to 0x7fffffff are what pipes write
PADDING_BYTES = 1  # chunks are padded to an even size, and writers forget it
MAX_CHUNKS = 10_000
OGG_TAIL_BYTES = 128 * 1024  # a page is at most 65,307 bytes
XING_SEARCH_BYTES = 8192


def is_cut(file: BinaryIO, file_size: int) -> bool:
    """Tell whether the file ends before its own container says it does.

    Args:
        file: Opened for reading; its position is moved.
        file_size: In bytes.

    Returns:
        True only where the format carries a claim and the bytes are missing: RIFF, RF64, AIFF, W64, CAF and AU chunk
        sizes, and the end-of-stream flag of Ogg.
    """
    file.seek(0)
    head = file.read(16)
    for magic, check in _CHECKS.items():
        if head.startswith(magic):
            try:
                return check(file, file_size)
            except struct.error:  # a header that is itself cut
                return True
    return False


def _riff_is_cut(file: BinaryIO, file_size: int) -> bool:
    return _chunks_are_cut(file, file_size, first=12, layout="<4sI")


def _aiff_is_cut(file: BinaryIO, file_size: int) -> bool:
    return _chunks_are_cut(file, file_size, first=12, layout=">4sI")


def _caf_is_cut(file: BinaryIO, file_size: int) -> bool:
    return _chunks_are_cut(file, file_size, first=8, layout=">4sq", padding=0)


def _chunks_are_cut(file: BinaryIO, file_size: int, first: int, layout: str, padding: int = 1) -> bool:
    """Walk chunks of (name, size) until one reaches past the end of the file."""
    position, header_bytes, long_data_size = first, struct.calcsize(layout), 0
    for _ in range(MAX_CHUNKS):
        if position >= file_size:
            return position > file_size + PADDING_BYTES
        file.seek(position)
        name, size = struct.unpack(layout, file.read(header_bytes))
        if name == b"ds64":  # RF64 keeps its real sizes here
            long_data_size = struct.unpack("<QQ", file.read(16))[1]
        if name == b"data" and size == 0xFFFFFFFF and 0 < long_data_size < 1 << 62:
            size = long_data_size
        elif name == b"data" and (size in UNKNOWN_SIZES_32 or size < 0 or STREAMED_SIZE_32 <= size < 1 << 31):
            return False
        elif not name.isascii():  # no chunk at all: junk after the audio
            return False
        position += header_bytes + size + (size & padding)
    return False


def _w64_is_cut(file: BinaryIO, file_size: int) -> bool:
    """W64: a 16-byte GUID, then the size of the whole file in 8 bytes."""
    file.seek(16)
    (size,) = struct.unpack("<q", file.read(8))
    return bool(file_size < size < 1 << 62)


def _au_is_cut(file: BinaryIO, file_size: int) -> bool:
    """AU: magic, offset of the data, size of the data."""
    file.seek(4)
    offset, size = struct.unpack(">II", file.read(8))
    return size not in UNKNOWN_SIZES_32 and not STREAMED_SIZE_32 <= size < 1 << 31 and offset + size > file_size


def _ogg_is_cut(file: BinaryIO, file_size: int) -> bool:
    """Ogg: the last page must carry the end-of-stream flag and be there in full."""
    start = max(0, file_size - OGG_TAIL_BYTES)
    file.seek(start)
    tail = file.read(OGG_TAIL_BYTES)
    page = tail.rfind(b"OggS")
    if page < 0 or page + 27 > len(tail):
        return True
    num_segments = tail[page + 26]
    lacing = tail[page + 27 : page + 27 + num_segments]
    whole = len(lacing) == num_segments and page + 27 + num_segments + sum(lacing) <= len(tail)
    return not (whole and tail[page + 5] & 0x04)


_CHECKS: dict[bytes, Callable[[BinaryIO, int], bool]] = {
    b"RIFF": _riff_is_cut,
    b"RF64": _riff_is_cut,
    b"FORM": _aiff_is_cut,
    b"caff": _caf_is_cut,
    b"riff": _w64_is_cut,
    b".snd": _au_is_cut,
    b"OggS": _ogg_is_cut,
}


def xing_num_samples(file: BinaryIO) -> int | None:
    """Return how many samples an MP3's Xing or Info frame claims, or None where it has none.

    Without that frame an MP3's length is an estimate from its bit rate, not a claim.
    """
    file.seek(0)
    head = file.read(10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]  # 7 bits a byte
        start = 10 + size
    file.seek(start)
    frame = file.read(XING_SEARCH_BYTES)
    tag = max(frame.find(b"Xing", 0, 200), frame.find(b"Info", 0, 200))
    sync = frame.find(b"\xff")
    if tag < 0 or len(frame) < tag + 12 or not frame[tag + 7] & 1 or not 0 <= sync < tag:
        return None
    is_mpeg1 = frame[sync + 1] & 0x18 == 0x18
    (num_mpeg_frames,) = struct.unpack(">I", frame[tag + 8 : tag + 12])
    return int(num_mpeg_frames) * (1152 if is_mpeg1 else 576)
