"""Pictures and previews: times, bounds, and what is heard."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from ast_cli.audio.decode import load_waveform
from ast_cli.report_page.folding import FoldingRows
from ast_cli.report_page.pictures import TILE_COLUMNS
from ast_cli.report_page.preview import BYTES_PER_S
from ast_cli.report_page.sound import Sound, read_sounds

RATE = 16000


def sound_of(*blocks: np.ndarray, max_columns: int = 4096, max_preview_bytes: int = 1_000_000) -> Sound:
    (sound,) = read_sounds([blocks], max_columns=max_columns, max_preview_bytes=max_preview_bytes)
    return sound


def pixels(image: bytes) -> np.ndarray:
    with av.open(io.BytesIO(image), format="webp_pipe") as container:
        return next(container.decode(video=0)).to_ndarray(format="gray")


@pytest.mark.parametrize("sizes", [[1000], [1] * 300, [7, 64, 3, 500, 129]])
def test_rows_are_the_maximum_of_equal_numbers_of_added_rows(sizes: list[int]) -> None:
    added = np.random.default_rng(1).random((sum(sizes), 3)).astype(np.float32)
    folding = FoldingRows(limit=64, width=3)
    for block in np.split(added, np.cumsum(sizes)[:-1]):
        folding.add(block)
    number = folding.num_folded
    expected = [added[start : start + number].max(axis=0) for start in range(0, len(added), number)]
    assert len(folding.rows()) <= 64 + 1
    assert number & (number - 1) == 0
    np.testing.assert_allclose(folding.rows(), expected, atol=1e-3)  # kept as float16


def test_a_tone_is_where_and_when_it_sounds_in_all_that_is_made() -> None:
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    quiet = np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 1e-4
    sound = sound_of(quiet, tone, quiet)

    peaks = np.frombuffer(sound.peaks, np.uint8)
    assert sound.duration_s == 3
    assert len(peaks) * sound.peak_s == pytest.approx(3)
    assert set(np.flatnonzero(peaks > 128)) == set(range(50, 100))

    (tiles,) = sound.spectrogram
    image = pixels(tiles.images[0])
    assert image.shape == (128, 298) == (128, tiles.num_columns)
    loud = image[:, 110:190].mean(axis=1)
    assert 127 - np.argmax(loud) == pytest.approx(44, abs=1)  # the mel bin around 1 kHz, from the bottom
    assert image[:, 10:90].max() < loud.max()

    assert sound.preview is not None
    heard = load_waveform(sound.preview)
    assert heard.size / RATE == pytest.approx(3, abs=0.03)
    assert np.abs(heard[RATE + 1600 : 2 * RATE - 1600]).mean() > 50 * np.abs(heard[: RATE - 1600]).mean()


def test_long_recordings_have_bounded_pictures_and_an_overview() -> None:
    block = np.random.default_rng(0).standard_normal(RATE * 60).astype(np.float32) * 0.1
    sound = sound_of(block, block, max_columns=8192, max_preview_bytes=0)
    overview, tiles = sound.spectrogram
    assert tiles.num_columns <= 8192
    assert tiles.num_columns * tiles.column_s == pytest.approx(120, abs=0.1)
    assert overview.num_columns <= TILE_COLUMNS
    assert overview.num_columns * overview.column_s == pytest.approx(120, abs=0.2)
    assert len(tiles.images) == -(-tiles.num_columns // TILE_COLUMNS)
    assert len(sound.peaks) <= 8192
    assert sound.preview is None


def test_a_preview_takes_no_more_bytes_than_the_estimate_and_none_above_its_limit() -> None:
    noise = np.random.default_rng(0).standard_normal(RATE * 20).astype(np.float32) * 0.3
    preview = sound_of(noise).preview
    assert preview is not None
    assert len(preview) <= 20 * BYTES_PER_S
    assert sound_of(noise, max_preview_bytes=len(preview) - 1).preview is None


@pytest.mark.parametrize("num_samples", [1, 399, 400, 16001])
def test_short_recordings_have_pictures_too(num_samples: int) -> None:
    sound = sound_of(np.full(num_samples, 0.5, np.float32))
    assert sound.spectrogram[0].num_columns >= 1
    assert len(sound.peaks) >= 1
