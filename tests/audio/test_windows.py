"""Windows are exact slices of one long fbank, independent of the blocks in which it arrives."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ast_cli import ASTFeatureExtractor
from ast_cli.audio.fbank.mel_bank import FbankConfig
from ast_cli.audio.fbank.torch_fbank import FBANK_BACKENDS, log_mel_fbank
from ast_cli.audio.windows import (
    AudioWindow,
    hop_frames_of,
    slice_waveform,
    slice_waveform_at,
    slice_windows,
    spread_starts,
    thinned,
)
from ast_cli.errors import UsageError

NUM_MEL_BINS = 2


def numbered_frames(num_frames: int) -> NDArray[np.float32]:
    """Return frames whose values are their own index."""
    return np.repeat(np.arange(num_frames, dtype=np.float32)[:, None], NUM_MEL_BINS, axis=1)


def in_blocks(rows: NDArray[np.float32], seed: int, largest: int) -> Iterator[NDArray[np.float32]]:
    draw = np.random.default_rng(seed)
    start = 0
    while start < len(rows):
        size = int(draw.integers(0, largest + 1))
        yield rows[start : start + size]
        start += size


def plain_starts(num_frames: int, max_length: int, hop_frames: int) -> list[int]:
    """Return the expected starts of windows, computed without a stream."""
    if num_frames == 0:
        return []
    if num_frames <= max_length:
        return [0]
    starts = list(range(0, num_frames - max_length + 1, hop_frames))
    end = num_frames - max_length
    return starts if starts[-1] == end else [*starts, end]


@pytest.mark.parametrize("max_length", [1, 2, 7, 16])
@pytest.mark.parametrize("largest_block", [1, 5, 40])
def test_windows_equal_plain_slices_for_every_length_and_hop(max_length: int, largest_block: int) -> None:
    for num_frames in range(3 * max_length + 4):
        fbank = numbered_frames(num_frames)
        for hop_frames in range(1, max_length + 1):
            blocks = in_blocks(fbank, seed=num_frames * 100 + hop_frames, largest=largest_block)
            windows = list(slice_windows(blocks, max_length, hop_frames))
            starts = plain_starts(num_frames, max_length, hop_frames)
            assert [window.start_frame for window in windows] == starts, (num_frames, hop_frames)
            for window, start in zip(windows, starts, strict=True):
                np.testing.assert_array_equal(window.content, fbank[start : start + max_length])


@pytest.mark.parametrize("seed", range(20))
def test_windows_equal_plain_slices_for_long_recordings(seed: int) -> None:
    draw = np.random.default_rng(seed)
    max_length = int(draw.choice([128, 512, 1024]))
    num_frames, hop_frames = int(draw.integers(1, 20_000)), int(draw.integers(10, max_length + 1))
    fbank = numbered_frames(num_frames)
    windows = list(slice_windows(in_blocks(fbank, seed, largest=3000), max_length, hop_frames))
    assert [window.start_frame for window in windows] == plain_starts(num_frames, max_length, hop_frames)
    for window in windows:
        np.testing.assert_array_equal(window.content, fbank[window.start_frame : window.start_frame + max_length])


@pytest.mark.parametrize("seed", range(60))
def test_windows_of_the_waveform_contain_the_samples_of_the_windows_of_its_fbank(seed: int) -> None:
    draw = np.random.default_rng(seed)
    config, max_length = FbankConfig(), int(draw.choice([1, 7, 64]))
    num_samples, hop_frames = int(draw.integers(400, 40_000)), int(draw.integers(1, max_length + 1))
    waveform = np.arange(num_samples, dtype=np.float32)
    windows = list(slice_waveform(in_blocks(waveform, seed, largest=9_000), config, max_length, hop_frames))
    starts = plain_starts(config.num_frames(num_samples), max_length, hop_frames)
    assert [window.start_frame for window in windows] == starts
    num_frames = min(max_length, config.num_frames(num_samples))
    for window in windows:
        expected = waveform[window.start_frame * 160 :][: config.num_samples(num_frames)]
        np.testing.assert_array_equal(window.content, expected)


@pytest.mark.parametrize("num_samples", [1, 399])
def test_a_waveform_shorter_than_a_frame_is_padded_to_one(num_samples: int) -> None:
    (window,) = slice_waveform([np.ones(num_samples, np.float32)], FbankConfig(), 64, 64)
    np.testing.assert_array_equal(window.content, [1.0] * num_samples + [0.0] * (400 - num_samples))


def test_an_empty_waveform_has_no_windows() -> None:
    assert list(slice_waveform([np.zeros(0, np.float32)], FbankConfig(), 64, 64)) == []


def test_overlapping_windows_share_the_frames_of_one_long_fbank(monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = ASTFeatureExtractor(num_mel_bins=32, max_length=64)
    waveform = (0.1 * np.random.default_rng(0).standard_normal(40_000)).astype(np.float32)
    computed = list[int]()

    def counted(waveforms: torch.Tensor, config: FbankConfig) -> torch.Tensor:
        fbank = log_mel_fbank(waveforms, config)
        computed.append(fbank.shape[1])
        return fbank

    with monkeypatch.context() as patched:
        patched.setitem(FBANK_BACKENDS, "native", counted)
        windows = list(slice_windows(extractor.fbank_blocks(in_blocks(waveform, 0, largest=9_000)), 64, 5))
    num_frames = extractor.fbank_config.num_frames(waveform.size)
    assert sum(computed) == num_frames  # each frame once, though a window every 5 frames reads it 13 times
    assert len(windows) == len(plain_starts(num_frames, 64, 5))
    for window in windows:  # and each frame as if the window's samples had been given alone
        samples = waveform[window.start_frame * 160 :][: extractor.fbank_config.num_samples(64)]
        alone = extractor.fbank(torch.from_numpy(samples)[None])[0].numpy()
        np.testing.assert_allclose(window.content, alone, atol=5e-4)


def test_the_last_window_ends_on_the_last_frame() -> None:
    windows = list(slice_windows([numbered_frames(2500)], 1024, 1024))
    assert [(window.start_frame, len(window.content)) for window in windows] == [(0, 1024), (1024, 1024), (1476, 1024)]
    assert windows[-1].content[-1, 0] == 2499


def test_a_short_recording_is_one_short_window() -> None:
    (window,) = slice_windows([numbered_frames(10), numbered_frames(10)], 1024, 1024)
    assert (window.start_frame, window.content.shape) == (0, (20, NUM_MEL_BINS))


def test_no_frames_give_no_windows() -> None:
    assert list(slice_windows([], 1024, 1024)) == []
    assert list(slice_windows([numbered_frames(0)], 1024, 1024)) == []


def test_earlier_windows_do_not_change_while_the_stream_continues() -> None:
    fbank = numbered_frames(500)
    windows = list(slice_windows(in_blocks(fbank, 0, 30), 64, 16))
    for window in windows:
        np.testing.assert_array_equal(window.content, fbank[window.start_frame : window.start_frame + 64])


def test_memory_does_not_grow_with_the_recording() -> None:
    def peak_bytes(num_blocks: int) -> int:
        tracemalloc.start()
        for _ in slice_windows((np.zeros((400, 128), np.float32) for _ in range(num_blocks)), 1024, 512):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    short, long = peak_bytes(10), peak_bytes(300)
    assert long <= 1.1 * short  # 40 s and 20 min of audio
    assert long < 5 * 1024 * 128 * 4  # a window, the joined frames, and what is kept of them


@pytest.mark.parametrize(
    ("hop_s", "hop_frames"),
    [(None, 1024), (10.24, 1024), (5.12, 512), (1, 100), (0.01, 1), (0.0149, 1), (0.0151, 2), (10.2449, 1024)],
)
def test_a_hop_is_rounded_to_whole_frames(hop_s: float | None, hop_frames: int) -> None:
    assert hop_frames_of(hop_s, 1024, 10) == hop_frames


@pytest.mark.parametrize("hop_s", [0, 0.004, -1, 10.25, 11, math.inf, -math.inf, math.nan, 1e300])
def test_an_invalid_hop_is_refused(hop_s: float) -> None:
    with pytest.raises(UsageError) as raised:
        hop_frames_of(hop_s, 1024, 10)
    assert str(raised.value) == f"--hop must be from 0.01 s to the model's window of 10.24 s, not {hop_s:g} s"


@pytest.mark.parametrize(
    ("num_frames", "num_windows", "starts"),
    [(1000, 1, [450]), (1000, 3, [175, 450, 725]), (301, 3, [0, 100, 201]), (300, 3, None), (99, 1, None)],
)
def test_windows_are_spread_with_equal_gaps(num_frames: int, num_windows: int, starts: list[int] | None) -> None:
    assert spread_starts(num_frames, 100, num_windows) == starts


@pytest.mark.parametrize("seed", range(40))
def test_windows_at_certain_frames_contain_the_samples_of_these_frames(seed: int) -> None:
    draw = np.random.default_rng(seed)
    config, max_length = FbankConfig(), int(draw.choice([1, 7, 64]))
    waveform = np.arange(int(draw.integers(20_000, 90_000)), dtype=np.float32)
    last = config.num_frames(waveform.size) - max_length
    starts = sorted(set(draw.integers(0, last + 1, int(draw.integers(1, 9))).tolist()))
    windows = list(slice_waveform_at(in_blocks(waveform, seed, largest=9_000), config, max_length, starts))
    assert [window.start_frame for window in windows] == starts
    for window in windows:
        expected = waveform[window.start_frame * 160 :][: config.num_samples(max_length)]
        np.testing.assert_array_equal(window.content, expected)


@pytest.mark.parametrize("seed", range(20))
def test_a_window_that_the_recording_does_not_fill_ends_with_it(seed: int) -> None:
    waveform = np.arange(50_000 + seed * 37, dtype=np.float32)  # a header promised more
    windows = list(slice_waveform_at(in_blocks(waveform, seed, 7_000), FbankConfig(), 64, [10, 280, 500, 900]))
    last = FbankConfig().num_frames(waveform.size) - 64
    assert [window.start_frame for window in windows] == [10, min(280, last), *([last] if last > 280 else [])]
    (short,) = slice_waveform_at([waveform[:3000]], FbankConfig(), 64, [500])
    assert (short.start_frame, short.content.size) == (0, FbankConfig().num_samples(17))


@pytest.mark.parametrize(("total", "num_windows"), [(3, 5), (5, 5), (6, 5), (100, 3), (1000, 3), (777, 10), (50, 1)])
def test_windows_of_a_recording_of_unknown_length_are_nearly_even(total: int, num_windows: int) -> None:
    content = np.zeros((1, 1), np.float32)
    chosen = thinned((AudioWindow(start, content) for start in range(total)), num_windows)
    places = spread_starts(total, 1, num_windows) or list(range(total))
    assert len(chosen) == len(places)
    tolerance = total / (4 * num_windows)  # half of the distance between windows that are kept
    assert all(abs(window.start_frame - place) <= tolerance for window, place in zip(chosen, places, strict=True))


def test_spread_windows_of_a_long_recording_need_little_memory() -> None:
    def peak_bytes(num_blocks: int) -> int:
        tracemalloc.start()
        blocks = (np.zeros(16_000, np.float32) for _ in range(num_blocks))
        num_windows = len(list(slice_waveform_at(blocks, FbankConfig(), 1024, [num_blocks * 50])))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert num_windows == 1
        return peak

    assert peak_bytes(2000) <= 1.2 * peak_bytes(100)
