"""Renders sounds by synthesis, as pieces like those of ``gather.py``: instruments, bands, voices, clocks and signals.

    python models/builtin/render.py CORPUS

needs fluidsynth, two soundfonts, espeak-ng and flite.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from clocks import make_clock
from effects import Samples
from instruments import instruments
from music import make_music
from noises import make_noise
from signals import signals
from speech import make_speech, make_word

SAMPLING_RATE = 16_000
CLIP = 6 * SAMPLING_RATE
NUM_FOLDS = 5
QUIETEST = 1e-3  # of full scale

Clips = Iterator[tuple[str, Samples, str]]


def bands(share: float) -> Clips:
    for i in range(round(share * 160)):
        yield f"band/{i}", make_music(i, 1 + i % NUM_FOLDS, 2 * CLIP, SAMPLING_RATE), "Music"


def voices(share: float) -> Clips:
    for i in range(round(share * 200)):
        yield f"voice/{i}", make_speech(i, 1 + i % NUM_FOLDS, CLIP, SAMPLING_RATE), "Speech"
    for i in range(round(share * 150)):
        yield f"word/{i}", make_word(i, 1 + i % NUM_FOLDS, SAMPLING_RATE), "Speech"


def noises(share: float) -> Clips:
    for i in range(round(share * 40)):
        yield f"noise/{i}", make_noise(i, 1, CLIP, SAMPLING_RATE), "Noise"
        yield f"clock/{i}", make_clock(i, 1, CLIP, SAMPLING_RATE), "Tick-tock"


def played(share: float) -> Clips:
    return instruments(SAMPLING_RATE, (max(1, round(5 * share)), max(1, round(3 * share))))


def signalled(share: float) -> Clips:
    return signals(SAMPLING_RATE, share)


KINDS: dict[str, Callable[[float], Clips]] = {
    "rendered-instruments": played,
    "rendered-bands": bands,
    "rendered-speech": voices,
    "rendered-noises": noises,
    "rendered-signals": signalled,
}


def render(job: tuple[str, Path, float]) -> str:
    """Write all clips of one kind; return a line that counts them."""
    name, corpus, share = job
    names: list[str] = []
    arrays: list[np.ndarray] = []
    labels: list[str] = []
    for clip_name, samples, label in KINDS[name](share):
        if (peak := np.abs(samples).max()) > QUIETEST:
            names.append(f"{clip_name}#0")
            arrays.append(np.round(samples / max(1.0, peak) * 32767).astype(np.int16))
            labels.append(label)
    lengths = np.array([array.size for array in arrays], np.int64)
    columns = {"names": np.array(names), "labels": np.array(labels), "lengths": lengths}
    np.savez(corpus / "pieces" / f"{name}.npz", samples=np.concatenate(arrays), **columns)
    return f"{name}: {len(names)} clips, {lengths.sum() / SAMPLING_RATE / 60:.1f} minutes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--share", type=float, default=1.0, help="of the usual number of clips")
    options = parser.parse_args()
    (options.corpus / "pieces").mkdir(parents=True, exist_ok=True)
    with multiprocessing.Pool(2) as pool:
        for line in pool.imap_unordered(render, [(name, options.corpus, options.share) for name in KINDS]):
            print(line, flush=True)


if __name__ == "__main__":
    main()
