"""What every engine offers: a loaded model, from features to logits, whatever runs it. NumPy alone is imported here."""

from __future__ import annotations

import contextlib
import platform
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ast_cli.errors import CheckpointError
from ast_cli.model.config import ASTConfig


class Engine(Protocol):
    """A loaded classifier that is only run, never trained."""

    @property
    def name(self) -> str:
        """One of `ast_cli.engine.options.EngineName`, ``auto`` apart."""

    @property
    def config(self) -> ASTConfig:
        """The model's configuration, labels included."""

    @property
    def device_name(self) -> str:
        """Where it runs: ``cpu``, ``cuda:0`` or ``mps``."""

    @property
    def dtype_name(self) -> str:
        """In which type it computes: ``float32``, ``float16``, ``bfloat16``, ``int8`` or ``int8+bfloat16``."""

    @property
    def default_batch_size(self) -> int:
        """Windows to run at once when nobody says."""

    @property
    def facts(self) -> dict[str, str]:
        """What its speed depends on beside the processor and the model's sizes: versions, threads, kinds of kernels."""

    @property
    def out_of_memory(self) -> tuple[type[Exception], ...]:
        """What `logits` raises where the device's memory is too small for so many windows."""

    def logits(self, input_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute logits.

        Args:
            input_values: Normalized features, shape (batch, max_length, num_mel_bins).

        Returns:
            Shape (batch, num_labels).

        Raises:
            CheckpointError: They are not finite: weights out of proportion, or too large for half precision.
        """


CPU_BATCH_SIZE = 8  # of a larger one, a small model loses beside the process that decodes what it gains alone
CPU_BATCH_ACTIVATIONS = 700_000  # numbers in one layer's output that still suit a processor's cache


def cpu_batch_size(config: ASTConfig) -> int:
    """Return how many windows suit a CPU by the model's size.

    A batch that outgrows the cache is slower per window (measured: base size 1.7 s alone, 2.0 s in a batch of 4), and a
    tiny model gains from a larger one (26 ms alone, 16 ms in a batch of 8). To measure the best size gains nothing over
    this (benchmarks/batch_size.py).
    """
    return max(1, min(CPU_BATCH_SIZE, CPU_BATCH_ACTIVATIONS // (config.num_tokens * config.hidden_size)))


def cpu_name() -> str:
    """Return the processor's model; on Linux `platform.processor` knows the architecture alone."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def finite(logits: NDArray[Any], dtype_name: str) -> NDArray[np.float32]:
    """Return logits as float32, or say why they are no numbers.

    Raises:
        CheckpointError: They are not finite.
    """
    logits = np.asarray(logits, np.float32)
    if not np.isfinite(logits).all():
        remedy = "; try --dtype float32" if dtype_name != "float32" else ": its weights are out of all proportion"
        raise CheckpointError(f"the model's outputs are not numbers in {dtype_name}{remedy}")
    return logits
