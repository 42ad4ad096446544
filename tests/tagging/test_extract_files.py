"""Runs of an extraction that are stopped, killed and resumed. The fbank in NumPy keeps them fast."""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ast_cli.errors import AstError, UsageError
from ast_cli.files.append import AppendFile
from ast_cli.hub.folders import builtin_folder
from ast_cli.tagging.extract.extract_files import ExtractedFile, Extractor, open_extraction
from ast_cli.tagging.extract.targets import ExtractFormat, plan_extraction
from ast_cli.tagging.inputs import list_inputs
from ast_cli.tagging.options import ExtractOptions, ExtractRunOptions, LoadOptions
from ast_cli.tagging.run.folder_journal import JOURNAL_NAME
from ast_cli.tagging.run.tally import Tally

Write = Callable[..., Path]
NUM_CLIPS = 4
SYSTEM_CALLS = ("fsync", "replace", "write", "ftruncate", "unlink")


@pytest.fixture
def clips(write_wav: Write) -> Path:
    paths = [write_wav(f"clips/{number}.wav", 0.5) for number in range(NUM_CLIPS)]
    return paths[0].parent


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def run(
    clips: Path,
    out: Path,
    format_name: ExtractFormat = "npz",
    *,
    resume: bool = False,
    force: bool = False,
    options: ExtractOptions | None = None,
    model: str | None = None,
    on_progress: Callable[[Tally], None] = lambda _tally: None,
) -> tuple[list[ExtractedFile], Tally]:
    """Extract in this process; return the new outcomes and the counts."""
    run_options = ExtractRunOptions(num_workers=0, resume=resume, force=force)
    plan = plan_extraction(list(list_inputs([str(clips)])), out, format_name, run_options)
    load_options = LoadOptions(fbank_backend="numpy")
    extractor = Extractor.load(model, options or ExtractOptions(what="fbank"), load_options)
    with open_extraction(extractor, plan, run_options, on_progress=on_progress) as running:
        return list(running), running.tally


def names(outcomes: list[ExtractedFile]) -> list[str]:
    return [Path(outcome.path).name for outcome in outcomes]


def files_in(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def content(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in files_in(out) if name != JOURNAL_NAME}


def test_a_run_leaves_its_files_and_a_journal(clips: Path, out: Path) -> None:
    outcomes, tally = run(clips, out)
    assert names(outcomes) == ["0.wav", "1.wav", "2.wav", "3.wav"]
    assert files_in(out) == [JOURNAL_NAME, "0.wav.npz", "1.wav.npz", "2.wav.npz", "3.wav.npz"]
    assert (tally.num_ok, tally.num_skipped, tally.audio_s) == (4, 0, 2.0)
    assert outcomes[0].summary == "fbank 48x128"


@pytest.mark.parametrize("format_name", ["npz", "npy", "safetensors"])
def test_a_finished_run_that_is_resumed_computes_nothing(clips: Path, out: Path, format_name: ExtractFormat) -> None:
    run(clips, out, format_name)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()}
    outcomes, tally = run(clips, out, format_name, resume=True)
    assert (outcomes, tally.num_skipped) == ([], NUM_CLIPS)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()} == before


def test_a_run_that_was_stopped_is_resumed_at_the_next_input(clips: Path, out: Path) -> None:
    def stop(tally: Tally) -> None:
        if tally.num_ok == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(clips, out, on_progress=stop)
    assert files_in(out) == [JOURNAL_NAME, "0.wav.npz", "1.wav.npz"]
    outcomes, tally = run(clips, out, resume=True)
    assert (names(outcomes), tally.num_skipped) == (["2.wav", "3.wav"], 2)


def test_resume_begins_a_run_that_never_began(clips: Path, out: Path) -> None:
    assert len(run(clips, out, resume=True)[0]) == NUM_CLIPS


def flip_a_byte(file: Path) -> None:
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip_a_byte, cut_off, Path.unlink])
@pytest.mark.parametrize("format_name", ["npz", "npy", "safetensors"])
def test_a_file_that_is_damaged_or_gone_is_written_again(
    clips: Path, out: Path, format_name: ExtractFormat, damage: Callable[[Path], None]
) -> None:
    run(clips, out, format_name)
    before = content(out)
    damage(out / f"1.wav.{format_name}")
    assert names(run(clips, out, format_name, resume=True)[0]) == ["1.wav"]
    assert content(out) == before
    assert run(clips, out, format_name, resume=True)[0] == []


def test_an_input_that_changed_is_extracted_again(clips: Path, out: Path, write_wav: Write) -> None:
    run(clips, out)
    write_wav("clips/2.wav", 1.0)
    outcomes, tally = run(clips, out, resume=True)
    assert (names(outcomes), tally.num_skipped) == (["2.wav"], 3)
    with np.load(out / "2.wav.npz") as arrays:
        assert arrays["fbank"].shape == (98, 128)


def test_failed_inputs_are_tried_again_and_succeed_once_they_are_repaired(
    clips: Path, out: Path, write_wav: Write
) -> None:
    (clips / "1.wav").write_bytes(b"no audio")
    _, tally = run(clips, out)
    assert (tally.num_ok, dict(tally.failed)) == (3, {"not_audio": 1})
    outcomes, tally = run(clips, out, resume=True)
    assert (names(outcomes), tally.num_skipped, tally.num_failed) == (["1.wav"], 3, 1)
    write_wav("clips/1.wav", 0.5)
    assert run(clips, out, resume=True)[1].num_ok == 1
    assert run(clips, out, resume=True)[1].num_skipped == NUM_CLIPS


def test_an_input_that_cannot_be_found_keeps_its_file(clips: Path, out: Path) -> None:
    run(clips, out)
    (clips / "1.wav").unlink()
    listed = [str(clips / f"{number}.wav") for number in range(NUM_CLIPS)]
    run_options = ExtractRunOptions(num_workers=0, resume=True)
    plan = plan_extraction(list(list_inputs(listed)), out, "npz", run_options)
    extractor = Extractor.load(None, ExtractOptions(what="fbank"), LoadOptions(fbank_backend="numpy"))
    with open_extraction(extractor, plan, run_options) as running:
        assert [str(outcome.error and outcome.error.code) for outcome in running] == ["not_found"]
    assert len(content(out)) == NUM_CLIPS


@pytest.mark.parametrize(
    ("options", "format_name", "difference"),
    [
        (ExtractOptions(what="fbank", start_s=0.1), "npz", r"--start was 0\.0 and is now 0\.1"),
        (ExtractOptions(what="fbank", all_windows=True), "npz", "--all-windows was not given and is now given"),
        (ExtractOptions(what="fbank"), "npy", "--format was npz and is now npy"),
    ],
)
def test_resume_with_other_options_is_refused_and_names_them(
    clips: Path, out: Path, options: ExtractOptions, format_name: ExtractFormat, difference: str
) -> None:
    run(clips, out)
    before = content(out)
    with pytest.raises(UsageError, match=f"out was begun with other settings: {difference}; --resume needs"):
        run(clips, out, format_name, options=options, resume=True)
    assert content(out) == before


def test_resume_with_another_model_is_refused(clips: Path, out: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(builtin_folder(), other)
    options = ExtractOptions(what="input-values")
    run(clips, out, options=options, model="builtin")
    assert run(clips, out, options=options, model=str(other), resume=True)[0] == []  # a copy is the same model
    with pytest.raises(UsageError, match="begun with other settings: --what was input-values and is now fbank"):
        run(clips, out, resume=True)
    config = other / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"id2label": {"0": "Another"}}))
    with pytest.raises(UsageError, match="out was begun with other settings: --model was another; --resume"):
        run(clips, out, options=options, model=str(other), resume=True)


def test_a_batch_size_may_change(clips: Path, out: Path) -> None:
    run(clips, out)
    assert run(clips, out, options=ExtractOptions(what="fbank", batch_size=3), resume=True)[0] == []


def test_a_folder_that_was_begun_is_neither_continued_nor_replaced_unless_requested(clips: Path, out: Path) -> None:
    run(clips, out)
    (out / "0.wav.npz").unlink()
    with pytest.raises(UsageError, match="out was begun by an earlier run: --resume continues it, --force replaces it"):
        run(clips, out)
    outcomes, tally = run(clips, out, options=ExtractOptions(what="fbank", start_s=0.1), force=True)
    assert (len(outcomes), tally.num_skipped) == (NUM_CLIPS, 0)


def test_resume_and_force_contradict_each_other() -> None:
    with pytest.raises(UsageError, match="choose one"):
        ExtractRunOptions(resume=True, force=True)


def test_resume_needs_a_journal_where_there_are_files(clips: Path, out: Path) -> None:
    run(clips, out)
    (out / JOURNAL_NAME).unlink()
    with pytest.raises(UsageError, match=r"out contains 0\.wav\.npz but no journal, and cannot be continued; --force"):
        run(clips, out, resume=True)


def test_resume_needs_a_folder(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--resume continues a folder, and --output .*x\.npz is one file"):
        run(clips / "0.wav", tmp_path / "x.npz", resume=True)


def test_standard_input_cannot_be_resumed(out: Path) -> None:
    with pytest.raises(UsageError, match="--resume cannot compare standard input"):
        run(Path("-"), out, resume=True)


def test_files_keep_their_names_when_inputs_are_added(clips: Path, out: Path, write_wav: Write) -> None:
    run(clips, out)
    write_wav("other/0.wav", 0.5)
    outcomes, _ = run(clips.parent / "other", out, resume=True)  # which alone would be 0.wav.npz too
    assert [outcome.target.name for outcome in outcomes] == ["0.wav.2.npz"]
    outcomes, tally = run(clips.parent, out, resume=True)
    assert (outcomes, tally.num_skipped) == ([], NUM_CLIPS + 1)
    with np.load(out / "0.wav.npz") as arrays:
        assert json.loads(str(arrays["metadata"]))["path"] == str(clips / "0.wav")


def test_a_second_run_at_the_same_time_is_refused(clips: Path, out: Path) -> None:
    def start_another(_tally: Tally) -> None:
        with pytest.raises(AstError, match="out is already being written"):
            run(clips, out, force=True)

    assert len(run(clips, out, on_progress=start_another)[0]) == NUM_CLIPS


def test_a_folder_that_another_run_has_written_since_it_was_read_is_refused(clips: Path, out: Path) -> None:
    run_options = ExtractRunOptions(num_workers=0)
    plan = plan_extraction(list(list_inputs([str(clips)])), out, "npz", run_options)
    run(clips, out)
    extractor = Extractor.load(None, ExtractOptions(what="fbank"), LoadOptions(fbank_backend="numpy"))
    with (
        pytest.raises(AstError, match="was written by another run a moment ago"),
        open_extraction(extractor, plan, run_options),
    ):
        pass


def test_a_run_without_a_file_leaves_no_folder(clips: Path, out: Path) -> None:
    for clip in clips.iterdir():
        clip.write_bytes(b"no audio")
    assert run(clips, out)[1].num_failed == NUM_CLIPS
    assert not out.exists()


def test_a_torn_last_line_of_the_journal_costs_one_input(clips: Path, out: Path) -> None:
    run(clips, out)
    cut_off(out / JOURNAL_NAME)
    assert names(run(clips, out, resume=True)[0]) == ["3.wav"]
    assert run(clips, out, resume=True)[0] == []


@pytest.mark.parametrize("name", ["../x.npz", "/x.npz", "a/../../x.npz", ""])
def test_a_journal_never_leads_outside_the_folder(clips: Path, out: Path, name: str) -> None:
    run(clips, out)
    journal = out / JOURNAL_NAME
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    lines[2]["record"] = {"path": name}
    journal.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with pytest.raises(AstError, match=r"the record of .*1\.wav is damaged; --force starts over"):
        run(clips, out, resume=True)


def test_a_full_disk_ends_the_run_and_the_files_before_it_stay(
    clips: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, num_lines = AppendFile.append, 0

    def append_or_fail(file: AppendFile, data: bytes) -> None:
        nonlocal num_lines
        num_lines += 1
        if num_lines == 3:
            os.write(file.descriptor, data[:10])
            raise AstError("No space left on device")
        append(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(AppendFile, "append", append_or_fail)
        with pytest.raises(AstError, match="No space left"):
            run(clips, out)
    assert names(run(clips, out, resume=True)[0]) == ["2.wav", "3.wav"]
    assert len(content(out)) == NUM_CLIPS


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_between_any_two_calls_to_the_system_loses_nothing_and_repeats_one_input(
    clips: Path, out: Path, tmp_path: Path
) -> None:
    run(clips, tmp_path / "whole")
    for num_calls in range(200):
        was_killed = killed_after(num_calls, lambda: run(clips, out))
        num_complete = len(list(out.glob("[0-9]*.npz")))  # without the temporary file of the one in progress
        outcomes, tally = run(clips, out, resume=True)
        assert NUM_CLIPS - num_complete <= len(outcomes) <= NUM_CLIPS - num_complete + 1
        assert tally.num_ok + tally.num_skipped == NUM_CLIPS
        assert content(out) == content(tmp_path / "whole")
        assert run(clips, out, resume=True)[0] == []
        shutil.rmtree(out)
        if not was_killed:
            assert num_calls > 3 * NUM_CLIPS
            return
    pytest.fail("the run never ended")


def killed_after(num_calls: int, action: Callable[[], object]) -> bool:
    """Run an action in a process that ends at its next call to the system after so many; return whether it did."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some Pythons warn about a fork beside threads
        pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1] != 0
    num_left = num_calls

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def counting(*arguments: object, **named: object) -> object:
            nonlocal num_left
            if num_left == 0:
                os._exit(9)
            num_left -= 1
            return call(*arguments, **named)

        return counting

    try:
        for name in SYSTEM_CALLS:
            setattr(os, name, counted(getattr(os, name)))
        action()
        os._exit(0)
    finally:
        sys.stderr.write("the action failed\n")
        os._exit(1)
