"""Wide CSV: one row for each recording, with a column for the score of each label."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO, TypeAlias

from ast_cli.errors import AstError
from ast_cli.report.comma_separated import CHANNEL_COLUMN, path_cells
from ast_cli.report.text import harmless_cell, printable
from ast_cli.results import SCORE_DECIMALS, Tag, TaggingResult

COLUMNS = ("path", "start_s", "end_s", "status", "error_code", "path_b64")
SCORE_PREFIX = "scores."  # of a label that has the name of another column
_Part: TypeAlias = tuple[float | None, float | None, Sequence[Tag]]  # start and end in seconds, tags


class WideWriter:
    """Writes a header, then a row for each recording or channel, or for each window where a result has windows.

    A cell is empty where the label was not reported: below the threshold, after the first ``top_k``, or for an input
    that failed. Events are left out, since they are parts with one label each.

    Args:
        stream: Text stream to write to.
        has_channels: Whether there is a column for the channel's number; it is empty for a file with an error.
        labels: Labels in the order of their columns. None for those of the results, in the order of the model: the
            writer then keeps all results until `close`.
    """

    def __init__(self, stream: TextIO, *, has_channels: bool = False, labels: Sequence[str] | None = None) -> None:
        self.stream = stream
        self.has_channels = has_channels
        self.rows = csv.writer(stream, lineterminator="\n")
        self._labels: dict[str, None] = {}
        self._kept: list[TaggingResult] | None = []  # results that wait for the header
        if labels is not None:
            self._write_header(labels)

    def write(self, result: TaggingResult) -> None:
        """Write the rows of one result, channel by channel.

        Raises:
            AstError: If it has a label without a column.
        """
        if self._kept is not None:
            self._kept.append(result)
            return
        for record in result.records:
            for part in _parts(record):
                self._write_row(record, part)
        self.stream.flush()

    def close(self) -> None:
        """Write the results that waited for the header, if it was not given."""
        if self._kept is not None:
            kept = self._kept
            self._write_header(_labels_of(kept))
            for result in kept:
                self.write(result)

    def _write_header(self, labels: Iterable[str]) -> None:
        self._kept, self._labels = None, dict.fromkeys(labels)
        fixed = [*COLUMNS, CHANNEL_COLUMN] if self.has_channels else [*COLUMNS]
        names = (f"{SCORE_PREFIX}{label}" if label in (*COLUMNS, CHANNEL_COLUMN) else label for label in self._labels)
        self.rows.writerow([*fixed, *map(harmless_cell, names)])

    def _write_row(self, record: TaggingResult, part: _Part) -> None:
        start_s, end_s, tags = part
        scores = {tag.label: f"{tag.score:.{SCORE_DECIMALS}f}" for tag in tags}
        if unknown := scores.keys() - self._labels.keys():
            raise AstError(f"the label {printable(min(unknown))} has no column in the table of wide")
        path, exact_path = path_cells(record.path)
        times = ["" if time_s is None else f"{time_s:.3f}" for time_s in (start_s, end_s)]
        code = "" if record.error is None else str(record.error.code)
        channel = [record.channel or ""] if self.has_channels else []
        cells = (scores.get(label, "") for label in self._labels)
        self.rows.writerow([path, *times, record.status, code, exact_path, *channel, *cells])


def _parts(record: TaggingResult) -> Iterator[_Part]:
    """Yield start, end and tags of the rows of a record."""
    if record.error is not None:
        yield None, None, ()
    elif record.windows:
        for window in record.windows:
            yield window.start_s, window.end_s, window.tags
    else:
        yield 0.0, record.duration_s or 0.0, record.tags


def _labels_of(results: Iterable[TaggingResult]) -> list[str]:
    """Return all labels of results, in the order of their class indices."""
    found = {
        (tag.label_id, tag.label)
        for result in results
        for record in result.records
        for _, _, tags in _parts(record)
        for tag in tags
    }
    return [label for _, label in sorted(found)]
