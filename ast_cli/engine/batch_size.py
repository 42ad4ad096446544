"""The number of windows that the model processes at once."""

from __future__ import annotations

from ast_cli.engine.interface import Engine


class BatchSize:
    """The batch size of one run, with the reason for it.

    Attributes:
        num_windows: Number of windows per batch.
        origin: Reason for the number, as text for progress messages.
    """

    def __init__(self, num_windows: int, origin: str) -> None:
        self.num_windows = num_windows
        self.origin = origin

    def lower(self, num_windows: int) -> None:
        """Reduce the batch size, because the memory of the device is too small for the present one."""
        self.num_windows, self.origin = num_windows, "limited by memory"

    def __str__(self) -> str:
        """Return the number with its reason: ``batches of 8 windows (by the model's size)``."""
        return f"batches of {self.num_windows} window{'s' * (self.num_windows != 1)} ({self.origin})"


def choose_batch_size(engine: Engine, requested: int | None) -> BatchSize:
    """Return the requested batch size or, if there is none, the default of the engine.

    Args:
        engine: Engine with the loaded model.
        requested: Number of windows per batch, or None.
    """
    if requested is not None:
        return BatchSize(requested, "as requested")
    origin = "by the model's size" if engine.device_name == "cpu" else f"default for {engine.device_name}"
    return BatchSize(engine.default_batch_size, origin)
