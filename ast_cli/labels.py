"""The 527 AudioSet classes, the 35 words of Speech Commands, and the selection of labels by name.

The class list is AudioSet's own (Gemmeke et al., 2017; CC BY 4.0), in the order of the class indices. It is stored in
``assets/audioset_labels.tsv``, one class per line: machine identifier and display name.
"""

from __future__ import annotations

import difflib
import functools
import unicodedata
from collections.abc import Iterable, Mapping
from importlib import resources

from ast_cli.errors import UsageError

NUM_AUDIOSET_LABELS = 527
MAX_LISTED = 50  # labels of a model that an error message lists
# The words of Speech Commands v2 (Warden, 2018, https://arxiv.org/abs/1804.03209).
SPEECH_COMMANDS = frozenset(
    "backward bed bird cat dog down eight five follow forward four go happy house learn left marvin nine no off on one "
    "right seven sheila six stop three tree two up visual wow yes zero".split()
)

# Unicode's embeddings, overrides and isolates, which change the direction in which text is displayed.
BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@functools.cache
def audioset_mids() -> dict[str, str]:
    """Return the AudioSet classes as a mapping from display name to machine identifier, in index order."""
    text = resources.files("ast_cli").joinpath("assets/audioset_labels.tsv").read_text(encoding="utf-8")
    pairs = (line.split("\t") for line in text.splitlines())
    return {name: mid for mid, name in pairs}


def audioset_id2label() -> dict[int, str]:
    """Return the mapping from AudioSet's class indices to display names."""
    return dict(enumerate(audioset_mids()))


def mid_of(label: str) -> str | None:
    """Return AudioSet's machine identifier for a display name, or None if AudioSet has no such label."""
    return audioset_mids().get(label)


def is_audioset(id2label: Mapping[int, str]) -> bool:
    """Return whether the labels are AudioSet's 527 classes, in any order."""
    return len(id2label) == NUM_AUDIOSET_LABELS and set(id2label.values()) == set(audioset_mids())


def counts_as_audioset(id2label: Mapping[int, str]) -> bool:
    """Return whether the labels are AudioSet's classes, or 527 placeholders, which are taken for AudioSet's."""
    unnamed = placeholder_labels(NUM_AUDIOSET_LABELS).values()
    return is_audioset(id2label) or (len(id2label) == len(unnamed) and set(id2label.values()) == set(unnamed))


def is_speech_commands(id2label: Mapping[int, str]) -> bool:
    """Return whether the labels are the 35 words of Speech Commands, in any order and case."""
    return len(id2label) == len(SPEECH_COMMANDS) and {name.casefold() for name in id2label.values()} == SPEECH_COMMANDS


def is_plain(label: str) -> bool:
    """Return whether a label is safe to print: no terminal control characters and no changes of text direction.

    The zero-width joiner and non-joiner (U+200D, U+200C) are allowed: several scripts need them for correct spelling.
    """
    return not any(unicodedata.category(character) == "Cc" or character in BIDI_CONTROLS for character in label)


def placeholder_labels(num_labels: int) -> dict[int, str]:
    """Return transformers' placeholders for labels without names: ``LABEL_0``, ``LABEL_1`` ..."""
    return {label_id: f"LABEL_{label_id}" for label_id in range(num_labels)}


def label_ids_by_name(id2label: Mapping[int, str]) -> dict[str, int]:
    """Return the class indices keyed by case-folded label name and by case-folded AudioSet identifier."""
    known: dict[str, int] = {}
    for label_id, label in id2label.items():
        known.setdefault(label.casefold(), label_id)
        if mid := mid_of(label):
            known.setdefault(mid.casefold(), label_id)
    return known


def select_label_ids(names: Iterable[str], id2label: Mapping[int, str]) -> list[int]:
    """Return the class indices of labels named by the user.

    Each name is a label (case does not matter) or an AudioSet machine identifier. One string may contain several names
    separated by commas. As 75 of AudioSet's names contain commas themselves, the longest match wins.

    Args:
        names: Names as the user typed them, e.g. ``["Speech,Waves, surf", "/m/04rlf"]``.
        id2label: Labels of the checkpoint.

    Returns:
        Class indices in the given order, without duplicates.

    Raises:
        UsageError: If a name is empty or matches no label; the message then lists similar labels.
    """
    known = label_ids_by_name(id2label)
    chosen = [label_id for name in names for label_id in _split(name, known, id2label)]
    return list(dict.fromkeys(chosen))


def _split(text: str, known: Mapping[str, int], id2label: Mapping[int, str]) -> list[int]:
    """Split a comma-separated string into the class indices of known labels, trying the longest match first."""
    parts, chosen, first = text.split(","), [], 0
    while first < len(parts):
        for last in range(len(parts), first, -1):
            candidate = ",".join(parts[first:last]).strip().casefold()
            if candidate in known:
                chosen.append(known[candidate])
                first = last
                break
        else:
            name = parts[first].strip()
            if not name:
                raise UsageError(f"{text!r} contains an empty label name: check its commas")
            raise UsageError(no_such_label(name, id2label))
    return chosen


def no_such_label(name: str, id2label: Mapping[int, str]) -> str:
    """Return the error message for an unknown label, which names similar labels."""
    by_fold = {label.casefold(): label for label in id2label.values()}
    folded = name.casefold()
    near = [label for fold, label in by_fold.items() if folded and folded in fold][:3]
    near += [by_fold[fold] for fold in difflib.get_close_matches(folded, by_fold, n=3, cutoff=0.6)]
    if not near and len(id2label) <= MAX_LISTED:
        return f"the model has no label {name!r}; it has {', '.join(map(repr, id2label.values()))}"
    if not near:
        return f"the model has no label {name!r} and none similar to it; see id2label in the model's config.json"
    return f"the model has no label {name!r}; similar labels: {', '.join(repr(label) for label in dict.fromkeys(near))}"
