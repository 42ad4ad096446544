"""Measure cost and gain of reusing the scores of repeated windows, on digital silence and on noise.

    python benchmarks/repeats.py [--minutes 10] [--model builtin] [--rounds 3]

A run with and a run without the cache of windows take turns on the same recordings, after their scores are compared.
Silence repeats in every window; noise never repeats. The time to look up one window of AudioSet's size is measured
separately.
"""

from __future__ import annotations

import argparse
import statistics
import time
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from ast_cli import Tagger
from ast_cli.tagging.score import batch
from ast_cli.tagging.score.window_cache import WindowCache

SAMPLING_RATE = 16_000
NUM_LOOKUPS = 200
SCORE_TOLERANCE = 1e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    tagger = Tagger.from_pretrained(arguments.model, engine="torch")
    num_samples = round(arguments.minutes * 60 * SAMPLING_RATE)
    noise = (0.1 * np.random.default_rng(0).standard_normal(num_samples)).astype(np.float32)
    print("| recording | with the cache, s | without, s | ratio |\n| --- | ---: | ---: | ---: |")
    for name, waveform in (("silence", np.zeros(num_samples, np.float32)), ("noise", noise)):
        check_equality(tagger, waveform)
        rounds = [(timed(tagger, waveform, 32), timed(tagger, waveform, 0)) for _ in range(arguments.rounds)]
        ours, without = (statistics.median(times) for times in zip(*rounds, strict=True))
        print(f"| {arguments.minutes:g} min of {name} | {ours:.2f} | {without:.2f} | {ours / without:.2f} |")
    for name, lookup_s in lookups().items():
        print(f"looking up a window that is {name}: {lookup_s * 1e6:.0f} microseconds")


def classify(tagger: Tagger, waveform: NDArray[np.float32], max_windows: int) -> dict[str, float]:
    with mock.patch.object(batch, "WindowCache", return_value=WindowCache(max_windows)):
        result = tagger.classify(waveform, sampling_rate=SAMPLING_RATE, top_k=5)
    return {tag.label: tag.score for tag in result.tags}


def check_equality(tagger: Tagger, waveform: NDArray[np.float32]) -> None:
    ours, without = (classify(tagger, waveform, number) for number in (32, 0))
    if max(abs(score - without[label]) for label, score in ours.items()) > SCORE_TOLERANCE:
        raise SystemExit(
            f"error: the scores differ, so the times do not compare: {ours} with the cache, {without} without"
        )


def timed(tagger: Tagger, waveform: NDArray[np.float32], max_windows: int) -> float:
    start = time.perf_counter()
    classify(tagger, waveform, max_windows)
    return time.perf_counter() - start


def lookups() -> dict[str, float]:
    """Return the time to look up a new window and a known window, in seconds."""
    rng = np.random.default_rng(0)
    windows = [rng.standard_normal((1024, 128)).astype(np.float32) for _ in range(NUM_LOOKUPS)]
    cache = WindowCache()
    times: dict[str, list[float]] = {"new": [], "known": []}
    for window in windows:
        for name in times:
            start = time.perf_counter()
            cache.find(window)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
