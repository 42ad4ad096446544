"""Make the training data of the built-in model: ESC-10, a few recordings, and synthesized sounds, in one manifest.

    python models/builtin/make_data.py DATA --output build/builtin-data

DATA holds ``esc10/`` (meta.csv with filename, fold, audioset_label, licence; audio/) and ``speech_music/`` (meta.csv
with filename, audioset_label, duration_s; audio/). The folds of ESC-10 are its author's; those of everything else are
made here so that no recording and no list of voices or instruments is in two of them. Clips under CC-Sampling+ are left
out. Needs mido, and espeak-ng, flite and fluidsynth with the soundfonts FluidR3_GM and TimGM6mb (Debian: espeak-ng
flite fluidsynth fluid-soundfont-gm timgm6mb-soundfont).
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from clocks import make_clock
from effects import Samples, through_channel
from music import make_music
from noises import make_noise, make_silence
from speech import make_speech, make_word

SAMPLING_RATE = 16_000
CLIP_S = 5.2  # a little more than the model's window, 5.135 s
SHORTEST_S, LONGEST_S = 0.5, 4.0  # of parts that leave the window partly empty
SHORTEST_WORD_S, LONGEST_WORD_S = 0.5, 1.4  # of moments of music and noise, as long as single words
NUM_FOLDS = 5
NUM_SPEECH, NUM_MUSIC, NUM_NOISE, NUM_SILENCE, NUM_CLOCKS = 240, 240, 80, 40, 40
NUM_WORDS = 150
UNWANTED_LICENSE = "Sampling+"
KNOWN_LABELS = {"Speech", "Music"}  # of the recordings; others are examples of none of the model's labels

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--all-esc10", action="store_true", help="leave the folds of ESC-10 out: train on all of it")
    which.add_argument("--only-esc10", action="store_true", help="nothing but ESC-10, one label a clip")
    arguments = parser.parse_args()
    audio = arguments.output / "audio"
    audio.mkdir(parents=True, exist_ok=True)
    rows = list(esc10_rows(arguments.data / "esc10", with_folds=not arguments.all_esc10))
    if arguments.only_esc10:
        rows = [{"label": row.pop("labels")[0], **row} for row in rows]
    else:
        rows += [*loudest_parts(rows), *recording_rows(arguments.data / "speech_music"), *generated_rows(audio)]
    with open(arguments.output / "manifest.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    counts = Counter(label for row in rows for label in row.get("labels", [row.get("label")]))
    print(f"{len(rows)} examples: {dict(sorted(counts.items()))}", file=sys.stderr)


def esc10_rows(folder: Path, *, with_folds: bool) -> Iterator[Row]:
    """One example a clip, in its author's folds; an example of no fold is never held out."""
    for clip in read_csv(folder / "meta.csv"):
        if UNWANTED_LICENSE not in clip["licence"]:
            path = (folder / "audio" / clip["filename"]).resolve()
            fold = {"fold": int(clip["fold"])} if with_folds else {}
            yield {"path": str(path), "labels": [clip["audioset_label"]], **fold}


def loudest_parts(rows: list[Row]) -> Iterator[Row]:
    """A short part around the loudest moment of every third clip: the rest of the model's window is padding then."""
    rng = np.random.default_rng(5)
    for row in rows[::3]:
        samples, rate = soundfile.read(row["path"], dtype="float32", always_2d=True)
        loudest_s = float(np.argmax(np.convolve(samples.mean(axis=1) ** 2, np.ones(rate // 20), "same"))) / rate
        yield {**row, **part_around(loudest_s, len(samples) / rate, rng)}


def part_around(
    middle_s: float,
    duration_s: float,
    rng: np.random.Generator,
    shortest_s: float = SHORTEST_S,
    longest_s: float = LONGEST_S,
) -> Row:
    """Return a part between two lengths, wherever it may lie with the middle in it."""
    length_s = min(float(rng.uniform(shortest_s, longest_s)), duration_s)
    start_s = middle_s - rng.random() * length_s
    start_s = min(max(0.0, start_s), duration_s - length_s)
    return {"start_s": round(start_s, 3), "end_s": round(start_s + length_s, 3)}


def recording_rows(folder: Path) -> Iterator[Row]:
    """Consecutive pieces of each recording, all in the recording's fold; stems of one song count as one recording.

    Every third piece is short.
    """
    rng = np.random.default_rng(6)
    groups: dict[str, int] = {}
    for recording in read_csv(folder / "meta.csv"):
        label, duration_s = recording["audioset_label"], float(recording["duration_s"])
        group = recording["title"].split("multi-track")[0]
        fold = groups.setdefault(group, 1 + len(groups) % NUM_FOLDS)
        path = (folder / "audio" / recording["filename"]).resolve()
        for i in range(max(1, int(duration_s // CLIP_S))):
            part = {"start_s": round(i * CLIP_S, 3), "end_s": round(min((i + 1) * CLIP_S, duration_s), 3)}
            if i % 3 == 2:
                part = part_around((i + 0.5) * CLIP_S, duration_s, rng)
            yield {"path": str(path), "labels": [label] if label in KNOWN_LABELS else [], "fold": fold, **part}


def generated_rows(folder: Path) -> Iterator[Row]:
    """Speech, music, noise, silence and clocks made here; files that are there already are kept.

    Of each kind, every second clip is a short part, and every fourth one has passed through a narrow channel. Music and
    noise also have examples as short as the single words.
    """
    rng = np.random.default_rng(7)
    kinds = [
        ("Speech", NUM_SPEECH, make_speech),
        ("Music", NUM_MUSIC, make_music),
        ("Noise", NUM_NOISE, make_noise),
        ("Silence", NUM_SILENCE, make_silence),
        ("Tick-tock", NUM_CLOCKS, make_clock),
    ]
    for label, number, make in kinds:
        for i in range(number):
            path = folder / f"{label.lower()}-{i:03d}.flac"
            fold = 1 + i % NUM_FOLDS
            if not path.exists():
                samples = make(i, fold, round(CLIP_S * SAMPLING_RATE), SAMPLING_RATE)
                if i % 4 == 0:
                    samples = through_channel(samples, SAMPLING_RATE, (8_000, 11_025)[i // 4 % 2])
                write_clip(path, samples)
            row = {"path": str(path.resolve()), "labels": [label], "fold": fold}
            yield {**row, **part_around(CLIP_S / 2, CLIP_S, rng)} if i % 2 else row
            if label in ("Music", "Noise") and i % 2 == 0:
                yield {**row, **part_around(CLIP_S / 2, CLIP_S, rng, SHORTEST_WORD_S, LONGEST_WORD_S)}
    for i in range(NUM_WORDS):
        path, fold = folder / f"word-{i:03d}.flac", 1 + i % NUM_FOLDS
        if not path.exists():
            write_clip(path, make_word(i, fold, SAMPLING_RATE))
        yield {"path": str(path.resolve()), "labels": ["Speech"], "fold": fold}


def write_clip(path: Path, samples: Samples) -> None:
    soundfile.write(path, np.clip(samples, -1, 1).astype(np.float32), SAMPLING_RATE)


def read_csv(file: Path) -> list[dict[str, str]]:
    with open(file, encoding="utf-8", newline="") as rows:
        return list(csv.DictReader(rows))


if __name__ == "__main__":
    main()
