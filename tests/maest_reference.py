"""MAEST's fbank in float64, written from its description for tests alone; shares no code with the package."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

LOG_STEP = math.log(6.4) / 27  # of Slaney's scale above 1000 Hz


def slaney_mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + math.log(hertz / 1000) / LOG_STEP


def slaney_hertz(mel: float) -> float:
    return mel * 200 / 3 if mel < 15 else 1000 * math.exp(LOG_STEP * (mel - 15))


def slaney_filters(rate: int, n_fft: int, num_bins: int) -> NDArray[np.float64]:
    """Return triangles of area 1 over hertz, so of height 2 / width, shape (num_bins, n_fft // 2 + 1)."""
    top = slaney_mel(rate / 2)
    edges = [slaney_hertz(top * i / (num_bins + 1)) for i in range(num_bins + 2)]
    filters = np.zeros((num_bins, n_fft // 2 + 1))
    for row, (left, center, right) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        for column in range(n_fft // 2 + 1):
            hertz = column * rate / n_fft
            if left < hertz <= center:
                filters[row, column] = (hertz - left) / (center - left) * 2 / (right - left)
            elif center < hertz < right:
                filters[row, column] = (right - hertz) / (right - center) * 2 / (right - left)
    return filters


def maest_fbank(
    waveform: NDArray[np.float32],
    compression: str | None = "logC",
    *,
    rate: int = 16000,
    n_fft: int = 512,
    hop: int = 256,
    num_bins: int = 96,
) -> NDArray[np.float64]:
    """Return the fbank of a waveform (num_samples,) in float64, shape (1 + num_samples // hop, num_bins)."""
    padded = np.concatenate([np.zeros(n_fft // 2), waveform.astype(np.float64), np.zeros(n_fft // 2)])
    window = np.array([math.sin(math.pi * i / n_fft) ** 2 for i in range(n_fft)])
    filters = slaney_filters(rate, n_fft, num_bins)
    rows = []
    for start in range(0, padded.size - n_fft + 1, hop):
        energies = filters @ np.abs(np.fft.fft(padded[start : start + n_fft] * window)[: n_fft // 2 + 1]) ** 2
        if compression == "logC":
            energies = np.log10(1 + 10000 * energies)
        elif compression == "log":
            energies = np.log(energies + np.finfo(np.float64).eps)
        rows.append(energies)
    return np.array(rows)
