"""Batches of training clips, and windows for evaluation, from stored spectrograms.

All random draws are functions of (seed, epoch, batch), so that a resumed run needs no state of a random generator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.audio.windows import AudioWindow, slice_windows
from ast_cli.dataset.examples import Example
from ast_cli.training import augmentation
from ast_cli.training.augmentation import Batch
from ast_cli.training.data.window_targets import WindowTargets
from ast_cli.training.options import TrainOptions

ORDER_DRAWS, BATCH_DRAWS = 0, 1  # purpose of a generator, which is part of its seed


class Fbanks(Protocol):
    """Log-mel energies by index, each float32 of shape (num_frames, num_mel_bins): a FeatureStore or a list."""

    def __getitem__(self, index: int, /) -> NDArray[np.float32]:
        """Return the log-mel energies of one clip."""
        ...


@dataclass(frozen=True)
class Clips:
    """Labeled spectrograms: a subset of all clips of the data.

    Attributes:
        fbanks: Log-mel energies of all clips of the data.
        targets: Fraction of each label in all clips of the data, float32, shape (num_all, num_labels).
        indices: Indices of the clips of this subset.
        windows: Targets of parts of the clips, where a teacher has scored their windows; None if every part of a clip
            has the targets of the whole clip.
        truth: What predictions are compared with, in the shape of the targets; None for the targets.
    """

    fbanks: Fbanks
    targets: NDArray[np.float32]
    indices: tuple[int, ...]
    windows: WindowTargets | None = None
    truth: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        """Return the number of clips in this subset."""
        return len(self.indices)

    def own_targets(self) -> NDArray[np.float32]:
        """Return the targets of this subset, shape (num_clips, num_labels)."""
        return self.targets[list(self.indices)]

    def own_truth(self) -> NDArray[np.float32]:
        """Return what predictions for this subset are compared with, shape (num_clips, num_labels)."""
        return (self.targets if self.truth is None else self.truth)[list(self.indices)]

    def part_targets(self, index: int, start: int, end: int) -> NDArray[np.float32]:
        """Return the targets of the frames from ``start`` to ``end`` of one clip of the data, shape (num_labels,)."""
        return self.targets[index] if self.windows is None else self.windows.part_targets(index, start, end)

    def batch(
        self,
        chosen: Sequence[int],
        max_length: int,
        rng: np.random.Generator | None = None,
        scaled_window_frames: int | None = None,
    ) -> Batch:
        """Stack clips, each cut to ``max_length`` frames: at its beginning, or with ``rng`` at a random position.

        With ``scaled_window_frames``, a clip consists of windows of that length, of which one is taken.
        """
        indices = [self.indices[i] for i in chosen]
        fbanks = [self.fbanks[index] for index in indices]
        longest, step = scaled_window_frames or max_length, scaled_window_frames or 1
        num_frames = np.array([min(len(fbank), longest) for fbank in fbanks])
        array = np.zeros((len(fbanks), max_length, fbanks[0].shape[1]), np.float32)
        targets = np.zeros((len(fbanks), self.targets.shape[1]), np.float32)
        for i, (index, fbank, length) in enumerate(zip(indices, fbanks, num_frames.tolist(), strict=True)):
            num_starts = (len(fbank) - length) // step + 1
            start = 0 if rng is None or num_starts == 1 else step * int(rng.integers(num_starts))
            array[i, :length] = fbank[start : start + length]
            targets[i] = self.part_targets(index, start, start + length)
        return Batch(torch.from_numpy(array), torch.from_numpy(num_frames), torch.from_numpy(targets))


def target_matrix(examples: Sequence[Example], labels: Sequence[str], dtype: Any = np.float32) -> NDArray[Any]:
    """Return a matrix with 1 where an example has a label, else 0: shape (num_examples, num_labels)."""
    columns = {label: i for i, label in enumerate(labels)}
    targets = np.zeros((len(examples), len(labels)), dtype)
    for row, example in zip(targets, examples, strict=True):
        row[[columns[label] for label in example.labels]] = 1
    return targets


def generator_for(options: TrainOptions, epoch: int, purpose: int, batch: int = 0) -> np.random.Generator:
    """Return the random generator for the order of an epoch, or for one batch."""
    return np.random.default_rng([options.seed, purpose, epoch, batch])


def epoch_order(clips: Clips, options: TrainOptions, epoch: int) -> NDArray[np.int64]:
    """Return the clips of an epoch in order: each clip once, or with ``balanced`` drawn by the rarity of its labels.

    The weight of a clip is the sum over its labels of 1 / (clips with that label), as in the sampler of the original.
    Having no label counts as one more label, so that clips without labels are drawn too. With soft targets a clip has
    each label to the degree of its target, and no label to the degree that the highest one leaves.
    """
    rng = generator_for(options, epoch, ORDER_DRAWS)
    if not options.balanced:
        return rng.permutation(len(clips))
    targets = clips.own_targets().astype(np.float64)
    targets = np.column_stack([targets, np.maximum(1 - targets.max(axis=1), 0)])
    weights = targets @ (1 / np.maximum(targets.sum(axis=0), 1))
    return rng.choice(len(clips), len(clips), p=weights / weights.sum())


def chunks(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Split the order of an epoch into batches; the last one may be smaller."""
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def augmented(batch: Batch, extractor: FeatureExtractor, options: TrainOptions, rng: np.random.Generator) -> Batch:
    """Augment a batch: its energies are changed as natural logarithms, whatever the front end makes of them."""
    as_logarithms = replace(batch, fbank=extractor.log_energies_of(batch.fbank))
    changed = augmentation.augment(as_logarithms, options, rng)
    return batch if changed is as_logarithms else replace(changed, fbank=extractor.fbank_of(changed.fbank))


def training_input(
    batch: Batch, extractor: FeatureExtractor, options: TrainOptions, rng: np.random.Generator
) -> Tensor:
    """Return the model input for an augmented batch: padded, masked, normalized, and with noise.

    Returns:
        Input values, shape (batch, max_length, num_mel_bins).
    """
    fbank = torch.where(batch.frame_mask, batch.fbank, extractor.padding_value)
    fbank = augmentation.mask(fbank, options, rng, extractor.padding_value)
    input_values = extractor.normalized(fbank)
    return augmentation.add_noise(input_values, options.noise, rng) if options.noise else input_values


def evaluation_windows(
    clips: Clips, max_length: int, batch_size: int, scaled_window_frames: int | None = None
) -> Iterator[tuple[NDArray[np.int64], Batch]]:
    """Yield all windows of all clips in batches, each batch with the clip number of every window.

    Windows do not overlap, except that the last one is moved back to end with the clip, as in ``ast classify``. With
    ``scaled_window_frames``, a clip consists of windows of that length already.
    """
    cut = scaled_window_frames or max_length
    owners: list[int] = []
    windows: list[AudioWindow] = []
    for i, index in enumerate(clips.indices):
        for window in slice_windows([clips.fbanks[index]], cut, cut):
            owners.append(i)
            windows.append(window)
            if len(windows) == batch_size:
                yield np.array(owners), _stacked(windows, clips, owners, max_length)
                owners, windows = [], []
    if windows:
        yield np.array(owners), _stacked(windows, clips, owners, max_length)


def _stacked(windows: list[AudioWindow], clips: Clips, owners: list[int], max_length: int) -> Batch:
    array = np.zeros((len(windows), max_length, windows[0].content.shape[1]), np.float32)
    targets = np.zeros((len(windows), clips.targets.shape[1]), np.float32)
    num_frames = torch.tensor([len(window.content) for window in windows])
    for i, (window, owner) in enumerate(zip(windows, owners, strict=True)):
        array[i, : len(window.content)] = window.content
        end = window.start_frame + len(window.content)
        targets[i] = clips.part_targets(clips.indices[owner], window.start_frame, end)
    return Batch(torch.from_numpy(array), num_frames, torch.from_numpy(targets))
