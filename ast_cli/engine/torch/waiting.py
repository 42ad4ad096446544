"""How the threads of torch's products wait for each other. Standard library only.

A thread that has done its part of a matrix product spins until the others have done theirs. Where other programs take
the core of one of them, all the others spin for a whole time slice, product after product: single passes took several
times as long. Threads that sleep instead cost next to nothing on an idle machine (benchmarks/contended.py measures
both).
"""

from __future__ import annotations

from collections.abc import MutableMapping

# OpenMP's own variable, and that of GNU's runtime, which torch brings on Linux: a user's choice of either stands.
WAIT_POLICY, SPIN_COUNT = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
SLEEPING = {WAIT_POLICY: "PASSIVE"}


def let_threads_sleep(environment: MutableMapping[str, str]) -> None:
    """Have OpenMP's threads sleep while they wait, unless the environment says how they shall.

    OpenMP reads its variables when torch is imported, so this comes before. The command does it for its own process; a
    library must not change the environment of a program, so in Python it is for the program to do.

    Args:
        environment: `os.environ`.
    """
    if WAIT_POLICY not in environment and SPIN_COUNT not in environment:
        environment.update(SLEEPING)
