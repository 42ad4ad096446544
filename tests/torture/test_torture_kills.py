"""Runs that are killed repeatedly, and disks that fill up: the final records equal those of an undisturbed run."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audio_files import sound, write_sound
from watched_runs import children_of, classify_command, living, num_done, records, report, run_watched, scores

from ast_cli.errors import ExitCode

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0), pytest.mark.skipif(os.name != "posix", reason="POSIX only")]

NUM_FILES = 200
SEED = 20210405


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two hundred different clips of 0.2 to 4 s, every tenth of them no audio."""
    folder, chance = tmp_path / "clips", random.Random(SEED)
    folder.mkdir()
    for number in range(NUM_FILES):
        if number % 10 == 9:
            (folder / f"{number:03}.wav").write_bytes(b"no audio")
        else:
            write_sound(folder / f"{number:03}.wav", sound(chance.uniform(0.2, 4.0), seed=number))
    return folder


def kill_after(command: list[str], output: Path, num_more: int, delay_s: float) -> tuple[int, set[int]]:
    """Start a run and kill it some records, or if none come some seconds, later; return its code and its children."""
    before = output.read_bytes().count(b"\n") if output.exists() else 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    began = time.monotonic()
    children: set[int] = set()
    while process.poll() is None:
        children |= children_of(process.pid)
        now = output.read_bytes().count(b"\n") if output.exists() else 0
        if now - before >= num_more or (num_more == 0 and time.monotonic() - began > delay_s):
            break
        time.sleep(0.002)
    time.sleep(delay_s / 100)
    children |= children_of(process.pid)
    process.kill()
    _, stderr = process.communicate(timeout=30)
    assert b"Traceback" not in stderr, stderr
    return process.returncode, children


STREAM = ["--stream", "--timestamps", "--events", "--threshold", "0.4"]


@pytest.mark.parametrize(
    ("num_kills", "extra"),
    [(50, []), (50, ["--unordered"]), (25, STREAM), (25, [*STREAM, "--unordered", "--shard", "0/2"])],
    ids=["ordered", "unordered", "streamed", "streamed-unordered-shard"],
)
def test_kills_end_in_the_set_of_a_run_left_in_peace(
    clips: Path, tiny_model: Path, tmp_path: Path, num_kills: int, extra: list[str]
) -> None:
    report(f"seed {SEED}")
    peace, output = tmp_path / "peace.jsonl", tmp_path / "tags.jsonl"
    whole = run_watched(classify_command(tiny_model, clips, "-o", peace, "--workers", 2, *extra), peace)
    assert whole.returncode == ExitCode.SOME_FAILED, whole.stderr
    chance, done, num_workers_seen = random.Random(SEED), 0, 0
    command = classify_command(tiny_model, clips, "-o", output, "--resume", "--workers", 2, "--batch-size", 2, *extra)
    for kill in range(num_kills):
        # A quarter of them hit the start or the reading of the journal, the others the run itself.
        num_more = chance.choice([0, 1, 2, 3])
        code, children = kill_after(command, output, num_more, chance.uniform(0.0, 3.0))
        now, num_workers_seen = num_done(output), num_workers_seen + len(children)
        assert now >= done, "records were lost"
        report(f"kill {kill + 1} of {num_kills}: code {code}, {now} of {num_done(peace)} done")
        done = now
        deadline = time.monotonic() + 2.0
        while living(children) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not living(children), "workers outlived their run"
    assert num_workers_seen > num_kills  # else the workers were never observed
    last = run_watched(command, output)
    assert last.returncode == ExitCode.SOME_FAILED, last.stderr
    assert_same_records(output, peace)


def assert_same_records(output: Path, peace: Path) -> None:
    """Compare all records of two outputs, in any order of files: scores within 1e-5, all else exactly."""
    of_output, of_peace = by_file(output), by_file(peace)
    assert of_output.keys() == of_peace.keys()
    for path, expected in of_peace.items():
        got = of_output[path]
        assert [without_scores(record) for record in got] == [without_scores(record) for record in expected]
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_allclose(all_scores(one), all_scores(other), atol=1e-5, err_msg=path)


def by_file(output: Path) -> dict[str, list[dict[str, Any]]]:
    """Return each path's records in a fixed order; its own record must be there once."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in records(output):
        found.setdefault(record["path"], []).append(record)
    for path, of_path in found.items():
        assert [record["type"] for record in of_path].count("file") == 1, path
        of_path.sort(key=lambda record: (record["type"], record.get("start_s", 0), record.get("label_id", 0)))
    return found


def without_scores(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record's facts, its labels as a set."""
    facts = {name: value for name, value in record.items() if name not in ("mean_score", "max_score")}
    if "tags" in facts:
        facts["tags"] = sorted(tag["label_id"] for tag in record["tags"])
    return facts


def all_scores(record: dict[str, Any]) -> list[float]:
    """Return a record's scores by label."""
    of_tags = [tag["score"] for tag in sorted(record.get("tags", ()), key=lambda tag: tag["label_id"])]
    return of_tags + [record[name] for name in ("mean_score", "max_score") if name in record]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 96 KB, where the system lets us mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no disk may be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_ends_the_run_with_a_reason_and_a_larger_one_completes_it(
    clips: Path, tiny_model: Path, small_disk: Path, tmp_path: Path
) -> None:
    output = small_disk / "tags.jsonl"
    command = classify_command(tiny_model, clips, "-o", output)
    full = run_watched(command, tmp_path / "full")
    assert full.returncode == ExitCode.FATAL
    assert "cannot be written (No space left on device)" in full.stderr
    assert "Traceback" not in full.stderr
    num_before = len(records(output))
    report(f"{num_before} of {NUM_FILES} records fitted; {full.stderr.splitlines()[-1]}")
    assert 0 < num_before < NUM_FILES
    again = run_watched([*command, "--resume"], tmp_path / "again")
    assert again.returncode == ExitCode.FATAL
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    rest = run_watched([*command, "--resume"], tmp_path / "rest")
    assert rest.returncode == ExitCode.SOME_FAILED, rest.stderr
    assert len(scores(output)) == NUM_FILES
