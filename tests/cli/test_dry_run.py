"""``ast classify --dry-run`` lists the inputs and estimates the time."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ast_cli.tagging.run.plan import remember_speed, speed_of

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SAMPLES = Path(__file__).parents[2] / "sample_audio"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    for name in ("piano.m4a", "speech.flac", "telephone.wav"):
        shutil.copy(SAMPLES / name, folder)
    return folder


def test_inputs_are_listed_with_their_lengths_and_nothing_is_tagged(
    run_ast: Run, archive: Path, tmp_path: Path
) -> None:
    output = tmp_path / "tags.jsonl"
    done = run_ast("classify", "archive", "--dry-run", "--model", "builtin", "--output", str(output), cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout == (
        "archive/piano.m4a  00:08.02\narchive/speech.flac  00:06.38\narchive/telephone.wav  00:06.00\n"
    )
    assert done.stderr == (
        "dry run: 3 inputs, 0.01 h of audio; no run with builtin on this machine is known, so its time is not "
        "estimated\n"
    )
    assert not output.exists()


def test_the_time_is_estimated_from_the_last_run(
    run_ast: Run, archive: Path, tmp_path: Path, write_wav: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("AST_CACHE", str(cache))
    remember_speed("builtin", audio_s=59.0, elapsed_s=1.0, how="short")
    assert speed_of("builtin") is None
    shutil.copy(SAMPLES / "soundscape.mp3", archive / "long.mp3")
    shutil.copy(SAMPLES / "soundscape.mp3", archive / "longer.mp3")
    done = run_ast(
        "classify", str(archive), "-o", str(tmp_path / "o.jsonl"), "--model", "builtin", AST_CACHE=str(cache)
    )
    assert done.returncode == 0, done.stderr
    speed = speed_of("builtin")
    assert speed is not None
    assert speed.times_real_time > 1
    text = run_ast("classify", str(archive), "--dry-run", "--model", "builtin", AST_CACHE=str(cache)).stderr
    assert text.startswith("dry run: 5 inputs, 0.03 h of audio; about ")
    assert text.endswith(f"x real time, as the last run with builtin ({speed.how})\n")


def test_dry_run_has_formats_and_lists_unreadable_inputs(run_ast: Run, archive: Path, tmp_path: Path) -> None:
    (archive / "bad.wav").write_text("no audio")
    command = ("classify", "archive", "--dry-run", "--model", "builtin", "--quiet", "--format")
    done = run_ast(*command, "jsonl", cwd=tmp_path)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 3
    assert done.stderr == ""
    assert [record["path"] for record in records] == [
        f"archive/{name}" for name in ("bad.wav", "piano.m4a", "speech.flac", "telephone.wav")
    ]
    assert records[0]["duration_s"] is None
    assert "bad.wav" in records[0]["error"]
    assert (records[3]["duration_s"], records[3]["error"]) == (6.0, None)
    assert json.loads(run_ast(*command, "json", cwd=tmp_path).stdout) == records
    assert run_ast(*command, "csv", cwd=tmp_path).stdout.splitlines()[4] == "archive/telephone.wav,6.00,"


def test_dry_run_respects_the_part_the_shard_and_inputs_done_before(
    run_ast: Run, archive: Path, tmp_path: Path
) -> None:
    def listed(*flags: str) -> str:
        done = run_ast("classify", "archive", "--dry-run", "--model", "builtin", *flags, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert listed("--start", "2", "--duration", "3").splitlines()[2] == "archive/telephone.wav  00:03.00"
    parts = "".join(listed("--shard", f"{part}/2") for part in range(2))
    assert sorted(parts.splitlines()) == listed().splitlines()
    output = str(tmp_path / "tags.jsonl")
    run_ast("classify", "archive/telephone.wav", "-o", output, "--model", "builtin", cwd=tmp_path)
    assert [line.split()[0] for line in listed("-o", output, "--resume").splitlines()] == [
        "archive/piano.m4a",
        "archive/speech.flac",
    ]


def test_live_input_is_refused(run_ast: Run) -> None:
    done = run_ast("classify", "-", "--raw-rate", "16000", "--dry-run", "--format", "jsonl", stdin=b"\0" * 100)
    assert (done.returncode, done.stderr) == (2, "error: --dry-run cannot list live input: leave out --raw-rate\n")


def test_no_torch_is_imported(run_ast: Run, archive: Path) -> None:
    done = run_ast("classify", str(archive), "--dry-run", "--model", "builtin", PYTHONPROFILEIMPORTTIME="1")
    assert "ast_cli.tagging.run.plan" in done.stderr
    assert "torch" not in {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
