"""How many windows a run gives to the model at once."""

from __future__ import annotations

from ast_cli.engine.interface import Engine


class BatchSize:
    """The number of windows that one run gives to the model at once.

    Attributes:
        num_windows: To be run together.
        origin: Where the number comes from, for people.
    """

    def __init__(self, num_windows: int, origin: str) -> None:
        self.num_windows = num_windows
        self.origin = origin

    def lower(self, num_windows: int) -> None:
        """Run no more than so many windows from now on: the device's memory is too small for more."""
        self.num_windows, self.origin = num_windows, "what the memory holds"

    def __str__(self) -> str:
        """Return the number with its origin: ``batches of 8 windows (by the model's size)``."""
        return f"batches of {self.num_windows} window{'s' * (self.num_windows != 1)} ({self.origin})"


def choose_batch_size(engine: Engine, asked_for: int | None) -> BatchSize:
    """Return how many windows to run at once: as asked for, else as suits the engine.

    Args:
        engine: The loaded model.
        asked_for: Windows a batch; None to choose.
    """
    if asked_for is not None:
        return BatchSize(asked_for, "as asked for")
    origin = "by the model's size" if engine.device_name == "cpu" else f"as suits {engine.device_name}"
    return BatchSize(engine.default_batch_size, origin)
