"""The differences between two runs over the same recordings, or between two models. Standard library only."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ast_cli.errors import AstError
from ast_cli.report.text import printable
from ast_cli.results import SCHEMA_VERSION, SCORE_DECIMALS, SECONDS_DECIMALS, TaggingResult, path_fields

NO_ACTIVATION = "none"
Spans = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class LabelChange:
    """A label whose score differs in a recording.

    Attributes:
        label: Name of the label.
        old: Score in the first result; None if its tags do not contain the label.
        new: Score in the second result; None if its tags do not contain the label.
    """

    label: str
    old: float | None
    new: float | None

    @property
    def kind(self) -> str:
        """``appeared``, ``disappeared`` or ``changed``."""
        return "appeared" if self.old is None else "disappeared" if self.new is None else "changed"

    @property
    def size(self) -> float:
        """Absolute difference of the scores; a score that is missing counts as 0."""
        return round(abs((self.new or 0.0) - (self.old or 0.0)), SCORE_DECIMALS)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "label": self.label,
            "change": self.kind,
            "old_score": _rounded(self.old),
            "new_score": _rounded(self.new),
        }


@dataclass(frozen=True, slots=True)
class EventChange:
    """A label whose events differ in a recording.

    Attributes:
        label: Name of the label.
        old: Starts and ends of its events in the first result, in seconds.
        new: Those in the second result.
    """

    label: str
    old: Spans
    new: Spans

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"label": self.label, "old_events": list(map(list, self.old)), "new_events": list(map(list, self.new))}


@dataclass(frozen=True, slots=True)
class RecordingDifference:
    """A recording, or a channel of one, whose results differ.

    Attributes:
        path: Path of the recording.
        channel: Number of the channel; None for the mix of all channels.
        old_status: ``ok`` or the code of the error in the first results; None if they do not contain the recording.
        new_status: The same in the second results.
        labels: Labels whose scores differ, the greatest difference first.
        events: Labels whose events differ.
    """

    path: str | None
    channel: int | None
    old_status: str | None
    new_status: str | None
    labels: tuple[LabelChange, ...] = ()
    events: tuple[EventChange, ...] = ()

    @property
    def kind(self) -> str:
        """``only_in_old``, ``only_in_new``, ``status`` or ``labels``."""
        if self.new_status is None:
            return "only_in_old"
        if self.old_status is None:
            return "only_in_new"
        return "labels" if self.old_status == self.new_status else "status"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        channel = {} if self.channel is None else {"channel": self.channel}
        return {
            "schema_version": SCHEMA_VERSION,
            "type": "difference",
            **path_fields(self.path),
            **channel,
            "difference": self.kind,
            "old_status": self.old_status,
            "new_status": self.new_status,
            "labels": [change.to_dict() for change in self.labels],
            "events": [change.to_dict() for change in self.events],
        }


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is compared of a result: a fraction of its size in memory."""

    status: str
    has_bounds: bool  # whether a score that is missing is close to 0 if the others are
    scores: dict[str, float]
    events: dict[str, Spans] | None

    @classmethod
    def of(cls, result: TaggingResult) -> _Facts:
        status = "ok" if result.error is None else str(result.error.code)
        spans: dict[str, Spans] = {}
        for event in result.events or ():
            span = (round(event.start_s, SECONDS_DECIMALS), round(event.end_s, SECONDS_DECIMALS))
            spans[event.label] = (*spans.get(event.label, ()), span)
        scores = {tag.label: tag.score for tag in result.tags}
        return cls(status, result.activation != NO_ACTIVATION, scores, None if result.events is None else spans)


Place = tuple[str | None, int | None]  # path and channel


class Comparison:
    """Compares the results of two runs, recording by recording; iterated once, it yields those that differ.

    Both are read side by side. A result waits in memory until its counterpart has been read: not at all if both runs
    have the same order, at worst all results of one side. Recordings that only one side contains come last.

    Args:
        old: Results of the first run.
        new: Results of the second run.
        tolerance: Greatest difference of a score that does not count. A label that only one side contains counts if its
            score is greater than this; without an activation, always.

    Attributes:
        num_compared: Number of recordings, or channels, that both sides contain, so far.
        counts: Number of differences by `RecordingDifference.kind`, so far.
    """

    def __init__(self, old: Iterable[TaggingResult], new: Iterable[TaggingResult], tolerance: float) -> None:
        self._old = old
        self._new = new
        self._tolerance = tolerance
        self.num_compared = 0
        self.counts: Counter[str] = Counter()

    def __iter__(self) -> Iterator[RecordingDifference]:
        """Yield the differences, those of recordings in both runs in the order in which both have been read.

        Raises:
            AstError: If a run contains a recording twice.
        """
        for difference in self._differences():
            self.counts[difference.kind] += 1
            yield difference

    def _differences(self) -> Iterator[RecordingDifference]:
        waiting: tuple[dict[Place, _Facts], dict[Place, _Facts]] = ({}, {})
        compared: set[int] = set()  # hashes of the places: a tenth of the memory
        for pair in itertools.zip_longest(self._old, self._new):
            for side, result in enumerate(pair):
                if result is None:
                    continue
                place = (result.path, result.channel)
                if place in waiting[side] or hash(place) in compared:
                    raise AstError(
                        f"{printable(result.path or '-')} occurs twice in one of the files: compare single runs"
                    )
                waiting[side][place] = _Facts.of(result)
                if place in waiting[1 - side]:
                    compared.add(hash(place))
                    self.num_compared += 1
                    difference = self._compared(place, *(facts.pop(place) for facts in waiting))
                    if difference is not None:
                        yield difference
        for (path, channel), facts in waiting[0].items():
            yield RecordingDifference(path, channel, facts.status, None)
        for (path, channel), facts in waiting[1].items():
            yield RecordingDifference(path, channel, None, facts.status)

    def _compared(self, place: Place, old: _Facts, new: _Facts) -> RecordingDifference | None:
        """Return the difference of two results; None if there is none."""
        if old.status != new.status:
            return RecordingDifference(*place, old.status, new.status)
        has_bounds = old.has_bounds and new.has_bounds
        labels = [
            LabelChange(label, old.scores.get(label), new.scores.get(label)) for label in _union(old.scores, new.scores)
        ]
        changed = [
            change
            for change in labels
            if change.size > self._tolerance or (change.kind != "changed" and not has_bounds)
        ]
        changed.sort(key=lambda change: -change.size)
        events = _changed_events(old.events, new.events)
        if not changed and not events:
            return None
        return RecordingDifference(*place, old.status, new.status, tuple(changed), events)


def _changed_events(old: dict[str, Spans] | None, new: dict[str, Spans] | None) -> tuple[EventChange, ...]:
    """Return the labels whose events differ; none if one side did not look for events."""
    if old is None or new is None:
        return ()
    changes = (EventChange(label, old.get(label, ()), new.get(label, ())) for label in _union(old, new))
    return tuple(change for change in changes if change.old != change.new)


def _union(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    return list(dict.fromkeys([*old, *new]))


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, SCORE_DECIMALS)
