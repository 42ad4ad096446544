"""Progress of long work on standard error: a line that is updated on a terminal, else a line every few seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ast_cli.cli.terminal import wrapped

if TYPE_CHECKING:
    from rich.live import Live

PLAIN_INTERVAL_S = 10.0  # between lines if standard error is not a terminal
REFRESHES_PER_S = 4


def live_line(text: Callable[[int], str]) -> Live:
    """Return a display of a text that is updated several times a second and removed at the end.

    Args:
        text: Function from the terminal's columns to the text, which is then wrapped between words.
    """
    from rich.console import Console
    from rich.live import Live

    def renderable() -> str:
        return wrapped(text(console.width), console.width)

    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    return Live(console=console, transient=True, refresh_per_second=REFRESHES_PER_S, get_renderable=renderable)
