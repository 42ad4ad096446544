"""Ctrl-C and SIGTERM: the first signal unwinds the run so that files are flushed and closed, a second ends it at once.

An exception that a signal handler raises while a library is being imported, or calls back into Python, may be swallowed
by the library or may abort the process. While a model is loaded there is nothing to save, so the first signal ends the
process at once. A long run regularly calls `raise_if_ended`, in case the exception was swallowed.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ast_cli.training.stop_request import SAME_SIGNAL_S


class Terminated(BaseException):
    """SIGTERM was received; unwinds the stack like KeyboardInterrupt."""


_EXCEPTIONS: dict[int, type[BaseException]] = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}
_first: list[tuple[int, float]] = []  # number and time of the first signal, if any
_nothing_to_save: list[bool] = []  # not empty while no files are open; workers end with this process


def end_on_signals() -> None:
    """Install the handlers of both signals; a signal that is ignored, as under nohup, stays ignored."""
    for number in _EXCEPTIONS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


@contextmanager
def nothing_to_save() -> Iterator[None]:
    """End the process at once, without unwinding, if a signal arrives inside the ``with`` block."""
    _nothing_to_save.append(True)
    try:
        yield
    finally:
        _nothing_to_save.pop()


def raise_if_ended() -> None:
    """Raise the exception of an earlier signal again, in case a library swallowed it."""
    if _first:
        raise _EXCEPTIONS[_first[0][0]]


def _end(number: int, _frame: FrameType | None) -> None:
    if _nothing_to_save:
        os._exit(128 + number)
    if not _first:
        _first.append((number, time.monotonic()))
        raise_if_ended()
    elif time.monotonic() - _first[0][1] > SAME_SIGNAL_S:
        os._exit(128 + number)
