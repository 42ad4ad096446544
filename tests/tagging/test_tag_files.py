"""Runs from Python: a killed run can be continued, and no input is in the output twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ast_cli import Tagger, tag_files
from ast_cli.errors import AstError, UsageError
from ast_cli.tagging.inputs import list_inputs
from ast_cli.tagging.options import ClassifyOptions, RunOptions
from ast_cli.tagging.run.tag_files import open_run
from ast_cli.tagging.run.tally import Tally

NUM_FILES = 12
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    return Tagger.from_pretrained("builtin", device="cpu")


@pytest.fixture
def folder(write_wav: Write) -> Path:
    for number in range(NUM_FILES):
        path = write_wav(f"in/{number:02}.wav", 0.5)
    return path.parent


def paths_in(output: Path) -> list[str]:
    return [json.loads(line)["path"] for line in output.read_text(encoding="utf-8").splitlines()]


def all_paths(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.iterdir())]


def test_every_input_has_its_record_and_progress_is_reported(tagger: Tagger, folder: Path, tmp_path: Path) -> None:
    reported: list[int] = []
    output = tmp_path / "tags.jsonl"
    tally = tag_files([folder], tagger, output, on_progress=lambda tally: reported.append(tally.num_done))
    assert paths_in(output) == all_paths(folder)
    assert (tally.num_ok, tally.num_failed, tally.num_skipped) == (NUM_FILES, 0, 0)
    assert sorted(set(reported)) == list(range(NUM_FILES + 1))
    assert reported == sorted(reported)


def test_suffix_selects_the_format_and_unknown_suffix_is_refused(tagger: Tagger, folder: Path, tmp_path: Path) -> None:
    tag_files([folder], tagger, tmp_path / "tags.csv", options=ClassifyOptions(top_k=1))
    assert len((tmp_path / "tags.csv").read_text(encoding="utf-8").splitlines()) == 1 + NUM_FILES
    with pytest.raises(UsageError, match=r"\.xml is not a supported format"):
        tag_files([folder], tagger, tmp_path / "tags.xml")


KILLED = """
import sys, time
from pathlib import Path
from ast_cli import ClassifyOptions, Tagger, tag_files

def report(tally):
    print(tally.num_done, flush=True)
    if tally.num_done == 5:
        time.sleep(100)

tagger = Tagger.from_pretrained("builtin")
tag_files([sys.argv[1]], tagger, sys.argv[2], options=ClassifyOptions(batch_size=1), on_progress=report)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills with a POSIX signal")
def test_killed_run_is_continued(tagger: Tagger, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "tags.jsonl"
    killed = subprocess.Popen([sys.executable, "-c", KILLED, str(folder), str(output)], stdout=subprocess.PIPE)
    assert killed.stdout is not None
    for line in killed.stdout:
        if line == b"5\n":
            break
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    assert paths_in(output) == all_paths(folder)[:5]

    with pytest.raises(UsageError, match="exists"):
        tag_files([folder], tagger, output, options=ClassifyOptions(batch_size=1))
    tally = tag_files([folder], tagger, output, options=ClassifyOptions(batch_size=1), resume=True)
    assert (tally.num_skipped, tally.num_ok) == (5, NUM_FILES - 5)
    assert paths_in(output) == all_paths(folder)


def test_shards_together_contain_every_input(tagger: Tagger, folder: Path, tmp_path: Path) -> None:
    found: list[str] = []
    for index in range(3):
        output = tmp_path / f"tags-{index}.jsonl"
        tag_files([folder], tagger, output, shard=(index, 3), num_workers=0)
        found += paths_in(output)
    assert sorted(found) == all_paths(folder)


def test_unordered_run_contains_the_same_inputs(tagger: Tagger, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "tags.jsonl"
    tag_files([folder], tagger, output, unordered=True, num_workers=2)
    assert sorted(paths_in(output)) == all_paths(folder)


def test_run_that_ends_after_too_many_failures_has_written_them(tagger: Tagger, folder: Path, tmp_path: Path) -> None:
    for path in sorted(folder.iterdir())[2:5]:
        path.write_bytes(b"")
    output = tmp_path / "tags.jsonl"
    with pytest.raises(AstError, match="stopped after 2 failed inputs"):
        tag_files([folder], tagger, output, max_errors=2)
    assert paths_in(output) == all_paths(folder)[:4]


def test_run_ended_by_an_exception_in_on_progress_can_be_resumed(tagger: Tagger, folder: Path, tmp_path: Path) -> None:
    num_calls = 0

    def end(_tally: Tally) -> None:
        nonlocal num_calls
        num_calls += 1
        if num_calls > NUM_FILES + 3:  # by then all inputs have been taken, and a few records written
            raise KeyboardInterrupt

    run = RunOptions(output=tmp_path / "tags.jsonl")
    options = ClassifyOptions(batch_size=1)
    with (
        pytest.raises(KeyboardInterrupt),
        open_run(tagger, list(list_inputs([str(folder)])), options, run, on_progress=end) as running,
    ):
        for _ in running:
            pass
    assert running.can_be_resumed
    done = len(paths_in(tmp_path / "tags.jsonl"))
    assert 0 < done < NUM_FILES
    tally = tag_files([folder], tagger, tmp_path / "tags.jsonl", options=options, resume=True)
    assert tally.num_skipped == done
    assert paths_in(tmp_path / "tags.jsonl") == all_paths(folder)


def test_run_without_an_output_only_yields_its_records(tagger: Tagger, folder: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    with open_run(tagger, list(list_inputs([str(folder)])), ClassifyOptions(), RunOptions()) as running:
        assert [record.path for record in running] == all_paths(folder)
    assert not running.can_be_resumed
    assert sorted(tmp_path.iterdir()) == before


def test_inputs_and_links_are_not_overwritten(tagger: Tagger, folder: Path, tmp_path: Path) -> None:
    recording = folder / "00.wav"
    content = recording.read_bytes()
    (named_as_results := tmp_path / "in.jsonl").write_bytes(content)
    (other := tmp_path / "other").write_bytes(content)
    (link := tmp_path / "link.jsonl").symlink_to(other)
    with pytest.raises(UsageError, match="is one of the inputs"):
        tag_files([named_as_results], tagger, named_as_results, force=True)
    with pytest.raises(UsageError, match="is a link"):
        tag_files([folder], tagger, link, force=True)
    assert recording.read_bytes() == named_as_results.read_bytes() == other.read_bytes() == content


def test_single_path_instead_of_a_list_is_refused(tagger: Tagger, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must be a list of paths, not the single path 'a\.wav'"):
        tag_files("a.wav", tagger, tmp_path / "tags.jsonl")


def test_standard_input_cannot_be_resumed(tagger: Tagger, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot compare standard input"):
        tag_files(["-"], tagger, tmp_path / "tags.jsonl", resume=True)


def test_progress_of_a_resumed_run_counts_inputs_that_are_done(tagger: Tagger, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "tags.jsonl"
    tag_files(all_paths(folder)[:9], tagger, output)
    reported: list[tuple[int, int]] = []
    tag_files([folder], tagger, output, resume=True, on_progress=lambda t: reported.append((t.num_done, t.num_inputs)))
    assert reported[0] == (9, NUM_FILES)
    assert reported[-1] == (NUM_FILES, NUM_FILES)
