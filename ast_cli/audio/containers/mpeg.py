"""Length, bit rates and sampling rates of an MP3 (ISO/IEC 11172-3, 13818-3) from its frames, without decoding."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

MAX_TAGS = 8
SEARCH_BYTES = 8192
SYNC = re.compile(rb"\xff[\xe0-\xff]")
XING_OFFSETS = (36, 21, 13, 38, 23, 15)  # by MPEG version and channels; two bytes later if the frame has a checksum
VBRI_OFFSET = 36  # from the start of the frame; Fraunhofer's encoder always writes it there
NUM_PLACES = 64  # number of places in a file at which the bit rate is read
NUM_IN_A_ROW = 3  # so many headers, each at the position that the previous one gives, are not a coincidence

# Layer III: bit rates in kbit/s by index, for MPEG 1 and for MPEG 2 and 2.5; sampling rates by version bits and index.
BIT_RATES = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
SAMPLING_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


@dataclass(frozen=True, slots=True)
class Mp3Length:
    """Length of an MP3 as its first frame states it.

    Attributes:
        num_samples: Number of samples per channel after decoding.
        end_byte: Offset in the file where the audio ends, or None if the frame does not state it.
    """

    num_samples: int
    end_byte: int | None


def mp3_length(file: BinaryIO) -> Mp3Length | None:
    """Return the length in an MP3's Xing, Info or VBRI frame, or None if there is no such frame.

    Without such a frame, the length is not stated, only estimated from the bit rate. Samples that the encoder added at
    the start and at the end are not counted if LAME wrote their number, as decoders drop them.
    """
    start = audio_start(file)
    file.seek(start)
    head = file.read(SEARCH_BYTES)
    for found in SYNC.finditer(head):  # the first match may be junk
        length = _length_in(head[found.start() :], start + found.start())
        if length is not None:
            return length
    return None


def audio_start(file: BinaryIO) -> int:
    """Return the offset in bytes where the audio starts, after the ID3v2 tags."""
    start = 0
    for _ in range(MAX_TAGS):
        file.seek(start)
        head = file.read(10)
        if head[:3] != b"ID3" or len(head) < 10:
            break
        start += 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])  # 7 bits per byte
        start += 10 if head[5] & 0x10 else 0  # a footer
    return start


def changes_bit_rate(file: BinaryIO, file_size: int) -> bool:
    """Return whether frames across the file differ in kind, so that the first bit rate does not give the length."""
    return len(_kinds(file, file_size, NUM_PLACES)) > 1


def sampling_rates(file: BinaryIO, file_size: int) -> set[int]:
    """Return the sampling rates in Hz of frames across the file; empty if no frames of layer III are found."""
    kinds = _kinds(file, file_size, NUM_PLACES // 8)
    return {SAMPLING_RATES[first >> 3 & 3][second >> 2 & 3] for first, second in kinds}


def _kinds(file: BinaryIO, file_size: int, num_places: int) -> set[tuple[int, int]]:
    """Return the kinds of the frames at evenly spaced places; their number does not depend on the file's size."""
    start = audio_start(file)
    step = max(1, (file_size - start) // num_places)
    return {kind for place in range(start, file_size, step) if (kind := _kind_at(file, place)) is not None}


def _kind_at(file: BinaryIO, place: int) -> tuple[int, int] | None:
    """Return the header bits of the first frame after a place: version and layer, bit rate and sampling rate.

    Returns None if there are no frames.
    """
    file.seek(place)
    content = file.read(SEARCH_BYTES)
    for found in SYNC.finditer(content):
        position = found.start()
        for _ in range(NUM_IN_A_ROW):
            num_bytes = _frame_bytes(content[position : position + 4])
            position += num_bytes
            if not num_bytes:
                break
        else:
            header = content[found.start() : found.start() + 4]
            return header[1] & 0xFE, header[2] & 0xFC  # without the bits for checksum and padding
    return None


def _frame_bytes(header: bytes) -> int:
    """Return the length in bytes of a frame of layer III from its header of 4 bytes; 0 if the header is not valid."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return 0
    version, rate_index, hz_index = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or rate_index in (0, 15) or hz_index == 3:
        return 0
    kbits = BIT_RATES[version != 3][rate_index]
    return (144 if version == 3 else 72) * kbits * 1000 // SAMPLING_RATES[version][hz_index] + (header[2] >> 1 & 1)


def _length_in(frame: bytes, start: int) -> Mp3Length | None:
    """Return the length in a Xing, Info or VBRI frame that starts at byte ``start``, or None if it is another frame."""
    frame_samples = 1152 if frame[1] & 0x18 == 0x18 else 576  # MPEG 1; MPEG 2 and 2.5
    if frame.startswith(b"VBRI", VBRI_OFFSET) and len(frame) >= VBRI_OFFSET + 18:
        num_bytes, num_frames = struct.unpack_from(">II", frame, VBRI_OFFSET + 10)
        padding = 0
    else:
        tag = next((frame[offset:] for offset in XING_OFFSETS if frame.startswith((b"Xing", b"Info"), offset)), b"")
        if len(tag) < 16 or not tag[7] & 1:
            return None
        num_frames, num_bytes = struct.unpack_from(">II", tag, 8)
        padding = _lame_padding(tag)
        num_bytes = num_bytes if tag[7] & 2 else 0
    if not num_frames:
        return None
    return Mp3Length(max(0, num_frames * frame_samples - padding), start + num_bytes if num_bytes else None)


def _lame_padding(tag: bytes) -> int:
    """Return the number of samples that the encoder added, from LAME's part of a Xing frame: two 12-bit numbers."""
    flags = tag[7]
    lame = 8 + 4 * bool(flags & 1) + 4 * bool(flags & 2) + 100 * bool(flags & 4) + 4 * bool(flags & 8)
    field = tag[lame + 21 : lame + 24]
    if not tag[lame : lame + 4].isalnum() or len(field) < 3:  # no name of an encoder
        return 0
    both = int.from_bytes(field)
    return (both >> 12) + (both & 0xFFF)
