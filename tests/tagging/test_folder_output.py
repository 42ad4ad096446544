"""Results in a folder: a file for each input and format, written once, whatever stops the run."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from journalled import FINGERPRINT

from ast_cli.errors import AstError, ErrorCode, UsageError
from ast_cli.report import open_writer
from ast_cli.results import FileError, Tag, TaggingResult
from ast_cli.tagging.inputs import Input, list_inputs
from ast_cli.tagging.run.folder_journal import JOURNAL_NAME
from ast_cli.tagging.run.folder_output import open_folder_output, plan_folder

FORMATS = ("jsonl", "audacity")


def tagged(item: Input) -> TaggingResult:
    """Return the result of an input; those with ``bad`` in their names fail."""
    if "bad" in item.path:
        return TaggingResult(item.path, "builtin", "sigmoid", error=FileError(ErrorCode.NOT_AUDIO, "is no audio"))
    size = Path(item.path).stat().st_size
    return TaggingResult(item.path, "builtin", "sigmoid", 2.0, 16000, 1, (Tag("Rain", 1, None, size / 1000),))


def rendered(item: Input, format_name: str) -> bytes:
    stream = io.StringIO(newline="")
    writer = open_writer(format_name, stream)
    writer.write(tagged(item))
    writer.close()
    return stream.getvalue().encode()


def run(
    clips: Path, out: Path, formats: Sequence[str] = FORMATS, *, stop_after: int | None = None, **options: Any
) -> list[str]:
    """Write the files of the inputs that are not done, and return the names of these inputs."""
    inputs = list(list_inputs([str(clips)]))
    done = list[str]()
    plan = plan_folder(inputs, out, formats, **options)
    with contextlib.suppress(InterruptedError), open_folder_output(plan, FINGERPRINT) as output:
        for item in output.pending(inputs):
            if len(done) == stop_after:
                raise InterruptedError
            output.write(tagged(item), item, is_reported="silent" not in item.path)
            done.append(Path(item.path).relative_to(clips).as_posix())
    return done


def files_in(folder: Path) -> list[str]:
    files = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    return sorted(name for name in files if name != JOURNAL_NAME)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    for number, name in enumerate(("a/x.ogg", "a/x.wav", "b/c/y.wav", "z.wav")):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * (number + 1))
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


ALL = ["a/x.ogg", "a/x.wav", "b/c/y.wav", "z.wav"]


def test_each_input_has_a_file_in_each_format_below_its_folder(clips: Path, out: Path) -> None:
    assert sorted(run(clips, out)) == ALL
    assert files_in(out) == sorted(f"{name}{suffix}" for name in ALL for suffix in (".jsonl", ".labels.txt"))
    for item in list_inputs([str(clips)]):
        name = Path(item.path).relative_to(clips).as_posix()
        assert (out / f"{name}.jsonl").read_bytes() == rendered(item, "jsonl")
        assert (out / f"{name}.labels.txt").read_bytes() == rendered(item, "audacity")


@pytest.mark.skipif(os.name != "posix", reason="needs a file system that distinguishes case")
def test_twins_get_a_number_that_is_the_same_in_each_format(tmp_path: Path, out: Path) -> None:
    clips = tmp_path / "twins"
    clips.mkdir()
    for name in ("X.wav", "x.wav", "x.wav.2.wav"):
        (clips / name).write_bytes(b"x")
    run(clips, out)
    numbers = [name.removesuffix(".jsonl") for name in files_in(out) if name.endswith(".jsonl")]
    assert numbers == sorted(["X.wav", "x.wav.2", "x.wav.2.wav"])
    assert [f"{name}.labels.txt" for name in numbers] == [name for name in files_in(out) if name.endswith(".txt")]


@pytest.mark.parametrize("num_done", [0, 1, 3, 4])
def test_a_run_that_was_stopped_continues_with_the_next_input(clips: Path, out: Path, num_done: int) -> None:
    first = run(clips, out, stop_after=num_done)
    assert out.exists() == (num_done > 0)
    rest = run(clips, out, resume=True)
    assert sorted([*first, *rest]) == ALL
    assert len(first) == num_done
    assert run(clips, out, resume=True) == []


def test_the_files_of_an_input_are_written_again_if_one_is_damaged_or_gone_or_the_input_changed(
    clips: Path, out: Path
) -> None:
    run(clips, out)
    (out / "a/x.wav.labels.txt").unlink()
    (out / "z.wav.jsonl").write_bytes((out / "z.wav.jsonl").read_bytes().replace(b"Rain", b"Wind"))
    (clips / "b/c/y.wav").write_bytes(b"another")
    assert sorted(run(clips, out, resume=True)) == ["a/x.wav", "b/c/y.wav", "z.wav"]
    assert json.loads((out / "b/c/y.wav.jsonl").read_text())["tags"][0]["score"] == 0.007
    assert b"Rain" in (out / "z.wav.jsonl").read_bytes()
    assert run(clips, out, resume=True) == []


def test_failed_inputs_have_no_file_and_are_tried_again(clips: Path, out: Path) -> None:
    (clips / "bad.wav").write_bytes(b"x")
    run(clips, out)
    assert len(files_in(out)) == 8
    assert run(clips, out, resume=True) == ["bad.wav"]


def test_inputs_without_a_match_have_no_file_and_are_done(clips: Path, out: Path) -> None:
    (clips / "silent.wav").write_bytes(b"x")
    assert "silent.wav" in run(clips, out)
    assert len(files_in(out)) == 8
    assert run(clips, out, resume=True) == []


def test_a_folder_is_neither_continued_nor_replaced_unless_requested(clips: Path, out: Path) -> None:
    run(clips, out)
    before = {name: (out / name).read_bytes() for name in files_in(out)}
    with pytest.raises(UsageError, match=r"^--output-dir .*out was begun by an earlier run: --resume continues it"):
        run(clips, out)
    (out / JOURNAL_NAME).unlink()
    with pytest.raises(UsageError, match=r"^--output-dir .* exists: add --resume to continue it, or --force"):
        run(clips, out)
    with pytest.raises(UsageError, match="but no journal, and cannot be continued; --force replaces it"):
        run(clips, out, resume=True)
    with pytest.raises(UsageError, match="choose one"):
        run(clips, out, resume=True, force=True)
    assert {name: (out / name).read_bytes() for name in files_in(out)} == before
    assert sorted(run(clips, out, force=True)) == ALL


def test_resume_needs_the_same_formats(clips: Path, out: Path) -> None:
    run(clips, out)
    with pytest.raises(UsageError, match="--format was jsonl,audacity and is now csv"):
        run(clips, out, ("csv",), resume=True)


def test_a_file_is_no_folder(clips: Path, out: Path) -> None:
    out.write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"^--output-dir .*out is a file: name a folder, or use --output"):
        run(clips, out)
    assert out.read_bytes() == b"mine"


def test_a_full_disk_ends_the_run_and_earlier_files_stay_whole(
    clips: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(clips, out, stop_after=1)
    before = {name: (out / name).read_bytes() for name in files_in(out)}

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(AstError, match="cannot be written"):
            run(clips, out, resume=True)
    assert {name: (out / name).read_bytes() for name in files_in(out)} == before
    assert len(run(clips, out, resume=True)) == 3
    assert len(files_in(out)) == 8
