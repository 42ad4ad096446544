"""The command ``ast``, and ``python -m ast_cli``."""

from __future__ import annotations

import signal
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; Ctrl-C ends it without a traceback even while its modules are being imported."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as under nohup
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from ast_cli.cli import main as run

    run()


if __name__ == "__main__":
    main()
