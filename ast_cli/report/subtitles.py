"""Subtitles: SubRip (SRT) and WebVTT, with the labels at their times; for one recording a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, TextIO

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


class _CueWriter:
    """Writes a cue for each event, or for each window, or for the recording: a line for each label.

    Args:
        stream: Text stream to write to.
    """

    format_name: ClassVar[str]
    point: ClassVar[str]  # decimal point of the times
    escapes: ClassVar[Mapping[int, int | str]]  # of what players would interpret in a text
    is_numbered: ClassVar = False
    beginning: ClassVar = ""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._recording = OneRecording(self.format_name)
        self._num_written = 0
        stream.write(self.beginning)

    def write(self, result: TaggingResult) -> None:
        """Write the cues of a recording.

        Raises:
            UsageError: If it is a second recording.
        """
        self._recording.check(result)
        for span in spans_of(result):
            self._num_written += 1
            number = [str(self._num_written)] if self.is_numbered else []
            lines = [line.translate(self.escapes) for line in span.lines()]
            times = _times(span.start_s, span.end_s, self.point)
            self.stream.write("\n".join([*number, times, *lines, "\n"]))
        self.stream.flush()

    def close(self) -> None:
        """Do nothing: subtitles have no end mark."""


class SRTWriter(_CueWriter):
    """Writes numbered cues, with the decimal comma of SubRip."""

    format_name, point, escapes, is_numbered = "srt", ",", _SRT_TEXT, True


class VTTWriter(_CueWriter):
    """Writes the first line of WebVTT, then cues without numbers."""

    format_name, point, escapes, beginning = "vtt", ".", _VTT_TEXT, "WEBVTT\n\n"
