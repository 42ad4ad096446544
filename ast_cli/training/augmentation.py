"""Augmentation of log-mel spectrograms: random changes that keep the labels valid, or mix clips with their labels.

All functions work on a whole batch at once. Random numbers come from a NumPy generator that the caller seeds for each
batch, so that any batch can be reproduced: an interrupted run continues exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ast_cli.training.options import TrainOptions

LOG_FLOOR = math.log(torch.finfo(torch.float32).eps)  # value of the filter bank for zero energy


@dataclass(frozen=True)
class Batch:
    """A batch of clips.

    Attributes:
        fbank: Log-mel energies, shape (batch, num_frames, num_mel_bins); frames after the end of a clip are undefined.
        num_frames: Number of frames of each clip, int64, shape (batch,).
        targets: Fraction of each label, float32, shape (batch, num_labels).
    """

    fbank: Tensor
    num_frames: Tensor
    targets: Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        tensors = (self.fbank, self.num_frames, self.targets)
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in tensors))

    @property
    def frame_mask(self) -> Tensor:
        """Mask of the frames that belong to the clips: bool, shape (batch, num_frames, 1)."""
        frames = torch.arange(self.fbank.shape[1], device=self.fbank.device)
        return (frames < self.num_frames[:, None])[..., None]


def augment(batch: Batch, options: TrainOptions, rng: np.random.Generator) -> Batch:
    """Apply the augmentations of the options to log-mel energies.

    The order follows a real recording: stretch, shift, frequency response and loudness change a single clip, then clips
    are mixed. Masks and noise come later, in `ast_cli.training.data.batches.training_input`.
    """
    if options.stretch:
        batch = stretch(batch, options.stretch, rng)
    if options.time_shift:
        batch = shift_in_time(batch, options.time_shift, rng)
    if options.filter_db:
        batch = change_response(batch, options.filter_db, rng)
    if options.gain_db:
        batch = change_gain(batch, options.gain_db, rng)
    if options.mixup:
        batch = mixup(batch, options.mixup, options.mixup_alpha, rng)
    return batch


def stretch(batch: Batch, most: float, rng: np.random.Generator) -> Batch:
    """Play each clip faster or slower, and move its frequencies up or down, by independent factors.

    A clip keeps its length: a slower clip loses its end, a faster one starts over. Frequencies move along the mel
    scale: bin b takes the value of bin b * factor, or of the last bin if that is beyond it. Both factors are
    log-uniform between 1 / (1 + most) and 1 + most, similar to the sizes of the random resize crop of BYOL-A (Niizumi
    et al., 2021), which come from an interval around 1.
    """
    num_clips, num_frames, num_bins = batch.fbank.shape
    factors = np.exp(rng.uniform(-1, 1, (2, num_clips)) * math.log1p(most)).astype(np.float32)
    fbank, is_empty = _without_empty_bins(batch)
    of_time = torch.arange(num_frames, device=fbank.device) * _to(factors[0], fbank)[:, None]
    fbank = _interpolate(fbank, of_time % batch.num_frames[:, None], (batch.num_frames - 1)[:, None])
    of_frequency = torch.arange(num_bins, device=fbank.device) * _to(factors[1], fbank)[:, None]
    last_bin = torch.full_like(of_frequency, num_bins - 1)
    fbank = _interpolate(fbank.transpose(1, 2), of_frequency.minimum(last_bin), last_bin).transpose(1, 2)
    fbank = torch.where(is_empty, LOG_FLOOR, fbank)
    return replace(batch, fbank=torch.where(batch.frame_mask, fbank, batch.fbank))


def _without_empty_bins(batch: Batch) -> tuple[Tensor, Tensor]:
    """Replace each bin in which no clip has energy by the bin below; also return a mask of these bins.

    At 16 kHz one of the 128 filters lies between two points of the spectrum and is always empty.
    """
    is_empty = ((batch.fbank <= LOG_FLOOR) | ~batch.frame_mask).all(dim=1).all(dim=0)
    below = batch.fbank.roll(1, dims=2)
    return torch.where(is_empty, below, batch.fbank), is_empty


def _interpolate(fbank: Tensor, places: Tensor, last: Tensor) -> Tensor:
    """Interpolate along dimension 1 at ``places``, float32 of shape (batch, size), clamped to ``last``."""
    rows = torch.arange(len(fbank), device=fbank.device)[:, None]
    before = places.long().minimum(last.long())
    after = (before + 1).minimum(last.long())
    return torch.lerp(fbank[rows, before], fbank[rows, after], (places - before)[..., None])


def shift_in_time(batch: Batch, farthest: int, rng: np.random.Generator) -> Batch:
    """Shift each clip circularly by up to ``farthest`` frames, within its own length."""
    shifts = _to(rng.integers(-farthest, farthest + 1, len(batch.fbank)), batch.fbank)
    frames = torch.arange(batch.fbank.shape[1], device=batch.fbank.device)
    sources = torch.where(
        frames < batch.num_frames[:, None], (frames - shifts[:, None]) % batch.num_frames[:, None], frames
    )
    rows = torch.arange(len(batch.fbank), device=batch.fbank.device)[:, None]
    return replace(batch, fbank=batch.fbank[rows, sources])


def change_response(batch: Batch, most_db: float, rng: np.random.Generator) -> Batch:
    """Apply a random frequency response to each clip, as another microphone or room would.

    Gains are uniform at three to six frequencies, including the lowest and the highest, and linear in between. This is
    the linear type of FilterAugment (Nam et al., 2022), which has three to six bands. Floors are as in `change_gain`.
    """
    num_clips, _, num_bins = batch.fbank.shape
    gains_db = np.empty((num_clips, num_bins), np.float32)
    for row in gains_db:
        inner = np.sort(rng.choice(np.arange(1, num_bins - 1), rng.integers(1, 5), replace=False))
        points = [0, *inner, num_bins - 1]
        row[:] = np.interp(np.arange(num_bins), points, rng.uniform(-most_db, most_db, len(points)))
    return _amplified(batch, gains_db[:, None])


def change_gain(batch: Batch, most_db: float, rng: np.random.Generator) -> Batch:
    """Change the loudness of each clip: a factor of the waveform is a summand of the log energies.

    Bins without energy stay empty; values below the floor of the filter bank are clamped to it.
    """
    gains_db = rng.uniform(-most_db, most_db, len(batch.fbank)).astype(np.float32)
    return _amplified(batch, gains_db[:, None, None])


def _amplified(batch: Batch, gains_db: NDArray[np.float32]) -> Batch:
    """Add gains to the log energies; their shape broadcasts to (batch, num_frames, num_mel_bins)."""
    terms = _to(gains_db, batch.fbank) * (math.log(10) / 10)
    terms = torch.where(batch.fbank > LOG_FLOOR, terms, 0.0)
    return replace(batch, fbank=(batch.fbank + terms).clamp_(min=LOG_FLOOR))


def mixup(batch: Batch, fraction: float, alpha: float, rng: np.random.Generator) -> Batch:
    """Mix a fraction of the clips with another clip of the batch, and their labels likewise.

    The original mixes waveforms: l x + (1 - l) y, with l from Beta(alpha, alpha). For unrelated sounds the expected
    power of this mixture is l² X + (1 - l)² Y, which is computed here from the log energies. As in the original, the
    mixture has the length of the first clip, the second clip is silent after its end, and labels are mixed l to 1 - l.
    """
    num_clips = len(batch.fbank)
    is_mixed = rng.random(num_clips) < fraction
    weights = np.where(is_mixed, rng.beta(alpha, alpha, num_clips), 1.0).astype(np.float32)
    partners = rng.permutation(num_clips)
    first, second = _to(weights, batch.fbank), _to(1 - weights, batch.fbank)
    mixed = _to(np.flatnonzero(is_mixed), batch.fbank)
    if not len(mixed):
        return batch
    others = _to(partners, batch.fbank)[mixed]
    other_fbank = batch.fbank[others].masked_fill_(~batch.frame_mask[others], -torch.inf)
    fbank = batch.fbank.clone()
    fbank[mixed] = torch.logaddexp(
        fbank[mixed] + 2 * first[mixed].log()[:, None, None], other_fbank + 2 * second[mixed].log()[:, None, None]
    ).clamp_(min=LOG_FLOOR)
    targets = batch.targets.clone()
    targets[mixed] = first[mixed, None] * targets[mixed] + second[mixed, None] * batch.targets[others]
    return replace(batch, fbank=fbank, targets=targets)


def mask(fbank: Tensor, options: TrainOptions, rng: np.random.Generator, value: float) -> Tensor:
    """Mask bands of frequencies and spans of time (SpecAugment, Park et al., 2019).

    As in torchaudio's FrequencyMasking and TimeMasking, which the original uses, the width is uniform from 0 to the
    widest mask, and the position is uniform over those that fit. As in the original, the value is that of padding.

    Args:
        fbank: Log-mel energies, shape (batch, num_frames, num_mel_bins).
        options: Options with the number of masks and their largest widths.
        rng: Source of random numbers.
        value: Value of the masked places.
    """
    for _ in range(options.num_masks):
        for dim, widest in ((2, options.frequency_mask), (1, options.time_mask)):
            if widest:
                fbank = fbank.masked_fill(_bands(fbank, dim, widest, rng), value)
    return fbank


def _bands(fbank: Tensor, dim: int, widest: int, rng: np.random.Generator) -> Tensor:
    """Draw one band per clip: bool, True inside the band, of size 1 along the other dimension."""
    size = fbank.shape[dim]
    widths = rng.random(len(fbank)) * min(widest, size)
    starts = rng.random(len(fbank)) * (size - widths)
    begin = _to(starts.astype(np.int64), fbank)[:, None]
    end = begin + _to(widths.astype(np.int64), fbank)[:, None]
    places = torch.arange(size, device=fbank.device)
    return ((places >= begin) & (places < end)).unsqueeze(1 if dim == 2 else 2)


def add_noise(input_values: Tensor, most: float, rng: np.random.Generator) -> Tensor:
    """Add uniform noise to the normalized input, as the original does for Speech Commands.

    The result is ``input_values + U(0, 1) * a``, with one a from U(0, most) per clip.
    """
    amounts = _to((rng.random(len(input_values)) * most).astype(np.float32), input_values)
    generator = torch.Generator(input_values.device).manual_seed(int(rng.integers(2**63)))
    noise = torch.rand(input_values.shape, generator=generator, device=input_values.device)
    return input_values + noise * amounts[:, None, None]


def kept_tokens(num_clips: int, num_patches: int, fraction_dropped: float, rng: np.random.Generator) -> Tensor:
    """Draw the patches to keep, at least one per clip: sorted indices, int64, shape (num_clips, num_kept)."""
    num_kept = max(1, round(num_patches * (1 - fraction_dropped)))
    order = np.argsort(rng.random((num_clips, num_patches)), axis=1)[:, :num_kept]
    return torch.from_numpy(np.sort(order, axis=1))


def _to(array: NDArray[np.generic], like: Tensor) -> Tensor:
    return torch.from_numpy(array).to(like.device)
