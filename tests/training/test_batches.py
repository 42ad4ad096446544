from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from tiny_training import MAX_LENGTH, plain_options, tiny_clips, tiny_extractor

from ast_cli.dataset.examples import Example
from ast_cli.training.data.batches import (
    Clips,
    chunks,
    epoch_order,
    evaluation_windows,
    generator_for,
    target_matrix,
    training_input,
)


def test_without_augmentation_the_input_equals_that_of_the_feature_extractor() -> None:
    clips, extractor = tiny_clips(), tiny_extractor()
    batch = clips.batch(range(12), MAX_LENGTH)
    expected = extractor.input_values([torch.from_numpy(fbank) for fbank in clips.fbanks])
    found = training_input(batch, extractor, plain_options(), np.random.default_rng(0))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert torch.equal(batch.targets, torch.from_numpy(clips.targets))


def test_masks_and_noise_reach_the_input() -> None:
    clips, extractor = tiny_clips(), tiny_extractor()
    batch = clips.batch(range(12), MAX_LENGTH)
    options = plain_options(time_mask=20, frequency_mask=10, noise=0.5)
    plain = training_input(batch, extractor, plain_options(), np.random.default_rng(0))
    assert not torch.allclose(training_input(batch, extractor, options, np.random.default_rng(0)), plain)


def test_a_long_clip_is_cut_at_its_beginning_or_at_random() -> None:
    fbank = np.arange(100, dtype=np.float32)[:, None].repeat(16, axis=1)
    clips = Clips([fbank], np.ones((1, 1), np.float32), (0,))
    assert clips.batch([0], MAX_LENGTH).fbank[0, 0, 0] == 0
    starts = {clips.batch([0], MAX_LENGTH, np.random.default_rng(i)).fbank[0, 0, 0].item() for i in range(400)}
    assert starts == set(range(100 - MAX_LENGTH + 1))


def test_an_epoch_has_each_clip_once_in_an_order_of_its_own() -> None:
    clips, options = tiny_clips(30), plain_options()
    first, second = (epoch_order(clips, options, epoch) for epoch in (0, 1))
    assert sorted(first) == list(range(30))
    assert list(first) != list(second)
    assert list(epoch_order(clips, options, 1)) == list(second)
    assert list(epoch_order(clips, plain_options(seed=1), 1)) != list(second)
    assert [len(chunk) for chunk in chunks(first, 8)] == [8, 8, 8, 6]


def test_balanced_sampling_draws_rare_labels_as_often_as_common_ones() -> None:
    targets = np.zeros((100, 3), np.float32)
    targets[:90, 0] = targets[90:98, 1] = targets[98:, 2] = 1
    clips = Clips([np.zeros((1, 1), np.float32)] * 100, targets, tuple(range(100)))
    options = plain_options(balanced=True)
    drawn = np.concatenate([epoch_order(clips, options, epoch) for epoch in range(60)])
    fractions = targets[drawn].mean(axis=0)
    np.testing.assert_allclose(fractions, 1 / 3, atol=0.03)  # 6000 draws: three standard deviations are 0.018
    assert len(epoch_order(clips, options, 0)) == 100


def test_balanced_sampling_weighs_as_the_original_does_and_draws_clips_without_labels() -> None:
    targets = np.array([[1, 0], [1, 0], [1, 1], [0, 0], [0, 0]], np.float32)
    clips = Clips([np.zeros((1, 1), np.float32)] * 5, targets, tuple(range(5)))
    drawn = np.concatenate([epoch_order(clips, plain_options(balanced=True), epoch) for epoch in range(1500)])
    weights = np.array([1 / 3, 1 / 3, 1 / 3 + 1, 1 / 2, 1 / 2])  # sum over labels of 1 / count; none is a label too
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), weights / weights.sum(), atol=0.025)


def starts(num_frames: int) -> list[int]:
    """Return the starts of the windows: without overlap, the last one moved back to the end, as in `ast classify`."""
    last = max(0, num_frames - MAX_LENGTH)
    return sorted({*range(0, last + 1, MAX_LENGTH), last})


def test_every_window_comes_once_with_its_clip() -> None:
    clips = tiny_clips(9, longest=100)
    owners, frames = [], []
    for numbers, batch in evaluation_windows(clips, MAX_LENGTH, 3):
        assert len(numbers) <= 3
        owners += list(numbers)
        frames += [batch.fbank[i, : batch.num_frames[i]].numpy() for i in range(len(numbers))]
        np.testing.assert_array_equal(batch.targets, clips.targets[numbers])
    expected = [
        (i, fbank[start : start + MAX_LENGTH]) for i, fbank in enumerate(clips.fbanks) for start in starts(len(fbank))
    ]
    assert owners == [i for i, _ in expected]
    for found, (_, window) in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(found, window)


def test_targets_hold_every_label_of_an_example() -> None:
    examples = [Example("a", ("x", "z")), Example("b", ()), Example("c", ("y",))]
    np.testing.assert_array_equal(target_matrix(examples, ["x", "y", "z"]), [[1, 0, 1], [0, 0, 0], [0, 1, 0]])


def test_draws_differ_by_epoch_batch_purpose_and_seed() -> None:
    options = plain_options()
    keys = [
        (options, 0, 1, 0),
        (options, 1, 1, 0),
        (options, 0, 0, 0),
        (options, 0, 1, 1),
        (plain_options(seed=5), 0, 1, 0),
    ]
    assert len({generator_for(*key).integers(2**63) for key in keys}) == 5
    assert generator_for(*keys[0]).integers(2**63) == generator_for(*keys[0]).integers(2**63)


def test_windows_that_are_scaled_by_themselves_are_never_cut() -> None:
    clips, length = tiny_clips(1), 10
    fbank = np.repeat(np.arange(3, dtype=np.float32), length)[:, None] * np.ones((1, 5), np.float32)  # three windows
    clips = replace(clips, fbanks=[fbank])
    drawn = {
        tuple(clips.batch([0], MAX_LENGTH, np.random.default_rng(i), length).fbank[0, :length, 0].tolist())
        for i in range(60)
    }
    assert drawn == {(number,) * length for number in (0.0, 1.0, 2.0)}
    ((owners, batch),) = evaluation_windows(clips, MAX_LENGTH, 8, length)
    assert owners.tolist() == [0, 0, 0]
    assert batch.fbank.shape[1] == MAX_LENGTH
    assert batch.fbank[:, :length, 0].unique(dim=1).flatten().tolist() == [0, 1, 2]
    assert not batch.frame_mask[:, length:].any()
