"""Lists of sound events as DCASE's challenges and sed_eval read them: TSV with a header and four columns."""

from __future__ import annotations

from typing import TextIO

from ast_cli.report.spans import spans_of, unquoted
from ast_cli.results import TaggingResult, path_fields

COLUMNS = ("filename", "onset", "offset", "event_label")


class DCASEWriter:
    """Writes a header, then a row for each event, for each tag of a window, or for each tag of a recording.

    The format has no place for scores and channels, and a recording without a label has no row.

    Args:
        stream: Text stream to write to.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        stream.write("\t".join(COLUMNS) + "\n")

    def write(self, result: TaggingResult) -> None:
        """Write the rows of one recording."""
        path = unquoted(path_fields(result.path)["path"] or "")
        for span in spans_of(result):
            for tag in span.tags:
                self.stream.write(f"{path}\t{span.start_s:.3f}\t{span.end_s:.3f}\t{unquoted(tag.label)}\n")
        self.stream.flush()

    def close(self) -> None:
        """Do nothing: a list of events has no end mark."""
