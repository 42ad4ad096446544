"""AudioSet's hierarchy: 632 classes, and for each the classes directly above it. Standard library only.

The table is made from AudioSet's ontology (Gemmeke et al., 2017; CC BY-SA 4.0) and keeps its order, depth first. It is
stored in ``assets/audioset_ontology.tsv``, one class per line: machine identifier, name, and the machine identifiers of
the classes above, separated by spaces. 38 classes are below several others. 527 of the classes are labels of AudioSet's
recordings (`ast_cli.labels`); the others group classes, or were never labeled.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import resources

# Fraction of a label's score from which a label below it takes its place. It is the best of 0.5 to 0.9 by the number of
# clips whose exact label came first: 60 of the 80 clips of ESC-10's fold 5, which the model (5.5 million weights, 521
# labels) had not learned, and 54 without the filter. At 0.5 a right but general label gave way to a wrong one for 6
# clips, at 0.8 for none.
NEARLY_AS_SURE = 0.8


@dataclass(frozen=True, slots=True)
class AudioSetClass:
    """A class of the hierarchy: its machine identifier, its name, and the identifiers of the classes above it."""

    mid: str
    name: str
    parents: tuple[str, ...]


@functools.cache
def audioset_classes() -> dict[str, AudioSetClass]:
    """Return all classes by machine identifier, in the order of the ontology."""
    text = resources.files("ast_cli").joinpath("assets/audioset_ontology.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines())
    return {mid: AudioSetClass(mid, name, tuple(parents.split())) for mid, name, parents in rows}


def class_named(text: str) -> AudioSetClass | None:
    """Return the class of a name or machine identifier, in any case; None if there is none."""
    return _by_folded_name().get(text.casefold())


@functools.cache
def _by_folded_name() -> dict[str, AudioSetClass]:
    found = {known.mid.casefold(): known for known in audioset_classes().values()}
    return found | {known.name.casefold(): known for known in audioset_classes().values()}


@functools.cache
def classes_above(mid: str) -> tuple[str, ...]:
    """Return the machine identifiers of all classes above a class, the nearest first; none for an unknown one."""
    return _reached(mid, lambda each: audioset_classes()[each].parents if each in audioset_classes() else ())


@functools.cache
def classes_below(mid: str) -> tuple[str, ...]:
    """Return the machine identifiers of all classes below a class, the nearest first; none for an unknown one."""
    return _reached(mid, lambda each: classes_directly_below().get(each, ()))


@functools.cache
def classes_directly_below() -> dict[str, tuple[str, ...]]:
    """Return the machine identifiers of the classes directly below each class that has any."""
    found: dict[str, list[str]] = {}
    for known in audioset_classes().values():
        for parent in known.parents:
            found.setdefault(parent, []).append(known.mid)
    return {mid: tuple(children) for mid, children in found.items()}


def chains_above(mid: str) -> tuple[tuple[str, ...], ...]:
    """Return each way from the top of the hierarchy down to a class, as the identifiers of the classes above it.

    A class at the top has one empty way, an unknown one has none.
    """
    known = audioset_classes().get(mid)
    if known is None:
        return ()
    above = [(*chain, parent) for parent in known.parents for chain in chains_above(parent)]
    return tuple(above) or ((),)


def _reached(mid: str, neighbors: Callable[[str], Iterable[str]]) -> tuple[str, ...]:
    """Return all classes that lead on from a class, breadth first, without the class itself."""
    found: dict[str, None] = {}
    nearest = list(neighbors(mid))
    while nearest:
        found |= dict.fromkeys(nearest)
        nearest = [each for near in nearest for each in neighbors(near) if each not in found]
    return tuple(found)
