"""Results as HTML for notebooks: a small table with bars, and a player. Standard library only.

Names and labels are untrusted: every text is escaped, and there is no script.
"""

from __future__ import annotations

import base64
import os
import unicodedata
import urllib.parse
from collections.abc import Iterable, Sequence

MAX_ROWS = 20  # of a table
MAX_EMBEDDED_BYTES = 1_000_000  # of a player's file; a larger one is referenced
# What browsers play, with its media type.
PLAYABLE = {
    ".wav": "audio/wav",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".opus": "audio/ogg",
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
    ".aac": "audio/aac",
    ".webm": "audio/webm",
}
BAR_PX = 120  # width of the bar of a score of 1
BAR_COLOR = "#4878a8"  # readable on a light and on a dark ground
JOINERS = "\u200c\u200d"  # part of the spelling of several scripts and of emoji

Row = tuple[str, str, float]  # times, label and score


def shown(text: str) -> str:
    """Escape a text for HTML, and the control, format and surrogate characters that hide or reorder text."""
    return _escaped(
        "".join(
            character
            if character.isprintable() or character in JOINERS or unicodedata.category(character) == "Zs"
            else character.encode("unicode_escape", "surrogatepass").decode("ascii")
            for character in text
        )
    )


def _escaped(text: str) -> str:
    import html  # its list of entities takes longer to import than the rest of this module

    return html.escape(text)


def heading(text: str, detail: str = "") -> str:
    """Return the name of a recording in bold, with details after it."""
    return f"<div><b><bdi>{shown(text)}</bdi></b> {shown(detail)}</div>"


def table(caption: str, rows: Iterable[Row], *, has_bars: bool = True, num_rows: int | None = None) -> str:
    """Return a table of labels with their scores and bars.

    Args:
        caption: What the rows are.
        rows: Times (empty for a whole recording), label and score of each row; the first 20 are shown.
        has_bars: Whether scores are from 0 to 1 and have bars.
        num_rows: Number of all rows; None if they are known to be few.
    """
    shown_rows = list(rows)[:MAX_ROWS]
    lines = [_row(*row, has_bars=has_bars) for row in shown_rows]
    if num_rows is not None and num_rows > len(shown_rows):
        lines.append(f'<tr><td colspan="4">and {num_rows - len(shown_rows)} more</td></tr>')
    has_times = any(times for times, _, _ in shown_rows)
    names = [*(["time (s)"] if has_times else []), "label", "score", *([""] if has_bars else [])]
    head = "".join(f'<th style="text-align:left">{name}</th>' for name in names)
    if not lines:
        return f"<div>{shown(caption)}: no label above the threshold</div>"
    return (
        f'<table><caption style="text-align:left">{shown(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )


def _row(times: str, label: str, score: float, *, has_bars: bool) -> str:
    cells = [f"<td>{shown(times)}</td>"] if times else []
    cells.append(f'<td style="text-align:left"><bdi>{shown(label)}</bdi></td>')
    cells.append(f"<td>{score:.4f}</td>")
    if has_bars:
        width = round(BAR_PX * min(max(score, 0.0), 1.0))
        bar = f"display:inline-block;height:0.8em;width:{width}px;background:{BAR_COLOR}"
        cells.append(f'<td style="text-align:left;min-width:{BAR_PX}px"><span style="{bar}"></span></td>')
    return f"<tr>{''.join(cells)}</tr>"


def details(summary: str, content: str) -> str:
    """Return a part that is closed until it is clicked."""
    return f"<details><summary>{shown(summary)}</summary>{content}</details>"


def player(path: str | None) -> str:
    """Return an audio player for a file that is there and that browsers play, else nothing.

    A file of up to 1 MB is embedded, so that it still plays where the notebook is shown elsewhere. A larger one is
    referenced by its path relative to the current folder, which is the notebook's in Jupyter.
    """
    kind = None if path is None else PLAYABLE.get(os.path.splitext(path)[1].lower())
    if path is None or kind is None:
        return ""
    try:
        if not os.path.isfile(path):
            return ""
        if os.path.getsize(path) <= MAX_EMBEDDED_BYTES:
            with open(path, "rb") as file:
                content = base64.b64encode(file.read(MAX_EMBEDDED_BYTES + 1)).decode("ascii")
            source = f"data:{kind};base64,{content}"
        else:
            relative = os.path.relpath(path).replace(os.sep, "/")
            source = urllib.parse.quote(os.fsencode(relative))
    except (OSError, ValueError):  # gone meanwhile, not readable, or on another drive
        return ""
    return f'<div><audio controls preload="metadata" src="{_escaped(source)}"></audio></div>'


def joined(parts: Sequence[str]) -> str:
    """Return one element that contains all parts."""
    return f"<div>{''.join(parts)}</div>"
