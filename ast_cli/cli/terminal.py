"""Text that fits a terminal: wrapped between words, paths shortened. Standard library only."""

from __future__ import annotations

import os
import unicodedata
from typing import TextIO

INDENT = "  "  # of the lines that continue a message
SHORTENED = "..."


def terminal_width(stream: TextIO) -> int | None:
    """Return the number of columns of the terminal that a stream writes to; None if it writes to something else."""
    try:
        if not stream.isatty():
            return None
        columns = os.get_terminal_size(stream.fileno()).columns
    except (AttributeError, OSError, ValueError):  # replaced by an object without a descriptor, or closed
        return None
    return columns or None  # a pseudo-terminal may not know its size


def cells(text: str) -> int:
    """Return how many columns a text takes on a terminal: two for a wide character, none for a combining one."""
    return sum(
        0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )


def wrapped(text: str, width: int | None) -> str:
    """Break lines between words, so that none is wider than a terminal.

    A word that is wider than the terminal, such as a long path, stays whole and has a line of its own: it can still be
    copied.
    """
    return text if width is None else "\n".join(_wrapped_line(line, width) for line in text.split("\n"))


def _wrapped_line(text: str, width: int) -> str:
    if cells(text) <= width:
        return text
    lines = [""]
    for number, word in enumerate(text.split(" ")):
        line = f"{lines[-1]} {word}" if number else word
        if cells(line) <= width or not lines[-1].strip():
            lines[-1] = line
        else:
            lines.append(INDENT + word)
    return "\n".join(line.rstrip() for line in lines)


def shortened(path: str, width: int) -> str:
    """Return the end of a path, in no more columns than given."""
    if cells(path) <= width:
        return path
    width -= len(SHORTENED)
    while path and cells(path) > width:
        path = path[1:]
    return SHORTENED + path
