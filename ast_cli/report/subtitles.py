"""Subtitles: SubRip (SRT) and WebVTT, with the labels at their times; for one recording a file."""

from __future__ import annotations

from typing import TextIO

from ast_cli.report.spans import OneRecording, spans_of
from ast_cli.results import TaggingResult

# Players of SRT understand tags in <> and, some of them, commands in {}; SRT has no escape for them.
_SRT_TEXT = str.maketrans("<>{}", "\u2039\u203a()")  # single angle quotation marks
_VTT_TEXT = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def _clock(milliseconds: int, point: str) -> str:
    """Format a time of a cue, ``01:02:03.500``, with the decimal point of the format."""
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{point}{milliseconds:03d}"


def _times(start_s: float, end_s: float, point: str) -> str:
    """Return the line of a cue's times; a cue lasts at least a millisecond."""
    start = round(start_s * 1000)
    end = max(round(end_s * 1000), start + 1)
    return f"{_clock(start, point)} --> {_clock(end, point)}"


class SRTWriter:
    """Writes a numbered cue for each event, or for each window, or for the recording: a line for each label.

    Args:
        stream: Text stream to write to.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._recording = OneRecording("srt")
        self._num_written = 0

    def write(self, result: TaggingResult) -> None:
        """Write the cues of a recording.

        Raises:
            UsageError: If it is a second recording.
        """
        self._recording.check(result)
        for span in spans_of(result):
            self._num_written += 1
            lines = [line.translate(_SRT_TEXT) for line in span.lines()]
            self.stream.write("\n".join([str(self._num_written), _times(span.start_s, span.end_s, ","), *lines, "\n"]))
        self.stream.flush()

    def close(self) -> None:
        """Do nothing: subtitles have no end mark."""


class VTTWriter:
    """Writes the first line of WebVTT, then the cues of `SRTWriter` without numbers.

    Args:
        stream: Text stream to write to.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._recording = OneRecording("vtt")
        stream.write("WEBVTT\n\n")

    def write(self, result: TaggingResult) -> None:
        """Write the cues of a recording.

        Raises:
            UsageError: If it is a second recording.
        """
        self._recording.check(result)
        for span in spans_of(result):
            lines = [line.translate(_VTT_TEXT) for line in span.lines()]
            self.stream.write("\n".join([_times(span.start_s, span.end_s, "."), *lines, "\n"]))
        self.stream.flush()

    def close(self) -> None:
        """Do nothing: subtitles have no end mark."""
