from __future__ import annotations

import re

import pytest

from ast_cli.errors import UsageError
from ast_cli.labels import (
    SPEECH_COMMANDS,
    audioset_id2label,
    audioset_mids,
    is_audioset,
    is_plain,
    is_speech_commands,
    mid_of,
    mostly_audioset,
    select_label_ids,
)

AUDIOSET = audioset_id2label()
BY_NAME = {name: label_id for label_id, name in AUDIOSET.items()}
YAMNET_LACKS = {
    *("Male speech, man speaking", "Female speech, woman speaking", "Male singing", "Female singing"),
    *("Battle cry", "Funny music"),
}
YAMNET = dict(enumerate(name for name in AUDIOSET.values() if name not in YAMNET_LACKS))
FEW = {0: "Bark", 1: "Rain", 2: "Waves, surf", 3: "rain on tin", 4: "RAIN ON GLASS"}


def test_audioset_has_527_unique_names_and_machine_identifiers() -> None:
    assert list(AUDIOSET) == list(range(527))
    assert len(set(AUDIOSET.values())) == 527
    assert len(set(audioset_mids().values())) == 527
    assert all(re.fullmatch(r"/[mtg]/[0-9a-z_]+", mid) for mid in audioset_mids().values())
    assert all(name == name.strip() and name.isprintable() and name for name in AUDIOSET.values())


def test_75_names_contain_commas() -> None:
    assert sum("," in name for name in AUDIOSET.values()) == 75


@pytest.mark.parametrize(
    ("label_id", "name", "mid"),
    [
        (0, "Speech", "/m/09x0r"),
        (72, "Animal", "/m/0jbk"),
        (137, "Music", "/m/04rlf"),
        (300, "Vehicle", "/m/07yv9"),
        (526, "Field recording", "/m/07hvw1"),
    ],
)
def test_names_have_the_right_class_index_and_identifier(label_id: int, name: str, mid: str) -> None:
    assert AUDIOSET[label_id] == name
    assert mid_of(name) == mid


def test_a_label_unknown_to_audioset_has_no_identifier() -> None:
    assert mid_of("rain on tin") is None
    assert mid_of("speech") is None  # exact: labels are not guessed at


def test_audioset_is_recognized_in_any_order_but_only_if_complete() -> None:
    turned = dict(enumerate(reversed(AUDIOSET.values())))
    assert is_audioset(AUDIOSET)
    assert is_audioset(turned)
    assert not is_audioset({index: name for index, name in AUDIOSET.items() if index < 526})
    assert not is_audioset(AUDIOSET | {526: "other"})
    assert not is_audioset(AUDIOSET | {527: "one more"})


def test_most_of_audiosets_classes_are_recognized_but_not_half_of_them_and_no_others_beside_them() -> None:
    assert len(YAMNET) == 521
    for labels in (AUDIOSET, YAMNET, {index: AUDIOSET[index] for index in range(264)}):
        assert mostly_audioset(labels)
        assert not mostly_audioset(labels | {len(labels): "other"})
    assert not mostly_audioset({index: AUDIOSET[index] for index in range(263)})
    assert not mostly_audioset({index: f"LABEL_{index}" for index in range(527)})


def test_every_name_and_identifier_selects_its_own_class() -> None:
    for label_id, name in AUDIOSET.items():
        assert select_label_ids([name], AUDIOSET) == [label_id]
        assert select_label_ids([audioset_mids()[name]], AUDIOSET) == [label_id]


def test_all_names_in_one_string_select_all_classes_despite_their_commas() -> None:
    assert select_label_ids([",".join(AUDIOSET.values())], AUDIOSET) == list(range(527))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["Bark"], [0]),
        (["bARK"], [0]),
        (["Waves, surf"], [2]),
        (["Bark,Waves, surf,Rain"], [0, 2, 1]),
        ([" Rain , Bark "], [1, 0]),
        (["Rain", "Bark", "rain"], [1, 0]),
        (["/m/05tny_"], [0]),
        (["/M/05TNY_,Rain"], [0, 1]),
        ([], []),
    ],
)
def test_labels_are_selected_by_name_or_identifier(names: list[str], expected: list[int]) -> None:
    assert select_label_ids(names, FEW) == expected


def test_the_longest_match_wins() -> None:
    id2label = {0: "a", 1: "b", 2: "a, b", 3: "a, b, c"}
    assert select_label_ids(["a, b"], id2label) == [2]
    assert select_label_ids(["a, b, c"], id2label) == [3]
    assert select_label_ids(["b, a"], id2label) == [1, 0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Brak", "the model has no label 'Brak'; similar labels: 'Bark'"),
        ("rain on", "the model has no label 'rain on'; similar labels: 'rain on tin', 'RAIN ON GLASS', 'Rain'"),
        ("surf", "the model has no label 'surf'; similar labels: 'Waves, surf'"),
        (
            "Bark,zzz",
            "the model has no label 'zzz'; it has 'Bark', 'Rain', 'Waves, surf', 'rain on tin', 'RAIN ON GLASS'",
        ),
        ("", "'' contains an empty label name: check its commas"),
        ("Bark,,Rain", "'Bark,,Rain' contains an empty label name: check its commas"),
        ("Bark,", "'Bark,' contains an empty label name: check its commas"),
        ("Waves,  surf", "the model has no label 'Waves'; similar labels: 'Waves, surf'"),  # two spaces
    ],
)
def test_an_unknown_label_is_an_error_that_lists_similar_labels(name: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        select_label_ids([name], FEW)
    assert str(caught.value) == message


def test_labels_are_not_listed_if_there_are_many() -> None:
    many = {label_id: f"label {label_id}" for label_id in range(51)}
    with pytest.raises(UsageError, match=r"no label 'zzz' and none similar to it; `ast labels` lists all"):
        select_label_ids(["zzz"], many)


@pytest.mark.parametrize("label", ["Waves, surf", "", "雨", "می\u200cخواهم", "क्\u200dष", "a\u200fb", "=1+1", "[red]"])
def test_text_of_any_script_is_plain(label: str) -> None:
    assert is_plain(label)


@pytest.mark.parametrize("character", [*"\x00\t\n\r\x1b\x7f\x9b\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"])
def test_terminal_controls_and_changes_of_text_direction_are_not_plain(character: str) -> None:
    assert not is_plain(f"a{character}b")


def test_the_words_of_speech_commands_are_known_in_any_case_and_order() -> None:
    words = dict(enumerate(sorted(SPEECH_COMMANDS, reverse=True)))
    assert len(words) == 35
    assert is_speech_commands(words)
    assert is_speech_commands({label_id: word.title() for label_id, word in words.items()})
    assert not is_speech_commands({**words, 0: "lion"})
    assert not is_speech_commands({**words, 35: "lion"})
    assert not is_speech_commands({label_id: words[label_id] for label_id in range(34)})


def named(names: list[str], id2label: dict[int, str]) -> list[str]:
    return [id2label[label_id] for label_id in select_label_ids(names, id2label)]


def test_a_class_with_a_star_selects_itself_and_all_labels_below() -> None:
    dogs = ["Dog", "Bark", "Yip", "Howl", "Bow-wow", "Growling", "Whimper (dog)"]
    assert named(["Dog/*"], AUDIOSET) == dogs
    assert named(["dOG/*"], YAMNET) == dogs
    assert named(["/m/0bt9lr/*"], YAMNET) == dogs
    animals = named(["Animal/*"], AUDIOSET)
    assert animals[0] == "Animal"
    assert {*dogs, "Cat", "Roaring cats (lions, tigers)", "Roar", "Insect", "Cowbell"} < set(animals)
    assert "Speech" not in animals
    assert len(animals) == len(set(animals)) == 65


def test_a_class_that_is_no_label_selects_the_labels_below() -> None:
    assert named(["Human group actions/*"], {0: "Applause", 1: "Rain", 2: "Hubbub"}) == ["Applause"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["Rain,Dog/*"], ["Rain", "Bark"]),
        (["Dog/*,Rain,Bark"], ["Bark", "Rain"]),
        (["Domestic animals, pets/*"], ["Bark"]),
        (["Rain,Domestic animals, pets/*,Waves, surf"], ["Rain", "Bark", "Waves, surf"]),
        (["Rain", " Dog /* "], ["Rain", "Bark"]),
        (["Water/*"], ["Rain", "Waves, surf"]),
    ],
)
def test_classes_and_plain_names_are_chosen_together(names: list[str], expected: list[str]) -> None:
    assert named(names, FEW) == expected


def test_labels_that_contain_slashes_and_stars_are_names() -> None:
    id2label = {0: "Dog/*", 1: "Bark", 2: "in/out", 3: "*", 4: "/*", 5: "Animal/*, all", 6: "a/b/*"}
    assert named(["Dog/*"], id2label) == ["Dog/*"]
    assert named(["Animal/*"], id2label) == ["Bark"]
    assert named(["in/out,*,/*,Animal/*, all,A/B/*"], id2label) == ["in/out", "*", "/*", "Animal/*, all", "a/b/*"]


@pytest.mark.parametrize(
    ("name", "id2label", "message"),
    [
        ("Animl/*", FEW, "AudioSet's hierarchy has no class 'Animl'; similar classes: 'Animal/*'"),
        ("Rain,Animl/*", FEW, "AudioSet's hierarchy has no class 'Animl'; similar classes: 'Animal/*'"),
        ("zzz/*", FEW, "AudioSet's hierarchy has no class 'zzz'; `ast labels --tree` shows it"),
        ("/*", FEW, "AudioSet's hierarchy has no class ''; `ast labels --tree` shows it"),
        (
            "Animal/*",
            {0: "dog", 1: "cat"},
            "nothing below 'Animal' in AudioSet's hierarchy, nor 'Animal' itself, is a label of the model",
        ),
        ("Animl/*", {0: "dog"}, "AudioSet's hierarchy has no class 'Animl'; the model's labels are not in it"),
        (
            "bark/*",
            AUDIOSET,
            "nothing below 'Bark' in AudioSet's hierarchy is a label of the model; name 'Bark' without /*, or choose a "
            "class with labels below it: 'Dog/*', 'Domestic animals, pets/*', 'Animal/*'",
        ),
        (
            "Cat/*",
            FEW,
            "nothing below 'Cat' in AudioSet's hierarchy, nor 'Cat' itself, is a label of the model; choose a class "
            "with labels below it: 'Domestic animals, pets/*', 'Animal/*'",
        ),
        ("Rai/", FEW, "the model has no label 'Rai/'; similar labels: 'Rain'"),
    ],
)
def test_a_class_that_chooses_nothing_is_an_error_that_names_others(
    name: str, id2label: dict[int, str], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        select_label_ids([name], id2label)
    assert str(caught.value) == message
