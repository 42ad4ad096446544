"""Leave out general labels of recorded lists of tags, as `ast_cli.tagging.score.specific` does of scores.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ast_cli.hierarchy import NEARLY_AS_SURE, classes_below
from ast_cli.labels import mid_of
from ast_cli.results import Tag


def without_general(tags: Sequence[Tag]) -> list[Tag]:
    """Return the tags that remain: those without a tag of a label below them that has at least 0.8 of their score.

    Args:
        tags: Tags over their thresholds.
    """
    scores = {mid: tag.score for tag in tags if (mid := mid_of(tag.label)) is not None}
    return [tag for tag in tags if not _gives_way(tag, scores)]


def _gives_way(tag: Tag, scores: Mapping[str, float]) -> bool:
    """Return whether a label below has nearly the score of a tag."""
    return any(scores[mid] >= NEARLY_AS_SURE * tag.score for mid in _below(tag) if mid in scores)


def may_be_general(kept: Sequence[Tag], recorded: Sequence[Tag], threshold: float) -> bool:
    """Return whether a tag is kept that would have given way to a label that is missing because the list was cut off.

    Args:
        kept: The tags that remain.
        recorded: All tags of a list that was cut off by their number; a label that is missing has no higher score.
        threshold: Lowest threshold of any label; labels below their thresholds count for nothing.
    """
    highest_missing = min((tag.score for tag in recorded), default=0.0)
    if highest_missing < threshold:
        return False
    known = {mid_of(tag.label) for tag in recorded}
    return any(highest_missing >= NEARLY_AS_SURE * tag.score and not known.issuperset(_below(tag)) for tag in kept)


def _below(tag: Tag) -> tuple[str, ...]:
    """Return the machine identifiers of the classes below a tag's label; none for a label that AudioSet lacks."""
    return classes_below(mid_of(tag.label) or "")
