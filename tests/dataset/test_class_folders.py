from __future__ import annotations

import os
from pathlib import Path

import pytest

from ast_cli.dataset.examples import read_examples, read_recordings
from ast_cli.errors import NoInputsError, UsageError


def make(folder: Path, *names: str) -> Path:
    """Create files that no test decodes."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"RIFF")
    return folder


def found(folder: Path) -> list[tuple[str, str, str | None]]:
    """Return relative path, label and split of each example."""
    return [(str(Path(e.path).relative_to(folder)), *e.labels, e.split) for e in read_examples(folder).examples]


def test_class_folders_are_searched_recursively(tmp_path: Path) -> None:
    make(
        tmp_path, "Dog/b.wav", "Dog/deep/er/a.MP3", "Dog/notes.txt", "Cat/c.flac", ".git/x.wav", "README.md", "empty/x"
    )
    assert found(tmp_path) == [
        ("Cat/c.flac", "Cat", None),
        ("Dog/b.wav", "Dog", None),
        ("Dog/deep/er/a.MP3", "Dog", None),
    ]
    data = read_examples(str(tmp_path))
    assert (data.labels, data.is_multi_label) == (("Cat", "Dog"), False)


def test_hidden_and_excluded_files_are_no_examples(tmp_path: Path) -> None:
    make(tmp_path, "._a.wav", "Dog/._b.wav", "Dog/b.wav", "Cat/c.flac", "Cat/drafts/d.wav", "unsure/e.wav", "loose.wav")
    data = read_examples(tmp_path, ["unsure", "drafts", "loose.wav"])
    assert [os.path.relpath(example.path, tmp_path) for example in data.examples] == [
        os.path.join("Cat", "c.flac"),
        os.path.join("Dog", "b.wav"),
    ]
    assert len(read_recordings([str(tmp_path)], ["unsure", "drafts"])) == 3
    assert len(read_recordings([f"{tmp_path}/*/*.wav"], ["e.wav"])) == 1


def test_folders_of_splits_hold_folders_of_classes(tmp_path: Path) -> None:
    make(tmp_path, "train/Dog/a.wav", "train/Cat/b.wav", "dev/Dog/c.wav", "test/Cat/d.wav", "docs/x.txt")
    assert found(tmp_path) == [
        ("dev/Dog/c.wav", "Dog", "validation"),
        ("test/Cat/d.wav", "Cat", "test"),
        ("train/Cat/b.wav", "Cat", "train"),
        ("train/Dog/a.wav", "Dog", "train"),
    ]


def test_train_is_a_class_beside_other_classes(tmp_path: Path) -> None:
    make(tmp_path, "Train/a.wav", "Dog/b.wav")
    assert found(tmp_path) == [("Dog/b.wav", "Dog", None), ("Train/a.wav", "Train", None)]


def test_split_folders_beside_class_folders_are_usage_errors(tmp_path: Path) -> None:
    make(tmp_path, "train/Dog/a.wav", "test/Cat/d.wav", "Rain/x.wav")
    with pytest.raises(
        UsageError, match=r"contains split folders \(test, train\) beside other folders with audio \(Rain\)"
    ):
        read_examples(tmp_path)


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "meta.csv"])
def test_a_table_in_the_folder_gives_the_labels(tmp_path: Path, name: str) -> None:
    make(tmp_path, "x/a.wav", "x/b.wav")
    rows = [("x/a.wav", "Dog"), ("x/b.wav", "Cat")]
    if name.endswith("jsonl"):
        text = "".join(f'{{"file_name": "{path}", "label": "{label}"}}\n' for path, label in rows)
    else:
        text = "file_name,label\n" + "".join(f"{path},{label}\n" for path, label in rows)
    (tmp_path / name).write_text(text)
    assert found(tmp_path) == [("x/a.wav", "Dog", None), ("x/b.wav", "Cat", None)]


def test_a_table_may_name_files_in_split_folders(tmp_path: Path) -> None:
    make(tmp_path, "train/a.wav", "validation/b.wav")
    (tmp_path / "metadata.csv").write_text("file_name,label\ntrain/a.wav,Dog\nvalidation/b.wav,Cat\n")
    assert found(tmp_path) == [("train/a.wav", "Dog", "train"), ("validation/b.wav", "Cat", "validation")]


def test_each_split_folder_may_contain_a_table(tmp_path: Path) -> None:
    make(tmp_path, "train/a.wav", "test/b.wav")
    (tmp_path / "train" / "metadata.csv").write_text("file_name,label\na.wav,Dog\n")
    (tmp_path / "test" / "metadata.csv").write_text("file_name,label\nb.wav,Cat\n")
    assert found(tmp_path) == [("test/b.wav", "Cat", "test"), ("train/a.wav", "Dog", "train")]


def test_split_lists_of_speech_commands_are_read_and_its_noise_is_left_out(tmp_path: Path) -> None:
    make(tmp_path, "yes/1.wav", "yes/2.wav", "no/3.wav", "no/4.wav", "_background_noise_/pink.wav")
    (tmp_path / "validation_list.txt").write_text("yes/2.wav\n")
    (tmp_path / "testing_list.txt").write_text("no/3.wav\nno/not_here.wav\n")
    assert found(tmp_path) == [
        ("no/3.wav", "no", "test"),
        ("no/4.wav", "no", "train"),
        ("yes/1.wav", "yes", "train"),
        ("yes/2.wav", "yes", "validation"),
    ]


def test_split_lists_of_other_data_are_usage_errors(tmp_path: Path) -> None:
    make(tmp_path, "yes/1.wav", "no/3.wav")
    (tmp_path / "validation_list.txt").write_text("up/2.wav\n")
    with pytest.raises(UsageError, match="list none of its recordings"):
        read_examples(tmp_path)


def test_audio_outside_class_folders_is_an_error_only_if_labels_are_needed(tmp_path: Path) -> None:
    make(tmp_path, "Dog/a.wav", "Cat/b.wav", "loose.wav")
    with pytest.raises(UsageError, match=r"contains audio outside the folders of classes, such as 'loose.wav'"):
        read_examples(tmp_path)
    assert len(read_recordings([str(tmp_path)])) == 3


def test_labels_that_differ_only_in_case_are_usage_errors(tmp_path: Path) -> None:
    make(tmp_path, "Dog/a.wav", "dog /b.wav")
    with pytest.raises(UsageError, match="differs from 'Dog' only in case or spaces"):
        read_examples(tmp_path)


def test_a_single_class_or_no_audio_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UsageError, match="contains no audio"):
        read_examples(tmp_path / "nothing")
    with pytest.raises(UsageError, match="at least two classes are needed"):
        read_examples(make(tmp_path / "one", "Dog/a.wav", "Dog/b.wav"))


def test_recordings_named_twice_are_read_once(tmp_path: Path) -> None:
    make(tmp_path, "a.wav", "b.wav")
    found = read_recordings([f"{tmp_path}/b.wav", str(tmp_path), f"{tmp_path}/*.wav"])
    assert sorted(Path(e.path).name for e in found.examples) == ["a.wav", "b.wav"]


def test_a_pattern_without_matches_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NoInputsError):
        read_recordings([f"{tmp_path}/*.wav"])
