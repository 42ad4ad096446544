"""Runs that are killed again and again, and disks that fill up: the final set is that of a run left in peace."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from audio_files import sound, write_sound
from watched_runs import children_of, classify_command, living, num_done, records, run_watched, scores, tell

from ast_cli.errors import ExitCode

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0), pytest.mark.skipif(os.name != "posix", reason="POSIX only")]

NUM_KILLS = 50
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
    process.kill()
    _, stderr = process.communicate(timeout=30)
    assert b"Traceback" not in stderr, stderr
    return process.returncode, children


@pytest.mark.parametrize("extra", [[], ["--unordered"]], ids=["ordered", "unordered"])
def test_fifty_kills_end_in_the_set_of_a_run_left_in_peace(
    clips: Path, tiny_model: Path, tmp_path: Path, extra: list[str]
) -> None:
    tell(f"seed {SEED}")
    peace, output = tmp_path / "peace.jsonl", tmp_path / "tags.jsonl"
    whole = run_watched(classify_command(tiny_model, clips, "-o", peace, "--workers", 2), peace)
    assert whole.returncode == ExitCode.SOME_FAILED, whole.stderr
    chance, done = random.Random(SEED), 0
    command = classify_command(tiny_model, clips, "-o", output, "--resume", "--workers", 2, "--batch-size", 2, *extra)
    for kill in range(NUM_KILLS):
        # A quarter of them hit the start or the reading of the journal, the others the run itself.
        num_more = chance.choice([0, 1, 2, 3])
        code, children = kill_after(command, output, num_more, chance.uniform(0.0, 3.0))
        now = num_done(output)
        assert now >= done, "records were lost"
        tell(f"kill {kill + 1} of {NUM_KILLS}: code {code}, {now} of {NUM_FILES} done")
        done = now
        deadline = time.monotonic() + 2.0
        while living(children) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not living(children), "workers outlived their run"
    last = run_watched(command, output)
    assert last.returncode == ExitCode.SOME_FAILED, last.stderr
    expected, got = scores(peace), scores(output)
    assert expected.keys() == got.keys()
    for path, numbers in expected.items():
        np.testing.assert_allclose(got[path], numbers, atol=1e-5, err_msg=path)
    codes = {record["path"]: record.get("error") for record in records(peace)}
    assert codes == {record["path"]: record.get("error") for record in records(output)}


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
    tell(f"{num_before} of {NUM_FILES} records fitted; {full.stderr.splitlines()[-1]}")
    assert 0 < num_before < NUM_FILES
    again = run_watched([*command, "--resume"], tmp_path / "again")
    assert again.returncode == ExitCode.FATAL
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    rest = run_watched([*command, "--resume"], tmp_path / "rest")
    assert rest.returncode == ExitCode.SOME_FAILED, rest.stderr
    assert len(scores(output)) == NUM_FILES
