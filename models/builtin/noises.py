"""Steady noise, as in recordings without a sound event."""

from __future__ import annotations

import numpy as np
from effects import Samples, band, colored_noise


def make_noise(i: int, fold: int, num_samples: int, sampling_rate: int) -> Samples:
    """Return steady noise of some color, at times limited to a band or with the hum of the mains."""
    rng = np.random.default_rng([1, i])
    noise = colored_noise(num_samples, rng.uniform(-2.2, 0.5), rng)
    if rng.random() < 0.3:
        noise = band(noise, sampling_rate, rng.uniform(20, 500), rng.uniform(1500, 7500))
    if rng.random() < 0.25:
        noise = 0.3 * noise + hum(num_samples, sampling_rate, rng)
    return noise / np.abs(noise).max() * 10 ** (-rng.uniform(1, 40) / 20)


def hum(num_samples: int, sampling_rate: int, rng: np.random.Generator) -> Samples:
    """Return the mains: 50 or 60 Hz and harmonics that fall off."""
    time_s = np.arange(num_samples) / sampling_rate
    base_hz, slope = rng.choice([50.0, 60.0]), rng.uniform(0.8, 2.0)
    parts = (
        k**-slope * rng.random() * np.sin(2 * np.pi * k * base_hz * time_s + rng.uniform(0, 6.3)) for k in range(1, 20)
    )
    return np.sum(list(parts), axis=0)
