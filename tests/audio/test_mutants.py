"""Mutants of small valid files decode or are refused: no other exception, no hang, no crash, samples always finite."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from audio_files import RATE, sound, write_by_ffmpeg, write_sound

from ast_cli.audio.decode import open_audio
from ast_cli.errors import AudioError

NUM_MUTANTS = 304
SEED = 20210405
LONGEST_S = 3600.0  # no mutant of a quarter of a second may unfold to an hour


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


@pytest.mark.timeout(40)
def test_mutants_decode_or_are_refused(tmp_path: Path) -> None:
    files, draw = small_files(tmp_path), np.random.default_rng(SEED)
    path = tmp_path / "mutant.bin"
    messages = []
    for index in range(NUM_MUTANTS):
        path.write_bytes(mutant(files, draw, index))
        try:
            with open_audio(path) as stream:
                for block in stream:
                    assert np.isfinite(block).all(), index
                    assert stream.duration_s < LONGEST_S, index
        except AudioError as error:
            messages.append(str(error))
    assert [message for message in messages if not message.startswith(f"{path}: ")] == []
    assert 0 < len(messages) < 3 * NUM_MUTANTS // 4  # the damage is neither nothing nor everything


@pytest.mark.parametrize("index", range(8))
def test_the_files_the_mutants_are_made_of_are_whole(tmp_path: Path, index: int) -> None:
    path = tmp_path / "whole.bin"
    path.write_bytes(small_files(tmp_path)[index])
    with open_audio(path) as stream:
        num_samples = sum(block.size for block in stream)
        assert stream.warnings == set()
    assert num_samples == pytest.approx(0.25 * RATE, abs=900)  # WMA loses its first frame
