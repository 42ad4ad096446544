from __future__ import annotations

import copy
import pickle

import pytest

from ast_cli.keyed_output import KeyedOutput


class Answer(KeyedOutput):
    first: int
    second: int | None
    third: int | None


class LongerAnswer(Answer):
    fourth: int | None


def test_a_value_is_found_by_attribute_key_and_position() -> None:
    answer = Answer(first=1, third=3)
    assert (answer.first, answer["first"], answer[0]) == (1, 1, 1)
    assert (answer.third, answer["third"], answer[1], answer[-1]) == (3, 3, 3, 3)
    assert answer[:2] == answer.to_tuple() == (1, 3)


def test_a_declared_value_that_is_not_set_is_none_as_attribute_and_absent_as_key() -> None:
    answer = LongerAnswer(first=1)
    assert answer.second is None
    assert answer.fourth is None
    assert list(answer) == ["first"]
    assert "second" not in answer
    assert answer.get("second") is None
    with pytest.raises(KeyError, match="second"):
        answer["second"]
    with pytest.raises(IndexError):
        answer[1]


def test_an_undeclared_attribute_is_an_error_that_lists_the_keys() -> None:
    with pytest.raises(AttributeError, match="Answer has no 'fifth'; it has first, second"):
        Answer(first=1, second=2).fifth  # noqa: B018
    with pytest.raises(AttributeError, match="it has nothing"):
        Answer().fifth  # noqa: B018


def test_it_is_a_dictionary() -> None:
    answer = Answer(first=1, second=2)
    assert dict(**answer) == {"first": 1, "second": 2}
    assert answer == {"first": 1, "second": 2}


def test_copies_and_pickles_are_equal_and_of_the_same_kind() -> None:
    answer = Answer(first=1, second=2)
    for again in (copy.copy(answer), copy.deepcopy(answer), pickle.loads(pickle.dumps(answer))):
        assert type(again) is Answer
        assert again == answer
        assert again.second == 2
