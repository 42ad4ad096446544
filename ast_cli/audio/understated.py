"""Files that hold more audio than their headers state: joined, wrapped at 4 GiB, or of a recorder that lost power.

None of these looks decodes anything, and each reads a few kilobytes at one or both ends of a file.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import BinaryIO

from ast_cli.audio import ogg
from ast_cli.audio.claims import STREAMED_SIZES, UNKNOWN_SIZES, chunks, xing_claim

CHUNK_NAME = re.compile(rb"[ -~]{4}")
TAGS = (b"ID3", b"TAG", b"APET", b"LYRI")  # which some programs put behind the last chunk
UNMISSED_BYTES = 4096  # behind the audio; ID3v1, APE, Lyrics3 or padding
FLAC_TAIL_BYTES = 1 << 18
FLAC_HEADER_BYTES = 16  # the longest of a frame
FLAC_FRAME = re.compile(rb"\xff[\xf8\xf9]")


def holds_more(file: BinaryIO, file_size: int) -> bool:
    """Tell whether much more audio follows than the header states, of which a decoder that believes it reads nothing.

    Args:
        file: Opened for reading; its position is moved.
        file_size: In bytes.
    """
    looks = (ogg.is_chained, _mp3_goes_on, _flac_goes_on, _au_goes_on, _riff_goes_far_on)
    return any(look(file, file_size) for look in looks)


def chunks_hold_more(file: BinaryIO, file_size: int) -> bool:
    """Tell the same of AIFF and CAF, where no decoder reads what follows."""
    file.seek(0)
    head = file.read(4)
    if head == b"FORM":
        return _goes_on_behind(b"SSND", file, file_size, first=12, layout=">4sI") >= UNMISSED_BYTES
    return head == b"caff" and (
        _goes_on_behind(b"data", file, file_size, first=8, layout=">4sq", padding=0) >= UNMISSED_BYTES
    )


def riff_goes_on(file: BinaryIO, file_size: int) -> bool:
    """Tell whether samples go on beyond the size a WAV states, be they few."""
    return _riff_bytes_beyond(file, file_size) > 0


def _riff_goes_far_on(file: BinaryIO, file_size: int) -> bool:
    return _riff_bytes_beyond(file, file_size) >= UNMISSED_BYTES


def _riff_bytes_beyond(file: BinaryIO, file_size: int) -> int:
    file.seek(0)
    if file.read(4) not in (b"RIFF", b"RF64"):
        return 0
    return _goes_on_behind(b"data", file, file_size, first=12, layout="<4sI")


def _goes_on_behind(samples: bytes, file: BinaryIO, file_size: int, first: int, layout: str, padding: int = 1) -> int:
    """Return how many bytes go on behind the chunk of samples.

    What may follow the samples is a chain of chunks with readable names, up to the end of the file, and tags. If
    anything else comes, it is more samples, and so is all behind the chunk.
    """
    end = 0
    try:
        for chunk in chunks(file, file_size, first, layout, padding):
            if end and chunk.name.startswith(TAGS):
                return 0
            if end and not (CHUNK_NAME.fullmatch(chunk.name) and chunk.start + chunk.size <= file_size + 1):
                return max(0, file_size - end)
            if chunk.name == samples:
                end = chunk.start + chunk.size
    except struct.error:  # fewer bytes than a chunk's header: a few samples more would not matter
        pass
    return 0


def _mp3_goes_on(file: BinaryIO, file_size: int) -> bool:
    """Tell whether much follows the audio that an MP3's first frame counts, as in files that were joined."""
    claim = xing_claim(file)
    return claim is not None and claim.end_byte is not None and file_size > claim.end_byte + UNMISSED_BYTES


def _au_goes_on(file: BinaryIO, file_size: int) -> bool:
    """Tell whether an AU, which has nothing behind its samples, holds more of them."""
    file.seek(0)
    head = file.read(12)
    if head[:4] != b".snd" or len(head) < 12:
        return False
    offset, size = struct.unpack(">II", head[4:])
    is_stated = size not in UNKNOWN_SIZES and size not in STREAMED_SIZES
    return is_stated and file_size > offset + size + UNMISSED_BYTES


def _flac_goes_on(file: BinaryIO, file_size: int) -> bool:
    """Tell whether a FLAC's last frames, which are numbered, lie beyond the samples that it counts in the beginning."""
    file.seek(0)
    head = file.read(42)
    if head[:4] != b"fLaC" or len(head) < 42:
        return False
    largest_block = int.from_bytes(head[10:12])
    num_samples = int.from_bytes(head[18:26]) & (1 << 36) - 1
    starts = set(_flac_frame_starts(file, file_size, largest_block))
    # Compressed audio may look like a header, once in some hundred files, but not like two in a row.
    return any(start >= num_samples and starts & {start - largest_block, start + largest_block} for start in starts)


def _flac_frame_starts(file: BinaryIO, file_size: int, largest_block: int) -> Iterator[int]:
    """Yield the first sample of each frame near the end of a FLAC."""
    file.seek(max(0, file_size - FLAC_TAIL_BYTES))
    tail = file.read(FLAC_TAIL_BYTES)
    for match in FLAC_FRAME.finditer(tail):
        header = tail[match.start() : match.start() + FLAC_HEADER_BYTES]
        number = _flac_frame_number(header) if len(header) == FLAC_HEADER_BYTES else None
        if number is not None:
            yield number if header[1] & 1 else number * largest_block  # of samples, or of frames of one size


def _flac_frame_number(header: bytes) -> int | None:
    """Return the number in the header of a FLAC frame (RFC 9639, section 9.1); None where it is no header."""
    block_size, sampling_rate, first = header[2] >> 4, header[2] & 15, header[4]
    num_more = 0 if first < 0x80 else 7 - (first ^ 0xFF).bit_length()  # bytes of the number, coded as in UTF-8
    if header[3] & 1 or 0x80 <= first < 0xC0 or num_more > 6 or block_size == 0 or sampling_rate == 15:
        return None
    end = 5 + num_more + {6: 1, 7: 2}.get(block_size, 0) + {12: 1, 13: 2, 14: 2}.get(sampling_rate, 0)
    if end >= len(header) or _crc8(header[:end]) != header[end]:
        return None
    number = first & (0x7F if not num_more else 0x3F >> num_more)
    for byte in header[5 : 5 + num_more]:
        number = number << 6 | byte & 0x3F
    return number


def _crc8(data: bytes) -> int:
    """Return FLAC's checksum of a header: polynomial x^8 + x^2 + x + 1, from 0."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc << 1 ^ (0x107 if crc & 0x80 else 0)
    return crc
