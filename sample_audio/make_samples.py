"""Makes the sounds in ``sample_audio`` out of random numbers and sine waves, and two out of recordings.

Every sound is a small function that returns float32 samples in [-1, 1]; the table SAMPLES says which sound goes to
which file. Speech is spoken by espeak-ng where that program is installed, and left alone where it is not. RECORDINGS
says which parts of which recordings become ``dog.wav`` and ``bird.ogg``; without ``--recordings`` they are left alone.

    python sample_audio/make_samples.py
    python sample_audio/make_samples.py --output some/folder --recordings FOLDER

The built-in model should know these everyday sounds; it learned from none of them.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
from sound_files import (
    FADE_S,
    Curve,
    Sample,
    add,
    fade,
    harmonics,
    level,
    make,
    make_speech,
    noise,
    normalise,
    one_after_another,
    to_channels,
    unit_rms,
    write,
)

SEED = 2

# the first three formants of the vowels of father, had, but, thought and bed (after Peterson and Barney, 1952)
VOWELS_HZ = np.array([(730, 1090, 2440), (800, 1250, 2600), (640, 1190, 2390), (570, 840, 2410), (530, 1840, 2480)])


# -----------------------------------------------------------------------------
# building blocks


def filtered(x: np.ndarray, sampling_rate: int, curve: Curve) -> np.ndarray:
    """Return x (num_samples,) through a filter with the gain of the curve, without delay."""
    size = fast_size(len(x))
    return np.fft.irfft(np.fft.rfft(x, size) * level(np.fft.rfftfreq(size, 1 / sampling_rate), curve), size)[: len(x)]


def fast_size(num_samples: int) -> int:
    """Return the next power of two: a transform of a prime number of samples would take long."""
    return 1 << (num_samples - 1).bit_length()


def echo(
    x: np.ndarray,
    sampling_rate: int,
    decay_s: float,
    amount: float,
    rng: np.random.Generator,
    curve: Curve = ((1, 0), (2, 0)),
) -> np.ndarray:
    """Put a dry sound (num_samples,) into a room: convolve it with noise that dies away (60 dB in ``decay_s``).

    Args:
        x: The sound, (num_samples,).
        sampling_rate: In Hz.
        decay_s: How long the room answers.
        amount: RMS of the answer to white noise of unit RMS.
        rng: Where the noise comes from.
        curve: What walls and air leave of each frequency.
    """
    time_s = np.arange(int(decay_s * sampling_rate)) / sampling_rate
    room = filtered(rng.standard_normal(len(time_s)) * 10 ** (-3 * time_s / decay_s), sampling_rate, curve)
    room *= amount / np.sqrt(np.sum(room**2))
    size = fast_size(len(x) + len(room))
    return x + np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(room, size), size)[: len(x)]


# -----------------------------------------------------------------------------
# sounds: each takes (duration_s, sampling_rate, rng), each returns (num_samples,) or (num_samples, 2)


def rain(duration_s: float, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Steady rain on a roof: the splashes of thousands of drops, near and far, over the hiss of all others."""
    num_samples = int(duration_s * sampling_rate)
    time_s = np.arange(int(0.02 * sampling_rate)) / sampling_rate
    hiss = [(60, -2), (300, 4), (1500, 0), (6000, 5), (16000, -1)]
    channels = []
    for _ in range(2):  # two ears hear different drops
        x = np.zeros(num_samples)
        for start in rng.integers(0, num_samples, int(2000 * duration_s)):
            distance = 1 + 6.7 * np.sqrt(rng.uniform())  # as if drops fell everywhere on a disk around the ear
            size = rng.uniform(0.5, 1.5)
            splash_s = 0.001 * size
            splash = rng.standard_normal(int(3 * splash_s * sampling_rate))
            splash *= np.exp(-np.arange(len(splash)) / (splash_s * sampling_rate))
            add(x, splash * size / distance, start)
            if rng.uniform() < 0.1:  # a drop in a puddle encloses a bubble, which rings
                ring_hz = rng.uniform(1200, 7000) / size
                bubble = np.exp(-time_s * ring_hz / 8) * np.sin(2 * np.pi * ring_hz * time_s)
                add(x, 0.8 * bubble * size / distance, start + int(0.004 * sampling_rate))
        x = unit_rms(x) + 0.2 * noise(num_samples, sampling_rate, hiss, rng)
        channels.append(filtered(x, sampling_rate, [(60, 4), (300, 2), (1500, 0), (5000, 4), (8000, 0), (16000, -12)]))
    return normalise(np.stack(channels, axis=1))


def thunder(duration_s: float, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Two strokes of lightning 700 m away, in light rain.

    Every two meters of a crooked channel of hot air send out a wave with the shape of an N; those from high up arrive
    late, which makes the rumble (Few, 1969; Ribner and Roy, 1982).
    """
    num_samples = int(duration_s * sampling_rate)
    distance_m, height_m, segment_m, sound_m_per_s = 724.0, 3480.0, 2.04, 340.0
    total = np.zeros(num_samples)
    for start_s, gain in ((0.2, 1.0), (0.45 * duration_s, 0.5)):
        steps = rng.standard_normal((int(height_m / segment_m), 3)) * 1.95
        steps[:, 2] = np.abs(steps[:, 2]) + 0.3  # upwards
        steps += np.cumsum(rng.standard_normal(steps.shape) * 0.1, axis=0) * [1, 1, 0]  # ... but bent by the wind
        steps /= np.linalg.norm(steps, axis=1, keepdims=True)
        points = np.cumsum(steps * segment_m, axis=0) + np.array([distance_m, 0, 0])
        ways_m = np.linalg.norm(points, axis=1)
        broadside = 1 - np.sum(points / ways_m[:, None] * steps, axis=1) ** 2  # a segment is loud to its sides
        levels = rng.gamma(0.37, 1, len(steps)) * broadside * distance_m / ways_m
        stroke = np.zeros(num_samples)
        for way_m, amount in zip(ways_m, levels, strict=True):
            wave = np.linspace(1, -1, int(0.0032 * rng.uniform(0.5, 1.8) * sampling_rate))
            add(stroke, wave * amount, int((start_s + (way_m - ways_m.min()) / sound_m_per_s) * sampling_rate))
        total += gain * stroke / np.max(np.abs(stroke))
    total = echo(total, sampling_rate, 1.3, 1.5, rng)
    air = [(20, -9), (60, 0), (120, 0), (490, -16), (1950, -40), (8000, -70)]  # swallows high frequencies on the way
    total = filtered(total, sampling_rate, air)
    total = np.tanh(4.4 * total / np.max(np.abs(total)))  # no microphone takes it undistorted
    return normalise(total + 0.04 * rain(duration_s, sampling_rate, rng)[:, 0])


def applause(duration_s: float, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """A hundred and ten people who clap, each at their own pace and with their own hands, in a hall."""
    x = np.zeros(int(duration_s * sampling_rate))
    time_s = np.arange(int(0.05 * sampling_rate)) / sampling_rate
    for _ in range(110):
        distance, pace_hz, hands_hz = 1 + rng.exponential(0.8), rng.uniform(3, 5), rng.uniform(1000, 1870)
        claps = []
        for _ in range(3):  # no two claps are the same
            hz = hands_hz * rng.uniform(0.9, 1.1)  # the air between the palms resonates
            palms = [(hz / 4, -30), (hz / 1.6, -6), (hz, 0), (hz * 1.6, -5), (hz * 4, -16), (12000, -30)]
            clap = noise(len(time_s), sampling_rate, palms, rng) * np.minimum(1, time_s / 0.0005)
            claps.append(clap * np.exp(-time_s / (0.01 * rng.uniform(0.5, 1.3))))
        start_s = rng.uniform(0, 0.5)
        while start_s < duration_s:
            add(x, claps[rng.integers(3)] * rng.uniform(0.6, 1) / distance, int(start_s * sampling_rate))
            start_s += max(0.1, rng.normal(1 / pace_hz, 0.05))
    return normalise(echo(x, sampling_rate, 1.0, 0.2, rng))


def crowd(duration_s: float, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """A crowd that cheers: fourteen voices that shout one vowel after another, an echo of them, some applause."""
    x = np.zeros(int(duration_s * sampling_rate))
    for _ in range(14):
        pitch_hz = np.exp(rng.uniform(np.log(250), np.log(680)))
        distance, start_s = 1 + rng.exponential(1.2), rng.uniform(-0.45, 0.45)
        while start_s < duration_s:
            length_s = 0.45 * rng.uniform(0.4, 1.7)
            voice = shout(length_s, pitch_hz * rng.uniform(0.9, 1.2), sampling_rate, rng)
            if start_s >= 0:
                add(x, voice * rng.uniform(0.4, 1) / distance, int(start_s * sampling_rate))
            start_s += length_s + rng.exponential(0.8)
    x = unit_rms(echo(x, sampling_rate, 1.5, 0.3, rng, [(100, -6), (500, 0), (1000, 0), (4000, -24)]))
    x += 0.25 * unit_rms(applause(duration_s, sampling_rate, rng))
    return normalise(filtered(x, sampling_rate, [(50, -28), (300, -14), (700, 0), (8000, 0)]))


def shout(length_s: float, pitch_hz: float, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return one shouted vowel (num_samples,) of unit RMS: pulses of the vocal cords and breath, through a throat."""
    time = np.linspace(0, 1, int(length_s * sampling_rate))
    waver = np.interp(time, np.linspace(0, 1, 8), rng.standard_normal(8))
    pitch = pitch_hz * np.interp(time, [0, 0.2, 0.6, 1], [0.74, 1.05, 1, 0.69]) * (1 + 0.02 * waver)
    pulses = np.diff(np.floor(np.cumsum(pitch) / sampling_rate), prepend=0.0) > 0
    cords = unit_rms(pulses * rng.uniform(0.98, 1, len(time)))
    scale = 0.95 + 0.25 * min(1.0, (pitch_hz - 150) / 150)  # who has a high voice has a short throat
    f1, f2, f3 = VOWELS_HZ[rng.integers(len(VOWELS_HZ))] * scale * rng.uniform(0.93, 1.07, 3)
    throat = [(80, -12), (f1 * 0.6, -6), (f1, 6), (f1 * 1.25, -7), (f2, -1), ((f2 + f3) / 2, -14), (f3, -8)]
    throat += [(f3 * 1.35, -18), (7500, -36)]
    x = filtered(cords + 0.36 * rng.standard_normal(len(time)), sampling_rate, sorted(throat))
    x = np.tanh(0.74 * unit_rms(x))  # a shout is strained
    return unit_rms(x) * np.sin(np.pi * np.sqrt(time)) ** 0.6


def telephone(duration_s: float, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """An old telephone that rings twice: a clapper strikes two bells in turn, 27 times a second."""
    x = np.zeros(int(duration_s * sampling_rate))
    time_s = np.arange(int(1.2 * sampling_rate)) / sampling_rate
    partials = ((1, 1, 0.93), (1.003, 0.5, 0.84), (2.01, 0.6, 0.56), (2.74, 0.7, 0.46), (3.76, 0.35, 0.28))
    bells = []
    for bell_hz in (1082.0, 1390.0):
        bell = np.zeros(len(time_s))
        for ratio, gain, ring_s in (*partials, (5.41, 0.4, 0.19)):
            if ratio * bell_hz < 0.45 * sampling_rate:
                bell += (
                    gain * np.exp(-time_s / ring_s) * np.sin(2 * np.pi * ratio * bell_hz * time_s + rng.uniform(0, 6))
                )
        click = np.arange(int(0.004 * sampling_rate))
        bell[: len(click)] += 0.55 * rng.standard_normal(len(click)) * np.exp(-4 * click / len(click))
        bells.append(bell)
    for start_s, end_s in ((0.1, 2.0), (3.6, duration_s - 0.4)):
        strike = 0
        while start_s < end_s:
            add(x, bells[strike % 2] * rng.uniform(0.85, 1), int(start_s * sampling_rate))
            start_s += 1 / 27.2 * rng.uniform(0.97, 1.03)
            strike += 1
    x = filtered(x, sampling_rate, [(100, -2), (800, 0), (2000, 0), (4000, -2)])
    return normalise(echo(x, sampling_rate, 0.35, 0.065, rng))


def siren(duration_s: float, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """The siren of a police car that wails up and down every two seconds, with houses around."""
    time_s = np.arange(int(duration_s * sampling_rate)) / sampling_rate
    wail = -np.cos(2 * np.pi * time_s / 2.19)
    pitch_hz = 832 + 527 * np.sign(wail) * np.abs(wail) ** 1.4
    horn = [(300, -8), (900, 0), (1400, -2), (2000, -10), (3200, -20), (6000, -30)]
    x = np.tanh(1.7 * unit_rms(harmonics(pitch_hz, sampling_rate, horn, 8)))
    x = unit_rms(echo(x, sampling_rate, 0.94, 0.12, rng, [(100, -6), (300, 0), (2200, 0), (8000, -24)]))
    return normalise(x + 0.011 * noise(len(x), sampling_rate, [(50, 6), (500, 0), (3000, -15)], rng))


def traffic(duration_s: float, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Cars that pass on a road eight meters away: tires and engines, higher when they come than when they leave."""
    num_samples = int(duration_s * sampling_rate)
    time_s = np.arange(num_samples) / sampling_rate
    tires = [(60, -8), (200, -6), (580, -3), (1160, 2), (1500, 0), (3120, -15), (6900, -30), (12000, -44)]
    rumble = [(30, 0), (80, 3), (200, -6), (800, -25), (3000, -50)]
    x = np.zeros(num_samples)
    num_cars = round(1.15 * duration_s)
    for car, passing_s in enumerate(np.linspace(-0.5, duration_s + 0.5, num_cars) + rng.uniform(-0.5, 0.5, num_cars)):
        lane_m = 7.8 if car % 2 else 12.5
        way_m = np.hypot((time_s - passing_s) * 8.0 * rng.uniform(0.7, 1.3), lane_m)
        sent_s = time_s - way_m / 343  # what is heard now left the car a moment ago: the Doppler effect
        firing_hz = rng.uniform(50, 90) * (1 + 0.1 * np.sin(0.4 * sent_s + car))
        turn = 2 * np.pi * np.cumsum(np.gradient(sent_s) * firing_hz)
        engine = np.zeros(num_samples)
        for order in np.arange(0.5, 12, 0.5):
            gain = 10 ** (-0.35 * abs(np.log2(order * np.mean(firing_hz) / 160)))
            engine += gain * np.sin(order * turn + order * order) * (1 + 0.15 * np.sin(turn / 2))
        one = noise(num_samples, sampling_rate, tires, rng) + 0.47 * unit_rms(engine)
        one += 0.05 * noise(num_samples, sampling_rate, rumble, rng)
        x += one * lane_m / way_m * rng.uniform(0.5, 1)
    town = [(30, 3), (80, 4), (200, 0), (500, -5), (1000, -5), (2500, -18), (8000, -38)]
    x = unit_rms(x) + 0.5 * noise(num_samples, sampling_rate, town, rng)
    return normalise(filtered(x, sampling_rate, [(40, 3), (200, 2), (500, 0), (2000, 0), (8000, -3)]))


def piano(duration_s: float, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Chords and a little melody on a piano, the low strings on the left."""
    left, right = (np.zeros(int(duration_s * sampling_rate)) for _ in range(2))
    chords = ((36, 48, 64, 67, 72), (33, 45, 64, 69, 72), (41, 53, 65, 69, 72), (43, 55, 62, 67, 71))  # as MIDI notes
    bar_s = 1.6
    for bar in range(int(np.ceil(duration_s / bar_s))):
        chord = chords[bar % len(chords)]
        notes = [(0.05 + 0.015 * i, note, 0.9, 1.5) for i, note in enumerate(chord)]  # start, note, force, length
        melody = (chord[-1] + step for step in (12, 7, 12, 16))
        notes += [(0.25 + 0.38 * i, note, 0.8, 0.4) for i, note in enumerate(melody)]
        for start_s, note, force, length_s in notes:
            x = piano_note(note, force, length_s, sampling_rate, rng)
            pan = np.clip((note - 36) / 60, 0.1, 0.9)
            add(left, x * np.sqrt(1 - pan), int((bar * bar_s + start_s) * sampling_rate))
            add(right, x * np.sqrt(pan), int((bar * bar_s + start_s) * sampling_rate))
    hall = [(100, -6), (300, 0), (3200, 0), (13000, -24)]
    wet = [echo(side, sampling_rate, 0.55, 0.55, rng, hall) for side in (left, right)]
    end = np.minimum(1, np.arange(len(left))[::-1] / (0.3 * sampling_rate))  # the last chord must not stop dead
    return normalise(np.stack(wet, axis=1) * end[:, None])


def piano_note(note: int, force: float, length_s: float, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return one note of a piano (num_samples,): stiff strings, struck by a felt hammer, damped after ``length_s``."""
    time_s = np.arange(int((length_s + 0.3) * sampling_rate)) / sampling_rate
    string_hz = 440 * 2 ** ((note - 69) / 12)
    stiffness = min(0.02, 1.9 * 10 ** (-3.9 + (note - 48) * 0.03))
    decay_s = 1.0 * 2 ** (-(note - 60) / 18)
    x = np.zeros(len(time_s))
    for k in range(1, 28):
        hz = k * string_hz * np.sqrt(1 + stiffness * k * k)  # overtones of a stiff string are sharp
        if hz > min(6500, 0.45 * sampling_rate):
            break
        gain = (abs(np.sin(np.pi * k * 0.2)) + 0.05) / k**1.17
        gain *= 10 ** (-0.9 * hz / (760 + 2060 * force)) * np.exp(0.03 * rng.standard_normal())
        partial_s = 0.45 * decay_s / (1 + (hz / 1800) ** 0.9)
        # strings that were struck together lose their energy fast, then swing against each other and keep the rest
        envelope = 0.58 * np.exp(-time_s / partial_s) + 0.42 * np.exp(-time_s / (4 * partial_s))
        beat = np.cos(np.pi * hz * (2 ** (2.3 / 1200) - 1) * time_s + rng.uniform(0, 1))
        x += gain * envelope * beat * np.sin(2 * np.pi * hz * time_s + rng.uniform(0, 6.28))
    x /= np.max(np.abs(x))
    knock = [(40, -6), (90, 0), (200, -2), (600, -8), (2000, -18), (5000, -30)]  # key and soundboard
    x += 0.016 * noise(len(x), sampling_rate, knock, rng) * np.exp(-time_s / 0.02)
    return x * force * np.minimum(1, time_s / 0.0015) * np.exp(-np.maximum(0, time_s - length_s) / 0.08)


def soundscape(duration_s: float, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Five sounds one after another with short cross-fades: longer than any model listens at once."""
    sounds = (rain, telephone, traffic, piano, applause)
    return one_after_another(sounds, duration_s, sampling_rate, rng)


# -----------------------------------------------------------------------------
# files


SAMPLES = [
    Sample("applause.flac", applause, 16000, 1, 6.0),
    Sample("crowd.ogg", crowd, 22050, 1, 6.0),
    Sample("piano.m4a", piano, 44100, 2, 8.0),
    Sample("rain.ogg", rain, 44100, 2, 6.0),
    Sample("siren.wav", siren, 8000, 1, 6.0),
    Sample("telephone.wav", telephone, 16000, 1, 6.0),
    Sample("thunder.opus", thunder, 48000, 1, 8.0),
    Sample("traffic.mp3", traffic, 44100, 1, 6.0),
    Sample("soundscape.mp3", soundscape, 44100, 2, 37.5),
]


@dataclass(frozen=True, slots=True)
class Recording:
    """One file of this folder that was recorded.

    Attributes:
        file: Its name; the suffix chooses the format.
        source: Name of the recording it is cut from.
        sha256: Of the recording, so that another one of the same name is not taken for it.
        sampling_rate: In Hz, of the file.
        cut: Start and end of the part that is used, in seconds of the recording.
        starts_s: Where the part is laid into the file, in seconds.
        duration_s: Of the file, in seconds.
    """

    file: str
    source: str
    sha256: str
    sampling_rate: int
    cut: tuple[float, float]
    starts_s: tuple[float, ...]
    duration_s: float

    def samples(self, folder: Path) -> np.ndarray:
        """Return the file's samples, (num_samples,), from the recording in a folder."""
        path = folder / self.source
        if hashlib.sha256(path.read_bytes()).hexdigest() != self.sha256:
            raise SystemExit(f"{path}: is not the recording that {self.file} is cut from")
        recorded, recorded_rate = sf.read(path, dtype="float32", always_2d=True)
        part = recorded[int(self.cut[0] * recorded_rate) : int(self.cut[1] * recorded_rate)].mean(axis=1)
        part = fade(soxr.resample(part, recorded_rate, self.sampling_rate)[:, None], int(FADE_S * self.sampling_rate))
        x = np.zeros(int(self.duration_s * self.sampling_rate))
        for start_s in self.starts_s:
            add(x, part[:, 0], int(start_s * self.sampling_rate))
        return normalise(x)


# README.md says who recorded them, and where they are found
RECORDINGS = [
    Recording(
        "bird.ogg",
        "birds.ogg",
        "e59b19c2a377d5835d07e7ec8f8c876b9f40ae7f703738b55d616ef96a1638b2",
        32000,
        (31.5, 37.5),
        (0.0,),
        6.0,
    ),
    Recording(
        "dog.wav",
        "sounds_dog_bark.ogg",
        "c8375b9933f6b4a3c2505ada1cb723f8ba2c35364bc3eace585ea4119b5d08b4",
        22050,
        (0.0, 1.26),
        (0.1, 1.45, 2.6),
        4.0,
    ),
]


def main() -> None:
    """Write all files of SAMPLES, the speech where espeak-ng is at hand, RECORDINGS where their sources are."""
    parser = argparse.ArgumentParser(description="Synthesize the sample sounds.")
    samples = Path(__file__).resolve().parent
    parser.add_argument("--output", type=Path, default=samples, metavar="FOLDER", help="default: where this script is")
    parser.add_argument("--recordings", type=Path, metavar="FOLDER", help="with the sources of the recorded samples")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for sample in SAMPLES:
        make(sample, options.output, SEED)
    make_speech(options.output)
    for recording in RECORDINGS if options.recordings else []:
        x = recording.samples(options.recordings)
        write(options.output / recording.file, to_channels(x, 1), recording.sampling_rate)


if __name__ == "__main__":
    main()
