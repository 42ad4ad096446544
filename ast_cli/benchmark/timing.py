"""Seconds that steps take, in turns, so that a machine that is busy or throttles treats them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

CELL_S = 3.0  # to spend on one peer in one cell
MIN_REPEATS, MAX_REPEATS = 5, 100
SLOW_S, MIN_SLOW_REPEATS = 1.0, 3  # a pass this long needs fewer repeats: the clock's noise is small beside it
CPU_WARMUPS, WARMUPS = 1, 5  # a GPU also has to raise its clock and choose its kernels


def time_alternating(
    steps: Sequence[Callable[[], object]],
    device: torch.device,
    num_repeats: int | None = None,
    num_warmups: int | None = None,
) -> list[list[float]]:
    """Time steps in turn, round after round.

    Args:
        steps: What to time.
        device: Whose queue to wait for before and after each step.
        num_repeats: Rounds; None for as many as fit `CELL_S` seconds a step.
        num_warmups: Untimed rounds before those, at least 1; None for what suits the device.

    Returns:
        Seconds, one list of ``num_repeats`` a step.
    """
    latest_s = [0.0]
    for _ in range(num_warmups or (CPU_WARMUPS if device.type == "cpu" else WARMUPS)):
        latest_s = [_time_once(step, device) for step in steps]
    num_repeats = num_repeats or repeats_that_fit(statistics.mean(latest_s))
    rounds = [[_time_once(step, device) for step in steps] for _ in range(num_repeats)]
    return [list(times_s) for times_s in zip(*rounds, strict=True)]


def _time_once(step: Callable[[], object], device: torch.device) -> float:
    """Return the seconds one step takes, from an idle device to an idle device."""
    synchronize(device)
    start = time.perf_counter()
    step()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait for what a GPU still has to do: its kernels are only queued by the call that asks for them."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def repeats_that_fit(pass_s: float) -> int:
    """Return how many passes of so many seconds to time."""
    least = MIN_SLOW_REPEATS if pass_s > SLOW_S else MIN_REPEATS
    return max(least, min(MAX_REPEATS, int(CELL_S / max(pass_s, 1e-9))))


def median_and_spread_ms(times_s: Sequence[float]) -> tuple[float, float]:
    """Return the median and the interquartile range, in milliseconds, of times in seconds."""
    if len(times_s) == 1:
        return times_s[0] * 1000, 0.0
    first, median, third = statistics.quantiles(times_s, n=4, method="inclusive")
    return median * 1000, (third - first) * 1000
