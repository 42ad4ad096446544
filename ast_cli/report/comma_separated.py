"""CSV: one row a tag, one row for an input without tags; quoted, and harmless in a spreadsheet."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import TextIO

from ast_cli.report.text import defused_cell
from ast_cli.results import SCORE_DECIMALS, Tag, TaggingResult, path_fields

COLUMNS = ("path", "start_s", "end_s", "rank", "label", "label_id", "mid", "score", "status", "error_code")


class CSVWriter:
    """A header, then rows: those of the windows with timestamps, else of the events, else of the whole recording.

    An event's score is its mean.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.rows = csv.writer(stream, lineterminator="\n")
        self.rows.writerow(COLUMNS)

    def write(self, result: TaggingResult) -> None:
        """Write one result's rows."""
        path = defused_cell(path_fields(result.path)["path"] or "")
        if result.error is not None:
            self.rows.writerow([path, "", "", "", "", "", "", "", result.status, str(result.error.code)])
        elif result.windows is not None:
            for window in result.windows:
                self._write_tags(path, window.start_s, window.end_s, window.tags)
        elif result.events is not None:
            for event in result.events:
                tag = Tag(event.label, event.label_id, event.mid, event.mean_score)
                self._write_tags(path, event.start_s, event.end_s, [tag])
        else:
            self._write_tags(path, 0.0, result.duration_s or 0.0, result.tags)
        self.stream.flush()

    def _write_tags(self, path: str, start_s: float, end_s: float, tags: Iterable[Tag]) -> None:
        """Write one row a tag; a recording whose labels all stay under the threshold keeps a row, without a label."""
        times = [f"{start_s:.3f}", f"{end_s:.3f}"]
        rows = [
            [rank, defused_cell(tag.label), tag.label_id, tag.mid or "", f"{tag.score:.{SCORE_DECIMALS}f}"]
            for rank, tag in enumerate(tags, start=1)
        ]
        for row in rows or [["", "", "", "", ""]]:
            self.rows.writerow([path, *times, *row, "ok", ""])

    def close(self) -> None:
        """Do nothing: every row stands alone."""
