"""The command ``ast``, and ``python -m ast_cli``."""

from __future__ import annotations

import os
import signal
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; a signal that comes while its modules are imported already ends it with its code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as Ctrl-C is under nohup
            signal.signal(number, lambda number, _frame: os._exit(128 + number))
    from ast_cli.cli import main as run

    run()


if __name__ == "__main__":
    main()
