"""Labels of the form ``Genre---Style``, as MAEST's checkpoints have them (Discogs' taxonomy). Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

SEPARATOR = "---"


def genre_and_style(label: str) -> tuple[str, str] | None:
    """Return the two parts of ``Genre---Style``; None for a label of another form."""
    genre, _, style = (part.strip() for part in label.partition(SEPARATOR))
    return (genre, style) if genre and style else None


def are_styles(labels: Iterable[str]) -> bool:
    """Return whether there are labels and all of them have the form ``Genre---Style``."""
    parts = [genre_and_style(label) for label in labels]
    return bool(parts) and None not in parts


def styles_by_genre(id2label: Mapping[int, str]) -> dict[str, list[int]]:
    """Return the class indices of the labels of each genre, in the order of the labels; other labels are left out."""
    found: dict[str, list[int]] = {}
    for label_id, label in id2label.items():
        if (parts := genre_and_style(label)) is not None:
            found.setdefault(parts[0], []).append(label_id)
    return found


def display_name(label: str) -> str:
    """Return a label as people read it: ``Style (Genre)`` for ``Genre---Style``, any other label as it is."""
    parts = genre_and_style(label)
    return label if parts is None else f"{parts[1]} ({parts[0]})"
