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


def test_what_is_there_is_kept_unless_the_user_says_so(output: Path, tmp_path: Path) -> None:
    output.mkdir()
    (output / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists and is not empty: add --resume to go on with its run, or --force"):
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
    with pytest.raises(UsageError, match="is a link to nothing"):
        check(tmp_path / "link")


def test_beginning_clears_an_earlier_runs_files_and_nothing_else(output: Path) -> None:
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
    with pytest.raises(UsageError, match="holds no interrupted run; --force starts anew"):
        begin(output, {"labels": []}, resume=True)


def test_beginning_removes_the_folders_of_earlier_folds_that_hold_nothing_else(output: Path) -> None:
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


def test_two_runs_cannot_write_one_folder(output: Path) -> None:
    with writing(output), pytest.raises(AstError, match="is already being written"), writing(output):
        pass
    with writing(output):
        assert output.is_dir()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AstError, match="cannot be made"), writing(tmp_path / "file" / "out"):
        pass
