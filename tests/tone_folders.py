"""A data set for tests of training: recordings of two classes that are easy to distinguish."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile


def write_tone_folders(data: Path) -> Path:
    """Write low and high tones in noise: a folder per class, four clips each, of 0.3 to 0.6 s."""
    rng = np.random.default_rng(3)
    for label, frequency_hz in (("Low", 300.0), ("High, very", 3000.0)):
        (data / label).mkdir(parents=True)
        for i in range(4):
            times_s = np.arange(4800 + 1600 * i) / 16000
            samples = 0.3 * np.sin(2 * np.pi * frequency_hz * times_s) + 0.01 * rng.standard_normal(len(times_s))
            soundfile.write(data / label / f"{i}.wav", samples, 16000, subtype="FLOAT")
    return data
