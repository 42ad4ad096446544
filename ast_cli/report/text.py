"""Formatting of text and numbers for people; names and labels are untrusted. Standard library only."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from ast_cli.styles import display_name

ESCAPED_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")
JOINERS = "\u200c\u200d"  # in category Cf too, but part of the spelling of several scripts and of emoji
FORMULA_STARTS = ("=", "+", "-", "@")


def printable(text: str) -> str:
    """Escape the control, format and surrogate characters that move a terminal's cursor or hide and reorder text."""
    return "".join(
        _escape(character)
        if unicodedata.category(character) in ESCAPED_CATEGORIES and character not in JOINERS
        else character
        for character in text
    )


def label_text(label: str) -> str:
    """Return a label for people, escaped as in `printable`: ``Style (Genre)`` for ``Genre---Style``."""
    return printable(display_name(label))


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def harmless_cell(text: str) -> str:
    """Return the text of a cell: escaped as in `printable`, an apostrophe before the start of a formula."""
    shown = printable(text)
    return f"'{shown}" if shown.startswith(FORMULA_STARTS) else shown


def clock(seconds: float) -> str:
    """Format a position in a recording, with hours if it has any: ``01:05.12`` or ``1:01:05.12``."""
    hundredths = round(seconds * 100)
    minutes, rest = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    return f"{f'{hours}:' if hours else ''}{minutes:02d}:{rest // 100:02d}.{rest % 100:02d}"


def waiting_time(seconds: float) -> str:
    """Format a waiting time: ``42 s``, ``3 min 10 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def either(names: Iterable[str]) -> str:
    """Join alternatives: ``a, b or c``."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def counted(number: int, noun: str) -> str:
    """Format a number with its noun: ``1 clip``, ``2 clips``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
