"""Ctrl-C and SIGTERM: the first unwinds the run, so that files are flushed and closed, a second ends it at once.

Libraries swallow exceptions that a signal raises while they are being imported or call back into Python, or abort the
process over them. While a model is loaded there is nothing to save, so the first signal already ends the process; a
long run asks now and then whether it should have ended.
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
    """SIGTERM arrived; unwinds like Ctrl-C."""


_EXCEPTIONS: dict[int, type[BaseException]] = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}
_first: list[tuple[int, float]] = []  # the signal that ends this process, and when it came
_nothing_to_save: list[bool] = []  # not empty: no files are open, and workers end with this process


def end_on_signals() -> None:
    """Have both signals end this process; one that is ignored, as Ctrl-C is under nohup, stays ignored."""
    for number in _EXCEPTIONS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


@contextmanager
def nothing_to_save() -> Iterator[None]:
    """End at once on a signal, without unwinding."""
    _nothing_to_save.append(True)
    try:
        yield
    finally:
        _nothing_to_save.pop()


def raise_if_ended() -> None:
    """Raise what a signal raised before, in case a library has swallowed it."""
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
