"""What all long work shows on standard error: a live line on a terminal, else a line now and then."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.live import Live

PLAIN_INTERVAL_S = 10.0  # between lines where standard error is no terminal
REFRESHES_PER_S = 4


def live_line(text: Callable[[], str]) -> Live:
    """Return a line that shows a text, asked for again several times a second, and is gone at the end."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    return Live(console=console, transient=True, refresh_per_second=REFRESHES_PER_S, get_renderable=text)
