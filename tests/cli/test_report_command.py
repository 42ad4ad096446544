"""``ast report`` and ``ast classify --report``: files, messages, and what is refused."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
BUILTIN = ("--model", "builtin")


def test_classify_writes_the_page_and_report_writes_it_from_the_results(
    run_ast: Run, write_wav: Callable[..., Path], tmp_path: Path
) -> None:
    write_wav("in/a.wav")
    write_wav("in/b.wav")
    done = run_ast("classify", "in", *BUILTIN, "--output", "tags.jsonl", "--report", "page.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "page.html: 2 recordings, audio of 2 in the page; " in done.stderr
    assert done.stdout == ""

    again = run_ast("report", "tags.jsonl", "-o", "again.html", "--results-only", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout == ""
    assert again.stderr.startswith("again.html: 2 recordings; ")
    assert (tmp_path / "again.html").stat().st_size < (tmp_path / "page.html").stat().st_size


def test_the_results_may_go_elsewhere_and_a_failed_input_is_in_the_page(
    run_ast: Run, write_wav: Callable[..., Path], tmp_path: Path
) -> None:
    write_wav("a.wav")
    (tmp_path / "b.wav").write_text("no audio")
    done = run_ast("classify", "a.wav", "b.wav", *BUILTIN, "--format", "csv", "--report", "page.html", cwd=tmp_path)
    assert done.returncode == 3
    assert done.stdout.startswith("path,start_s")
    assert "page.html: 2 recordings, 1 failed, audio of 1 in the page; " in done.stderr
    assert "not an audio file" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["classify", "a.wav", "--report", "a.wav"], "--report a.wav is one of the inputs"),
        (["classify", "a.wav", "--report", "old.html"], "--report old.html exists: add --force"),
        (["classify", "a.wav", "-o", "x.jsonl", "--report", "x.jsonl"], "--report x.jsonl is the --output too"),
        (["classify", "a.wav", "--stream", "-f", "jsonl", "--report", "x.html"], "leave out --stream"),
        (["classify", "a.wav", "-o", "x.csv", "--resume", "--report", "x.html"], "in .jsonl or .json"),
        (["report", "none.jsonl", "-o", "x.html"], "none.jsonl: no such file"),
        (["report", "tags.jsonl", "-o", "tags.jsonl"], "is a file that the page is made from"),
        (["report", "tags.jsonl", "-o", "old.html"], "--output old.html exists: add --force to replace it"),
        (["report", "tags.jsonl", "-o", "x.html", "--embed-mb", "-1"], "--embed-mb must be at least 0 MB"),
        (["report", "tags.jsonl", "-o", "x.html", "--answers", "none"], "none: no such file"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(
    run_ast: Run, write_wav: Callable[..., Path], tmp_path: Path, arguments: list[str], message: str
) -> None:
    write_wav("a.wav")
    (tmp_path / "tags.jsonl").write_text("")
    (tmp_path / "old.html").write_text("old")
    done = run_ast(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in " ".join(done.stderr.split())
    assert (tmp_path / "old.html").read_text() == "old"
    assert not (tmp_path / "x.html").exists()


def test_standard_input_is_read(run_ast: Run, tmp_path: Path) -> None:
    done = run_ast("report", "-", "-o", "page.html", cwd=tmp_path, stdin=b"")
    assert done.returncode == 0, done.stderr
    assert "page.html: 0 recordings; " in done.stderr
