"""Random music: chords, bass, melody and drums for General MIDI instruments, played by fluidsynth."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import mido
import numpy as np
import soundfile
from effects import Samples, fitted, recorded

SOUNDFONTS = ("/usr/share/sounds/sf2/FluidR3_GM.sf2", "/usr/share/sounds/sf2/TimGM6mb.sf2")
TICKS = 480  # a beat
DRUMS = 9  # the channel of percussion in General MIDI
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10), (0, 2, 4, 5, 7, 9, 10))
PROGRESSIONS = ((0, 4, 5, 3), (0, 5, 3, 4), (1, 4, 0, 0), (0, 3, 0, 4), (5, 3, 0, 4), (0, 0, 3, 4), (0, 6, 5, 6))
# Programs from 0: pianos, mallets, organs, guitars, strings, choirs, brass, reeds, pipes, synthesizers, plucked.
CHORD_PROGRAMS = (0, 1, 2, 4, 5, 6, 16, 18, 19, 21, 24, 25, 26, 27, 29, 46, 48, 49, 50, 52, 61, 88, 89, 90, 91, 94)
MELODY_PROGRAMS = (
    0,
    4,
    9,
    11,
    12,
    13,
    14,
    22,
    24,
    26,
    30,
    40,
    41,
    42,
    46,
    53,
    56,
    57,
    59,
    60,
    64,
    65,
    66,
    68,
    70,
    71,
    73,
    74,
    75,
    79,
    80,
    81,
    84,
    104,
    105,
    106,
    107,
    108,
    110,
)
BASS_PROGRAMS = (32, 33, 34, 35, 36, 38, 39, 43, 58)
KICK, SNARE, HAT, OPEN_HAT, CRASH, TOM, SHAKER = 36, 38, 42, 46, 49, 45, 70

Note = tuple[float, float, int, int, int]  # start and length in beats, channel, key, velocity


def make_music(i: int, fold: int, num_samples: int, sampling_rate: int) -> Samples:
    """Return a piece for one to four parts, with instruments of the fold, of about the requested length."""
    rng = np.random.default_rng([4, i])
    tempo_bpm = rng.uniform(60, 175)
    parts = rng.random(4) < (0.7, 0.5, 0.7, 0.45)  # chords, bass, melody, drums
    if not parts.any():
        parts[rng.integers(4)] = True
    programs = [_of_fold(choice, fold, rng) for choice in (CHORD_PROGRAMS, BASS_PROGRAMS, MELODY_PROGRAMS)]
    seconds = num_samples / sampling_rate + 2
    notes = _compose(rng, parts, num_bars=int(seconds * tempo_bpm / 60 / 4) + 1)
    samples = play(notes, programs, tempo_bpm, SOUNDFONTS[int(rng.integers(2))], sampling_rate)
    return recorded(fitted(samples[: round(seconds * sampling_rate)], num_samples, rng), sampling_rate, rng)


def _of_fold(programs: tuple[int, ...], fold: int, rng: np.random.Generator) -> int:
    return int(rng.choice(programs[fold - 1 :: 5]))


def _compose(rng: np.random.Generator, parts: np.ndarray, num_bars: int) -> list[Note]:
    """Return the notes of all parts, bar by bar over a progression of chords."""
    scale, progression = SCALES[rng.integers(len(SCALES))], PROGRESSIONS[rng.integers(len(PROGRESSIONS))]
    root, style = int(rng.integers(48, 60)), int(rng.integers(4))
    rhythm = np.sort(rng.choice(np.arange(0, 4, 0.5), rng.integers(3, 8), replace=False))
    drums = _drum_bar(rng)
    notes: list[Note] = []
    for bar in range(num_bars):
        degree = progression[bar % len(progression)]
        if parts[0]:
            notes += _chord_bar(4 * bar, [_key(scale, root, degree + step) for step in (0, 2, 4)], style, rng)
        if parts[1]:
            notes += [(4 * bar + t, 0.9, 1, _key(scale, root - 24, degree), 90) for t in range(0, 4, 1 + style % 2)]
        if parts[2]:
            steps = degree + 7 + np.cumsum(rng.integers(-2, 3, len(rhythm)))
            lengths = np.diff([*rhythm, 4.0]) * rng.uniform(0.6, 1.0)
            notes += [
                (4 * bar + t, length, 2, _key(scale, root, int(step)), int(rng.integers(75, 120)))
                for t, length, step in zip(rhythm, lengths, steps, strict=True)
            ]
        if parts[3]:
            notes += [(4 * bar + t, 0.1, DRUMS, key, int(rng.integers(60, 120))) for t, key in drums]
    return notes


def _key(scale: tuple[int, ...], root: int, step: int) -> int:
    return root + 12 * (step // 7) + scale[step % 7]


def _chord_bar(beat: float, keys: list[int], style: int, rng: np.random.Generator) -> list[Note]:
    """Play a chord held, struck on every beat, as an arpeggio, or off the beat."""
    velocity = int(rng.integers(55, 95))
    if style == 0:
        return [(beat, 3.9, 0, key, velocity) for key in keys]
    if style == 1:
        return [(beat + t, 0.8, 0, key, velocity) for t in range(4) for key in keys]
    if style == 2:
        return [(beat + t / 2, 0.6, 0, keys[t % 3] + 12 * (t % 4 == 3), velocity) for t in range(8)]
    return [(beat + t + 0.5, 0.4, 0, key, velocity) for t in range(4) for key in keys]


def _drum_bar(rng: np.random.Generator) -> list[tuple[float, int]]:
    """Return a bar of drums: a common pattern with random changes."""
    kicks = [t for t in np.arange(0, 4, 0.5) if rng.random() < (0.9 if t in (0, 2) else 0.2)]
    snares = [t for t in np.arange(0, 4, 0.5) if rng.random() < (0.85 if t in (1, 3) else 0.1)]
    step = float(rng.choice([0.25, 0.5, 1.0]))
    cymbal = int(rng.choice([HAT, HAT, OPEN_HAT, SHAKER]))
    return [(t, KICK) for t in kicks] + [(t, SNARE) for t in snares] + [(t, cymbal) for t in np.arange(0, 4, step)]


def play(notes: list[Note], programs: list[int], tempo_bpm: float, soundfont: str, sampling_rate: int) -> Samples:
    """Render notes by fluidsynth to mono samples."""
    events = []
    for start, length, channel, key, velocity in notes:
        fields = {"channel": channel, "note": int(np.clip(key, 0, 127))}
        events.append((round(start * TICKS), 1, mido.Message("note_on", velocity=velocity, **fields)))
        events.append((round((start + length) * TICKS), 0, mido.Message("note_off", **fields)))
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempo_bpm))])
    track += [mido.Message("program_change", channel=channel, program=p) for channel, p in enumerate(programs)]
    now = 0
    for tick, _, message in sorted(events, key=lambda event: event[:2]):
        track.append(message.copy(time=tick - now))
        now = tick
    with tempfile.TemporaryDirectory() as folder:
        midi, wav = Path(folder) / "piece.mid", Path(folder) / "piece.wav"
        mido.MidiFile(ticks_per_beat=TICKS, tracks=[track]).save(midi)
        command = [
            "fluidsynth",
            "-ni",
            "-q",
            "-r",
            str(sampling_rate),
            "-g",
            "0.6",
            "-F",
            str(wav),
            soundfont,
            str(midi),
        ]
        subprocess.run(command, check=True, capture_output=True)
        samples, _ = soundfile.read(wav, dtype="float64", always_2d=True)
    return samples.mean(axis=1)
