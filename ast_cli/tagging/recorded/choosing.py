"""Choose labels again from a result that exists, by other thresholds, labels and numbers. Standard library only."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from ast_cli.errors import UsageError
from ast_cli.labels import select_label_ids
from ast_cli.results import Event, Tag, TaggingResult, Window
from ast_cli.tagging.options import DEFAULT_THRESHOLD, check_specific, check_threshold_range
from ast_cli.tagging.recorded.options import ConvertOptions
from ast_cli.tagging.recorded.specific import may_be_general, without_general
from ast_cli.tagging.recorded.survey import Survey
from ast_cli.tagging.run.matches import matching
from ast_cli.tagging.score.open_events import OpenEvents
from ast_cli.tagging.thresholds import thresholds_by_id


class RecordedChooser:
    """Chooses what is kept of each result.

    Tags of recordings and of windows are kept by their scores. Events are made again from the windows where there are
    thresholds and windows, else kept by their mean scores. A label that a window does not contain has not reached the
    threshold in it, as far as anyone can know.

    Args:
        options: What to keep.
        survey: What the results contain.

    Raises:
        UsageError: If no result may have a label, scores cannot reach the threshold, or results contain no windows or
            events where these are to be kept.

    Attributes:
        num_incomplete: Number of results so far in which labels that reach their thresholds may be missing, since only
            the best labels were recorded.
        num_general: Number of results so far with a general label for which one below it may be missing, likewise.
    """

    def __init__(self, options: ConvertOptions, survey: Survey) -> None:
        self.options = options
        self.survey = survey
        self.num_incomplete = 0
        self.num_general = 0
        for activation in survey.activations:
            check_threshold_range(options.threshold, activation)
            check_specific(options.specific, activation)
        _check_parts(options, survey)
        self._chosen = self._chosen_labels()
        self._thresholds = self._own_thresholds()
        self._default = options.threshold
        if options.thresholds and options.threshold is None:
            self._default = DEFAULT_THRESHOLD

    def __call__(self, result: TaggingResult) -> TaggingResult | None:
        """Return what is kept of the result of a recording, or of a channel; None if nothing is."""
        if result.error is None:
            takes_all = not (self.options.timestamps or self.options.events)
            keeps_windows = result.windows is not None and (self.options.timestamps or takes_all)
            keeps_events = self.options.events or (result.events is not None and takes_all)
            chosen = dataclasses.replace(
                result,
                tags=self._top(self._kept(result.tags)),
                windows=tuple(map(self._window, result.windows or ())) if keeps_windows else None,
                events=tuple(self._events(result)) if keeps_events else None,
            )
            self.num_incomplete += self._may_be_incomplete(result, chosen)
            self.num_general += self.options.specific and self._may_be_general(result, chosen)
            result = chosen
        return matching(result, has_events=result.events is not None) if self.options.matches_only else result

    def _kept(self, tags: Iterable[Tag], default: float | None = None) -> list[Tag]:
        """Return the tags of chosen labels that reach their thresholds, with ``specific`` the most specific of them.

        Args:
            tags: The tags.
            default: Threshold of labels without one, if the options have none.
        """
        default = self._default if self._default is not None else default
        kept = [tag for tag in tags if self._is_chosen(tag.label) and self._reaches(tag.label, tag.score, default)]
        return without_general(kept) if self.options.specific else kept

    def _is_chosen(self, label: str) -> bool:
        return self._chosen is None or label in self._chosen

    def _reaches(self, label: str, score: float, default: float | None) -> bool:
        threshold = self._thresholds.get(label.casefold(), default)
        return threshold is None or score >= threshold

    def _lowest_threshold(self, default: float) -> float:
        return min([default, *self._thresholds.values()])

    def _top(self, tags: list[Tag]) -> tuple[Tag, ...]:
        return tuple(tags[: self.options.top_k])

    def _window(self, window: Window) -> Window:
        return dataclasses.replace(window, tags=self._top(self._kept(window.tags)))

    def _events(self, result: TaggingResult) -> list[Event]:
        """Return the events of a result: new ones from its windows, or those recorded that reach their thresholds."""
        if result.windows is None or (result.events is not None and not self.options.has_thresholds):
            return [
                event
                for event in result.events or ()
                if self._is_chosen(event.label) and self._reaches(event.label, event.mean_score, self._default)
            ]
        names, events = dict[int, str](), list[Event]()
        merger = OpenEvents(names)
        for window in result.windows:
            kept = self._kept(window.tags, DEFAULT_THRESHOLD)
            names |= {tag.label_id: tag.label for tag in kept}
            events += merger.advance(window.start_s, window.end_s, {tag.label_id: tag.score for tag in kept})
        return events + merger.finish()

    def _may_be_incomplete(self, result: TaggingResult, chosen: TaggingResult) -> bool:
        """Return whether labels that reach their thresholds may be missing from a result because of its recording."""
        is_from_windows = self._are_from_windows(result, chosen)
        if not (self.options.has_thresholds or is_from_windows):
            return False
        threshold = self._lowest_threshold(DEFAULT_THRESHOLD if self._default is None else self._default)
        lists = [(self.survey.recordings, result.tags)] if self.options.has_thresholds else []
        if chosen.windows is not None or is_from_windows:
            lists += [(self.survey.windows, window.tags) for window in result.windows or ()]
        return any(known.may_lack(tags, threshold) and not self._has_all(tags) for known, tags in lists)

    def _are_from_windows(self, result: TaggingResult, chosen: TaggingResult) -> bool:
        """Return whether the events that were chosen of a result were made from its windows."""
        return chosen.events is not None and (self.options.has_thresholds or result.events is None)

    def _may_be_general(self, result: TaggingResult, chosen: TaggingResult) -> bool:
        """Return whether a label that was chosen might have given way to one that was not recorded."""
        lists = [(self.survey.recordings, result.tags, self._default)]
        if chosen.windows is not None or self._are_from_windows(result, chosen):
            default = DEFAULT_THRESHOLD if chosen.windows is None and self._default is None else self._default
            lists += [(self.survey.windows, window.tags, default) for window in result.windows or ()]
        return any(
            len(tags) == known.longest
            and not self._has_all(tags)
            and may_be_general(self._kept(tags, default), tags, self._lowest_threshold(default or 0.0))
            for known, tags, default in lists
        )

    def _has_all(self, tags: Iterable[Tag]) -> bool:
        """Return whether a list contains every chosen label."""
        return self._chosen is not None and self._chosen <= {tag.label for tag in tags}

    def _chosen_labels(self) -> frozenset[str] | None:
        """Return the labels that are kept; None for all."""
        if not (self.options.labels or self.options.exclude_labels):
            return None
        known = self.survey.known_labels
        try:
            chosen = select_label_ids(self.options.labels, known) if self.options.labels else list(known)
            excluded = set(select_label_ids(self.options.exclude_labels, known))
        except UsageError as error:
            raise UsageError(
                f"{error} (known: the labels in the results and, if these are AudioSet's, all of them)"
            ) from error
        if set(chosen) <= excluded:
            raise UsageError("no label is left: --labels and --exclude-labels contradict each other")
        return frozenset(known[label_id] for label_id in chosen if label_id not in excluded)

    def _own_thresholds(self) -> dict[str, float]:
        """Return the thresholds of single labels, by case-folded name; those of other labels have no effect."""
        names = [name for name, _ in self.options.thresholds]
        known = dict(enumerate(dict.fromkeys([*self.survey.known_labels.values(), *names])))
        try:
            own = thresholds_by_id(self.options.thresholds, known)
        except UsageError as error:
            raise UsageError(f"--thresholds: {error}") from error
        return {known[label_id].casefold(): threshold for label_id, threshold in own.items()}


def _check_parts(options: ConvertOptions, survey: Survey) -> None:
    """Check that results contain what is to be kept of them, and can be without a match.

    Raises:
        UsageError: If they do not; the message says how to record it.
    """
    if options.timestamps and survey.without_windows is not None:
        raise UsageError(f"{survey.without_windows}: its result contains no windows; classify it with --timestamps")
    if options.events and survey.without_parts is not None:
        raise UsageError(
            f"{survey.without_parts}: its result contains neither windows nor events; classify it with --timestamps or "
            "--events"
        )
    if options.specific and (options.events or not options.timestamps):
        if survey.with_events_alone is not None:
            raise UsageError(
                f"{survey.with_events_alone}: its result contains events without windows, and --specific chooses "
                "window by window; classify it with --specific, or with --timestamps"
            )
        if survey.has_events and not options.has_thresholds:
            raise UsageError(
                "--specific makes events again from the windows: add --threshold, or keep windows alone with "
                "--timestamps"
            )
    has_criterion = options.has_thresholds or options.labels or options.exclude_labels
    if options.matches_only and not (has_criterion or options.events or survey.has_events):
        raise UsageError(
            "--matches-only needs --threshold, --thresholds, --labels or --events: without them each input matches"
        )
