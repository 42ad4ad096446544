"""The command ``ast``, and ``python -m ast_cli``."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import signal
from typing import NoReturn

from ast_cli.errors import DEBUG_VARIABLE

# Container objects made before the collector looks for cycles among them; Python's own is 700. Importing torch makes
# hundreds of thousands and drops hardly any.
GC_THRESHOLD = 200_000


def main() -> NoReturn:
    """Run the command line; a signal that comes while its modules are imported already ends it with its code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as Ctrl-C is under nohup
            signal.signal(number, lambda number, _frame: os._exit(128 + number))
    collect_garbage_rarely()
    from ast_cli.cli import main as run

    run()


def collect_garbage_rarely() -> None:
    """Look for garbage less often, and not at all at the end: of a cold start with torch, both took a fifth."""
    gc.set_threshold(GC_THRESHOLD, *gc.get_threshold()[1:])
    atexit.register(leave_garbage)


def leave_garbage() -> None:
    """End without a last look for garbage, and without what C libraries say of it, such as triton of "leaked" types."""
    gc.freeze()
    if not os.environ.get(DEBUG_VARIABLE):
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


if __name__ == "__main__":
    main()
