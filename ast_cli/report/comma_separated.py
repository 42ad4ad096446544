"""CSV and TSV: one row for each tag, one row for an input without tags; safe in a spreadsheet and on a terminal.

The last column, or with channels the one before, states the source of a tag: ``file``, ``window`` or ``event``.
As in JSON, ``path_b64`` contains the exact bytes, in base64, of a path that ``path`` cannot represent: one that is not
UTF-8, and in CSV also one that was escaped or has an apostrophe before it.
"""

from __future__ import annotations

import csv
from typing import ClassVar, TextIO

from ast_cli.report.rows import Row, rows_of
from ast_cli.report.text import harmless_cell
from ast_cli.results import SCORE_DECIMALS, TaggingResult, path_base64, path_fields

COLUMNS = (
    *("path", "start_s", "end_s", "rank", "label", "label_id", "mid", "score", "status", "error_code", "path_b64"),
    "type",  # added last, so that the other columns keep their places
)
CHANNEL_COLUMN = "channel"  # after all others, and only where channels are tagged by themselves


def path_cells(path: str | None) -> tuple[str, str]:
    """Return the cells ``path`` and ``path_b64``; the latter is empty where the former is the exact path."""
    if path is None:
        return "", ""
    shown = harmless_cell(path_fields(path)["path"] or "")
    return shown, "" if shown == path else harmless_cell(path_base64(path))


class CSVWriter:
    """Writes a header, then the rows of windows and events, or of the whole recording where a result has neither.

    The score of an event is its mean score.

    Args:
        stream: Text stream to write to.
        has_channels: Whether there is a column for the channel's number; it is empty for a file with an error.
    """

    delimiter: ClassVar = ","

    def __init__(self, stream: TextIO, *, has_channels: bool = False) -> None:
        self.stream = stream
        self.has_channels = has_channels
        self.rows = csv.writer(stream, delimiter=self.delimiter, lineterminator="\n")
        self.rows.writerow((*COLUMNS, CHANNEL_COLUMN) if has_channels else COLUMNS)

    def write(self, result: TaggingResult) -> None:
        """Write the rows of one result, channel by channel."""
        for row in rows_of(result):
            self.rows.writerow(self._cells(row))
        self.stream.flush()

    def _cells(self, row: Row) -> list[object]:
        record, tag = row.record, row.tag
        path, exact_path = path_cells(record.path)
        times = ["", ""] if row.times_s is None else [f"{time_s:.3f}" for time_s in row.times_s]
        cells: list[object] = ["", "", "", "", ""]
        if tag is not None:
            score = f"{tag.score:.{SCORE_DECIMALS}f}"
            cells = [row.rank, harmless_cell(tag.label), tag.label_id, tag.mid or "", score]
        code = "" if record.error is None else str(record.error.code)
        channel = [record.channel or ""] if self.has_channels else []
        return [path, *times, *cells, record.status, code, exact_path, row.kind, *channel]

    def close(self) -> None:
        """Do nothing: a CSV file has no end mark."""


class TSVWriter(CSVWriter):
    """Writes the rows of `CSVWriter` with tabs between the cells, whose own tabs are escaped."""

    delimiter = "\t"
