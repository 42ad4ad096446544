"""A hundred thousand paths, a million if asked for, and a recording of a day: memory stays bounded, nothing is lost.

Times are printed: on a busy machine they say nothing of the program.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from pathlib import Path

import pytest
from audio_files import sound, write_sound
from watched_runs import Run, classify_command, records, report, run_watched

from ast_cli.errors import ExitCode
from ast_cli.tagging.inputs import list_inputs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]

NUM_PATHS = int(os.environ.get("TORTURE_PATHS", "100000"))
NUM_FEW = 1000
LINKS_PER_FILE = 20_000  # file systems allow 65,000
MAX_GROWTH_BYTES = 200 << 20  # per 100,000 paths
MAX_DAY_BYTES = 50 << 20  # above the hour's
RATE = 16000


def linked(folder: Path, num_paths: int) -> Path:
    """Make many names of one tiny file, a thousand to a folder."""
    for number in range(num_paths):
        if number % LINKS_PER_FILE == 0:
            clip = write_sound(folder.with_name(f"{folder.name}-{number}.wav"), sound(0.05))
        path = folder / f"{number // 1000:04}" / f"{number % 1000:03}.wav"
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        os.link(clip, path)
    return folder


def test_memory_and_time_for_many_paths(tmp_path: Path, tiny_model: Path) -> None:
    few, many = linked(tmp_path / "few", NUM_FEW), linked(tmp_path / "many", NUM_PATHS)
    outputs = {name: tmp_path / f"{name}.jsonl" for name in ("few", "many")}
    small = run_watched(classify_command(tiny_model, few, "-o", outputs["few"]), outputs["few"])
    run = run_watched(classify_command(tiny_model, many, "-o", outputs["many"]), outputs["many"], 6 * 3600)
    show(f"{NUM_FEW} paths", small)
    show(f"{NUM_PATHS} paths", run)
    assert (small.returncode, run.returncode) == (ExitCode.OK, ExitCode.OK), run.stderr
    assert len({record["path"] for record in records(outputs["many"])}) == NUM_PATHS
    assert small.first_output_s is not None
    assert run.first_output_s is not None
    listing_s = seconds_to_list(many)
    report(f"listing {listing_s:.1f} s; first output {run.first_output_s - listing_s:.1f} s after it (aim: 5 s)")
    hundred_thousands = max(1.0, NUM_PATHS / 100_000)
    assert run.peak_bytes - small.peak_bytes < MAX_GROWTH_BYTES * hundred_thousands
    nothing = run_watched(classify_command(tiny_model, few, "-o", outputs["few"], "--resume"))
    scan = run_watched(classify_command(tiny_model, many, "-o", outputs["many"], "--resume"))
    show("resume of few", nothing)
    show("resume of many", scan)
    assert f"{NUM_PATHS} done before" in scan.stderr
    report(f"resume scan {scan.elapsed_s - nothing.elapsed_s - listing_s:.1f} s (aim: 5 s per 100,000)")
    assert len(records(outputs["many"])) == NUM_PATHS


def seconds_to_list(folder: Path) -> float:
    """Measure what any run needs to find its inputs."""
    started = time.monotonic()
    assert sum(1 for _ in list_inputs([str(folder)])) == NUM_PATHS
    return time.monotonic() - started


def show(name: str, run: Run) -> None:
    first = "" if run.first_output_s is None else f", first output after {run.first_output_s:.1f} s"
    last = (run.stderr.splitlines() or [""])[-1]
    report(f"{name}: {run.elapsed_s:.1f} s{first}, peak {run.peak_bytes >> 20} MB; {last}")


def sparse_wav(path: Path, duration_s: int) -> Path:
    """Make a WAV of digital silence that takes no room on the disk."""
    num_bytes = 2 * RATE * duration_s
    sizes = (num_bytes + 36) % 2**32, b"WAVEfmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16, b"data", num_bytes % 2**32
    path.write_bytes(b"RIFF" + struct.pack("<I8sIHHIIHH4sI", *sizes))
    os.truncate(path, 44 + num_bytes)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="needs sparse files")
def test_a_day_takes_the_memory_of_an_hour(tmp_path: Path, tiny_model: Path) -> None:
    peaks = {}
    for name, hours in {"hour": 1, "day": 24}.items():
        path, output = sparse_wav(tmp_path / f"{name}.wav", 3600 * hours), tmp_path / f"{name}.jsonl"
        command = classify_command(tiny_model, path, "-o", output, "--stream", "--timestamps", "--top-k", 1)
        run = run_watched(command, output)
        show(name, run)
        assert run.returncode == ExitCode.OK, run.stderr
        peaks[name] = run.peak_bytes
        *windows, file = records(output)
        assert file["duration_s"] == 3600 * hours
        starts = [window["start_s"] for window in windows]
        hop_s = starts[1]
        # The last window is moved back to the end.
        assert all(abs(start - number * hop_s) < 1 / RATE for number, start in enumerate(starts[:-1]))
        assert len(windows) >= 3600 * hours / hop_s - 1
    assert peaks["day"] - peaks["hour"] < MAX_DAY_BYTES
