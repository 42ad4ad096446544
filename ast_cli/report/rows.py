"""The rows of a table of tags, as CSV, TSV and Parquet have them. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ast_cli.results import Tag, TaggingResult


@dataclass(frozen=True, slots=True)
class Row:
    """One tag of an input, or an input, a channel or a window without one.

    Attributes:
        record: The result, of the input or of one of its channels.
        kind: Source of the tag: ``file``, ``window`` or ``event``.
        times_s: Start and end in seconds; None for an input that failed.
        rank: Place of the tag, from 1; None without a tag.
        tag: The tag, of an event with its mean score; None if no label is above the threshold.
    """

    record: TaggingResult
    kind: str
    times_s: tuple[float, float] | None
    rank: int | None = None
    tag: Tag | None = None


def rows_of(result: TaggingResult) -> Iterator[Row]:
    """Yield the rows of a result, channel by channel.

    They are those of the windows, then those of the events; of the whole recording where there are neither.
    """
    for record in result.records:
        if record.error is not None:
            yield Row(record, "file", None)
            continue
        for window in record.windows or ():
            yield from _tag_rows(record, "window", (window.start_s, window.end_s), window.tags)
        for event in record.events or ():
            tag = Tag(event.label, event.label_id, event.mid, event.mean_score)
            yield Row(record, "event", (event.start_s, event.end_s), 1, tag)
        if not record.windows and not record.events:
            tags = record.tags if record.events is None else ()
            yield from _tag_rows(record, "file", (0.0, record.duration_s or 0.0), tags)


def _tag_rows(record: TaggingResult, kind: str, times_s: tuple[float, float], tags: Iterable[Tag]) -> Iterator[Row]:
    """Yield a row for each tag; one without a tag if there is none."""
    is_empty = True
    for rank, tag in enumerate(tags, start=1):
        is_empty = False
        yield Row(record, kind, times_s, rank, tag)
    if is_empty:
        yield Row(record, kind, times_s)
