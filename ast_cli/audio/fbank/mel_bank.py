"""Kaldi's mel filter bank in NumPy, shared by all implementations of the fbank.

Formula and constants are those of ``get_mel_banks`` in Kaldi's feature code with its defaults, as in torchaudio's
``compliance.kaldi.fbank``: frames of 25 ms every 10 ms, an FFT of the next power of two, and filters that are
triangular on the mel scale, from 20 Hz to half the sampling rate.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.fbank.filter_bank import check_rate_and_bins

FRAME_LENGTH_MS = 25
FRAME_SHIFT_MS = 10
FRAME_SHIFT_S = FRAME_SHIFT_MS / 1000
LOW_HZ = 20.0
PREEMPHASIS = 0.97
ENERGY_FLOOR = float(np.finfo(np.float32).eps)  # Kaldi's floor before the logarithm: 1.1920929e-07


@dataclass(frozen=True, slots=True)
class FbankConfig:
    """Parameters of Kaldi's filter bank; all others have Kaldi's default values.

    Attributes:
        sampling_rate: Sampling rate of the waveforms in Hz.
        num_mel_bins: Number of triangular filters.
    """

    frame_shift_ms: ClassVar[int] = FRAME_SHIFT_MS
    num_edge_samples: ClassVar[int] = 0  # Kaldi's snip_edges: only whole frames
    scales_windows: ClassVar[bool] = False

    sampling_rate: int = 16000
    num_mel_bins: int = 128

    def __post_init__(self) -> None:
        """Validate the values."""
        check_rate_and_bins(self.sampling_rate, self.num_mel_bins)

    @property
    def frame_length_samples(self) -> int:
        """Number of samples in a frame: 400 at 16 kHz."""
        return self.sampling_rate * FRAME_LENGTH_MS // 1000

    @property
    def frame_shift_samples(self) -> int:
        """Number of samples from one frame to the next: 160 at 16 kHz."""
        return self.sampling_rate * FRAME_SHIFT_MS // 1000

    @property
    def fft_length(self) -> int:
        """Length of the FFT, the next power of two from the frame length on: 512 at 16 kHz."""
        return 1 << (self.frame_length_samples - 1).bit_length()

    def num_frames(self, num_samples: int) -> int:
        """Return the number of whole frames in a waveform (Kaldi's ``snip_edges``)."""
        if num_samples < self.frame_length_samples:
            return 0
        return 1 + (num_samples - self.frame_length_samples) // self.frame_shift_samples

    def num_samples(self, num_frames: int) -> int:
        """Return the number of samples that frames cover: 164,080 for 1024 frames at 16 kHz."""
        return (num_frames - 1) * self.frame_shift_samples + self.frame_length_samples if num_frames else 0


def mel_scale(frequency_hz: NDArray[np.float32] | float) -> NDArray[np.float32]:
    """Convert hertz to mel by Kaldi's (HTK's) formula."""
    return np.asarray(1127.0 * np.log1p(np.asarray(frequency_hz, np.float32) / np.float32(700.0)), np.float32)


@functools.lru_cache(maxsize=16)
def mel_filter_bank(config: FbankConfig) -> NDArray[np.float32]:
    """Return the weights of the triangular filters.

    At 16 kHz with 128 bins, the filter of index 3 lies between two FFT bins and is empty, so its log energy is always
    that of the floor, log(1.19e-07) = -15.9424. The published models were trained with it, so it must stay.

    Returns:
        Weights, read-only, shape (num_mel_bins, fft_length // 2 + 1); the last column, half the sampling rate, is 0.
    """
    num_fft_bins = config.fft_length // 2
    low = float(mel_scale(LOW_HZ))
    high = float(mel_scale(config.sampling_rate / 2))
    step = (high - low) / (config.num_mel_bins + 1)
    edges = low + np.arange(config.num_mel_bins + 2) * step
    left, center, right = (edges[i : i + config.num_mel_bins, None] for i in range(3))
    mel = mel_scale(np.arange(num_fft_bins, dtype=np.float32) * (config.sampling_rate / config.fft_length))[None]
    up, down = (mel - left) / (center - left), (right - mel) / (right - center)
    bank = np.zeros((config.num_mel_bins, num_fft_bins + 1), np.float32)
    bank[:, :num_fft_bins] = np.maximum(0.0, np.minimum(up, down))
    bank.flags.writeable = False
    return bank
