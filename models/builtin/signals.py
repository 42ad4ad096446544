"""Sounds that are defined by a formula: tones, noises, signals of telephones, applause, and many voices at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from effects import Samples, band, colored_noise, fitted, recorded
from noises import hum
from speech import make_speech

DURATION_S = 6.0
DTMF_ROWS_HZ, DTMF_COLUMNS_HZ = (697, 770, 852, 941), (1209, 1336, 1477)  # ITU-T Q.23
# Frequencies, then seconds on and off (ITU-T E.180 lists those of many countries).
DIAL_TONES_HZ = ((425,), (350, 440), (440,), (400,))
BUSY_TONES = (((425,), 0.5, 0.5), ((480, 620), 0.5, 0.5), ((400,), 0.375, 0.375), ((425,), 0.25, 0.25))
RINGING_TONES = (((425,), 1.0, 4.0), ((440, 480), 2.0, 4.0))


def tones(frequencies_hz: tuple[float, ...], time_s: Samples) -> Samples:
    return np.sum([np.sin(2 * np.pi * hz * time_s) for hz in frequencies_hz], axis=0) / len(frequencies_hz)


def intermittent(samples: Samples, time_s: Samples, on_s: float, off_s: float) -> Samples:
    return samples * (time_s % (on_s + off_s) < on_s)


def sine_wave(time_s: Samples, rng: np.random.Generator) -> Samples:
    return tones((float(np.exp(rng.uniform(np.log(120), np.log(5000)))),), time_s)


def chirp_tone(time_s: Samples, rng: np.random.Generator) -> Samples:
    period_s, low_hz = rng.uniform(0.4, 5.0), rng.uniform(100, 800)
    octaves = rng.uniform(1, 3.3) * (time_s % period_s) / period_s
    frequency_hz = low_hz * 2 ** (octaves if rng.random() < 0.5 else octaves.max() - octaves)
    return np.sin(2 * np.pi * np.cumsum(frequency_hz) * (time_s[1] - time_s[0]))


def beep(time_s: Samples, rng: np.random.Generator) -> Samples:
    tone = tones((float(rng.uniform(600, 3000)),), time_s)
    return intermittent(tone, time_s, rng.uniform(0.06, 0.4), rng.uniform(0.1, 1.2))


def dial_tone(time_s: Samples, rng: np.random.Generator) -> Samples:
    return tones(DIAL_TONES_HZ[rng.integers(len(DIAL_TONES_HZ))], time_s)


def busy_signal(time_s: Samples, rng: np.random.Generator) -> Samples:
    frequencies_hz, on_s, off_s = BUSY_TONES[rng.integers(len(BUSY_TONES))]
    return intermittent(tones(frequencies_hz, time_s), time_s, on_s, off_s)


def dialing(time_s: Samples, rng: np.random.Generator) -> Samples:
    on_s, off_s = rng.uniform(0.07, 0.25), rng.uniform(0.05, 0.25)
    number = (time_s // (on_s + off_s)).astype(int)
    rows, columns = (rng.choice(hz, number[-1] + 1) for hz in (DTMF_ROWS_HZ, DTMF_COLUMNS_HZ))
    pair = np.sin(2 * np.pi * rows[number] * time_s) + np.sin(2 * np.pi * columns[number] * time_s)
    return intermittent(pair / 2, time_s, on_s, off_s)


def telephone_bell(time_s: Samples, rng: np.random.Generator) -> Samples:
    """Two gongs struck in turn twenty times a second, rung by a cadence."""
    strike_s = 1 / rng.uniform(16, 26)
    on_s, off_s = rng.uniform(0.4, 2.0), rng.uniform(0.2, 3.0)
    samples = np.zeros_like(time_s)
    for gong in range(2):
        since_s = (time_s + gong * strike_s) % (2 * strike_s)
        base_hz = rng.uniform(900, 2400)
        for partial in (1.0, 2.76, 5.4):  # of a bar that is free at both ends
            decay_s = rng.uniform(0.05, 0.25) / partial
            phase = 2 * np.pi * base_hz * partial * time_s
            samples += np.exp(-since_s / decay_s) * np.sin(phase) / partial
    return intermittent(samples, time_s, on_s, off_s)


def white_noise(time_s: Samples, rng: np.random.Generator) -> Samples:
    return colored_noise(len(time_s), 0.0, rng)


def pink_noise(time_s: Samples, rng: np.random.Generator) -> Samples:
    return colored_noise(len(time_s), -1.0, rng)


def mains_hum(time_s: Samples, rng: np.random.Generator) -> Samples:
    return hum(len(time_s), round(1 / (time_s[1] - time_s[0])), rng)


def clap(sampling_rate: int, rng: np.random.Generator) -> Samples:
    """Return the sound of two hands: a few milliseconds of noise around the resonance of the hollow between them."""
    time_s = np.arange(int(0.06 * sampling_rate)) / sampling_rate
    center_hz = rng.uniform(600, 2600)
    noise = band(rng.standard_normal(len(time_s)), sampling_rate, 0.5 * center_hz, min(7500.0, 2 * center_hz))
    return noise * np.exp(-time_s / rng.uniform(0.003, 0.012))


def hands(num_people: int, time_s: Samples, rng: np.random.Generator) -> Samples:
    """Return so many people who clap, each at a pace and with hands of their own."""
    sampling_rate = round(1 / (time_s[1] - time_s[0]))
    samples = np.zeros(len(time_s) + sampling_rate)
    for _ in range(num_people):
        own, period_s, level = clap(sampling_rate, rng), rng.uniform(0.2, 0.42), 10 ** rng.uniform(-1.2, 0)
        at_s = rng.uniform(0, period_s)
        while at_s < time_s[-1]:
            start = int(at_s * sampling_rate)
            samples[start : start + len(own)] += level * rng.uniform(0.6, 1.0) * own
            at_s += period_s * rng.normal(1, 0.06)
    return samples[: len(time_s)]


def applause(time_s: Samples, rng: np.random.Generator) -> Samples:
    return hands(int(np.exp(rng.uniform(np.log(12), np.log(300)))), time_s, rng)


def clapping(time_s: Samples, rng: np.random.Generator) -> Samples:
    return hands(int(rng.integers(1, 5)), time_s, rng)


def babble(time_s: Samples, rng: np.random.Generator) -> Samples:
    """Return eight to thirty voices that speak at once."""
    sampling_rate = round(1 / (time_s[1] - time_s[0]))
    voices = [
        make_speech(int(rng.integers(120)), int(rng.integers(1, 6)), len(time_s), sampling_rate) for _ in range(8)
    ]
    samples = np.zeros_like(time_s)
    for _ in range(int(rng.integers(8, 30))):
        voice = voices[rng.integers(len(voices))]
        samples += np.roll(voice, int(rng.integers(len(voice)))) * 10 ** rng.uniform(-0.8, 0)
    return samples


Maker = Callable[[Samples, np.random.Generator], Samples]
# Label, number of clips, how they are made.
SIGNALS: tuple[tuple[str, int, Maker], ...] = (
    ("Sine wave", 16, sine_wave),
    ("Chirp tone", 16, chirp_tone),
    ("Beep, bleep", 24, beep),
    ("Dial tone", 12, dial_tone),
    ("Busy signal", 12, busy_signal),
    ("Telephone dialing, DTMF", 20, dialing),
    ("Telephone bell ringing", 24, telephone_bell),
    ("White noise", 12, white_noise),
    ("Pink noise", 12, pink_noise),
    ("Mains hum", 12, mains_hum),
    ("Applause", 30, applause),
    ("Clapping", 24, clapping),
    ("Hubbub, speech noise, speech babble", 20, babble),
)


def signals(sampling_rate: int, share: float = 1.0) -> Iterator[tuple[str, Samples, str]]:
    """Yield name, samples and label of the signals, in rooms and over channels; of each kind a share of the number."""
    time_s = np.arange(int(DURATION_S * sampling_rate)) / sampling_rate
    for kind, (label, number, make) in enumerate(SIGNALS):
        for i in range(max(1, round(share * number))):
            rng = np.random.default_rng([11, kind, i])
            samples = recorded(make(time_s, rng), sampling_rate, rng)
            yield f"{make.__name__}/{i}", fitted(samples, round(rng.uniform(2, DURATION_S) * sampling_rate), rng), label
