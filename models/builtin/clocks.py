"""Clocks and watches: two short rings in turn, as regular as a pendulum."""

from __future__ import annotations

import numpy as np
from effects import Samples, recorded

LONGEST_RING_S = 0.08


def make_clock(i: int, fold: int, num_samples: int, sampling_rate: int) -> Samples:
    """Return a clock of random size in a random room: from a watch's five beats a second to one."""
    rng = np.random.default_rng([3, i])
    beat_s = float(np.exp(rng.uniform(np.log(0.2), np.log(1.05))))
    tick = ring(sampling_rate, rng)
    tock = tick if rng.random() < 0.3 else ring(sampling_rate, rng) * rng.uniform(0.4, 1.0)
    samples = np.zeros(num_samples + len(tick))
    beats_s = np.arange(rng.uniform(0, beat_s), num_samples / sampling_rate, beat_s)
    beats_s += rng.normal(0, 0.004 * beat_s, len(beats_s))  # no clock of wheels is exact
    uneven_s = rng.uniform(-0.12, 0.12) * beat_s  # nor hangs quite upright
    for number, beat in enumerate(beats_s):
        start = max(0, round((beat + uneven_s * (number % 2)) * sampling_rate))
        if start < num_samples:
            samples[start : start + len(tick)] += (tock if number % 2 else tick) * rng.uniform(0.85, 1.0)
    return recorded(samples[:num_samples], sampling_rate, rng)


def ring(sampling_rate: int, rng: np.random.Generator) -> Samples:
    """Return one stroke: a click of the metal, then the parts of the case, the higher the shorter."""
    time_s = np.arange(int(LONGEST_RING_S * sampling_rate)) / sampling_rate
    stroke = rng.uniform(0.2, 1.0) * rng.standard_normal(len(time_s)) * np.exp(-time_s / rng.uniform(5e-4, 4e-3))
    lowest_hz, num_cycles = float(np.exp(rng.uniform(np.log(500), np.log(2500)))), rng.uniform(3, 25)
    for part_hz in lowest_hz * np.cumprod(np.r_[1.0, rng.uniform(1.15, 1.9, rng.integers(2, 6))]):
        if part_hz < 0.45 * sampling_rate:
            wave = np.sin(2 * np.pi * part_hz * time_s + rng.uniform(0, 2 * np.pi))
            stroke += rng.uniform(0.1, 0.7) * wave * np.exp(-time_s * part_hz / num_cycles)
    if rng.random() < 0.4:
        delay = int(rng.uniform(0.004, 0.025) * sampling_rate)
        stroke[delay:] += rng.uniform(0.2, 0.6) * stroke[:-delay]
    return stroke
