"""Make the threads of torch's matrix products sleep while they wait for each other. Standard library only.

By default a thread that has finished its part of a matrix product spins until the others have finished theirs. If
another program takes the core of one thread, all the others spin for a whole time slice, product after product, and
single passes took several times as long. Sleeping threads cost next to nothing on an idle machine
(benchmarks/contended.py measures both).
"""

from __future__ import annotations

from collections.abc import MutableMapping

# The variable of OpenMP, and the one of GNU's runtime, which torch ships on Linux. A user's choice of either is kept.
WAIT_POLICY, SPIN_COUNT = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
SLEEPING = {WAIT_POLICY: "PASSIVE"}


def let_threads_sleep(environment: MutableMapping[str, str]) -> None:
    """Make OpenMP's threads sleep while they wait, unless the environment already sets how they wait.

    Call this before importing torch, because OpenMP reads its variables then. The command calls it for its own process.
    The library does not, as a library must not change the environment of a program; a Python program can call it.

    Args:
        environment: Environment variables to update, usually `os.environ`.
    """
    if WAIT_POLICY not in environment and SPIN_COUNT not in environment:
        environment.update(SLEEPING)
