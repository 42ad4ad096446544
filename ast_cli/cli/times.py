"""Times on the command line: seconds or ``[H:]MM:SS``, as FFmpeg takes them."""

from __future__ import annotations

import re

import typer

CLOCK = re.compile(r"(?:([0-9]+):)?([0-9]+):([0-9]{1,2}(?:\.[0-9]*)?)")


def parse_time(text: str | float) -> float:
    """Return the seconds of a time: ``90``, ``1:30`` or ``1:02:03.5``; a flag's default is a number already.

    Raises:
        typer.BadParameter: If the text is neither a number nor a time.
    """
    if not isinstance(text, str):
        return text
    match = CLOCK.fullmatch(text)
    try:
        if match is None:
            return float(text)
        hours, minutes, seconds = match[1], int(match[2]), float(match[3])
        if seconds >= 60 or (hours is not None and minutes >= 60):
            raise ValueError
    except ValueError as error:
        message = f"{text!r} is not a time: give seconds (90, 2.5) or [H:]MM:SS (1:30, 1:02:03.5)"
        raise typer.BadParameter(message) from error
    return int(hours or 0) * 3600 + minutes * 60 + seconds
