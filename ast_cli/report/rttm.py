"""RTTM (Rich Transcription Time Marked): a line of ten fields, separated by spaces, for each label of a recording.

The format is that of NIST's evaluations: ``SPEAKER file channel onset duration <NA> <NA> label confidence <NA>``.
"""

from __future__ import annotations

import os
import re
from typing import TextIO

from ast_cli.report.spans import spans_of, unquoted
from ast_cli.report.text import printable
from ast_cli.results import SCORE_DECIMALS, TaggingResult

NONE = "<NA>"


class RTTMWriter:
    """Writes a line for each event, for each tag of a window, or for each tag of a recording.

    A field cannot contain white space. Labels have ``_`` instead. Paths have it in percent-encoding, with all that
    could not be printed and ``%`` itself, so that no two paths become equal and the exact one can be restored.

    Args:
        stream: Text stream to write to.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, result: TaggingResult) -> None:
        """Write the lines of one recording."""
        file = encoded_path(result.path)
        for span in spans_of(result):
            place = f"{span.channel or 1} {span.start_s:.3f} {max(span.end_s - span.start_s, 0.0):.3f}"
            for tag in span.tags:
                label = re.sub(r"\s", "_", unquoted(tag.label)) or NONE
                score = f"{tag.score:.{SCORE_DECIMALS}f}"
                self.stream.write(f"SPEAKER {file} {place} {NONE} {NONE} {label} {score} {NONE}\n")
        self.stream.flush()

    def close(self) -> None:
        """Do nothing: RTTM has no end mark."""


def encoded_path(path: str | None) -> str:
    """Return a path without white space; `urllib.parse.unquote_to_bytes` restores its bytes."""
    if not path:
        return NONE
    return "".join(_encoded(character) for character in path)


def _encoded(character: str) -> str:
    if character not in '%"' and not character.isspace() and printable(character) == character:
        return character
    raw = os.fsencode(character) if os.name == "posix" else character.encode("utf-8", "surrogatepass")
    return "".join(f"%{byte:02X}" for byte in raw)
