"""Random mixtures of the corpus's sounds, made on the device that learns from them, and what is true of each.

"A good teacher is patient and consistent" (Beyer and others, 2022): the teacher hears the very mixture that the student
hears. There are three differences, where the teacher is known to be wrong. It hears each mixture at a usual level, also
where the student hears it 40 dB lower. Its answers for silence inside a window do not count. What a sound is known to
be, by its file's name, counts more than what the teacher takes it for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from corpus import read_tsv, split_labels, with_ancestors
from teacher import HOP, PATCH_FRAMES, PATCH_SAMPLES, YamNet
from torch import Tensor

from ast_cli import ASTFeatureExtractor
from ast_cli.audio.fbank.mel_bank import FbankConfig
from ast_cli.audio.fbank.torch_fbank import log_mel_fbank

SAMPLING_RATE, FRAME = 16_000, 400
NUM_BINS, NUM_FRAMES = 64, 512
WINDOW = (NUM_FRAMES - 1) * HOP + FRAME  # 82,160 samples: 5.135 s
EXTRACTOR = ASTFeatureExtractor(num_mel_bins=NUM_BINS, max_length=NUM_FRAMES, mean=-5.0, std=4.5)
NUM_PATCHES = 10  # that the teacher hears of a window it is judged by: 0.46 s from one to the next
KNOWN, KNOWN_ABOVE = 0.95, 0.85  # targets of a label that is known, and of the labels above it
SILENCE, AUDIBLE = "Silence", 1e-4  # of full scale
NEVER = 1e9  # samples until a piece is repeated
KNOWN_KIND, COMMON = 3.0, ("Speech", "Music")  # factor of the chance of windows that are known to be anything else


class Corpus:
    """Every piece of the index in one long row of int16 samples, and windows of it to choose from.

    Attributes:
        samples: All pieces, (total,).
        start, length: Of each piece in ``samples``, (S,).
        package: Number of each piece's package, (S,).
        known: Target of each label by what a piece is known to be, (S, 521).
        window_piece, window_start: A window every 5.1 s: its piece and its start in the piece, (W,).
        is_test: Of each window, (W,).
        common: Numbers of the labels that most pieces have.
    """

    def __init__(self, folder: Path, labels: list[str], device: torch.device) -> None:
        self.rows = read_tsv(folder / "index.tsv")
        samples = np.load(folder / "samples.npy", mmap_mode="c")
        length = np.array([int(row["length"]) for row in self.rows])
        num_windows = np.maximum(1, np.round(length / WINDOW)).astype(int)
        piece = np.repeat(np.arange(len(self.rows)), num_windows)
        window_start = (np.arange(len(piece)) - np.repeat(np.cumsum(num_windows) - num_windows, num_windows)) * WINDOW
        self.package_names = sorted({row["package"] for row in self.rows})
        number = {name: i for i, name in enumerate(self.package_names)}

        def put(values: object) -> Tensor:
            return torch.as_tensor(np.asarray(values), device=device)

        self.common = [labels.index(label) for label in COMMON]
        self.device, self.samples = device, torch.from_numpy(samples).to(device)
        self.start, self.length = put([int(row["start"]) for row in self.rows]), put(length)
        self.package = put([number[row["package"]] for row in self.rows])
        self.known = put(known_targets([split_labels(row["labels"]) for row in self.rows], labels))
        self.window_piece = put(piece)
        self.window_start = put(np.minimum(window_start, np.maximum(0, length[piece] - WINDOW)))
        self.is_test = put(np.array([row["split"] == "test" for row in self.rows])[piece])

    def read(self, piece: Tensor, position: Tensor) -> Tensor:
        """Return samples at positions (B, N) of pieces (B,), between -1 and 1; 0 where a piece has none."""
        is_inside = (position >= 0) & (position < self.length[piece][:, None] - 1)
        before = torch.where(is_inside, position, 0).long()
        between = torch.where(is_inside, position - before, 0).float()
        before = before + self.start[piece][:, None]
        value = torch.lerp(self.samples[before].float(), self.samples[before + 1].float(), between)
        return value * is_inside / 32768

    def windows(self, chosen: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield windows as they are: waveforms (B, WINDOW), and how many of their frames are not padding (B,)."""
        for part in chosen.split(batch_size):
            piece, start = self.window_piece[part], self.window_start[part]
            position = start[:, None] + torch.arange(WINDOW, device=self.device)
            num_frames = ((self.length[piece] - start - FRAME) // HOP + 1).clamp(1, NUM_FRAMES)
            yield self.read(piece, position), num_frames


def known_targets(known: list[tuple[str, ...]], labels: list[str]) -> np.ndarray:
    """Return targets (S, 521) of pieces that are known to be something, 0 elsewhere."""
    number = {label: i for i, label in enumerate(labels)}
    targets = np.zeros((len(known), len(labels)), np.float32)
    for row, names in zip(targets, known, strict=True):
        row[[number[name] for name in with_ancestors(names) if name in number]] = KNOWN_ABOVE
        row[[number[name] for name in names if name in number]] = KNOWN
    return targets


@dataclass(frozen=True)
class Mixtures:
    """A batch of mixtures.

    Attributes:
        usual: What the teacher hears, (B, WINDOW).
        waveforms: What the student hears, (B, WINDOW).
        num_frames: How many frames of each are not padding, (B,).
        known: Targets by what is known of the mixed pieces, (B, 521).
    """

    usual: Tensor
    waveforms: Tensor
    num_frames: Tensor
    known: Tensor


class Mixer:
    """Draws random batches of the training windows: crops, mixtures, rooms, filters, noise and levels."""

    def __init__(self, corpus: Corpus, targets: Tensor, max_speed: float = 1.15) -> None:
        """Give each window (W,) its chance by its targets, (W, 521), and by its package."""
        self.corpus, self.max_speed, self.device = corpus, max_speed, corpus.device
        self.chance = chances(corpus, targets)
        frequency_hz = torch.fft.rfftfreq(padded_length(WINDOW), 1 / SAMPLING_RATE, device=self.device)
        self.frequency_hz = frequency_hz.clamp(min=20.0)  # (K,)
        octaves = (self.frequency_hz / 20).log2() / math.log2(400) * 7  # 20 Hz to 8 kHz: 0 to 7
        self.curves = (1 - (octaves - torch.arange(8, device=self.device)[:, None]).abs()).clamp(min=0)  # (8, K)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(shape, device=self.device).uniform_(low, high)

    def happens(self, probability: float, num: int) -> Tensor:
        return torch.rand(num, 1, device=self.device) < probability

    @torch.no_grad()
    def batch(self, size: int) -> Mixtures:
        """Return random mixtures of one to three pieces."""
        mixed, num_frames, known = self.draw(size)
        for share in (0.45, 0.12):  # rows are drawn independently: the first are as random as any
            num = max(1, round(share * size))
            other, other_frames, other_known = self.draw(num)
            ratio = loudness(mixed[:num]) / loudness(other) * decibels(self.uniform(-10, 10, num, 1))
            mixed[:num] += ratio * other
            num_frames[:num] = torch.maximum(num_frames[:num], other_frames)
            known[:num] = torch.maximum(known[:num], other_known)
        mixed = self.filtered(mixed, round(0.15 * size))
        mixed *= torch.minimum(decibels(self.uniform(-20, 3, size, 1)), 0.99 / mixed.abs().amax(1, keepdim=True))
        num_noisy = max(1, round(0.2 * size))
        mixed[-num_noisy:] += self.noise(num_noisy) * decibels(self.uniform(-60, -22, num_noisy, 1))
        cut = torch.where(self.happens(0.1, size)[:, 0], self.uniform(30, NUM_FRAMES, size).long(), NUM_FRAMES)
        num_frames = torch.minimum(num_frames, cut)
        is_heard = torch.arange(WINDOW, device=self.device) < (num_frames[:, None] - 1) * HOP + FRAME
        usual = (mixed * is_heard).clamp_(-1, 1)
        level = decibels(self.uniform(-25, 0, size, 1) * self.happens(0.3, size))
        level *= ~self.happens(0.01, size)  # digital silence
        return Mixtures(usual, usual * level, num_frames, known)

    def draw(self, num: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return crops of random windows (num, WINDOW), frames that are not padding (num,), known targets (num, 521).

        Half of them have another speed. A piece shorter than the window lies somewhere in silence, or is repeated with
        a gap, or is all that there is before padding.
        """
        window = torch.multinomial(self.chance, num, replacement=True)
        piece = self.corpus.window_piece[window]
        length = self.corpus.length[piece].double()[:, None]  # float32 would not do for positions
        log_speed = self.uniform(-1, 1, num, 1).double() * math.log(self.max_speed) * self.happens(0.5, num)
        heard = WINDOW * log_speed.exp()
        spare = length - heard - 1
        crop = self.corpus.window_start[window][:, None] + self.uniform(-0.5, 0.5, num, 1) * WINDOW
        crop = torch.minimum(crop, spare).clamp(min=0)
        period = (length + self.uniform(0, 1, num, 1) * SAMPLING_RATE).round()
        kind, somewhere = self.uniform(0, 3, num, 1), self.uniform(0, 1, num, 1)
        is_repeated, is_alone = kind < 1, kind > 2
        short_shift = torch.where(is_repeated, somewhere * period, somewhere * spare * ~is_alone)  # spare is negative
        shift = torch.where(spare < 0, short_shift, crop).round()  # between two samples, each would lose its treble
        period = torch.where((spare < 0) & is_repeated, period, NEVER)
        position = torch.arange(WINDOW, device=self.device) * (heard / WINDOW) + shift
        waveforms = self.corpus.read(piece, position.remainder_(period))
        frames_alone = ((length / heard * WINDOW - FRAME) / HOP + 1).long().clamp(8, NUM_FRAMES)
        num_frames = torch.where((spare < 0) & is_alone, frames_alone, NUM_FRAMES)[:, 0]
        return waveforms, num_frames, self.corpus.known[piece].clone()

    def filtered(self, waveforms: Tensor, num_in_rooms: int) -> Tensor:
        """Color half of the waveforms (B, N) by smooth curves within 6 dB, cut some off above or below, echo some."""
        size, n = len(waveforms), padded_length(WINDOW)
        gain = decibels((self.uniform(-6, 6, size, 8) * self.happens(0.5, size)) @ self.curves)  # (B, K)
        cutoffs_hz = torch.where(self.happens(0.3, size), 4000.0, self.uniform(1500, 7500, size, 1))
        upper = torch.where(self.happens(0.15, size), cutoffs_hz, 1e6)
        lower = torch.where(self.happens(0.15, size), self.uniform(60, 500, size, 1), 1e-3)
        gain *= ((1 + (self.frequency_hz / upper) ** 12) * (1 + (lower / self.frequency_hz) ** 6)).rsqrt()
        spectrum = torch.fft.rfft(waveforms, n) * gain
        if num_in_rooms:
            spectrum[-num_in_rooms:] *= torch.fft.rfft(self.rooms(num_in_rooms), n)
        return torch.fft.irfft(spectrum, n)[:, :WINDOW]

    def rooms(self, num: int) -> Tensor:
        """Return responses of rooms (num, R): the sound, and noise that decays by 60 dB in 0.15 to 1.2 s."""
        time_s = torch.arange(round(1.2 * SAMPLING_RATE), device=self.device) / SAMPLING_RATE
        responses = torch.randn(num, len(time_s), device=self.device)
        responses *= 10 ** (-3 * time_s / self.uniform(0.15, 1.2, num, 1))
        responses *= self.uniform(0.1, 0.8, num, 1) / responses.square().sum(1, keepdim=True).sqrt()
        responses[:, 0] = 1.0
        return responses

    def noise(self, size: int) -> Tensor:
        """Return noise (B, WINDOW) of root mean square 1, from white to brown."""
        color = self.frequency_hz ** self.uniform(-1, 0, size, 1)  # exponent of the amplitude; pink is -0.5
        spectrum = torch.randn(size, len(self.frequency_hz), 2, device=self.device) * color[..., None]
        noise = torch.fft.irfft(torch.view_as_complex(spectrum), padded_length(WINDOW))[:, :WINDOW]
        return noise / noise.square().mean(1, keepdim=True).sqrt()


@dataclass(frozen=True)
class Answers:
    """What the teacher says of windows.

    Attributes:
        scores: Of its patches, (B, P, 521).
        embeddings: Of its patches, (B, P, 1024).
        starts: The first frame of each patch, (B, P).
        counts: Whether something is audible in each patch, (B, P).
    """

    scores: Tensor
    embeddings: Tensor
    starts: Tensor
    counts: Tensor

    def together(self, silence: int) -> Tensor:
        """Return scores of the windows (B, 521): the mean of the patches' mean and highest score, where they count.

        A window is silent where nothing is audible in any patch, and only there.
        """
        weight = self.counts[..., None].float()
        mean = (self.scores * weight).sum(1) / weight.sum(1).clamp(min=1)
        scores = (mean + (self.scores * weight).amax(1)) / 2
        is_silent = ~self.counts.any(1)
        scores[is_silent] = 0.0
        scores[:, silence] = torch.where(is_silent, 1.0, scores[:, silence])
        return scores


def ask(teacher: YamNet, waveforms: Tensor, num_frames: Tensor, num_patches: int) -> Answers:
    """Let the teacher hear patches that are spread over the frames of each window (B, WINDOW) that are not padding."""
    spread = torch.linspace(0, 1, num_patches, device=waveforms.device)
    starts = ((num_frames - PATCH_FRAMES).clamp(min=0)[:, None] * spread).round().long()
    of_hops = waveforms.abs().unfold(1, HOP, HOP).amax(2)  # (B, hops)
    loudest = F.max_pool1d(of_hops, PATCH_SAMPLES // HOP, stride=1)  # from each frame on
    return Answers(
        *teacher.hear(waveforms, starts), starts, loudest.gather(1, starts.clamp(max=loudest.shape[1] - 1)) > AUDIBLE
    )


def spectrograms(waveforms: Tensor, num_frames: Tensor, extractor: ASTFeatureExtractor = EXTRACTOR) -> Tensor:
    """Map windows (B, WINDOW) to a model's input (B, 512, bins); frames after ``num_frames`` (B,) are padding."""
    fbank = log_mel_fbank(waveforms, FbankConfig(num_mel_bins=extractor.num_mel_bins))
    is_padding = torch.arange(NUM_FRAMES, device=waveforms.device) >= num_frames[:, None]
    return (fbank.masked_fill(is_padding[..., None], 0.0) - extractor.mean) / (2 * extractor.std)


def chances(corpus: Corpus, targets: Tensor) -> Tensor:
    """Return each window's chance to be drawn (W,): its rarest sound's, by one over the root of how much there is.

    Packages of many windows count by the root of their number. Windows that are known to be something else than speech
    or music have three times the chance. No window has more than 20 times the mean chance, nor less than a tenth of it;
    those of the test have none.
    """
    train = ~corpus.is_test
    amount = targets[train].sum(0)  # (521,), in windows
    chance = (targets / (amount + 5).sqrt()).amax(1) * train
    package = corpus.package[corpus.window_piece]
    per_package = torch.zeros(len(corpus.package_names), device=chance.device).index_add_(0, package, chance)
    chance = chance / per_package.clamp(min=1e-9).sqrt()[package]
    exact = (corpus.known == KNOWN).float()
    exact[:, corpus.common] = 0.0
    chance = chance * (1 + (KNOWN_KIND - 1) * exact.amax(1)[corpus.window_piece])
    mean = chance[train].mean()
    return chance.clamp(0.1 * mean, 20 * mean) * train


def decibels(db: Tensor) -> Tensor:
    """Convert decibels to a factor of amplitudes."""
    return torch.as_tensor(10 ** (db / 20))


def loudness(waveforms: Tensor) -> Tensor:
    """Return the root mean square (B, 1) of the samples that are not silent."""
    num_heard = (waveforms != 0).sum(1, keepdim=True).clamp(min=1)
    return (waveforms.square().sum(1, keepdim=True) / num_heard).sqrt().clamp(min=1e-4)


def padded_length(num_samples: int) -> int:
    """Return a length for which a Fourier transform is fast: a multiple of 2^10, with small factors."""
    return next(n for n in range(-(-num_samples // 1024), 10**6) if not 3**10 * 2**10 * 5**5 % n) * 1024
