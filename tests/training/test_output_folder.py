from __future__ import annotations

from pathlib import Path

import pytest

from ast_cli.errors import AstError, UsageError
from ast_cli.training.output_folder import (
    OWN_NAMES,
    begin,
    check_output,
    is_finished,
    is_interrupted,
    remove_checkpoint,
    writing,
)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def check(output: Path, *, resume: bool = False, force: bool = False, **sources: str) -> None:
    check_output(output, sources, resume=resume, force=force)


def test_a_new_or_empty_folder_may_be_written(output: Path) -> None:
    check(output)
    output.mkdir()
    check(output)


def test_existing_output_is_kept_without_resume_or_force(output: Path, tmp_path: Path) -> None:
    output.mkdir()
    (output / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists and is not empty: add --resume to continue its run, or --force"):
        check(output)
    check(output, resume=True)
    check(output, force=True)
    with pytest.raises(UsageError, match="choose one"):
        check(output, resume=True, force=True)
    with pytest.raises(UsageError, match="is the data itself: name another folder"):
        check(output, force=True, data=str(output))
    with pytest.raises(UsageError, match="there is no run in"):
        check(tmp_path / "other", resume=True)
    with pytest.raises(UsageError, match="is a file: name a folder"):
        check(output / "thesis.txt")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="is a broken link"):
        check(tmp_path / "link")


@pytest.mark.parametrize("name", ["thresholds.json", "labels.json"])
def test_a_new_run_removes_facts_about_the_weights_that_it_replaces(output: Path, name: str) -> None:
    output.mkdir()
    (output / name).write_text("{}")
    begin(output, {"labels": []}, resume=False)
    assert not (output / name).exists()


def test_a_new_run_removes_the_files_of_an_earlier_one_and_no_others(output: Path) -> None:
    (output / "fold-3").mkdir(parents=True)
    for name in (*OWN_NAMES, "thesis.txt"):
        (output / name).write_text("old")
        (output / "fold-3" / name).write_text("old")
    state = begin(output, {"labels": []}, resume=False)
    left = sorted(str(file.relative_to(output)) for file in output.rglob("*") if file.is_file())
    assert left == ["checkpoint/run.json", "fold-3/thesis.txt", "thesis.txt"]
    assert is_interrupted(output)
    assert not is_finished(output)
    assert begin(output, {"labels": []}, resume=True).state_file == state.state_file
    (output / "model.safetensors").write_text("new")
    assert not is_finished(output)
    remove_checkpoint(output)
    assert is_finished(output)
    with pytest.raises(UsageError, match="contains no interrupted run; start over with --force"):
        begin(output, {"labels": []}, resume=True)


def test_a_new_run_removes_earlier_fold_folders_without_other_files(output: Path) -> None:
    for fold in ("fold-1", "fold--2", "fold-3", "fold-notes"):
        (output / fold / "checkpoint").mkdir(parents=True)
        for name in (*OWN_NAMES, "checkpoint/state.pt", "checkpoint/run.json"):
            (output / fold / name).write_text("old")
    (output / "fold-3" / "thesis.txt").write_text("mine")
    (output / "fold-4").write_text("a file of the user's")
    begin(output, {}, resume=False)
    assert sorted(path.name for path in output.iterdir()) == ["checkpoint", "fold-3", "fold-4", "fold-notes"]
    assert [path.name for path in (output / "fold-3").iterdir()] == ["thesis.txt"]
    assert len(list((output / "fold-notes").iterdir())) == len(OWN_NAMES) + 1  # named by the user: left alone


def test_two_runs_cannot_write_to_the_same_folder(output: Path) -> None:
    with writing(output), pytest.raises(AstError, match="is already being written"), writing(output):
        pass
    with writing(output):
        assert output.is_dir()


def test_a_folder_that_cannot_be_created_is_an_error_of_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AstError, match="cannot be created"), writing(tmp_path / "file" / "out"):
        pass
