"""Labels of Audacity: lines of start, end and text with tabs between them, in seconds; for one recording a file."""

from __future__ import annotations

from typing import TextIO

from ast_cli.report.spans import OneRecording, spans_of
from ast_cli.results import TaggingResult


class AudacityWriter:
    """Writes one label for each event, or for each window, or for the recording, with the scores in its text.

    Audacity draws labels that overlap below each other, and hides those that find no room: the tags of a window
    therefore share one label.

    Args:
        stream: Text stream to write to.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._recording = OneRecording("audacity")

    def write(self, result: TaggingResult) -> None:
        """Write the labels of a recording.

        Raises:
            UsageError: If it is a second recording.
        """
        self._recording.check(result)
        for span in spans_of(result):
            self.stream.write(f"{span.start_s:.6f}\t{span.end_s:.6f}\t{'; '.join(span.lines())}\n")
        self.stream.flush()

    def close(self) -> None:
        """Do nothing: a file of labels has no end mark."""
