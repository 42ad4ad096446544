"""Ctrl-C and SIGTERM while a model is trained: held back to the end of an update. Standard library only."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

SAME_SIGNAL_S = 0.3  # timeout(1) and job schedulers signal a process and then its group: that is one signal


class StopRequest:
    """Ctrl-C or SIGTERM, held back until the run is at a place where it can be saved.

    Attributes:
        signal: Which came; None so far.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Hold signals back; at the end one that came is raised again. A second one is not held back.

        Signals belong to the main thread: in another one nothing is held back. What is ignored, as under nohup, stays
        ignored.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
        came_at = 0.0

        def remember(number: int, _frame: FrameType | None) -> None:
            nonlocal came_at
            if self.signal is None:
                self.signal, came_at = number, time.monotonic()
            elif time.monotonic() - came_at > SAME_SIGNAL_S:
                for each, handler in before.items():
                    signal.signal(each, handler)
                signal.raise_signal(number)

        for number in before:
            signal.signal(number, remember)
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
        if self.signal is not None:
            signal.raise_signal(self.signal)
