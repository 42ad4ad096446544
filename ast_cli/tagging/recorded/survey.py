"""The first look at results that exist: their labels, and what was left out when they were recorded.

Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ast_cli.labels import SPEECH_COMMANDS, audioset_mids, mid_of
from ast_cli.results import Tag, TaggingResult


@dataclass(slots=True)
class TagLists:
    """The lists of tags of all recordings, or of all windows.

    Attributes:
        longest: Number of tags in the longest list.
        lowest: Lowest score in any list.
    """

    longest: int = 0
    lowest: float = math.inf

    def add(self, tags: Sequence[Tag]) -> None:
        """Take one list into account."""
        self.longest = max(self.longest, len(tags))
        self.lowest = min(self.lowest, *(tag.score for tag in tags), math.inf)

    def may_lack(self, tags: Sequence[Tag], threshold: float) -> bool:
        """Return whether labels that reach a threshold may be missing from a list.

        A list is shorter than others if it was cut off by a threshold, which is no higher than the lowest score, and
        not by the number of labels. A label that was cut off by the number has no higher score than those in the list.
        """
        if threshold < self.lowest:
            return True
        return len(tags) == self.longest > 0 and all(tag.score >= threshold for tag in tags)


@dataclass(slots=True)
class Survey:
    """What results contain.

    Attributes:
        labels: Labels in the order of their first occurrence.
        activations: Activations of the scores.
        has_channels: Whether some are of single channels.
        has_events: Whether some contain events.
        without_windows: Path of the first result without windows; None if there is none.
        without_parts: Path of the first result with neither windows nor events; None if there is none.
        with_events_alone: Path of the first result with events, but no windows; None if there is none.
        recordings: The lists of tags of recordings.
        windows: The lists of tags of windows.
        first_path: Path of the first result.
        other_path: Path of the first result of another recording; None if there is none.
    """

    labels: dict[str, None] = field(default_factory=dict)
    activations: set[str] = field(default_factory=set)
    has_channels: bool = False
    has_events: bool = False
    without_windows: str | None = None
    without_parts: str | None = None
    with_events_alone: str | None = None
    recordings: TagLists = field(default_factory=TagLists)
    windows: TagLists = field(default_factory=TagLists)
    first_path: str | None = None
    other_path: str | None = None

    def add(self, result: TaggingResult) -> None:
        """Take the result of one recording, or of one channel, into account; one with an error contains nothing."""
        path = result.path or "-"
        self.first_path = self.first_path or path
        if self.other_path is None and path != self.first_path:
            self.other_path = path
        if result.error is not None:
            return
        self.activations.add(result.activation)
        self.has_channels |= result.channel is not None
        self.has_events |= result.events is not None
        if result.windows is None and self.without_windows is None:
            self.without_windows = result.path or "-"
        if result.windows is None and result.events is None and self.without_parts is None:
            self.without_parts = result.path or "-"
        if result.windows is None and result.events is not None and self.with_events_alone is None:
            self.with_events_alone = result.path or "-"
        self.recordings.add(result.tags)
        self._add_labels(result.tags)
        for window in result.windows or ():
            self.windows.add(window.tags)
            self._add_labels(window.tags)
        self.labels |= dict.fromkeys(event.label for event in result.events or ())

    def _add_labels(self, tags: Iterable[Tag]) -> None:
        self.labels |= dict.fromkeys(tag.label for tag in tags)

    @property
    def known_labels(self) -> dict[int, str]:
        """The labels that the model may have, numbered: those found, and AudioSet's or Speech Commands' if they fit.

        Results name only the best labels, so one that the model has may occur in none of them.
        """
        known = dict(self.labels)
        if not known or any(mid_of(label) for label in known):
            known |= dict.fromkeys(audioset_mids())
        if not known or all(label.casefold() in SPEECH_COMMANDS for label in self.labels):
            known |= dict.fromkeys(sorted(SPEECH_COMMANDS))
        return dict(enumerate(known))
