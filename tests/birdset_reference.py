"""BirdSet's features, computed in float64 from their description, without the code under test."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE, CLIP = 32_000, 160_000


def plain_decibels(clip: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute the decibels of one clip, frame by frame and filter by filter, in float64."""
    wave = np.zeros(CLIP)
    wave[: min(len(clip), CLIP)] = clip[:CLIP]
    wave = (wave - wave.mean()) / np.sqrt(((wave - wave.mean()) ** 2).mean() + 1e-7)
    wave = np.concatenate([wave[512:0:-1], wave, wave[-2:-514:-1]])
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)

    def hertz(mel: float) -> float:
        return 700 * (10 ** (mel / 2595) - 1)

    top = 2595 * np.log10(1 + 16_000 / 700)
    edges = [hertz(top * i / 129) for i in range(130)]
    filters = np.zeros((128, 513))
    for i, (low, peak, high) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        for j in range(513):
            f = j * 31.25
            if low < f <= peak:
                filters[i, j] = (f - low) / (peak - low)
            elif peak < f < high:
                filters[i, j] = (high - f) / (high - peak)
    frames = np.stack([wave[start : start + 1024] * hann for start in range(0, 160_001, 320)])
    power = np.abs(np.fft.fft(frames)[:, :513]) ** 2
    decibels = 10 * np.log10(np.maximum(power @ filters.T, 1e-10))
    return np.maximum(decibels, decibels.max() - 80)


def plain_input(clip: NDArray[np.float32]) -> NDArray[np.float64]:
    padded = np.full((1024, 128), -80.0)
    padded[:501] = plain_decibels(clip)
    return (padded + 4.268) / 4.569
