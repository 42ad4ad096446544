"""Selection of the records that a run with ``matches_only`` reports. Standard library only."""

from __future__ import annotations

import dataclasses
from collections.abc import Set

from ast_cli.errors import UsageError
from ast_cli.results import Record, StreamedPart, TaggingResult, Window
from ast_cli.tagging.options import ClassifyOptions, RunOptions


def check_matches_only(options: ClassifyOptions, run_options: RunOptions) -> None:
    """Check that a run with ``matches_only`` has a criterion by which an input does not match.

    Raises:
        UsageError: If it has none: without a threshold each input has tags.
    """
    has_criterion = options.events or options.threshold is not None or options.thresholds
    if run_options.matches_only and not has_criterion:
        raise UsageError("--matches-only needs --threshold, --thresholds or --events: without them each input matches")


class MatchSelection:
    """Selects the records of inputs that match: those with an event if events are detected, else with a tag.

    Inputs that failed are selected too. Windows without tags are left out. Of an input whose channels are tagged by
    themselves only the channels that match are selected. With ``stream`` windows and events are selected one by one,
    and the result of an input, or of a channel, follows if any of them was.

    Args:
        options: Options of the run.
    """

    def __init__(self, options: ClassifyOptions) -> None:
        self._has_events = options.events
        self._selected_parts: set[int | None] = set()  # channels with a selected part, of the streamed input

    def __call__(self, record: Record) -> Record | None:
        """Return the record as it is reported; None if it is left out."""
        if isinstance(record, StreamedPart):
            if isinstance(record.part, Window) and not record.part.tags:
                return None
            self._selected_parts.add(record.channel)
            return record
        selected_parts, self._selected_parts = self._selected_parts, set()
        if not record.channels:
            return self._selected(record, selected_parts)
        channels = [self._selected(channel, selected_parts) for channel in record.channels]
        matching = tuple(channel for channel in channels if channel is not None)
        return dataclasses.replace(record, channels=matching) if matching else None

    def _selected(self, record: TaggingResult, selected_parts: Set[int | None]) -> TaggingResult | None:
        """Return the result of an input, or of a channel, as it is reported; None if it is left out."""
        return record if record.channel in selected_parts else matching(record, has_events=self._has_events)


def matching(record: TaggingResult, *, has_events: bool) -> TaggingResult | None:
    """Return the result of an input, or of a channel, as it is reported; None if it is left out.

    Args:
        record: The result.
        has_events: Whether an input matches by its events, not by its tags.
    """
    if record.error is not None:
        return record
    if not (record.events if has_events else record.tags):
        return None
    if record.windows is None:
        return record
    return dataclasses.replace(record, windows=tuple(window for window in record.windows if window.tags))
