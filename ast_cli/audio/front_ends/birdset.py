"""BirdSet's front end (Rauch et al., 2024): 32 kHz, HTK mels in decibels, each window of 5 s scaled by itself.

BirdSet's clips are its windows: each is scaled to mean 0 and variance 1, and its decibels are floored below its loudest
value. A window of a longer recording is treated as a clip, so it has no frames in common with its neighbors.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.fbank.filter_bank import FbankBackend
from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.audio.samples import MAX_SAMPLING_RATE, MIN_SAMPLING_RATE
from ast_cli.errors import UsageError
from ast_cli.files.json_object import shown

if TYPE_CHECKING:
    from torch import Tensor

VARIANCE_EPSILON = 1e-7  # as in the published training
POWER_FLOOR = 1e-10  # before the logarithm
DYNAMIC_RANGE_DB = 80.0  # below the loudest value of the window
DECIBELS = 10 / math.log(10)  # of a unit of the natural logarithm
CHUNK_FRAMES = 256  # of NumPy, about 2 MB of spectrum
LIMITS = {"n_fft": (16, 65_536), "hop_length": (1, 65_536), "num_mel_bins": (4, 1024), "clip_samples": (1, 2**24)}


@dataclass(frozen=True, slots=True)
class BirdSetBank:
    """BirdSet's filter bank; a `FilterBank` whose windows are scaled.

    Attributes:
        sampling_rate: Sampling rate of the waveforms in Hz.
        num_mel_bins: Number of mel filters, from 0 Hz to half the sampling rate.
        n_fft: Length of the FFT and of the periodic Hann window, in samples.
        hop_length: Number of samples from one frame to the next.
        clip_samples: Length of a window in samples.
    """

    num_edge_samples: ClassVar[int] = 0  # the edges of each window are its own reflection
    scales_windows: ClassVar[bool] = True

    sampling_rate: int = 32000
    num_mel_bins: int = 128
    n_fft: int = 1024
    hop_length: int = 320
    clip_samples: int = 160_000

    def __post_init__(self) -> None:
        """Validate the values."""
        limits = {"sampling_rate": (MIN_SAMPLING_RATE, MAX_SAMPLING_RATE), **LIMITS}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise UsageError(f"{name} must be a whole number from {low} to {high}, not {shown(value)}")
        if self.clip_samples <= self.n_fft // 2 or self.clip_samples % self.hop_length:
            raise UsageError(
                f"clip_samples must be longer than half of n_fft and a multiple of hop_length, not {self.clip_samples}"
            )

    @property
    def frame_length_samples(self) -> int:
        """Number of samples in a frame: 1024."""
        return self.n_fft

    @property
    def frame_shift_samples(self) -> int:
        """Number of samples from one frame to the next: 320."""
        return self.hop_length

    @property
    def frame_shift_ms(self) -> float:
        """Milliseconds from one frame to the next: 10."""
        return self.hop_length * 1000 / self.sampling_rate

    def num_frames(self, num_samples: int) -> int:
        """Return the number of frames of a whole window, 501; a shorter one is padded to it."""
        return 1 + self.clip_samples // self.hop_length if num_samples else 0

    def num_samples(self, num_frames: int) -> int:
        """Return the number of samples of a whole window: 160,000."""
        return self.clip_samples if num_frames else 0

    def of_waveform(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the decibels of one window (clip_samples,) in NumPy, shape (501, num_mel_bins)."""
        scaled = (waveform - waveform.mean()) / np.sqrt(waveform.var() + np.float32(VARIANCE_EPSILON))
        padded = np.pad(scaled, self.n_fft // 2, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.n_fft)[:: self.hop_length]
        window, bank = _hann_window(self.n_fft), _mel_bank(self)
        mel = np.empty((len(frames), self.num_mel_bins), np.float32)
        for start in range(0, len(frames), CHUNK_FRAMES):
            spectrum = np.fft.rfft(frames[start : start + CHUNK_FRAMES] * window)  # (F, 513)
            power = np.square(spectrum.real, dtype=np.float32) + np.square(spectrum.imag, dtype=np.float32)
            np.matmul(power, bank, out=mel[start : start + CHUNK_FRAMES])
        decibels = 10 * np.log10(np.maximum(mel, np.float32(POWER_FLOOR)))
        floored: NDArray[np.float32] = np.maximum(decibels, decibels.max() - np.float32(DYNAMIC_RANGE_DB))
        return floored

    def of_batch(self, waveforms: Tensor, backend: FbankBackend) -> Tensor:
        """Compute the decibels of windows (batch, clip_samples) on their device, shape (batch, 501, num_mel_bins)."""
        import torch

        if backend == "numpy":
            rows = [torch.from_numpy(self.of_waveform(waveform.float().cpu().numpy())) for waveform in waveforms]
            return torch.stack(rows).to(waveforms.device)
        waveforms = waveforms.float()
        variance, mean = torch.var_mean(waveforms, dim=1, correction=0, keepdim=True)
        scaled = (waveforms - mean) / torch.sqrt(variance + VARIANCE_EPSILON)
        window = torch.from_numpy(_hann_window(self.n_fft)).to(waveforms.device)
        spectrum = torch.stft(scaled, self.n_fft, self.hop_length, window=window, return_complex=True)  # (B, 513, F)
        power = spectrum.real.square() + spectrum.imag.square()
        mel = power.transpose(1, 2) @ torch.from_numpy(_mel_bank(self)).to(waveforms.device)  # (B, F, num_mel_bins)
        decibels = 10 * torch.log10(mel.clamp_min(POWER_FLOOR))
        return torch.maximum(decibels, decibels.amax((1, 2), keepdim=True) - DYNAMIC_RANGE_DB)


@functools.lru_cache(maxsize=4)
def _hann_window(length: int) -> NDArray[np.float32]:
    """Return the periodic Hann window."""
    window = np.hanning(length + 1)[:-1].astype(np.float32)
    return window


@functools.lru_cache(maxsize=4)
def _mel_bank(bank: BirdSetBank) -> NDArray[np.float32]:
    """Return the weights of triangular filters of height 1, shape (n_fft // 2 + 1, num_mel_bins).

    Their edges are equally spaced on HTK's mel scale, ``2595 log10(1 + f / 700)``, from 0 Hz to half the sampling rate;
    their sides are straight in hertz, as in torchaudio's ``melscale_fbanks``.
    """
    top_mel = 2595 * np.log10(1 + bank.sampling_rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top_mel, bank.num_mel_bins + 2) / 2595) - 1)
    frequencies = np.linspace(0, bank.sampling_rate / 2, bank.n_fft // 2 + 1)[:, None]
    up = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(up, down)).astype(np.float32)


class BirdSetFeatureExtractor(FeatureExtractor):
    """Turn mono waveforms at 32 kHz into normalized mel spectrograms in decibels, of windows of 5 s.

    BirdSet's checkpoints have no ``preprocessor_config.json``; this project writes one of this type for a checkpoint
    that was fine-tuned from them. The arguments that `FeatureExtractor` does not have are those of `BirdSetBank`.

    Raises:
        UsageError: If a parameter is invalid.
    """

    feature_extractor_type: ClassVar[str] = "BirdSetFeatureExtractor"
    title: ClassVar[str] = "BirdSet"
    published_rate: ClassVar[int] = 32000
    num_stds: ClassVar[float] = 1
    filter_bank: BirdSetBank

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = 32000,
        num_mel_bins: int = 128,
        n_fft: int = 1024,
        hop_length: int = 320,
        clip_samples: int = 160_000,
        max_length: int = 1024,
        padding_value: float = -80.0,
        do_normalize: bool = True,
        mean: float = -4.268,
        std: float = 4.569,
        return_attention_mask: bool = False,
        fbank_backend: FbankBackend = "native",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            BirdSetBank(sampling_rate, num_mel_bins, n_fft, hop_length, clip_samples),
            feature_size=feature_size,
            max_length=max_length,
            padding_value=padding_value,
            do_normalize=do_normalize,
            mean=mean,
            std=std,
            return_attention_mask=return_attention_mask,
            fbank_backend=fbank_backend,
            extra=kwargs,
        )

    def check_parameters(self) -> None:
        """Validate the parameters; a window must fit into ``max_length`` frames."""
        super().check_parameters()
        if self.max_length < self.frames_per_window:
            raise UsageError(f"max_length must be at least the {self.frames_per_window} frames of a window")

    @property
    def frames_per_window(self) -> int:
        """Number of frames of a window of 5 s: 501, padded to ``max_length`` for the model."""
        return self.filter_bank.num_frames(self.filter_bank.clip_samples)

    @property
    def longest_hop_frames(self) -> int:
        """Length of a window in frame shifts: 500."""
        return self.filter_bank.clip_samples // self.filter_bank.hop_length

    def log_energies_of(self, fbank: Tensor) -> Tensor:
        """Return the natural logarithm of the energies in fbanks, which are decibels."""
        return fbank / DECIBELS

    def fbank_of(self, log_energies: Tensor) -> Tensor:
        """Return the decibels of these log energies."""
        return log_energies * DECIBELS

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``preprocessor_config.json``."""
        names = ("n_fft", "hop_length", "clip_samples")
        return super().to_dict() | {name: getattr(self.filter_bank, name) for name in names}
