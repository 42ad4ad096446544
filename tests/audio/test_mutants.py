"""Mutants of small valid files decode or are refused: no other exception, no hang, no crash, samples always finite."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from audio_files import RATE
from mutants import mutant, small_files

from ast_cli.audio.decode import open_audio
from ast_cli.errors import AudioError

NUM_MUTANTS = 500
SEED = 20210405
LONGEST_S = 3600.0  # no mutant of a quarter of a second may decode to an hour


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
    assert 0 < len(messages) < 3 * NUM_MUTANTS // 4  # some mutants decode and some do not


@pytest.mark.parametrize("index", range(8))
def test_the_original_files_of_the_mutants_are_intact(tmp_path: Path, index: int) -> None:
    path = tmp_path / "whole.bin"
    path.write_bytes(small_files(tmp_path)[index])
    with open_audio(path) as stream:
        num_samples = sum(block.size for block in stream)
        assert stream.warnings == set()
    assert num_samples == pytest.approx(0.25 * RATE, abs=900)  # WMA loses its first frame
