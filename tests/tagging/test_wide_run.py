"""Runs into wide tables: all labels of the model have a column, and other formats keep their short lists."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ast_cli import Tagger, tag_files
from ast_cli.errors import UsageError
from ast_cli.tagging.options import ClassifyOptions

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    return Tagger.from_pretrained("builtin", device="cpu")


@pytest.fixture
def labels(tagger: Tagger) -> list[str]:
    """Return the labels of the model, of which five are reported by default."""
    return list(tagger.engine.config.id2label.values())


@pytest.fixture
def folder(write_wav: Write) -> Path:
    for number in range(3):
        path = write_wav(f"in/{number}.wav", 0.5)
    return path.parent


def test_a_wide_table_has_the_scores_of_all_labels(
    tagger: Tagger, labels: list[str], folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "tags.wide.csv"
    tag_files([folder], tagger, file, num_workers=0)
    rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    assert list(rows[0])[-len(labels) :] == labels
    expected = {tag.label: tag.score for tag in tagger.classify(rows[1]["path"], top_k=len(labels)).tags}
    assert len(expected) == len(labels) > 5
    assert {label: float(rows[1][label]) for label in labels} == pytest.approx(expected, abs=1e-5)


def test_chosen_labels_and_thresholds_choose_columns_and_cells(tagger: Tagger, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "tags.wide.csv"
    options = ClassifyOptions(labels=("Music", "Rain"), threshold=1.0)
    tag_files([folder], tagger, file, options=options, num_workers=0)
    header, *rows = csv.reader(file.read_text(encoding="utf-8").splitlines())
    assert header[-2:] == ["Music", "Rain"]
    assert [row[-2:] for row in rows] == [["", ""]] * 3
    options = ClassifyOptions(labels=("Music",), threshold=1.0)
    with pytest.raises(UsageError, match="--labels was Music, Rain and is now Music"):
        tag_files([folder], tagger, file, options=options, num_workers=0, resume=True)


def test_a_wide_table_is_continued_with_the_same_header(
    tagger: Tagger, folder: Path, tmp_path: Path, write_wav: Write
) -> None:
    file = tmp_path / "tags.wide.csv"
    tag_files([folder], tagger, file, num_workers=0)
    before = file.read_bytes()
    write_wav("in/9.wav", 0.5)
    tally = tag_files([folder], tagger, file, num_workers=0, resume=True)
    assert (tally.num_ok, tally.num_skipped) == (1, 3)
    assert file.read_bytes().startswith(before)
    assert len(file.read_bytes().splitlines()) == 5


def test_other_formats_beside_wide_have_five_tags(
    tagger: Tagger, labels: list[str], folder: Path, tmp_path: Path
) -> None:
    options = ClassifyOptions(timestamps=True)
    tag_files(
        [folder], tagger, output_dir=tmp_path / "out", format_name="wide,jsonl", options=options, num_workers=0
    )  # fmt: skip
    record = json.loads((tmp_path / "out" / "0.wav.jsonl").read_text())
    assert len(record["tags"]) == 5
    assert [len(window["tags"]) for window in record["windows"]] == [5]
    (row,) = csv.DictReader((tmp_path / "out" / "0.wav.wide.csv").read_text().splitlines())
    assert all(row[label] for label in labels)


def test_a_run_needs_one_output(tagger: Tagger, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name the file to write, output, or a folder of files, output_dir"):
        tag_files([folder], tagger)
    with pytest.raises(UsageError, match="--output names one file and --output-dir a folder of files: choose one"):
        tag_files([folder], tagger, tmp_path / "x.jsonl", output_dir=tmp_path)
