from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from ast_cli.audio.fbank.blocks import fbank_blocks
from ast_cli.audio.fbank.kaldi_bank import KaldiBank
from ast_cli.audio.fbank.mel_bank import mel_filter_bank
from ast_cli.audio.overview import Overview, OverviewBuilder, _Columns

CONFIG = KaldiBank()


def overview_of(waveform: NDArray[np.float32], block_size: int, max_columns: int = 2048) -> Overview:
    builder = OverviewBuilder(CONFIG, max_columns=max_columns)
    for start in range(0, len(waveform), block_size):
        builder.add(waveform[start : start + block_size])
    return builder.overview(0.0, len(waveform) / CONFIG.sampling_rate)


@pytest.mark.parametrize("block_size", [1, 7, 64, 1000])
@pytest.mark.parametrize("num_rows", [1, 5, 8, 37, 64, 1000])
def test_columns_are_the_sums_of_their_rows(rng: np.random.Generator, num_rows: int, block_size: int) -> None:
    rows = rng.integers(0, 9, (num_rows, 3)).astype(np.float64)
    columns = _Columns(np.add, 2, 8)
    for start in range(0, num_rows, block_size):
        columns.add(rows[start : start + block_size])
    per_column = 2 * 2 ** max(0, math.floor(math.log2(num_rows / 2 / 8)) + 1) if num_rows >= 16 else 2
    assert columns.rows_per_column == per_column
    expected = [rows[start : start + per_column].sum(axis=0) for start in range(0, num_rows, per_column)]
    np.testing.assert_array_equal(columns.columns(), expected)
    assert columns.counts().sum() == num_rows
    assert len(columns.counts()) <= 8


def test_a_short_recording_keeps_its_frames_and_samples(rng: np.random.Generator) -> None:
    waveform = (0.1 * rng.standard_normal(16_000)).astype(np.float32)
    overview = overview_of(waveform, 1234)
    (fbank,) = fbank_blocks([waveform], CONFIG, "numpy")
    np.testing.assert_allclose(overview.log_energies, fbank, atol=1e-4)  # float32 energies, to float64 and back
    assert (overview.column_s, overview.envelope_column_s) == (0.01, 0.001)
    np.testing.assert_array_equal(overview.highest, waveform.reshape(-1, 16).max(axis=1))
    np.testing.assert_array_equal(overview.lowest, waveform.reshape(-1, 16).min(axis=1))


def test_a_long_recording_has_the_mean_energy_and_the_range_of_each_column(rng: np.random.Generator) -> None:
    waveform = (0.1 * rng.standard_normal(5 * 16_000)).astype(np.float32)
    overview = overview_of(waveform, 3200, max_columns=64)
    fbank = np.concatenate(list(fbank_blocks([waveform], CONFIG, "numpy")))  # 498 frames
    per_column = round(overview.column_s / 0.01)
    assert per_column == 8
    expected = [np.log(np.exp(fbank[i : i + 8].astype(float)).mean(axis=0)) for i in range(0, len(fbank), 8)]
    np.testing.assert_allclose(overview.log_energies, expected, atol=1e-4)
    assert len(overview.highest) <= 64
    assert overview.highest.max() == waveform.max()
    assert overview.lowest.min() == waveform.min()


def test_memory_is_constant_for_a_recording_of_any_length() -> None:
    builder = OverviewBuilder(CONFIG, max_columns=128)
    for _ in range(200):
        builder.add(np.zeros(16_000, np.float32))
    overview = builder.overview(0.0, 200.0)
    assert 64 <= len(overview.log_energies) < 128
    assert 64 <= len(overview.lowest) < 128
    assert overview.column_s * len(overview.log_energies) == pytest.approx(200, abs=overview.column_s)


def test_a_recording_shorter_than_a_frame_has_one_column() -> None:
    overview = overview_of(np.full(100, 0.5, np.float32), 100)
    assert overview.log_energies.shape == (1, 128)
    assert overview.highest.tolist() == [0.5] * 7  # columns of 16 samples, the last of 4


def test_frequencies_are_at_the_filters_that_have_them() -> None:
    overview = overview_of(np.zeros(400, np.float32), 400)
    bank = mel_filter_bank(CONFIG)
    for hz in (1000, 3000, 6000):
        assert abs(overview.bin_of(hz) - bank[:, round(hz / (16_000 / 512))].argmax()) <= 1
