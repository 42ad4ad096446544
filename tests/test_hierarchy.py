from __future__ import annotations

import re

import pytest

from ast_cli.hierarchy import (
    audioset_classes,
    chains_above,
    class_named,
    classes_above,
    classes_below,
    classes_directly_below,
)
from ast_cli.labels import audioset_mids

CLASSES = audioset_classes()
ROOTS = [
    *("Human sounds", "Animal", "Music", "Natural sounds", "Sounds of things", "Source-ambiguous sounds"),
    "Channel, environment and background",
]


def mid_of(name: str) -> str:
    found = class_named(name)
    assert found is not None
    return found.mid


def names_of(mids: tuple[str, ...]) -> list[str]:
    return [CLASSES[mid].name for mid in mids]


def test_the_hierarchy_has_632_classes_with_unique_names_below_seven() -> None:
    assert len(CLASSES) == len({known.name for known in CLASSES.values()}) == 632
    assert all(re.fullmatch(r"/[mtg]/[0-9a-z_]+", mid) for mid in CLASSES)
    assert [known.name for known in CLASSES.values() if not known.parents] == ROOTS
    assert sum(len(known.parents) > 1 for known in CLASSES.values()) == 38
    reached = {mid for root in ROOTS for mid in classes_below(mid_of(root))}
    assert reached | {mid_of(root) for root in ROOTS} == set(CLASSES)


def test_every_label_of_audioset_is_a_class_of_the_same_name() -> None:
    assert {name: CLASSES[mid].name for name, mid in audioset_mids().items()} == {
        name: name for name in audioset_mids()
    }


@pytest.mark.parametrize("text", ["Dog", "dOG", "/m/0bt9lr", "/M/0BT9LR"])
def test_a_class_is_found_by_name_and_identifier_in_any_case(text: str) -> None:
    assert class_named(text) == CLASSES["/m/0bt9lr"]


def test_an_unknown_class_is_none_and_has_nothing_above_and_below() -> None:
    assert class_named("dogs") is None
    assert (classes_above("/m/none"), classes_below("/m/none"), chains_above("/m/none")) == ((), (), ())


def test_classes_above_come_nearest_first_and_once() -> None:
    assert names_of(classes_above(mid_of("Bark"))) == ["Dog", "Domestic animals, pets", "Animal"]
    assert names_of(classes_above(mid_of("Hiss"))) == [
        *("Cat", "Snake", "Steam", "Onomatopoeia", "Domestic animals, pets", "Wild animals", "Water"),
        *("Source-ambiguous sounds", "Animal", "Natural sounds"),
    ]
    assert classes_above(mid_of("Animal")) == ()


def test_classes_below_are_those_whose_classes_above_contain_the_class() -> None:
    for mid in CLASSES:
        below = classes_below(mid)
        assert len(below) == len(set(below))
        assert set(below) == {other for other in CLASSES if mid in classes_above(other)}
    assert classes_below(mid_of("Bark")) == ()
    assert names_of(classes_directly_below()[mid_of("Water")]) == [
        *("Rain", "Stream", "Waterfall", "Ocean", "Steam", "Gurgling"),
    ]


def test_each_way_down_to_a_class_is_a_chain_from_the_top() -> None:
    assert [names_of(chain) for chain in chains_above(mid_of("Growling"))] == [
        ["Animal", "Domestic animals, pets", "Dog"],
        ["Animal", "Domestic animals, pets", "Cat"],
        ["Animal", "Wild animals", "Roaring cats (lions, tigers)"],
        ["Animal", "Wild animals", "Canidae, dogs, wolves"],
    ]
    assert chains_above(mid_of("Music")) == ((),)
