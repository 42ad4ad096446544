"""The interface of all engines, and helpers that they share. Imports NumPy, but no runtime.

An engine holds a loaded model and computes logits from features.
"""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ast_cli.errors import CheckpointError
from ast_cli.model.config import ASTConfig


class Engine(Protocol):
    """A loaded classifier for inference."""

    @property
    def name(self) -> str:
        """Name of the engine: one of `ast_cli.engine.options.EngineName` except ``auto``."""

    @property
    def config(self) -> ASTConfig:
        """Configuration of the model, including its labels."""

    @property
    def device_name(self) -> str:
        """Device that runs the model, such as ``cpu``, ``cuda:0`` or ``mps``."""

    @property
    def dtype_name(self) -> str:
        """Data type of the computation, such as ``float32``, ``tf32``, ``bfloat16``, ``int8`` or ``int8+bfloat16``."""

    @property
    def default_batch_size(self) -> int:
        """Number of windows per batch unless the user chooses one."""

    @property
    def facts(self) -> dict[str, str]:
        """Facts that the speed depends on besides processor and model size: versions, threads, kinds of kernels."""

    @property
    def out_of_memory(self) -> tuple[type[Exception], ...]:
        """Exceptions that `logits` raises if a batch does not fit into the memory of the device."""

    def logits(self, input_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute logits.

        Args:
            input_values: Normalized features, shape (batch, max_length, num_mel_bins).

        Returns:
            Logits, shape (batch, num_labels).

        Raises:
            CheckpointError: If the logits are not finite, because weights are far too large or overflow half precision.
        """


# A small model alone gains from larger batches, but loses as much beside the process that decodes.
CPU_BATCH_SIZE = 8
CPU_BATCH_ACTIVATIONS = 700_000  # numbers in the output of one layer; more do not fit into the processor's cache


def cpu_batch_size(config: ASTConfig) -> int:
    """Return the batch size for a CPU, which depends on the size of the model.

    A batch that does not fit into the cache takes longer per window (measured at base size: 1.7 s alone, 2.0 s in a
    batch of 4), while a tiny model gains from larger batches (26 ms alone, 16 ms in a batch of 8). Measuring the best
    batch size at run time gains nothing over this rule (benchmarks/batch_size.py).
    """
    return max(1, min(CPU_BATCH_SIZE, CPU_BATCH_ACTIVATIONS // (config.num_tokens * config.hidden_size)))


def default_num_threads() -> int:
    """Return how many threads a runtime uses on the CPU by default: as torch, by ``OMP_NUM_THREADS``, else the cores.

    The cores are those that this process may use, as a container or a job scheduler may leave it a few of many.
    """
    of_user = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # a list has one number a level
    if of_user.isdecimal() and int(of_user) > 0:
        return int(of_user)
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_name() -> str:
    """Return the model name of the processor; `platform.processor` returns only the architecture on Linux."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def finite(logits: NDArray[Any], dtype_name: str) -> NDArray[np.float32]:
    """Return logits as float32 after checking that they are finite.

    Raises:
        CheckpointError: If they are not; the message says what to try.
    """
    logits = np.asarray(logits, np.float32)
    if not np.isfinite(logits).all():
        remedy = "; try --dtype float32" if dtype_name != "float32" else ": its weights are far too large"
        raise CheckpointError(f"the model's outputs are not finite in {dtype_name}{remedy}")
    return logits
