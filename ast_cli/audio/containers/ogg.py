"""Length and damage of an Ogg file from its pages (RFC 3533), without decoding."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

LARGEST_PAGE_BYTES = 65_307
HEADER_PAGES = 8  # enough for three packets of headers and the first page of audio
LONGEST_PAGE_S = 31  # a page has at most 255 packets of at most 0.12 s
CHECKSUM_OFFSET = 22
# Ogg's checksum is the common CRC-32 with the bits in reverse order.
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True, slots=True)
class Page:
    """An Ogg page.

    Attributes:
        ends_stream: Whether this is the last page of its stream.
        granule: Position of the stream at the end of the page; -1 if no packet ends on the page.
        serial: Serial number of the stream.
        number: Sequence number of the page in its stream.
        content: Bytes of the page that the file contains, fewer than ``num_bytes`` if the page is cut off.
        num_bytes: Length of the page as its header states it.
    """

    ends_stream: bool
    granule: int
    serial: int
    number: int
    content: bytes
    num_bytes: int

    @property
    def body(self) -> bytes:
        """Packets of the page, without its header."""
        return self.content[27 + self.content[26] :]

    def has_valid_checksum(self) -> bool:
        """Return whether the content matches the checksum in the header."""
        (stated,) = struct.unpack_from("<I", self.content, CHECKSUM_OFFSET)
        blank = self.content[:CHECKSUM_OFFSET] + bytes(4) + self.content[CHECKSUM_OFFSET + 4 :]
        reversed_crc = zlib.crc32(blank.translate(REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF  # initial value 0
        return int(f"{reversed_crc:032b}"[::-1], 2) == int(stated)


def parse_page(data: bytes, start: int) -> Page:
    """Parse the page at ``start``.

    Raises:
        IndexError or struct.error: If the page's header is cut off.
    """
    flags, granule, serial, number = struct.unpack_from("<xxxxxBqII", data, start)
    num_segments = data[start + 26]
    lacing = data[start + 27 : start + 27 + num_segments]
    if len(lacing) < num_segments:
        raise IndexError("the page's header is cut off")
    num_bytes = 27 + num_segments + sum(lacing)
    return Page(bool(flags & 4), granule, serial, number, data[start : start + num_bytes], num_bytes)


def states_no_channels(head: bytes) -> bool:
    """Return whether the header of a Vorbis or Opus file, given its first bytes, states 0 channels."""
    channels_at = {b"OpusHea": 9, b"\x01vorbis": 11}.get(head[28:35], 0)  # after the header of a page with one packet
    return head.startswith(b"OggS") and bool(channels_at) and head[28 + channels_at : 29 + channels_at] == b"\0"


def first_pages(file: BinaryIO) -> list[Page]:
    """Return the first pages, up to `HEADER_PAGES`: those with headers and the first ones with audio."""
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
    """Return the last page.

    Raises:
        IndexError or struct.error: If the page's header is cut off.
    """
    file.seek(max(0, file_size - 2 * LARGEST_PAGE_BYTES))
    tail = file.read()
    return parse_page(tail, max(0, tail.rfind(b"OggS")))


def is_cut(file: BinaryIO, file_size: int) -> bool:
    """Return whether the last page is incomplete or is not marked as the end of its stream."""
    page = last_page(file, file_size)
    return not page.ends_stream or len(page.content) < page.num_bytes


def is_chained(file: BinaryIO, file_size: int) -> bool:
    """Return whether the first and the last page belong to different streams, as in joined files."""
    try:
        return first_pages(file)[0].serial != last_page(file, file_size).serial
    except (struct.error, IndexError):
        return False


def duration_s(file: BinaryIO, file_size: int) -> float | None:
    """Return the length in seconds of a Vorbis or Opus file from the positions in its pages.

    Returns None if the file contains more than one stream or starts in the middle of one, like recorded broadcasts.
    """
    try:
        pages, last = first_pages(file), last_page(file, file_size)
        if pages[0].body.startswith(b"\x01vorbis"):
            rate, num_skipped = struct.unpack_from("<I", pages[0].body, 12)[0], 0
        elif pages[0].body.startswith(b"OpusHead"):
            rate, num_skipped = 48000, struct.unpack_from("<H", pages[0].body, 10)[0]  # Opus always counts at 48 kHz
        else:
            return None
    except (struct.error, IndexError):
        return None
    first_granule = next((page.granule for page in pages if page.granule > 0), 0)
    starts_at_zero = 0 < first_granule <= LONGEST_PAGE_S * rate
    if last.serial != pages[0].serial or last.granule <= num_skipped or not starts_at_zero:
        return None
    return float((last.granule - num_skipped) / rate)


def is_damaged(file: BinaryIO) -> bool:
    """Return whether a page is damaged or missing, which decoders skip without an error.

    Reads the whole file, about a hundred times as fast as decoding it.
    """
    numbers: dict[int, int] = {}
    for page in _all_pages(file):
        if page is None or not page.has_valid_checksum() or numbers.setdefault(page.serial, page.number) != page.number:
            return True
        numbers[page.serial] = page.number + 1
    return False


def _all_pages(file: BinaryIO) -> Iterator[Page | None]:
    """Yield all pages, and None if other bytes lie between pages; an incomplete last page is left out."""
    file.seek(0)
    while len(head := file.read(27)) == 27:
        if not head.startswith(b"OggS"):
            if b"OggS" in file.read(4 * LARGEST_PAGE_BYTES):  # otherwise a tag after the audio
                yield None
            return
        lacing = file.read(head[26])
        body = file.read(sum(lacing))
        if len(lacing) == head[26] and len(body) == sum(lacing):
            yield parse_page(head + lacing + body, 0)
