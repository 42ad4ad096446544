"""Answers that a page has downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ast_cli.errors import AstError, UsageError
from ast_cli.report_page.answers import Item, read_answers

ANSWER = {"schema_version": 1, "type": "answer", "path": "a.wav", "kind": "event", "label": "Dog", "start_s": 1.0}
ANSWER |= {"end_s": 2.5, "answer": "accept"}


def written(tmp_path: Path, *answers: dict[str, Any]) -> Path:
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps(answer) + "\n" for answer in answers), encoding="utf-8")
    return file


def test_the_last_answer_about_an_item_counts(tmp_path: Path) -> None:
    answers = read_answers(written(tmp_path, ANSWER, {**ANSWER, "answer": "reject"}, {**ANSWER, "channel": 2}))
    item = Item("a.wav", None, "event", "Dog", 1.0, 2.5)
    assert answers[item]["answer"] == "reject"
    assert len(answers) == 2


def test_a_name_that_is_not_utf8_is_exact(tmp_path: Path) -> None:
    (item,) = read_answers(written(tmp_path, {**ANSWER, "path": "a\ufffd.wav", "path_b64": "Yf8ud2F2"}))
    assert item.path == b"a\xff.wav".decode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    "wrong",
    [
        {"answer": "maybe"},
        {"kind": "file"},
        {"label": 3},
        {"start_s": "x"},
        {"path": 3},
        {"channel": "1"},
        {"score": float("nan")},
        {"end_s": float("inf")},
    ],
)
def test_a_line_that_is_no_answer_is_named(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(AstError, match=r"answers.jsonl: line 2: not an answer"):
        read_answers(written(tmp_path, ANSWER, {**ANSWER, **wrong}))


def test_a_newer_version_and_a_missing_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(AstError, match="schema_version 2"):
        read_answers(written(tmp_path, {**ANSWER, "schema_version": 2}))
    with pytest.raises(UsageError, match="no such file"):
        read_answers(tmp_path / "none.jsonl")
