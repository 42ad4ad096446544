"""The labeled parts of a recording, for formats whose rows are times with a label. Standard library only.

They are the events if events were requested, else the windows if these were, else the whole recording.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ast_cli.errors import UsageError
from ast_cli.report.text import label_text, printable
from ast_cli.results import SCORE_DECIMALS, Tag, TaggingResult

TEXT_DECIMALS = 3  # of a score within text for people


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a recording, or of one of its channels, with its labels.

    Attributes:
        start_s: Start in seconds.
        end_s: End in seconds.
        tags: Labels with their scores, at least one; of an event its label with its mean score.
        channel: Number of the channel, from 1; None for the mix of all channels.
    """

    start_s: float
    end_s: float
    tags: tuple[Tag, ...]
    channel: int | None = None

    def lines(self) -> list[str]:
        """Return each label with its score as text: ``Rain 0.713``, or ``[channel 2] Rain 0.713``."""
        channel = "" if self.channel is None else f"[channel {self.channel}] "
        return [f"{channel}{label_text(tag.label)} {_shown_score(tag.score)}" for tag in self.tags]


def spans_of(result: TaggingResult) -> list[Span]:
    """Return the labeled parts of a result in the order of time, those of all channels together.

    Windows without a label above the threshold are left out, and inputs that failed have no parts.
    """
    spans = [span for record in result.records for span in _spans(record)]
    return sorted(spans, key=lambda span: (span.start_s, span.end_s, span.channel or 0))


def _spans(record: TaggingResult) -> Iterator[Span]:
    """Yield the parts of one record."""
    if record.events is not None:
        for event in record.events:
            tag = Tag(event.label, event.label_id, event.mid, event.mean_score)
            yield Span(event.start_s, event.end_s, (tag,), record.channel)
    elif record.windows is not None:
        for window in record.windows:
            if window.tags:
                yield Span(window.start_s, window.end_s, window.tags, record.channel)
    elif record.tags:
        yield Span(0.0, record.duration_s or 0.0, record.tags, record.channel)


def _shown_score(score: float) -> str:
    """Return a score as text; it is rounded as in JSON first, so that a result read from there has the same text."""
    return f"{round(score, SCORE_DECIMALS):.{TEXT_DECIMALS}f}"


class OneRecording:
    """Checks that a format without a place for the name of a recording describes one recording only.

    Args:
        format_name: Name of the format, for the message.
    """

    def __init__(self, format_name: str) -> None:
        self.format_name = format_name
        self._first: TaggingResult | None = None

    def check(self, result: TaggingResult) -> None:
        """Remember the recording of the first result, and compare that of every other.

        Raises:
            UsageError: If a result is of another recording.
        """
        if self._first is None:
            self._first = result
        elif result.path != self._first.path:
            first, other = (printable(each.path or "a waveform") for each in (self._first, result))
            only = one_recording_only(self.format_name)
            raise UsageError(f"{only}, not {first} and {other}: write a file for each")


def one_recording_only(format_name: str) -> str:
    """Return the first part of a message about several recordings for one file."""
    return f"{format_name} has no place for names, so a file describes one recording"


def unquoted(text: str) -> str:
    """Return the text of a cell for tables that have no quoting: escaped as in `printable`, with ``'`` for ``"``.

    Readers that expect quoting would take a ``"`` at the start of a cell for the start of a quoted one.
    """
    return printable(text).replace('"', "'")
