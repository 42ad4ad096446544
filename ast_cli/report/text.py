"""Text that is safe to show: names and labels come from anywhere. Standard library only."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

ESCAPED_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")
JOINERS = "\u200c\u200d"  # of category Cf too, but part of the spelling of several scripts and of emoji
FORMULA_STARTS = ("=", "+", "-", "@")


def printable(text: str) -> str:
    """Escape the control, format and surrogate characters that move a terminal's cursor or hide and reorder text."""
    return "".join(
        _escape(character)
        if unicodedata.category(character) in ESCAPED_CATEGORIES and character not in JOINERS
        else character
        for character in text
    )


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def harmless_cell(text: str) -> str:
    """Escape what moves a terminal's cursor, and put an apostrophe before what a spreadsheet takes for a formula."""
    shown = printable(text)
    return f"'{shown}" if shown.startswith(FORMULA_STARTS) else shown


def clock(seconds: float) -> str:
    """Format a time of a recording, with hours only where they are needed: ``01:05.12`` or ``1:01:05.12``."""
    hundredths = round(seconds * 100)
    minutes, rest = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    return f"{f'{hours}:' if hours else ''}{minutes:02d}:{rest // 100:02d}.{rest % 100:02d}"


def waiting_time(seconds: float) -> str:
    """Write a time to wait: 42 s, 3 min 10 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def either(names: Iterable[str]) -> str:
    """List names to choose from: ``a, b or c``."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def counted(number: int, noun: str) -> str:
    """Write a number of things: 1 clip, 2 clips."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
