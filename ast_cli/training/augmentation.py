"""Changes to a batch of log-mel spectrograms that leave its labels true, or mix both.

All work on the whole batch at once. The draws come from a NumPy generator that the caller seeds for each batch, so that
a batch can be made again: that is what lets an interrupted run go on exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ast_cli.training.options import TrainOptions

LOG_FLOOR = math.log(torch.finfo(torch.float32).eps)  # what the filter bank gives for no energy at all


@dataclass(frozen=True)
class Batch:
    """Clips that are trained on together.

    Attributes:
        fbank: Log-mel energies, shape (batch, num_frames, num_mel_bins); what lies behind a clip's end counts for
            nothing.
        num_frames: Of each clip, int64, shape (batch,).
        targets: Share of each label, float32, shape (batch, num_labels).
    """

    fbank: Tensor
    num_frames: Tensor
    targets: Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        tensors = (self.fbank, self.num_frames, self.targets)
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in tensors))

    @property
    def is_heard(self) -> Tensor:
        """Tell which frames belong to the clips: bool, shape (batch, num_frames, 1)."""
        frames = torch.arange(self.fbank.shape[1], device=self.fbank.device)
        return (frames < self.num_frames[:, None])[..., None]


def augment(batch: Batch, options: TrainOptions, rng: np.random.Generator) -> Batch:
    """Apply what the options ask for to log-mel energies, in the order in which it happens to a sound.

    Shift and loudness belong to a single clip, mixing to two, masks to what is shown of the mixture.
    """
    if options.time_shift:
        batch = shift_in_time(batch, options.time_shift, rng)
    if options.gain_db:
        batch = change_gain(batch, options.gain_db, rng)
    if options.mixup:
        batch = mixup(batch, options.mixup, options.mixup_alpha, rng)
    return batch


def shift_in_time(batch: Batch, farthest: int, rng: np.random.Generator) -> Batch:
    """Shift each clip circularly by up to ``farthest`` frames, within its own length."""
    shifts = _to(rng.integers(-farthest, farthest + 1, len(batch.fbank)), batch.fbank)
    frames = torch.arange(batch.fbank.shape[1], device=batch.fbank.device)
    sources = torch.where(
        frames < batch.num_frames[:, None], (frames - shifts[:, None]) % batch.num_frames[:, None], frames
    )
    rows = torch.arange(len(batch.fbank), device=batch.fbank.device)[:, None]
    return replace(batch, fbank=batch.fbank[rows, sources])


def change_gain(batch: Batch, most_db: float, rng: np.random.Generator) -> Batch:
    """Make each clip louder or softer: a factor on the waveform is a term of the log energies.

    Bins without any energy stay so; what falls below the filter bank's floor stops there.
    """
    gains_db = rng.uniform(-most_db, most_db, len(batch.fbank)).astype(np.float32)
    terms = _to(gains_db, batch.fbank)[:, None, None] * (math.log(10) / 10)
    terms = torch.where(batch.fbank > LOG_FLOOR, terms, 0.0)
    return replace(batch, fbank=(batch.fbank + terms).clamp_(min=LOG_FLOOR))


def mixup(batch: Batch, share: float, alpha: float, rng: np.random.Generator) -> Batch:
    """Mix a share of the clips with another of the batch, and their labels likewise.

    The original mixes waveforms, l x + (1 - l) y with l from Beta(alpha, alpha). Of unrelated sounds the power of that
    mixture is expected to be l² X + (1 - l)² Y, which is what is computed here from the log energies. As there, the
    mixture has the first clip's length, and the second is silent after its own end; labels are mixed l to 1 - l.
    """
    num_clips = len(batch.fbank)
    is_mixed = rng.random(num_clips) < share
    weights = np.where(is_mixed, rng.beta(alpha, alpha, num_clips), 1.0).astype(np.float32)
    partners = rng.permutation(num_clips)
    first, second = _to(weights, batch.fbank), _to(1 - weights, batch.fbank)
    mixed = _to(np.flatnonzero(is_mixed), batch.fbank)
    if not len(mixed):
        return batch
    others = _to(partners, batch.fbank)[mixed]
    other_fbank = batch.fbank[others].masked_fill_(~batch.is_heard[others], -torch.inf)
    fbank = batch.fbank.clone()
    fbank[mixed] = torch.logaddexp(
        fbank[mixed] + 2 * first[mixed].log()[:, None, None], other_fbank + 2 * second[mixed].log()[:, None, None]
    ).clamp_(min=LOG_FLOOR)
    targets = batch.targets.clone()
    targets[mixed] = first[mixed, None] * targets[mixed] + second[mixed, None] * batch.targets[others]
    return replace(batch, fbank=fbank, targets=targets)


def mask(fbank: Tensor, options: TrainOptions, rng: np.random.Generator, value: float) -> Tensor:
    """Hide bands of frequencies and stretches of time (SpecAugment, Park et al., 2019).

    As in torchaudio's FrequencyMasking and TimeMasking, which the original uses: the width is uniform from 0 to the
    widest, the place uniform over what fits. The value is what padding holds, as there.

    Args:
        fbank: Shape (batch, num_frames, num_mel_bins).
        options: Widest masks, and how many.
        rng: Where the draws come from.
        value: What masked places hold.
    """
    for _ in range(options.num_masks):
        for dim, widest in ((2, options.frequency_mask), (1, options.time_mask)):
            if widest:
                fbank = fbank.masked_fill(_bands(fbank, dim, widest, rng), value)
    return fbank


def _bands(fbank: Tensor, dim: int, widest: int, rng: np.random.Generator) -> Tensor:
    """Draw one band a clip: bool, True inside, of size 1 along the other dimension."""
    size = fbank.shape[dim]
    widths = rng.random(len(fbank)) * min(widest, size)
    starts = rng.random(len(fbank)) * (size - widths)
    begin = _to(starts.astype(np.int64), fbank)[:, None]
    end = begin + _to(widths.astype(np.int64), fbank)[:, None]
    places = torch.arange(size, device=fbank.device)
    return ((places >= begin) & (places < end)).unsqueeze(1 if dim == 2 else 2)


def add_noise(input_values: Tensor, most: float, rng: np.random.Generator) -> Tensor:
    """Add uniform noise to the normalised input, as the original does for Speech Commands.

    ``input_values + U(0, 1) * a`` with one a of U(0, most) for each clip.
    """
    amounts = _to((rng.random(len(input_values)) * most).astype(np.float32), input_values)
    generator = torch.Generator(input_values.device).manual_seed(int(rng.integers(2**63)))
    noise = torch.rand(input_values.shape, generator=generator, device=input_values.device)
    return input_values + noise * amounts[:, None, None]


def kept_tokens(num_clips: int, num_patches: int, share_dropped: float, rng: np.random.Generator) -> Tensor:
    """Draw which patches stay, for each clip: sorted indices, int64, shape (num_clips, num_kept), at least one."""
    num_kept = max(1, round(num_patches * (1 - share_dropped)))
    order = np.argsort(rng.random((num_clips, num_patches)), axis=1)[:, :num_kept]
    return torch.from_numpy(np.sort(order, axis=1))


def _to(array: NDArray[np.generic], like: Tensor) -> Tensor:
    return torch.from_numpy(array).to(like.device)
