from __future__ import annotations

import os
from pathlib import Path

import pytest

from ast_cli.errors import UsageError
from ast_cli.files.target import ReadFiles, check_target

NONE = ReadFiles([])


@pytest.fixture
def there(tmp_path: Path) -> Path:
    file = tmp_path / "tags.jsonl"
    file.write_text("old")
    return file


def refusal(file: Path, sources: ReadFiles = NONE, **how: bool | str | None) -> str:
    with pytest.raises(UsageError) as refused:
        check_target(file, sources, **{"force": False, **how})  # type: ignore[arg-type]
    return str(refused.value)


def test_new_files_are_allowed_and_existing_ones_with_force_or_resume(tmp_path: Path, there: Path) -> None:
    check_target(tmp_path / "new", NONE, force=False)
    check_target(there, NONE, force=True)
    check_target(there, NONE, force=False, resume=True)


def test_an_existing_file_is_refused_with_the_options_that_allow_it(there: Path) -> None:
    assert refusal(there) == f"--output {there} exists: add --force to replace it"
    assert refusal(there, resume=False, flag="--plot") == (
        f"--plot {there} exists: add --resume to continue it, or --force to replace it"
    )


def test_an_input_is_refused_under_each_of_its_names(tmp_path: Path, there: Path) -> None:
    hard = tmp_path / "hard"
    os.link(there, hard)
    for name in (there, hard, tmp_path / ".." / tmp_path.name / there.name):
        message = refusal(name, ReadFiles([str(there), "-", "no such file"], "one of the parts"), force=True)
        assert message == f"--output {name} is one of the parts: name another file"


def test_inputs_are_not_looked_up_for_a_new_file(tmp_path: Path) -> None:
    def paths() -> object:
        raise AssertionError("a source was looked at")
        yield

    check_target(tmp_path / "new", ReadFiles(paths()), force=False)  # type: ignore[arg-type]


def test_links_folders_and_missing_folders_are_refused(tmp_path: Path, there: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(there)
    assert refusal(link, force=True).endswith("is a link: name the file itself")
    assert refusal(tmp_path, force=True).endswith("is a folder: name a file in it")
    lost = tmp_path / "no" / "tags.jsonl"
    assert refusal(lost).endswith(f"the folder {lost.parent} does not exist")
    check_target(lost, NONE, force=False, makes_folder=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "not a regular file" in refusal(pipe, force=True)
    check_target(pipe, NONE, force=False, may_be_pipe=True)
