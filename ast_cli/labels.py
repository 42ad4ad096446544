"""The 527 labels of AudioSet, the 35 words of Speech Commands, and the selection of labels by name or class.

The class list is AudioSet's own (Gemmeke et al., 2017; CC BY 4.0), in the order of the class indices. It is stored in
``assets/audioset_labels.tsv``, one class per line: machine identifier and display name.
"""

from __future__ import annotations

import difflib
import functools
import re
import unicodedata
from collections.abc import Iterable, Mapping
from importlib import resources

from ast_cli.errors import UsageError
from ast_cli.files.json_object import shown
from ast_cli.hierarchy import audioset_classes, class_named, classes_above, classes_below
from ast_cli.styles import are_styles, display_name, styles_by_genre

NUM_AUDIOSET_LABELS = 527
ALL_BELOW = "/*"  # after the name of a class: the class and all classes below it
MAX_LISTED = 50  # labels of a model that an error message lists
# The words of Speech Commands v2 (Warden, 2018, https://arxiv.org/abs/1804.03209).
SPEECH_COMMANDS = frozenset(
    "backward bed bird cat dog down eight five follow forward four go happy house learn left marvin nine no off on one "
    "right seven sheila six stop three tree two up visual wow yes zero".split()
)
# Letters of an English name and a number where several names have the same letters (amerob, winwre4), or a number alone
# for joined species (y00475); https://www.wikidata.org/wiki/Property:P3444, and the labels of BirdSet (y01036).
EBIRD_CODE = re.compile(r"[a-z]{3,6}[0-9]{0,2}|[xy]0[0-9]{4}")
EBIRD_LETTERS = 6  # of most codes
DIGITS = "0123456789"

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


def mostly_audioset(id2label: Mapping[int, str]) -> bool:
    """Return whether the labels are more than half of AudioSet's classes and nothing else.

    YAMNet and the models that it taught have 521 of the classes.
    """
    return 2 * len(id2label) > NUM_AUDIOSET_LABELS and audioset_mids().keys() >= set(id2label.values())


def is_speech_commands(id2label: Mapping[int, str]) -> bool:
    """Return whether the labels are the 35 words of Speech Commands, in any order and case."""
    return len(id2label) == len(SPEECH_COMMANDS) and {name.casefold() for name in id2label.values()} == SPEECH_COMMANDS


def is_ebird(id2label: Mapping[int, str]) -> bool:
    """Return whether the labels are eBird's species codes, as those of BirdSet's checkpoints.

    Short words have the form of codes as well, so a code with a digit is required, and the usual length: six letters.
    All of the 9,736 and 411 labels of BirdSet's checkpoints are codes; 99 % of them have six letters.
    """
    codes = list(id2label.values())
    num_usual = sum(len(code.rstrip(DIGITS)) == EBIRD_LETTERS for code in codes)
    are_codes = all(EBIRD_CODE.fullmatch(code) for code in codes)
    return are_codes and 4 * num_usual >= 3 * len(codes) and any(code[-1] in DIGITS for code in codes)


def is_plain(label: str) -> bool:
    """Return whether a label is safe to print: no terminal control characters and no changes of text direction.

    The zero-width joiner and non-joiner (U+200D, U+200C) are allowed: several scripts need them for correct spelling.
    """
    return not any(unicodedata.category(character) == "Cc" or character in BIDI_CONTROLS for character in label)


def placeholder_labels(num_labels: int) -> dict[int, str]:
    """Return transformers' placeholders for labels without names: ``LABEL_0``, ``LABEL_1`` ..."""
    return {label_id: f"LABEL_{label_id}" for label_id in range(num_labels)}


def label_ids_by_name(id2label: Mapping[int, str]) -> dict[str, int]:
    """Return the class indices by case-folded label name, as files and as people have it, and by AudioSet identifier.

    The names of files come first, where the display name of a label is the name of another one.
    """
    known: dict[str, int] = {}
    for label_id, label in id2label.items():
        known.setdefault(label.casefold(), label_id)
        if mid := mid_of(label):
            known.setdefault(mid.casefold(), label_id)
    for label_id, label in id2label.items():
        known.setdefault(display_name(label).casefold(), label_id)
    return known


def select_label_ids(names: Iterable[str], id2label: Mapping[int, str]) -> list[int]:
    """Return the class indices of labels named by the user.

    Each name is a label (case does not matter) or an AudioSet machine identifier; a label ``Genre---Style`` may be
    written ``Style (Genre)`` too. With ``/*`` after it, a name is a genre and means all of its styles, or it is a class
    of AudioSet's hierarchy and means every label of the checkpoint that is this class or below it; a label that itself
    ends in ``/*`` comes first. One string may contain several names separated by commas. As 75 of AudioSet's names
    contain commas themselves, the longest match wins.

    Args:
        names: Names as the user typed them, e.g. ``["Speech,Waves, surf", "/m/04rlf", "Animal/*"]``.
        id2label: Labels of the checkpoint.

    Returns:
        Class indices in the given order, without duplicates.

    Raises:
        UsageError: If a name is empty or matches no label, or if the checkpoint has no label below a class; the message
            then lists similar labels or classes.
    """
    known = label_ids_by_name(id2label)
    chosen = [label_id for name in names for label_id in _split(name, known, id2label)]
    return list(dict.fromkeys(chosen))


def _split(text: str, known: Mapping[str, int], id2label: Mapping[int, str]) -> list[int]:
    """Split a comma-separated string into the class indices of known labels, trying the longest match first."""
    parts, chosen, first = text.split(","), [], 0
    while first < len(parts):
        for last in range(len(parts), first, -1):
            candidate = ",".join(parts[first:last]).strip()
            found = _ids_of(candidate, known, id2label)
            if found:
                chosen += found
                first = last
                break
        else:
            name = parts[first].strip()
            if not name:
                raise UsageError(f"{text!r} contains an empty label name: check its commas")
            if name.endswith(ALL_BELOW) and are_styles(id2label.values()):
                raise UsageError(_no_such_genre(name.removesuffix(ALL_BELOW), id2label))
            if name.endswith(ALL_BELOW):
                raise UsageError(_no_such_class(name.removesuffix(ALL_BELOW), id2label))
            raise UsageError(no_such_label(name, id2label))
    return chosen


def _ids_of(name: str, known: Mapping[str, int], id2label: Mapping[int, str]) -> list[int]:
    """Return the class index of a label, or those of a genre, or of a class and all below it, where ``/*`` follows.

    Raises:
        UsageError: If the name is that of a class, and the checkpoint has no label below it.
    """
    if name.casefold() in known:
        return [known[name.casefold()]]
    if not name.endswith(ALL_BELOW):
        return []
    group = name.removesuffix(ALL_BELOW).rstrip()
    by_genre = {genre.casefold(): label_ids for genre, label_ids in styles_by_genre(id2label).items()}
    if group.casefold() in by_genre:
        return by_genre[group.casefold()]
    above = None if are_styles(id2label.values()) else class_named(group)
    if above is None:
        return []
    by_mid = label_ids_by_mid(id2label)
    below = [by_mid[mid] for mid in classes_below(above.mid) if mid in by_mid]
    if not below:
        raise UsageError(_nothing_below(above.mid, by_mid))
    return [by_mid[above.mid], *below] if above.mid in by_mid else below


def label_ids_by_mid(id2label: Mapping[int, str]) -> dict[str, int]:
    """Return the class indices of the labels that AudioSet has, by machine identifier."""
    mids = audioset_mids()
    return {mids[label]: label_id for label_id, label in id2label.items() if label in mids}


def _nothing_below(mid: str, by_mid: Mapping[str, int]) -> str:
    """Return the error message for a class without labels below it, which names classes above it that have some."""
    name = audioset_classes()[mid].name
    above = [each for each in classes_above(mid) if any(below in by_mid for below in classes_below(each))]
    remedies = [f"name {name!r} without {ALL_BELOW}"] if mid in by_mid else []
    remedies += [f"choose a class with labels below it: {_patterns(above)}"] if above else []
    itself = "" if mid in by_mid else f", nor {name!r} itself,"
    hint = f"; {', or '.join(remedies)}" if remedies else ""
    return f"nothing below {name!r} in AudioSet's hierarchy{itself} is a label of the model{hint}"


def no_such_label(name: str, id2label: Mapping[int, str]) -> str:
    """Return the error message for an unknown label, which names similar labels."""
    by_fold = {label.casefold(): label for label in id2label.values()}
    near = [by_fold[fold] for fold in similar_names(name, by_fold)]
    if not near and len(id2label) <= MAX_LISTED:
        return f"the model has no label {shown(name)}; it has {', '.join(map(repr, id2label.values()))}"
    if not near:
        return f"the model has no label {shown(name)} and none similar to it; `ast labels` lists all"
    return f"the model has no label {shown(name)}; similar labels: {', '.join(map(repr, near))}"


def _no_such_class(name: str, id2label: Mapping[int, str]) -> str:
    """Return the error message for an unknown class, which names similar classes with labels of the model below."""
    by_mid = label_ids_by_mid(id2label)
    above = dict.fromkeys(each for mid in by_mid for each in classes_above(mid))
    by_fold = {audioset_classes()[mid].name.casefold(): mid for mid in above}
    near = [by_fold[fold] for fold in similar_names(name, by_fold)]
    hint = f"similar classes: {_patterns(near)}" if near else "`ast labels --tree` shows it"
    if not above:
        hint = "the model's labels are not in it"
    return f"AudioSet's hierarchy has no class {shown(name)}; {hint}"


def _no_such_genre(name: str, id2label: Mapping[int, str]) -> str:
    """Return the error message for an unknown genre, which names similar ones."""
    by_fold = {genre.casefold(): genre for genre in styles_by_genre(id2label)}
    near = [by_fold[fold] for fold in similar_names(name, by_fold)]
    hint = f"similar genres: {_all_below(near)}" if near else f"it has {_all_below(by_fold.values())}"
    return f"the model has no genre {shown(name)}; {hint}"


def similar_names(name: str, folded_names: Iterable[str]) -> list[str]:
    """Return case-folded names that contain a name or are close to it, at most three of each kind."""
    folded, known = name.casefold(), list(folded_names)
    near = [each for each in known if folded and folded in each][:3]
    return list(dict.fromkeys([*near, *difflib.get_close_matches(folded, known, n=3, cutoff=0.6)]))


def _patterns(mids: Iterable[str]) -> str:
    """Return classes as a user writes them: ``'Dog/*', 'Animal/*'``."""
    return _all_below(audioset_classes()[mid].name for mid in list(mids)[:3])


def _all_below(names: Iterable[str]) -> str:
    return ", ".join(repr(f"{name}{ALL_BELOW}") for name in names)
