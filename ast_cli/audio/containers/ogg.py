"""What the pages of an Ogg file (RFC 3533) tell about its length and its damage, without decoding."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

LARGEST_PAGE_BYTES = 65_307
HEADER_PAGES = 8  # up to three packets of headers, and the first page of audio
LONGEST_PAGE_S = 31  # 255 packets of at most 0.12 s
CHECKSUM_OFFSET = 22
# Ogg's checksum is the usual CRC-32 with all bits in the other order.
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True, slots=True)
class Page:
    """A page.

    Attributes:
        ends_stream: Whether its stream ends with it.
        granule: Position of the stream at the page's end, -1 where no packet ends on it.
        serial: Which stream.
        number: Of the page in its stream.
        content: All its bytes that are there.
        num_bytes: How many it should have.
    """

    ends_stream: bool
    granule: int
    serial: int
    number: int
    content: bytes
    num_bytes: int

    @property
    def body(self) -> bytes:
        """Its packets."""
        return self.content[27 + self.content[26] :]

    def is_sound(self) -> bool:
        """Tell whether the page has the checksum it states."""
        (stated,) = struct.unpack_from("<I", self.content, CHECKSUM_OFFSET)
        blank = self.content[:CHECKSUM_OFFSET] + bytes(4) + self.content[CHECKSUM_OFFSET + 4 :]
        reversed_crc = zlib.crc32(blank.translate(REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF  # starts from 0
        return int(f"{reversed_crc:032b}"[::-1], 2) == int(stated)


def parse_page(data: bytes, start: int) -> Page:
    """Parse the page at ``start``; IndexError or struct.error where its header is cut."""
    flags, granule, serial, number = struct.unpack_from("<xxxxxBqII", data, start)
    num_segments = data[start + 26]
    lacing = data[start + 27 : start + 27 + num_segments]
    if len(lacing) < num_segments:
        raise IndexError("the page's header is cut")
    num_bytes = 27 + num_segments + sum(lacing)
    return Page(bool(flags & 4), granule, serial, number, data[start : start + num_bytes], num_bytes)


def states_no_channels(head: bytes) -> bool:
    """Tell by its first bytes whether a file of Vorbis or Opus says that it has no channels."""
    channels_at = {b"OpusHea": 9, b"\x01vorbis": 11}.get(head[28:35], 0)  # behind a page's header of one packet
    return head.startswith(b"OggS") and bool(channels_at) and head[28 + channels_at : 29 + channels_at] == b"\0"


def first_pages(file: BinaryIO) -> list[Page]:
    """Return the pages that hold the headers, and the first of audio, as far as they are there."""
    file.seek(0)
    head = file.read(HEADER_PAGES * LARGEST_PAGE_BYTES)
    pages: list[Page] = []
    start = 0
    while len(pages) < HEADER_PAGES and head.startswith(b"OggS", start):
        try:
            pages.append(parse_page(head, start))
        except (struct.error, IndexError):
            break
        start += pages[-1].num_bytes
    return pages


def last_page(file: BinaryIO, file_size: int) -> Page:
    """Return the last page; IndexError or struct.error where its header is cut."""
    file.seek(max(0, file_size - 2 * LARGEST_PAGE_BYTES))
    tail = file.read()
    return parse_page(tail, max(0, tail.rfind(b"OggS")))


def is_cut(file: BinaryIO, file_size: int) -> bool:
    """Tell whether the last page is incomplete, or does not end its stream."""
    page = last_page(file, file_size)
    return not page.ends_stream or len(page.content) < page.num_bytes


def is_chained(file: BinaryIO, file_size: int) -> bool:
    """Tell whether the file ends in another stream than it begins with: files that were joined."""
    try:
        return first_pages(file)[0].serial != last_page(file, file_size).serial
    except (struct.error, IndexError):
        return False


def duration_s(file: BinaryIO, file_size: int) -> float | None:
    """Return the seconds of audio that the positions in a file of Vorbis or Opus add up to.

    None where there is more than one stream, or the file starts in the middle of one, as recorded broadcasts do.
    """
    try:
        pages, last = first_pages(file), last_page(file, file_size)
        if pages[0].body.startswith(b"\x01vorbis"):
            rate, num_skipped = struct.unpack_from("<I", pages[0].body, 12)[0], 0
        elif pages[0].body.startswith(b"OpusHead"):
            rate, num_skipped = 48000, struct.unpack_from("<H", pages[0].body, 10)[0]  # Opus counts at 48 kHz always
        else:
            return None
    except (struct.error, IndexError):
        return None
    began = next((page.granule for page in pages if page.granule > 0), 0)
    if last.serial != pages[0].serial or last.granule <= num_skipped or not 0 < began <= LONGEST_PAGE_S * rate:
        return None
    return float((last.granule - num_skipped) / rate)


def is_damaged(file: BinaryIO) -> bool:
    """Tell whether a page is broken or missing: decoders step over the gap and say nothing.

    Reads the whole file, about a hundred times as fast as it is decoded.
    """
    numbers: dict[int, int] = {}
    for page in _all_pages(file):
        if page is None or not page.is_sound() or numbers.setdefault(page.serial, page.number) != page.number:
            return True
        numbers[page.serial] = page.number + 1
    return False


def _all_pages(file: BinaryIO) -> Iterator[Page | None]:
    """Yield page after page, None for bytes between pages that are none; a last page that is cut is left out."""
    file.seek(0)
    while len(head := file.read(27)) == 27:
        if not head.startswith(b"OggS"):
            if b"OggS" in file.read(4 * LARGEST_PAGE_BYTES):  # else a tag behind the audio
                yield None
            return
        lacing = file.read(head[26])
        body = file.read(sum(lacing))
        if len(lacing) == head[26] and len(body) == sum(lacing):
            yield parse_page(head + lacing + body, 0)
