"""The tables of the built-in model's training: what file names say, and the named recordings it is judged on."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ast_cli.labels import audioset_mids

TABLES = Path(__file__).parents[2] / "models" / "builtin"
UNKNOWN_TO_THE_TEACHER = {
    "Male speech, man speaking",
    "Female speech, woman speaking",
    "Male singing",
    "Female singing",
    "Battle cry",
    "Funny music",
}


def rows(name: str) -> list[dict[str, str]]:
    with open(TABLES / name, newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.mark.parametrize(("table", "column"), [("words.tsv", "labels"), ("named.tsv", "right")])
def test_tables_name_only_labels_that_the_teacher_knows(table: str, column: str) -> None:
    known = set(audioset_mids()) - UNKNOWN_TO_THE_TEACHER
    assert len(known) == 521
    named = {label for row in rows(table) for label in row[column].split("; ") if label}
    assert named
    assert named <= known


def test_named_recordings_are_many_kinds_and_each_is_there_once() -> None:
    recordings = rows("named.tsv")
    assert len(recordings) >= 60
    assert len({row["kind"] for row in recordings}) >= 40
    assert len({(row["package"], row["path"]) for row in recordings}) == len(recordings)
    assert all(row["right"] and "#" in row["path"] for row in recordings)


def test_named_recordings_are_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TABLES))
    from corpus import is_held_out  # type: ignore[import-not-found]

    assert all(is_held_out(row["package"], row["path"]) for row in rows("named.tsv"))


def test_sources_say_what_was_found_of_each_package() -> None:
    sources = rows("sources.tsv")
    assert len({row["package"] for row in sources}) == len(sources)
    for row in sources:
        assert row["verdict"] in ("keep", "part", "leave"), row
        assert row["finding"], row
        assert (row["verdict"] == "part") == bool(row["leave_out"]), row
        assert row["licences"] or row["verdict"] == "leave", row
