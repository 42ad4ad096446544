"""Makes the sample sounds of this folder out of nothing but random numbers and sine waves.

Every sound is a small function that returns float32 samples in [-1, 1]; the table SAMPLES says which sound goes to
which file. Nothing is recorded, so nobody owns anything. Speech is the one exception to numpy: it is spoken by
espeak-ng where that program is installed, and left alone where it is not.

    python sample_audio/make_samples.py
    python sample_audio/make_samples.py --output /tmp/sounds
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sound_files import (
    Sample,
    add,
    harmonics,
    make,
    make_speech,
    noise,
    normalise,
    one_after_another,
    wander,
)

SEED = 1234


# -----------------------------------------------------------------------------
# building blocks


def echo(x: np.ndarray, sampling_rate: int, decay_s: float, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Put a dry sound (num_samples,) into a room: convolve it with noise that dies away (60 dB in ``decay_s``)."""
    time_s = np.arange(int(decay_s * sampling_rate)) / sampling_rate
    room = rng.standard_normal(len(time_s)) * 10 ** (-3 * time_s / decay_s)
    room *= amount / np.sqrt(np.sum(room**2))
    size = len(x) + len(room)
    return x + np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(room, size), size)[: len(x)]


# -----------------------------------------------------------------------------
# sounds: each takes (duration_s, sampling_rate, rng), each returns (num_samples,) or (num_samples, 2)


def rain(duration_s: float, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Steady rain: the hiss of the many drops far away, and the single patter of those nearby."""
    num_samples = int(duration_s * sampling_rate)
    channels = []
    for _ in range(2):  # two ears hear different drops
        x = noise(num_samples, sampling_rate, [(60, -2), (300, 2), (1000, 0), (3000, -3), (8000, -9)], rng)
        for start in rng.integers(0, num_samples, int(120 * duration_s)):
            length = int(sampling_rate * rng.uniform(0.002, 0.006))
            drop = rng.standard_normal(length) * np.exp(-5 * np.arange(length) / length)
            add(x, drop * rng.exponential(0.7), start)
        channels.append(x)
    return normalise(np.stack(channels, axis=1))


def waves(duration_s: float, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Sea waves on a beach: a roar that never stops, and surf that swells, breaks bright and runs out."""
    num_samples = int(duration_s * sampling_rate)
    time_s = np.arange(num_samples) / sampling_rate
    roar_curve = [(40, 4), (150, 8), (400, 6), (1000, 0), (3000, -14), (8000, -30)]
    surf_curve = [(100, -12), (500, 0), (1500, 0), (5000, -10), (8000, -18)]
    # a wave rises fast and falls slowly; cubing the sine keeps the troughs long
    swell = (0.5 + 0.5 * np.sin(2 * np.pi * time_s / 4.7 + 0.6 * np.sin(2 * np.pi * time_s / 4.7) - 1.2)) ** 3
    channels = []
    for _ in range(2):
        lap = 1 + 0.2 * wander(num_samples, sampling_rate, 3.0, rng)
        roar = noise(num_samples, sampling_rate, roar_curve, rng) * (0.5 + 0.5 * swell)
        channels.append((roar + 0.6 * swell * noise(num_samples, sampling_rate, surf_curve, rng)) * lap)
    return normalise(np.stack(channels, axis=1))


def clock(duration_s: float, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """A mechanical clock in a quiet room: tick and tock take turns, four of them in a second."""
    x = np.zeros(int(duration_s * sampling_rate))
    time_s = np.arange(int(0.06 * sampling_rate)) / sampling_rate
    for beat in range(int(duration_s * 4)):
        tock = beat % 2
        tick = 0.5 * rng.standard_normal(len(time_s)) * np.exp(-time_s / 0.0015)  # the pallet strikes the wheel...
        for ring_hz in (1900, 3150, 4700, 6300) if not tock else (1500, 2700, 4100, 5600):
            ring_s = 8.0 / ring_hz + 0.002  # ...and the case rings, the high parts of it shorter
            tick += 0.5 * np.exp(-time_s / ring_s) * np.sin(2 * np.pi * ring_hz * time_s + rng.uniform(0, 6))
        # the escapement gives each beat a faint double strike
        for delay_s, gain in ((0.0, 1.0), (0.012, 0.35)):
            add(x, tick * gain * (0.8 if tock else 1.0), int((0.1 + beat / 4 + delay_s) * sampling_rate))
    x = echo(x, sampling_rate, 0.25, 0.25, rng)
    hush = noise(len(x), sampling_rate, [(50, 0), (200, -14), (1000, -26), (5000, -40)], rng)
    return normalise(x / np.max(np.abs(x)) + 0.012 * hush, 0.5)


def helicopter(duration_s: float, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """A helicopter overhead: two blades slap the air thirteen times a second, the turbine whines behind."""
    num_samples = int(duration_s * sampling_rate)
    time_s = np.arange(num_samples) / sampling_rate
    blades_hz = 13 + 0.15 * wander(num_samples, sampling_rate, 0.5, rng)
    turn = np.cumsum(blades_hz) / sampling_rate % 1.0
    slap = np.exp(-5 * turn) * np.minimum(1.0, turn / 0.06)  # fast attack, slow decay
    low = noise(num_samples, sampling_rate, [(30, -6), (70, 3), (250, 0), (600, -8), (1500, -25), (6000, -55)], rng)
    high = noise(num_samples, sampling_rate, [(100, -20), (400, 0), (1200, -10), (3000, -26), (8000, -44)], rng)
    thump = harmonics(blades_hz, sampling_rate, [(13, -20), (40, 0), (100, -2), (300, -20)], 30)
    whine = np.sin(2 * np.pi * 1130 * time_s) + 0.4 * np.sin(2 * np.pi * 2260 * time_s)
    x = low * (0.35 + 1.6 * slap) + high * (0.12 + 0.5 * slap) + 0.12 * thump + 0.01 * whine
    return normalise(x * (1 + 0.1 * wander(num_samples, sampling_rate, 0.4, rng)))


def chainsaw(duration_s: float, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """A chainsaw: a two-stroke engine that is blipped twice, howls, and slows down as it bites into the wood."""
    num_samples = int(duration_s * sampling_rate)
    time_s = np.arange(num_samples) / sampling_rate
    points_s = [0.0, 0.2, 0.35, 0.6, 0.9, 1.1, 1.25, 1.5, 1.8, 2.0, 2.2, 3.4, 3.8, 5.2, 5.6]
    throttle = np.interp(time_s, points_s, [0, 0, 0.9, 0.8, 0, 0, 0.95, 0.8, 0, 0, 1, 0.96, 0.75, 0.78, 1])
    pitch_hz = 60 + 110 * throttle + 1.5 * wander(num_samples, sampling_rate, 5.0, rng)
    exhaust = [(60, 0), (170, 8), (300, -4), (450, 0), (700, -12), (1000, -7), (1600, -14), (2800, -10), (8000, -24)]
    engine = harmonics(pitch_hz, sampling_rate, exhaust)
    gas = noise(num_samples, sampling_rate, [(60, -15), (400, 0), (900, -3), (2500, -3), (8000, -10)], rng)
    gas *= 0.6 + 0.4 * np.sin(2 * np.pi * np.cumsum(pitch_hz) / sampling_rate)
    loudness = (0.08 + 0.92 * throttle**1.5) * (1 + 0.15 * wander(num_samples, sampling_rate, 8.0, rng))
    return normalise(np.tanh(0.3 * (engine + 0.8 * gas) * loudness))


def fire(duration_s: float, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """A crackling fire: a low flutter of flames, and sap that bursts in clicks of every size."""
    num_samples = int(duration_s * sampling_rate)
    flames = noise(num_samples, sampling_rate, [(30, 6), (100, 0), (300, -13), (1000, -24), (8000, -32)], rng)
    x = 0.035 * flames * (1 + 0.3 * wander(num_samples, sampling_rate, 3.0, rng))
    for start in rng.integers(0, num_samples, int(28 * duration_s)):
        time_s = np.arange(int(0.03 * sampling_rate)) / sampling_rate
        ring = np.sin(2 * np.pi * rng.uniform(600, 6000) * time_s)  # a splinter is a tiny xylophone
        snap = (rng.standard_normal(len(time_s)) + ring) * np.exp(-time_s / rng.uniform(0.0004, 0.003))
        add(x, snap * 0.06 * rng.pareto(1.6), start)  # heavy tail: many small snaps, few loud ones
    return normalise(np.tanh(x), 0.6)  # Opus overshoots most on clicks


def siren(duration_s: float, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """An emergency siren that wails up and down every three seconds, with houses around."""
    time_s = np.arange(int(duration_s * sampling_rate)) / sampling_rate
    pitch_hz = 1000 - 450 * np.cos(2 * np.pi * time_s / 3.0)
    horn = [(400, -6), (900, 0), (1800, -6), (3200, -14), (6000, -30)]
    x = echo(harmonics(pitch_hz, sampling_rate, horn, 8), sampling_rate, 0.8, 0.5, rng)
    return normalise(x + 0.03 * noise(len(x), sampling_rate, [(50, 6), (500, 0), (3000, -15)], rng))


def dog(duration_s: float, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """A dog that barks in pairs: a short, rough buzz whose pitch leaps up and falls."""
    x = np.zeros(int(duration_s * sampling_rate))
    time = np.linspace(0, 1, int(0.17 * sampling_rate))
    throat = [(150, -20), (400, -3), (700, 3), (1200, 0), (1700, -10), (3000, -22), (7000, -45)]
    for start_s in (0.15, 0.50, 1.35, 1.65, 2.3, 2.95, 3.25):
        pitch_hz = np.interp(time, [0, 0.35, 1], np.array([400, 560, 360]) * rng.uniform(0.93, 1.07))
        pitch_hz += 12 * wander(len(time), sampling_rate, 60.0, rng)  # roughness
        breath = noise(len(time), sampling_rate, throat, rng)
        envelope = np.sin(np.pi * time**0.6) ** 1.5 * rng.uniform(0.6, 1.0)
        add(x, (harmonics(pitch_hz, sampling_rate, throat, 12) + 0.4 * breath) * envelope, int(start_s * sampling_rate))
    x = echo(x, sampling_rate, 0.5, 0.2, rng)
    return normalise(x + 0.002 * noise(len(x), sampling_rate, [(50, 10), (500, 0), (5000, -20)], rng))


def rooster(duration_s: float, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """A rooster: cock, a, doodle, and a long doo that sinks at the end."""
    x = np.zeros(int(duration_s * sampling_rate))
    throat = [(300, -25), (500, -3), (900, 3), (1500, 0), (2300, -6), (3300, -12), (5000, -22), (8000, -40)]
    syllables = [  # start and length in seconds, pitch in Hz along the way
        (0.00, 0.20, (350, 450, 400)),
        (0.30, 0.22, (460, 540, 520)),
        (0.55, 0.42, (500, 620, 600)),
        (1.00, 1.15, (560, 600, 590, 570, 520, 430)),
    ]
    for start_s, length_s, pitches in syllables:
        time = np.linspace(0, 1, int(length_s * sampling_rate))
        pitch_hz = np.interp(time, np.linspace(0, 1, len(pitches)), pitches)
        pitch_hz = pitch_hz + 4 * wander(len(time), sampling_rate, 30.0, rng)
        envelope = np.minimum(1, time * length_s / 0.03) * (1 - time**4)
        voice = harmonics(pitch_hz, sampling_rate, throat, 14) + 0.15 * noise(len(time), sampling_rate, throat, rng)
        add(x, voice * envelope, int((0.3 + start_s) * sampling_rate))
    x = echo(x, sampling_rate, 0.4, 0.15, rng)
    return normalise(x + 0.0005 * noise(len(x), sampling_rate, [(50, 10), (500, 0), (5000, -10)], rng))


def pluck(pitch_hz: float, length_s: float, sampling_rate: int) -> np.ndarray:
    """Return one soft note (num_samples,), as of an electric piano: overtones die sooner than the fundamental."""
    time_s = np.arange(int(length_s * sampling_rate)) / sampling_rate
    x = np.zeros_like(time_s)
    for k, gain in enumerate((1.0, 0.45, 0.22, 0.12, 0.06), start=1):
        x += gain * np.exp(-time_s * (1.2 + 0.9 * k)) * np.sin(2 * np.pi * k * pitch_hz * time_s)
    return x * np.minimum(1, time_s / 0.008) * np.minimum(1, (length_s - time_s) / 0.05)


def music(duration_s: float, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """A short tune over four chords, the melody a little to the right, the chords a little to the left."""
    left, right = (np.zeros(int(duration_s * sampling_rate)) for _ in range(2))
    chords = ((48, 55, 64, 67), (45, 57, 60, 64), (41, 53, 57, 65), (43, 55, 59, 62))  # C, Am, F, G as MIDI notes
    melody = (76, 79, 84, 83, 81, 76, 72, 74, 77, 81, 84, 81, 79, 74, 71, 74)  # four notes to a chord
    beat_s = 0.45
    for beat in range(int(duration_s / beat_s)):
        start = int(beat * beat_s * sampling_rate)
        notes = [(melody[beat % len(melody)], 1.0, 0.35)]
        if beat % 4 == 0:
            notes += [(note, 4.0, 0.7) for note in chords[beat // 4 % len(chords)]]
        for note, beats, pan in notes:
            x = pluck(440 * 2 ** ((note - 69) / 12), (beats + 0.8) * beat_s, sampling_rate) * rng.uniform(0.85, 1.0)
            add(left, x * pan, start)
            add(right, x * (1 - pan), start)
    wet = [echo(side, sampling_rate, 1.2, 0.25, rng) for side in (left, right)]
    end = np.minimum(1, np.arange(len(left))[::-1] / (0.6 * sampling_rate))  # the last chord must not stop dead
    return normalise(np.stack(wet, axis=1) * end[:, None])


def soundscape(duration_s: float, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Five sounds one after another with short cross-fades: longer than any model listens at once."""
    sounds = (rain, clock, helicopter, music, waves)
    return one_after_another(sounds, duration_s, sampling_rate, rng)


# -----------------------------------------------------------------------------
# files


SAMPLES = [
    Sample("chainsaw.flac", chainsaw, 16000, 1, 6.0),
    Sample("clock.wav", clock, 16000, 1, 6.0),
    Sample("dog.wav", dog, 22050, 1, 4.0),
    Sample("fire.opus", fire, 48000, 1, 6.0),
    Sample("helicopter.mp3", helicopter, 44100, 1, 6.0),
    Sample("music.m4a", music, 44100, 2, 8.0),
    Sample("rain.ogg", rain, 44100, 2, 6.0),
    Sample("rooster.ogg", rooster, 22050, 1, 6.0),
    Sample("siren.wav", siren, 8000, 1, 6.0),
    Sample("waves.m4a", waves, 48000, 2, 8.0),
    Sample("soundscape.mp3", soundscape, 44100, 2, 37.5),
]


def main() -> None:
    """Write all files of SAMPLES, and the speech where espeak-ng is at hand."""
    parser = argparse.ArgumentParser(description="Synthesise the sample sounds.")
    here = Path(__file__).resolve().parent
    parser.add_argument("--output", type=Path, default=here, metavar="FOLDER", help="default: the script's folder")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    for sample in SAMPLES:
        make(sample, folder, SEED)
    make_speech(folder)


if __name__ == "__main__":
    main()
