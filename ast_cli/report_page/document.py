"""The HTML around the data: program and styles, and a policy that lets nothing else in. Standard library only."""

from __future__ import annotations

import base64
import hashlib
import html
import secrets
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import BinaryIO

STYLE = "page.css"
WAVESURFER = ("wavesurfer/wavesurfer.min.js", "wavesurfer/timeline.min.js", "wavesurfer/hover.min.js")
SCRIPTS = (*WAVESURFER, "wavesurfer/zoom.min.js", "page.min.js")
BODY = "page.html"


@cache
def asset(name: str) -> str:
    """Return the text of a file of this package."""
    return files("ast_cli.report_page").joinpath(name).read_text(encoding="utf-8")


def policy(nonce: str, *, has_links: bool) -> str:
    """Return the Content-Security-Policy: scripts by their hashes, nothing from elsewhere, no connections, no forms.

    Styles are allowed by a nonce, since wavesurfer.js writes one for the height of its waveform. Audio and images are
    in the page; only a page with recordings that are not may read media files from its own place.

    Args:
        nonce: Value that the style elements have in common, new for each page.
        has_links: Whether a recording is played from its own file.
    """
    scripts = " ".join(f"'sha256-{_digest(asset(name))}'" for name in SCRIPTS)
    media = "blob: 'self' file:" if has_links else "blob:"
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'nonce-{nonce}'; img-src data:; media-src {media}; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def write_document(
    stream: BinaryIO, title: str, index: Iterable[str], details: Iterable[str], *, has_links: bool
) -> None:
    """Write the page.

    The index and the program come before the details, so that a browser shows the index while it still reads them.

    Args:
        stream: Binary stream to write to.
        title: Title of the page, any text.
        index: Parts of the JSON of the index, from `ast_cli.report_page.data.json_in_html`.
        details: JSON of the details of each record, in the order of the index.
        has_links: Whether a recording is played from its own file.
    """
    nonce = secrets.token_urlsafe(12)

    def write(*parts: str) -> None:
        for part in parts:
            stream.write(part.encode("ascii", "xmlcharrefreplace"))

    write('<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n')
    write(f'<meta http-equiv="Content-Security-Policy" content="{policy(nonce, has_links=has_links)}">\n')
    write('<meta name="viewport" content="width=device-width, initial-scale=1">\n')
    write(f"<title>{html.escape(title)}</title>\n")
    stream.write(f'<style nonce="{nonce}">{asset(STYLE)}</style>\n</head>\n'.encode())
    stream.write(asset(BODY).encode())
    write('<script type="application/json" id="data">', *index, "</script>\n")
    for name in SCRIPTS:
        stream.write(f"<script>{asset(name)}</script>\n".encode())
    for number, text in enumerate(details):
        write(f'<script type="application/json" id="r{number}">', text, "</script>\n")
    write("</body>\n</html>\n")
