"""JSON and JSON Lines: strict (no NaN), ASCII, one line for each record whatever characters the names contain."""

from __future__ import annotations

import json
from typing import TextIO

from ast_cli.results import StreamedPart, TaggingResult


def json_line(result: TaggingResult | StreamedPart) -> str:
    """Return one record as one line of JSON, without the line end."""
    return json.dumps(result.to_dict(), allow_nan=False)


class JSONLinesWriter:
    """Writes one record on each line, and flushes it."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, result: TaggingResult | StreamedPart) -> None:
        """Write a result, or a part of an input that is still being read."""
        for record in result.records if isinstance(result, TaggingResult) else (result,):
            self.stream.write(json_line(record) + "\n")
        self.stream.flush()

    def close(self) -> None:
        """Do nothing: JSON Lines have no end mark."""


JSON_ENDS = ("\n]\n", "[]\n")  # of a document with records, and the whole of one without


class JSONWriter:
    """Writes one document, a list of records, record by record; `close` makes it valid however the run ends."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.num_written = 0

    def write(self, result: TaggingResult) -> None:
        """Write one result."""
        for record in result.records:
            self.stream.write(("[\n" if self.num_written == 0 else ",\n") + json_line(record))
            self.num_written += 1
        self.stream.flush()

    def close(self) -> None:
        """Close the list."""
        self.stream.write(JSON_ENDS[0] if self.num_written else JSON_ENDS[1])
        self.stream.flush()
