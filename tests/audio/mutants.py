"""Small valid files of eight kinds, and damage to them, reproducible by seed and independent of their number."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from audio_files import sound, write_by_ffmpeg, write_sound


def small_files(folder: Path) -> list[bytes]:
    samples = sound(0.25)
    paths = [
        write_sound(folder / "a.wav", samples),
        write_sound(folder / "a.flac", samples),
        write_sound(folder / "a.mp3", samples),
        write_sound(folder / "a.ogg", samples),
        write_sound(folder / "a.aiff", samples),
        write_by_ffmpeg(folder / "a.m4a", samples),
        write_by_ffmpeg(folder / "a.webm", sound(0.25, 48000), 48000, "libopus"),
        write_by_ffmpeg(folder / "a.wma", sound(0.25, 44100), 44100, "wmav2", "asf", bit_rate=64_000),
    ]
    return [path.read_bytes() for path in paths]


def mutant(files: list[bytes], draw: np.random.Generator, index: int) -> bytes:
    """Return a file with some damage: one of five kinds, in the header more often than elsewhere."""
    content = bytearray(files[index % len(files)])
    at = int(draw.integers(0, min(200, len(content))) if draw.random() < 0.5 else draw.integers(0, len(content)))
    kind = draw.integers(0, 5)
    if kind == 0:  # flipped bits
        for offset in {at, *draw.integers(0, len(content), 8).tolist()}:
            content[offset] ^= 1 << int(draw.integers(0, 8))
    elif kind == 1:  # cut off
        del content[at:]
    elif kind == 2:  # a size overwritten
        number = int(draw.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 65_536]))
        content[at : at + 4] = struct.pack("<I" if draw.random() < 0.5 else ">I", number)
    elif kind == 3:  # a piece of another file
        other = files[int(draw.integers(0, len(files)))]
        start = int(draw.integers(0, len(other)))
        content[at : at + 300] = other[start : start + int(draw.integers(1, 600))]
    else:  # random bytes
        content[at : at + 16] = draw.bytes(16)
    return bytes(content)
