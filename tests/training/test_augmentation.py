from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ast_cli import ASTFeatureExtractor
from ast_cli.training.augmentation import (
    LOG_FLOOR,
    Batch,
    add_noise,
    augment,
    change_gain,
    change_response,
    kept_tokens,
    mask,
    mixup,
    shift_in_time,
    stretch,
)
from ast_cli.training.options import TrainOptions

NUM_CLIPS, NUM_FRAMES, NUM_BINS = 6, 40, 12


def draws(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def batch() -> Batch:
    """Clips of different lengths, with absurd values after their ends, which must not matter."""
    fbank = torch.from_numpy(draws(5).normal(-6, 2, (NUM_CLIPS, NUM_FRAMES, NUM_BINS)).astype(np.float32))
    num_frames = torch.tensor([40, 10, 25, 40, 7, 31])
    is_valid = torch.arange(NUM_FRAMES) < num_frames[:, None]
    return Batch(torch.where(is_valid[..., None], fbank, 777.0), num_frames, torch.eye(NUM_CLIPS))


def frames_of(batch: Batch, i: int) -> Tensor:
    return batch.fbank[i, : batch.num_frames[i]]


def test_a_shift_is_circular_within_each_clip(batch: Batch) -> None:
    shifted = shift_in_time(batch, 100, draws(3))
    shifts = draws(3).integers(-100, 101, NUM_CLIPS)
    for i, shift in enumerate(shifts):
        np.testing.assert_array_equal(frames_of(shifted, i), np.roll(frames_of(batch, i), shift, axis=0))
    assert torch.equal(shifted.targets, batch.targets)


def test_stretching_scales_time_and_frequencies_within_each_clip(batch: Batch) -> None:
    stretched = stretch(batch, 0.5, draws(3))
    factors = 1.5 ** draws(3).uniform(-1, 1, (2, NUM_CLIPS))
    assert factors.min() < 0.8 < 1.25 < factors.max()
    for i, (of_time, of_frequency) in enumerate(factors.T):
        clip = frames_of(batch, i).numpy()
        times = np.arange(len(clip)) * of_time % len(clip)
        bins = np.arange(NUM_BINS) * of_frequency
        in_time = np.stack([np.interp(times, np.arange(len(clip)), column) for column in clip.T], axis=1)
        expected = np.stack([np.interp(bins, np.arange(NUM_BINS), row) for row in in_time])
        np.testing.assert_allclose(frames_of(stretched, i), expected, atol=2e-4)
        assert (stretched.fbank[i, batch.num_frames[i] :] == 777.0).all()
    assert torch.equal(stretched.targets, batch.targets)


def test_stretching_keeps_an_empty_filter_empty_and_out_of_its_neighbors() -> None:
    fbank = torch.from_numpy(draws(1).normal(-2, 0.5, (8, 30, 128)).astype(np.float32))
    fbank[..., 3] = LOG_FLOOR
    stretched = stretch(Batch(fbank, torch.full((8,), 30), torch.eye(8)), 0.3, draws(2)).fbank
    assert (stretched[..., 3] == np.float32(LOG_FLOOR)).all()
    assert stretched[..., [*range(3), *range(4, 128)]].min() > -5


def test_a_frequency_response_is_a_constant_gain_per_frequency(batch: Batch) -> None:
    loud = Batch(batch.fbank + 10, batch.num_frames, batch.targets)  # far from the floor
    terms_db = (change_response(loud, 6.0, draws(3)).fbank - loud.fbank).numpy() * (10 / math.log(10))
    np.testing.assert_allclose(terms_db, np.broadcast_to(terms_db[:, :1], terms_db.shape), atol=1e-3)
    gains_db = terms_db[:, 0]  # (clips, bins)
    assert 3 < np.abs(gains_db).max() < 6.001
    assert np.ptp(gains_db, axis=1).min() > 1  # no mere change of loudness
    num_bends = (np.abs(np.diff(gains_db, 2, axis=1)) > 1e-2).sum(axis=1)
    assert 1 <= num_bends.min() <= num_bends.max() <= 4


def test_a_gain_equals_scaling_the_waveform() -> None:
    extractor = ASTFeatureExtractor(num_mel_bins=32)
    waveforms = torch.from_numpy(draws(1).normal(0, 0.05, (4, 8000)).astype(np.float32))
    fbank = extractor.fbank(waveforms)
    batch = Batch(fbank, torch.full((4,), fbank.shape[1]), torch.eye(4))
    changed = change_gain(batch, 9.0, draws(2))
    gains_db = torch.from_numpy(draws(2).uniform(-9, 9, 4).astype(np.float32))
    expected = extractor.fbank(waveforms * 10 ** (gains_db[:, None] / 20))
    torch.testing.assert_close(changed.fbank, expected, atol=1e-3, rtol=0)  # float32 logarithms around -6
    assert gains_db.abs().max() > 3


def test_silence_stays_silent_and_the_floor_holds() -> None:
    fbank = torch.tensor([LOG_FLOOR, LOG_FLOOR + 0.5, -3.0]).repeat(64, 1, 1)
    changed = change_gain(Batch(fbank, torch.ones(64), torch.eye(64)), 20.0, draws()).fbank
    assert (changed[:, 0, 0] == np.float32(LOG_FLOOR)).all()
    assert changed.min() >= np.float32(LOG_FLOOR)
    assert changed[:, 0, 2].max() > -1


def test_mixing_log_energies_equals_mixing_waveforms_of_unrelated_sounds() -> None:
    """The mean power of l x + (1 - l) y over time equals the one computed from the log energies."""
    extractor = ASTFeatureExtractor(num_mel_bins=24)
    rng = draws(4)
    quiet_at_the_top = np.convolve(rng.standard_normal(160_000), np.ones(8) / 8, "same")
    waveforms = torch.from_numpy(np.stack([0.3 * quiet_at_the_top, 0.02 * rng.standard_normal(160_000)]))
    fbank = extractor.fbank(waveforms.float())
    batch = Batch(fbank, torch.full((2,), fbank.shape[1]), torch.eye(2))
    mixed = next(
        found
        for seed in range(50)
        if not torch.equal((found := mixup(batch, 1.0, 10.0, draws(seed))).targets, batch.targets)
    )
    for i in range(2):
        first, second = mixed.targets[i, i].item(), mixed.targets[i, 1 - i].item()
        assert 0.1 < first < 0.9
        assert first + second == pytest.approx(1)
        waveform = first * waveforms[i] + second * waveforms[1 - i]
        expected = extractor.fbank(waveform.float()[None])[0].exp().mean(dim=0).log()
        found = mixed.fbank[i].exp().mean(dim=0).log()
        torch.testing.assert_close(found, expected, atol=0.1, rtol=0)  # random deviation of a mean over 998 frames
        assert (expected - fbank[i].exp().mean(dim=0).log()).abs().max() > 0.5  # mixing is far from doing nothing


def test_labels_are_mixed_like_the_sounds_for_the_requested_fraction_of_clips(batch: Batch) -> None:
    mixed = mixup(batch, 0.5, 1.0, draws(8))
    rng = draws(8)
    is_mixed = rng.random(NUM_CLIPS) < 0.5
    weights, partners = rng.beta(1, 1, NUM_CLIPS), rng.permutation(NUM_CLIPS)
    assert 0 < is_mixed.sum() < NUM_CLIPS
    for i in range(NUM_CLIPS):
        fraction = weights[i] if is_mixed[i] else 1.0
        expected = fraction * np.eye(NUM_CLIPS)[i] + (1 - fraction) * np.eye(NUM_CLIPS)[partners[i]]
        np.testing.assert_allclose(mixed.targets[i], expected, atol=1e-6)
        if not is_mixed[i]:
            assert torch.equal(mixed.fbank[i], batch.fbank[i])


def test_the_second_clip_is_silent_after_its_end(batch: Batch) -> None:
    mixed = mixup(batch, 1.0, 10.0, draws(1))
    rng = draws(1)
    rng.random(NUM_CLIPS)
    weights, partners = rng.beta(10, 10, NUM_CLIPS), rng.permutation(NUM_CLIPS)
    pairs = [(i, j) for i, j in enumerate(partners) if batch.num_frames[j] < batch.num_frames[i]]
    assert pairs
    for i, j in pairs:
        alone = slice(int(batch.num_frames[j]), int(batch.num_frames[i]))
        expected = (batch.fbank[i, alone] + 2 * math.log(weights[i])).clamp(min=LOG_FLOOR)
        torch.testing.assert_close(mixed.fbank[i, alone], expected, atol=1e-5, rtol=0)


def test_a_fraction_of_zero_mixes_nothing(batch: Batch) -> None:
    assert mixup(batch, 0.0, 10.0, draws()) is batch


def band_widths(masked: Tensor, dim: int) -> Tensor:
    return (masked == 99.0).all(dim=3 - dim).sum(dim=1)


@pytest.mark.parametrize(("dim", "widest", "options"), [(2, 8, {"frequency_mask": 8}), (1, 20, {"time_mask": 20})])
def test_masks_are_one_band_of_uniform_width_and_place(dim: int, widest: int, options: dict[str, int]) -> None:
    """As torchaudio's FrequencyMasking and TimeMasking: width floor(U(0, widest)), start floor(U(0, size - width))."""
    num_clips, size = 4000, (NUM_FRAMES, NUM_BINS)[dim - 1]
    masked = mask(torch.zeros(num_clips, NUM_FRAMES, NUM_BINS), TrainOptions(**options), draws(), 99.0)
    widths = band_widths(masked, dim)
    counts = np.bincount(widths, minlength=widest)
    assert widths.max() == widest - 1
    expected = num_clips / widest
    assert np.abs(counts - expected).max() < 5 * math.sqrt(expected)
    is_hidden = (masked == 99.0).all(dim=3 - dim)
    assert (is_hidden.int().diff(dim=1).abs().sum(dim=1) <= 2).all()  # one stretch
    assert is_hidden.any(dim=0)[: size - 1].all()  # nearly anywhere
    assert set(masked.unique().tolist()) == {0.0, 99.0}


def test_the_requested_number_of_masks_is_drawn(batch: Batch) -> None:
    one, two = (
        (mask(batch.fbank, TrainOptions(time_mask=10, num_masks=n), draws(), 99.0) == 99.0).sum() for n in (1, 2)
    )
    assert two > one > 0
    assert mask(batch.fbank, TrainOptions(), draws(), 99.0) is batch.fbank


def test_noise_is_uniform_between_zero_and_its_amplitude(batch: Batch) -> None:
    values = torch.zeros(500, 20, 20)
    noisy = add_noise(values, 0.4, draws())
    amounts = noisy.amax(dim=(1, 2))
    assert noisy.min() >= 0
    assert 0.35 < amounts.max() <= 0.4
    assert amounts.mean().item() == pytest.approx(0.2, abs=0.03)
    torch.testing.assert_close(noisy.mean(dim=(1, 2)), amounts / 2, atol=0.02, rtol=0)


def test_kept_tokens_are_sorted_distinct_and_random() -> None:
    kept = kept_tokens(2000, 20, 0.5, draws()).numpy()
    assert kept.shape == (2000, 10)
    assert (np.diff(kept, axis=1) > 0).all()
    fractions = np.bincount(kept.ravel(), minlength=20) / 2000
    np.testing.assert_allclose(fractions, 0.5, atol=0.06)
    assert kept_tokens(1, 20, 0.95, draws()).shape == (1, 1)
    assert kept_tokens(1, 3, 0.95, draws()).shape == (1, 1)  # never none


def test_the_same_seed_gives_the_same_batch_and_another_seed_another(batch: Batch) -> None:
    options = TrainOptions(mixup=0.8, gain_db=6.0, time_shift=9, stretch=0.2, filter_db=6.0)
    first, again, other = (augment(batch, options, draws(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.fbank, again.fbank)
    assert torch.equal(first.targets, again.targets)
    assert not torch.equal(first.fbank, other.fbank)
    assert augment(batch, TrainOptions(), draws()) is batch
