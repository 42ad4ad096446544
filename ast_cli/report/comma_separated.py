"""CSV: one row a tag, one row for an input without tags; quoted, and harmless in a spreadsheet and on a terminal.

The last column says what a row's tag was heard in: the whole ``file``, a ``window`` of it, or an ``event``.
As in JSON, ``path_b64`` holds the exact bytes, in base64, of a path that ``path`` cannot hold as it is: one that is not
UTF-8, and here also one that was made harmless by an apostrophe or by escapes.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import TextIO

from ast_cli.report.text import harmless_cell
from ast_cli.results import SCORE_DECIMALS, Tag, TaggingResult, path_base64, path_fields

COLUMNS = (
    *("path", "start_s", "end_s", "rank", "label", "label_id", "mid", "score", "status", "error_code", "path_b64"),
    "type",  # last, so that the others keep their places
)


def path_cells(path: str | None) -> tuple[str, str]:
    """Return the cells ``path`` and ``path_b64``, the latter empty where the former is the path itself."""
    if path is None:
        return "", ""
    shown = harmless_cell(path_fields(path)["path"] or "")
    return shown, "" if shown == path else harmless_cell(path_base64(path))


class CSVWriter:
    """A header, then rows: those of the windows and of the events that were asked for, else of the whole recording.

    An event's score is its mean.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.rows = csv.writer(stream, lineterminator="\n")
        self.rows.writerow(COLUMNS)

    def write(self, result: TaggingResult) -> None:
        """Write one result's rows."""
        if result.error is not None:
            path, exact_path = path_cells(result.path)
            code = str(result.error.code)
            self.rows.writerow([path, "", "", "", "", "", "", "", result.status, code, exact_path, "file"])
        else:
            for window in result.windows or ():
                self._write_tags("window", result.path, window.start_s, window.end_s, window.tags)
            for event in result.events or ():
                tag = Tag(event.label, event.label_id, event.mid, event.mean_score)
                self._write_tags("event", result.path, event.start_s, event.end_s, [tag])
            if not result.windows and not result.events:
                tags = result.tags if result.events is None else ()
                self._write_tags("file", result.path, 0.0, result.duration_s or 0.0, tags)
        self.stream.flush()

    def _write_tags(self, kind: str, path: str | None, start_s: float, end_s: float, tags: Iterable[Tag]) -> None:
        """Write one row a tag; what has no label above the threshold keeps a row, without one."""
        times = [f"{start_s:.3f}", f"{end_s:.3f}"]
        rows = [
            [rank, harmless_cell(tag.label), tag.label_id, tag.mid or "", f"{tag.score:.{SCORE_DECIMALS}f}"]
            for rank, tag in enumerate(tags, start=1)
        ]
        shown_path, exact_path = path_cells(path)
        for row in rows or [["", "", "", "", ""]]:
            self.rows.writerow([shown_path, *times, *row, "ok", "", exact_path, kind])

    def close(self) -> None:
        """Do nothing: every row stands alone."""
