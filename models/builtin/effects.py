"""Effects on a sound between its source and a microphone: level, room, telephone, background."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]


def fitted(samples: Samples, num_samples: int, rng: np.random.Generator) -> Samples:
    """Cut a random part of (num_samples,), or put a shorter sound somewhere into silence."""
    spare = len(samples) - num_samples
    if spare >= 0:
        start = int(rng.integers(spare + 1))
        return samples[start : start + num_samples]
    before = int(rng.integers(-spare + 1))
    return np.pad(samples, (before, -spare - before))


def recorded(samples: Samples, sampling_rate: int, rng: np.random.Generator) -> Samples:
    """Return samples as recorded by a random microphone in a random room, at a random level."""
    if rng.random() < 0.5:
        samples = in_room(samples, sampling_rate, rng)
    if rng.random() < 0.2:
        samples = band(samples, sampling_rate, rng.uniform(100, 400), rng.uniform(2500, 5000))
    if rng.random() < 0.6:
        noise = colored_noise(len(samples), rng.uniform(-2, 0), rng)
        samples = samples / rms(samples) + noise * 10 ** (-rng.uniform(12, 45) / 20)
    return samples / max(1e-9, float(np.abs(samples).max())) * 10 ** (-rng.uniform(0, 26) / 20)


def in_room(samples: Samples, sampling_rate: int, rng: np.random.Generator) -> Samples:
    """Add the reverberation of a room: noise that decays by 60 dB in 0.15 to 1.2 s."""
    decay_s = rng.uniform(0.15, 1.2)
    time_s = np.arange(int(decay_s * sampling_rate)) / sampling_rate
    response = rng.standard_normal(len(time_s)) * 10 ** (-3 * time_s / decay_s)
    response *= rng.uniform(0.1, 0.6) / np.sqrt(np.sum(response**2))
    response[0] = 1.0
    size = len(samples) + len(response)
    wet = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)
    return wet[: len(samples)]


def band(samples: Samples, sampling_rate: int, low_hz: float, high_hz: float) -> Samples:
    """Keep a band, as a telephone or a small loudspeaker does."""
    frequency_hz = np.fft.rfftfreq(len(samples), 1 / sampling_rate) + 1e-9
    gain = 1 / np.sqrt((1 + (low_hz / frequency_hz) ** 6) * (1 + (frequency_hz / high_hz) ** 6))
    return np.fft.irfft(np.fft.rfft(samples) * gain, len(samples))


def colored_noise(num_samples: int, exponent: float, rng: np.random.Generator) -> Samples:
    """Return noise of RMS 1 whose power falls with frequency to an exponent: 0 is white, -1 pink, -2 brown."""
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    frequency = np.maximum(np.arange(len(spectrum)), num_samples / 800)  # flat below 20 Hz at 16 kHz
    noise = np.fft.irfft(spectrum * frequency ** (exponent / 2), num_samples)
    return noise / rms(noise)


def rms(samples: Samples) -> float:
    return max(1e-9, float(np.sqrt(np.mean(np.square(samples)))))
