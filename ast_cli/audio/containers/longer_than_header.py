"""Detection of files that contain more audio than their headers state.

Such files were joined, have a size that wrapped at 4 GiB, or come from a recorder that lost power. No check decodes
anything, and the number of bytes that a check reads does not grow with the file.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO

from ast_cli.audio.containers import ogg
from ast_cli.audio.containers.lengths import STREAMED_SIZES, UNKNOWN_SIZES, chunks
from ast_cli.audio.containers.mpeg import audio_start, changes_bit_rate, mp3_length

CHUNK_NAME = re.compile(rb"[ -~]{4}")
# Names of metadata that writers append after the samples. Such bytes are not audio, even if the metadata is cut off,
# lacks its padding or has a wrong size.
METADATA_NAMES = (
    "LIST|id3 |ID3 |bext|iXML|axml|chna|_PMX|cue |smpl|inst|fact|PEAK|JUNK|junk|PAD |FLLR|afsp|DISP|acid|SNDM"  # WAV
    "|COMM|INST|MARK|NAME|AUTH|ANNO|(c) |APPL|MIDI|COMT|CHAN"  # AIFF
    "|desc|free|info|pakt|chan|mark|strg|kuki|uuid|edct|ovvw|peak|midi|umid"  # CAF
    "|ID3|TAG|APET|LYRI|<?xp"  # tags without a chunk
)
METADATA = tuple(name.encode() for name in METADATA_NAMES.split("|"))
# By container: name of the chunk with the samples, then offset of the first chunk, layout and padding as in `chunks`.
CHUNKS_OF_SAMPLES = {
    "WAV": (b"data", 12, "<4sI", 1),
    "AIFF": (b"SSND", 12, ">4sI", 1),
    "CAF": (b"data", 8, ">4sq", 0),
}
NEGLIGIBLE_BYTES = 4096  # after the audio
MAX_PADDING_BYTES = 1 << 20
FLAC_TAIL_BYTES = 1 << 18
FLAC_HEADER_BYTES = 16  # maximum length of a frame's header
FLAC_FRAME = re.compile(rb"\xff[\xf8\xf9]")
FLAC_BLOCK_SIZES = {
    1: 192,
    **{code: 576 << code - 2 for code in range(2, 6)},
    **{code: 1 << code for code in range(8, 16)},
}


def exceeds_header(file: BinaryIO, file_size: int, format_name: str) -> bool:
    """Return whether a file contains much more audio than its header states, none of which libsndfile reads.

    Args:
        file: File opened for reading; its position changes.
        file_size: Size of the file in bytes.
        format_name: Format as libsndfile detected it.
    """
    check = _CHECKS.get(format_name)
    return check is not None and check(file, file_size)


def chunks_exceed_header(file: BinaryIO, file_size: int, format_name: str) -> bool:
    """Return the same for AIFF and CAF, where FFmpeg does not read the additional audio either."""
    return format_name in ("AIFF", "CAF") and _num_bytes_after_samples(file, file_size, format_name) >= NEGLIGIBLE_BYTES


def riff_exceeds_header(file: BinaryIO, file_size: int) -> bool:
    """Return whether a WAV contains any samples beyond the size that it states."""
    file.seek(0)
    return file.read(4) in (b"RIFF", b"RF64") and _num_bytes_after_samples(file, file_size, "WAV") > 0


def _riff_far_exceeds_header(file: BinaryIO, file_size: int) -> bool:
    return _num_bytes_after_samples(file, file_size, "WAV") >= NEGLIGIBLE_BYTES


def _num_bytes_after_samples(file: BinaryIO, file_size: int, container: str) -> int:
    """Return the number of bytes of samples after the chunk with the samples: 0, or all bytes to the end of file."""
    samples, first, layout, padding = CHUNKS_OF_SAMPLES[container]
    end = 0
    try:
        for chunk in chunks(file, file_size, first, layout, padding):
            if chunk.name == samples:
                end = chunk.start + chunk.size + (chunk.size & padding)
                if end >= file_size or _is_metadata(file, end):
                    return 0
            elif end and chunk.start + chunk.size in (file_size, file_size + 1):
                return 0  # a chunk that ends with the file is a chunk, whatever its name
            elif end and not (CHUNK_NAME.fullmatch(chunk.name) and chunk.start + chunk.size <= file_size):
                break
        else:
            return 0
    except struct.error:  # fewer bytes than a chunk's header: too few samples to matter
        return 0
    return 0 if _is_padding(file, end, file_size) else file_size - end


def _is_metadata(file: BinaryIO, end: int) -> bool:
    """Return whether known metadata begins after the samples, or one byte earlier if the writer omitted the padding."""
    file.seek(end - 1)
    following = file.read(5)
    return following.startswith(METADATA) or following[1:].startswith(METADATA)


def _is_padding(file: BinaryIO, start: int, end: int) -> bool:
    """Return whether the end of a file is padding, all zeros or all ones; a longer run of them may be silence."""
    file.seek(start)
    return end - start <= MAX_PADDING_BYTES and set(file.read(end - start)) in ({0x00}, {0xFF})


def _mp3_exceeds_header(file: BinaryIO, file_size: int) -> bool:
    """Return whether an MP3 is much longer than its first frame states, or may be longer than its bit rate implies."""
    length = mp3_length(file)
    if length is None:
        return changes_bit_rate(file, file_size)
    return length.end_byte is not None and file_size > length.end_byte + NEGLIGIBLE_BYTES


def _au_exceeds_header(file: BinaryIO, file_size: int) -> bool:
    """Return whether an AU contains more samples than it states; the format allows nothing after the samples."""
    file.seek(0)
    head = file.read(12)
    if len(head) < 12:
        return False
    offset, size = struct.unpack(">II", head[4:])
    if size in UNKNOWN_SIZES or size in STREAMED_SIZES or file_size < offset + size + NEGLIGIBLE_BYTES:
        return False
    return not _is_metadata(file, offset + size) and not _is_padding(file, offset + size, file_size)


def _flac_exceeds_header(file: BinaryIO, file_size: int) -> bool:
    """Return whether the numbers of a FLAC's last frames lie beyond the number of samples that its header states."""
    file.seek(audio_start(file))
    head = file.read(42)
    if len(head) < 42:
        return False
    largest_block = int.from_bytes(head[10:12])
    num_samples = int.from_bytes(head[18:26]) & (1 << 36) - 1
    frames = set(_flac_frames(file, file_size, largest_block))
    ends = {start + size for start, size in frames}
    starts = {start for start, _ in frames}
    # Compressed audio may look like a frame's header, in one of some hundred files, but not like two in a row.
    return any(start >= num_samples and (start in ends or start + size in starts) for start, size in frames)


def _flac_frames(file: BinaryIO, file_size: int, largest_block: int) -> Iterator[tuple[int, int]]:
    """Yield the first sample and the number of samples of each frame near the end of a FLAC."""
    file.seek(max(0, file_size - FLAC_TAIL_BYTES))
    tail = file.read(FLAC_TAIL_BYTES)
    for match in FLAC_FRAME.finditer(tail):
        header = tail[match.start() : match.start() + FLAC_HEADER_BYTES]
        found = _flac_number_and_size(header) if len(header) == FLAC_HEADER_BYTES else None
        if found is not None:
            number, size = found
            yield (
                number if header[1] & 1 else number * largest_block,
                size,
            )  # the number counts samples, or frames of one size


def _flac_number_and_size(header: bytes) -> tuple[int, int] | None:
    """Return number and block size of a FLAC frame (RFC 9639, section 9.1), or None if the header is not valid."""
    block_code, rate_code, first = header[2] >> 4, header[2] & 15, header[4]
    num_more = (
        0 if first < 0x80 else 7 - (first ^ 0xFF).bit_length()
    )  # further bytes of the number, encoded as in UTF-8
    if header[3] & 1 or 0x80 <= first < 0xC0 or num_more > 6 or block_code == 0 or rate_code == 15:
        return None
    size_at = 5 + num_more
    size_end = size_at + {6: 1, 7: 2}.get(block_code, 0)
    end = size_end + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if end >= len(header) or _crc8(header[:end]) != header[end]:
        return None
    number = first & (0x7F if not num_more else 0x3F >> num_more)
    for byte in header[5:size_at]:
        number = number << 6 | byte & 0x3F
    return number, FLAC_BLOCK_SIZES.get(block_code) or int.from_bytes(header[size_at:size_end]) + 1


def _crc8(data: bytes) -> int:
    """Return FLAC's checksum of a header: polynomial x^8 + x^2 + x + 1, initial value 0."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc << 1 ^ (0x107 if crc & 0x80 else 0)
    return crc


_CHECKS: dict[str, Callable[[BinaryIO, int], bool]] = {
    "OGG": ogg.is_chained,
    "MP3": _mp3_exceeds_header,
    "FLAC": _flac_exceeds_header,
    "AU": _au_exceeds_header,
    "WAV": _riff_far_exceeds_header,
    "WAVEX": _riff_far_exceeds_header,
    "RF64": _riff_far_exceeds_header,
}
