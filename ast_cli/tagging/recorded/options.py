"""Options of choosing again from results that exist. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ast_cli.about import About
from ast_cli.tagging.options import ClassifyOptions, ExcludedNames, OnlySpecific


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """Options of choosing again from results that exist: what was not recorded cannot come back.

    Attributes:
        top_k: Maximum number of tags to keep of a recording or a window; None for all that were recorded.
        threshold: Lowest score to keep; None for any.
        thresholds: Lowest score to keep of single labels, as in `ClassifyOptions`.
        labels: Labels to keep, named as in `ClassifyOptions`. Empty for all labels.
        exclude_labels: Labels to leave out, named in the same ways.
        specific: Whether general labels are left out, as in `ClassifyOptions`, as far as labels below them were
            recorded.
        timestamps: Whether windows are kept. If neither this nor ``events`` is set, all is kept that was recorded.
        events: Whether events are kept, or made from the windows where none were recorded.
        matches_only: Whether only results with an event, or if they have no events with a tag, are kept, besides those
            of inputs that failed.
    """

    top_k: Annotated[int | None, About("Maximum number of labels. [default: all that were recorded]", short="-k")] = (
        None
    )
    threshold: Annotated[
        float | None, About("Lowest score to keep. [default: any; for new events, or with --thresholds, 0.5]")
    ] = None
    thresholds: tuple[tuple[str, float], ...] = ()
    labels: Annotated[
        tuple[str, ...],
        About(
            "Labels to keep, by name or /m/ id, separated by commas or repeated; 'Animal/*' is a class with all below "
            "it. [default: all]",
            metavar="NAMES",
        ),
    ] = ()
    exclude_labels: ExcludedNames = ()
    specific: OnlySpecific = False
    timestamps: Annotated[
        bool, About("Keep windows, and events only with --events. [default: all that was recorded]")
    ] = False
    events: Annotated[
        bool, About("Keep events, made from the windows if there are none, and windows only with --timestamps.")
    ] = False
    matches_only: Annotated[
        bool, About("Keep only inputs with a tag (where there are events: an event), and those that failed.")
    ] = False

    def __post_init__(self) -> None:
        """Validate the options as those of tagging."""
        valid = ClassifyOptions(
            top_k=self.top_k,
            threshold=self.threshold,
            thresholds=self.thresholds,
            labels=self.labels,
            exclude_labels=self.exclude_labels,
        )
        object.__setattr__(self, "thresholds", valid.thresholds)

    @property
    def has_thresholds(self) -> bool:
        """Whether scores are compared with thresholds."""
        return self.threshold is not None or bool(self.thresholds)
