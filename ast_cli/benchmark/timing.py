"""Time steps that take turns, so that a busy or throttling machine affects all of them equally."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

CELL_S = 3.0  # time to spend on one peer in one cell
MIN_REPEATS, MAX_REPEATS = 5, 100
SLOW_S, MIN_SLOW_REPEATS = 1.0, 3  # longer passes need fewer repeats, as the noise of the clock is small in comparison
CPU_WARMUPS, WARMUPS = 1, 5  # a GPU also raises its clock and selects kernels


def time_alternating(
    steps: Sequence[Callable[[], object]],
    device: torch.device,
    num_repeats: int | None = None,
    num_warmups: int | None = None,
) -> list[list[float]]:
    """Time steps that take turns, round after round.

    Args:
        steps: Functions to time.
        device: Device whose queue must be empty before and after each step.
        num_repeats: Number of rounds; None for as many as fit into `CELL_S` seconds per step.
        num_warmups: Number of untimed rounds before those, at least 1; None for the default of the device.

    Returns:
        Times in seconds: one list of ``num_repeats`` for each step.
    """
    latest_s = [0.0]
    for _ in range(num_warmups or (CPU_WARMUPS if device.type == "cpu" else WARMUPS)):
        latest_s = [_time_once(step, device) for step in steps]
    num_repeats = num_repeats or repeats_that_fit(statistics.mean(latest_s))
    rounds = [[_time_once(step, device) for step in steps] for _ in range(num_repeats)]
    return [list(times_s) for times_s in zip(*rounds, strict=True)]


def _time_once(step: Callable[[], object], device: torch.device) -> float:
    """Return the time of one step in seconds, from an idle device to an idle device."""
    synchronize(device)
    start = time.perf_counter()
    step()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has run all queued kernels; calls only put kernels into its queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def repeats_that_fit(pass_s: float) -> int:
    """Return the number of passes to time if one pass takes ``pass_s`` seconds."""
    least = MIN_SLOW_REPEATS if pass_s > SLOW_S else MIN_REPEATS
    return max(least, min(MAX_REPEATS, int(CELL_S / max(pass_s, 1e-9))))


def median_and_spread_ms(times_s: Sequence[float]) -> tuple[float, float]:
    """Return the median and the interquartile range of times in seconds, both in milliseconds."""
    if len(times_s) == 1:
        return times_s[0] * 1000, 0.0
    first, median, third = statistics.quantiles(times_s, n=4, method="inclusive")
    return median * 1000, (third - first) * 1000
