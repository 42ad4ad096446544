"""Ctrl-C and SIGTERM during training, deferred to the end of an update. Standard library only."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

SAME_SIGNAL_S = 0.3  # timeout(1) and job schedulers signal a process and then its group: this counts as one signal


class StopRequest:
    """Ctrl-C or SIGTERM, deferred until the run can be saved.

    Attributes:
        signal: Number of the signal received; None if there was none.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Defer the first signal and raise it again at the end; a second signal is not deferred.

        Python delivers signals to the main thread, so nothing is deferred in other threads. Ignored signals, as under
        nohup, stay ignored.
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
