"""The 527 AudioSet classes, the 35 words of Speech Commands, and choosing labels by name.

The class list is AudioSet's own (Gemmeke et al., 2017; CC BY 4.0), in the order of its class indices, kept as
``assets/audioset_labels.tsv``: one line a class, its machine identifier and its display name.
"""

from __future__ import annotations

import difflib
import functools
import unicodedata
from collections.abc import Iterable, Mapping
from importlib import resources

from ast_cli.errors import UsageError

NUM_AUDIOSET_LABELS = 527
# The words of Speech Commands v2 (Warden, 2018, https://arxiv.org/abs/1804.03209).
SPEECH_COMMANDS = frozenset(
    "backward bed bird cat dog down eight five follow forward four go happy house learn left marvin nine no off on one "
    "right seven sheila six stop three tree two up visual wow yes zero".split()
)

TURNS_TEXT = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # overrides the direction it reads in


@functools.cache
def audioset_mids() -> dict[str, str]:
    """Return the AudioSet classes as a mapping from display name to machine identifier, in index order."""
    text = resources.files("ast_cli").joinpath("assets/audioset_labels.tsv").read_text(encoding="utf-8")
    pairs = (line.split("\t") for line in text.splitlines())
    return {name: mid for mid, name in pairs}


def audioset_id2label() -> dict[int, str]:
    """Return AudioSet's class index to display name."""
    return dict(enumerate(audioset_mids()))


def mid_of(label: str) -> str | None:
    """Return AudioSet's machine identifier of a display name, or None where the label is not AudioSet's."""
    return audioset_mids().get(label)


def is_audioset(id2label: Mapping[int, str]) -> bool:
    """Tell whether these are AudioSet's 527 classes, in whatever order."""
    return len(id2label) == NUM_AUDIOSET_LABELS and set(id2label.values()) == set(audioset_mids())


def counts_as_audioset(id2label: Mapping[int, str]) -> bool:
    """Tell whether these are AudioSet's classes, or 527 without names, which are AudioSet's too."""
    unnamed = placeholder_labels(NUM_AUDIOSET_LABELS).values()
    return is_audioset(id2label) or (len(id2label) == len(unnamed) and set(id2label.values()) == set(unnamed))


def is_speech_commands(id2label: Mapping[int, str]) -> bool:
    """Tell whether these are the 35 words of Speech Commands, in whatever order and case."""
    return len(id2label) == len(SPEECH_COMMANDS) and {name.casefold() for name in id2label.values()} == SPEECH_COMMANDS


def is_plain(label: str) -> bool:
    """Tell whether a label is text alone: no control character, which a terminal obeys, none that turns text around.

    Characters that join or separate letters (U+200C, U+200D) belong to the spelling of several scripts.
    """
    return not any(unicodedata.category(character) == "Cc" or character in TURNS_TEXT for character in label)


def placeholder_labels(num_labels: int) -> dict[int, str]:
    """Return the names that stand for none, as the reference has them: ``LABEL_0``, ``LABEL_1`` ..."""
    return {label_id: f"LABEL_{label_id}" for label_id in range(num_labels)}


def label_ids_by_name(id2label: Mapping[int, str]) -> dict[str, int]:
    """Return class indices by what a label is called, its name or its AudioSet identifier, both case-folded."""
    known: dict[str, int] = {}
    for label_id, label in id2label.items():
        known.setdefault(label.casefold(), label_id)
        if mid := mid_of(label):
            known.setdefault(mid.casefold(), label_id)
    return known


def select_label_ids(names: Iterable[str], id2label: Mapping[int, str]) -> list[int]:
    """Find labels by what a person types.

    Each name is a label (upper and lower case are the same) or an AudioSet machine identifier; several may stand in
    one string with commas between them, although 75 of AudioSet's names hold commas themselves: the longest match wins.

    Args:
        names: What was typed, e.g. ``["Speech,Waves, surf", "/m/04rlf"]``.
        id2label: The checkpoint's labels.

    Returns:
        Class indices in the order typed, each once.

    Raises:
        UsageError: A name matches no label; the message offers the nearest ones.
    """
    known = label_ids_by_name(id2label)
    chosen = [label_id for name in names for label_id in _split(name, known, id2label)]
    return list(dict.fromkeys(chosen))


def _split(text: str, known: Mapping[str, int], id2label: Mapping[int, str]) -> list[int]:
    """Cut one comma-separated string into known labels, the longest match first."""
    parts, chosen, first = text.split(","), [], 0
    while first < len(parts):
        for last in range(len(parts), first, -1):
            candidate = ",".join(parts[first:last]).strip().casefold()
            if candidate in known:
                chosen.append(known[candidate])
                first = last
                break
        else:
            raise UsageError(no_such_label(parts[first].strip(), id2label))
    return chosen


def no_such_label(name: str, id2label: Mapping[int, str]) -> str:
    """Say that a label does not exist and which ones come near."""
    by_fold = {label.casefold(): label for label in id2label.values()}
    folded = name.casefold()
    near = [label for fold, label in by_fold.items() if folded and folded in fold][:3]
    near += [by_fold[fold] for fold in difflib.get_close_matches(folded, by_fold, n=3, cutoff=0.6)]
    if not near:
        return f"the model has no label {name!r}, nor one near it; its config.json lists them under id2label"
    return f"the model has no label {name!r}; near ones: {', '.join(repr(label) for label in dict.fromkeys(near))}"
