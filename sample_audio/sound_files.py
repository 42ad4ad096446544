"""What the scripts that make sample sounds share: building blocks of sounds, speech by espeak-ng, and writing files."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soundfile as sf

PEAK = 0.8  # loudest sample of a file: lossy codecs overshoot, so leave them some room
BLOCK_FRAMES = 4096  # frames per write: libsndfile's Vorbis encoder can crash on one very long write
FADE_S = 0.02  # files start and end softly, a hard edge would be heard as a click
SPEECH_TEXT = "Good morning. This is a short sample of speech. A computer is reading it aloud, one word at a time."
Curve = Sequence[tuple[float, float]]  # points (frequency in Hz, level in dB) of a spectrum
Sound = Callable[[float, int, np.random.Generator], np.ndarray]
SPEECH_FILE = "speech.flac"


def level(frequency_hz: np.ndarray, curve: Curve) -> np.ndarray:
    """Return the gain (linear, same shape) at each frequency, by straight lines in dB over log frequency."""
    points_hz, points_db = np.array(curve, dtype=float).T
    return 10 ** (np.interp(np.log(np.maximum(frequency_hz, 1.0)), np.log(points_hz), points_db) / 20)


def noise(num_samples: int, sampling_rate: int, curve: Curve, rng: np.random.Generator) -> np.ndarray:
    """Return Gaussian noise (num_samples,) of unit RMS whose spectrum follows the curve."""
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    spectrum *= level(np.fft.rfftfreq(num_samples, 1 / sampling_rate), curve)
    x = np.fft.irfft(spectrum, num_samples)
    return unit_rms(x)


def wander(num_samples: int, sampling_rate: int, speed_hz: float, rng: np.random.Generator) -> np.ndarray:
    """Return a slow random curve (num_samples,) of zero mean and unit variance: nothing in nature holds still."""
    return noise(num_samples, sampling_rate, [(speed_hz, 0.0), (speed_hz * 2, -40.0), (speed_hz * 8, -120.0)], rng)


def harmonics(pitch_hz: np.ndarray, sampling_rate: int, curve: Curve, max_harmonics: int = 60) -> np.ndarray:
    """Return a buzz (num_samples,) that follows a pitch, as a throat or an exhaust would colour it.

    Args:
        pitch_hz: Fundamental frequency at every sample, (num_samples,).
        sampling_rate: In Hz; harmonics above 45 % of it are left out, they would fold back as false tones.
        curve: Level of a harmonic by its frequency: the formants.
        max_harmonics: Where to stop.
    """
    phase = 2 * np.pi * np.cumsum(pitch_hz) / sampling_rate
    x = np.zeros_like(phase)
    for k in range(1, max_harmonics + 1):
        gain = level(k * pitch_hz, curve) * (k * pitch_hz < 0.45 * sampling_rate)
        x += gain * np.sin(k * phase + k * k)  # k * k scatters the phases, else all peaks pile up in one spike
    return x


def add(x: np.ndarray, event: np.ndarray, start: int) -> None:
    """Mix an event (event_samples,) into x (num_samples,) in place; what sticks out at the end is cut off."""
    part = event[: max(0, len(x) - start)]
    x[start : start + len(part)] += part


def unit_rms(x: np.ndarray) -> np.ndarray:
    """Scale x, of any shape, to a root mean square of 1."""
    return x / np.sqrt(np.mean(x**2))


def normalise(x: np.ndarray, peak: float = PEAK) -> np.ndarray:
    """Scale so that the loudest sample is ``peak``; any shape, float32 out."""
    return (x * (peak / np.max(np.abs(x)))).astype(np.float32)


def speech() -> tuple[np.ndarray, int] | None:
    """Return SPEECH_TEXT as espeak-ng reads it, (num_samples,), and its sampling rate in Hz; None without espeak-ng."""
    program = shutil.which("espeak-ng")
    if program is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder, "speech.wav")
        subprocess.run([program, "-v", "en", "-s", "165", "-w", str(wav), SPEECH_TEXT], check=True)
        x, sampling_rate = sf.read(wav, dtype="float32")
    return normalise(x), sampling_rate


def to_channels(x: np.ndarray, num_channels: int) -> np.ndarray:
    """Turn (num_samples,) or (num_samples, any) into (num_samples, num_channels): mix down, or copy."""
    mono = x if x.ndim == 1 else x.mean(axis=1)
    stereo = x.ndim == 2 and num_channels == x.shape[1]
    return x if stereo else np.repeat(mono[:, None], num_channels, axis=1)


def fade(x: np.ndarray, fade_samples: int) -> np.ndarray:
    """Return x (num_samples, num_channels) with a straight ramp up at its start and down at its end."""
    index = np.arange(len(x))
    ramp = np.minimum(index, index[::-1]) / fade_samples
    return x * np.minimum(1, ramp).astype(np.float32)[:, None]


def one_after_another(
    sounds: Sequence[Sound], duration_s: float, sampling_rate: int, rng: np.random.Generator
) -> np.ndarray:
    """Return sounds with short cross-fades, (num_samples, 2), all of the same length."""
    overlap = int(0.25 * sampling_rate)
    total = np.zeros((int(duration_s * sampling_rate), 2), dtype=np.float32)
    step = (len(total) - overlap) // len(sounds)
    for i, sound in enumerate(sounds):
        x = to_channels(sound((step + overlap) / sampling_rate, sampling_rate, rng), 2)
        x = fade(x, overlap)[: len(total) - i * step]
        total[i * step : i * step + len(x)] += x
    return normalise(total)


def write_soundfile(path: Path, x: np.ndarray, sampling_rate: int) -> None:
    """Write x (num_samples, num_channels) as the WAV, FLAC, Ogg Vorbis or MP3 that the suffix asks for."""
    audio_format, subtype = {
        ".wav": ("WAV", "PCM_16"),
        ".flac": ("FLAC", "PCM_16"),
        ".ogg": ("OGG", "VORBIS"),
        ".mp3": ("MP3", "MPEG_LAYER_III"),
    }[path.suffix]
    with sf.SoundFile(path, "w", sampling_rate, x.shape[1], subtype, format=audio_format) as file:
        for start in range(0, len(x), BLOCK_FRAMES):
            file.write(x[start : start + BLOCK_FRAMES])


def write_av(path: Path, x: np.ndarray, sampling_rate: int) -> None:
    """Write x (num_samples, num_channels) as AAC in MP4 or as Opus in Ogg: formats that libsndfile cannot write."""
    codec = {".m4a": "aac", ".opus": "libopus"}[path.suffix]
    layout = "mono" if x.shape[1] == 1 else "stereo"
    # bitexact: no version, date or random number in the file, so that the same samples give the same bytes
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(codec, rate=sampling_rate, layout=layout, options={"flags": "+bitexact"})
        stream.bit_rate = 64_000 * x.shape[1]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(x).reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate = sampling_rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


def write(path: Path, x: np.ndarray, sampling_rate: int) -> None:
    """Write x (num_samples, num_channels) with whichever library knows the format, faded in and out."""
    writer = write_av if path.suffix in (".m4a", ".opus") else write_soundfile
    writer(path, fade(x, int(FADE_S * sampling_rate)), sampling_rate)
    print(f"{path.name:16} {sampling_rate:6} Hz  {x.shape[1]} ch  {len(x) / sampling_rate:5.2f} s")


@dataclass(frozen=True, slots=True)
class Sample:
    """One file of this folder.

    Attributes:
        file: Its name; the suffix chooses the format.
        sound: The function that makes it.
        sampling_rate: In Hz.
        num_channels: 1 or 2.
        duration_s: In seconds.
    """

    file: str
    sound: Sound
    sampling_rate: int
    num_channels: int
    duration_s: float


def make(sample: Sample, folder: Path, seed: int) -> None:
    """Write one synthesized file."""
    # seeded by the file's name: a new line in the table leaves all other files as they were
    rng = np.random.default_rng([seed, *sample.file.encode()])
    x = sample.sound(sample.duration_s, sample.sampling_rate, rng)
    write(folder / sample.file, to_channels(x, sample.num_channels), sample.sampling_rate)


def make_speech(folder: Path) -> None:
    """Write the spoken file where espeak-ng is at hand."""
    spoken = speech()
    if spoken is None:
        print(f"{SPEECH_FILE}: espeak-ng is not installed, the file is left as it is", file=sys.stderr)
    else:
        x, sampling_rate = spoken
        write(folder / SPEECH_FILE, to_channels(x, 1), sampling_rate)
