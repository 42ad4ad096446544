"""Twenty thousand damaged files through the worker processes, ten thousand good ones beside four corrupt."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from audio_files import sound, write_sound
from mutants import mutant, small_files
from watched_runs import classify_command, peak_bytes, records, report, run_watched

from ast_cli.errors import AudioError, ErrorCode, ExitCode
from ast_cli.tagging.decode.opening import open_inputs
from ast_cli.tagging.decode.pool import DecodePool
from ast_cli.tagging.inputs import Input

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]

NUM_MUTANTS = int(os.environ.get("TORTURE_MUTANTS", "20000"))
SEED = int(os.environ.get("TORTURE_SEED", "20210405"))
LONGEST_S = 3600.0  # no mutant of a quarter of a second may unfold to an hour
MAX_WORKER_BYTES = 500 << 20
TIMEOUT_S = 20.0  # of a file that decodes in milliseconds: what comes near it hangs
NUM_GOOD = 10_000


def test_mutants_decode_or_are_refused_and_no_worker_hangs(tmp_path: Path) -> None:
    report(f"{NUM_MUTANTS} mutants, seed {SEED}")
    files, draw = small_files(tmp_path), np.random.default_rng(SEED)
    outcomes: Counter[str] = Counter()
    slowest_s, largest = 0.0, 0

    def mutants() -> Iterator[Input]:
        for index in range(NUM_MUTANTS):
            path = tmp_path / f"mutant-{index}.bin"
            path.write_bytes(mutant(files, draw, index))
            yield Input(str(path))

    with DecodePool(2, timeout_s=TIMEOUT_S) as pool, open_inputs(mutants(), 16000, workers=pool) as turns:
        last = time.monotonic()
        for number, turn in enumerate(turns, start=1):
            outcomes[outcome_of(turn.open_stream, turn.item.path)] += 1
            slowest_s, last = max(slowest_s, time.monotonic() - last), time.monotonic()
            os.remove(turn.item.path)
            if number % 1000 == 0:
                largest = max([largest, *map(peak_bytes, pool.worker_pids)])
                report(f"{number}: {dict(outcomes)}; slowest {slowest_s:.2f} s; largest worker {largest >> 20} MB")
    assert outcomes.total() == NUM_MUTANTS
    assert set(outcomes) <= {"ok", *ErrorCode}
    assert outcomes[ErrorCode.TIMEOUT] == 0
    assert largest < MAX_WORKER_BYTES
    assert outcomes["ok"] > NUM_MUTANTS // 4


def outcome_of(open_stream: object, path: str) -> str:
    """Read a file as a run does; what comes must be sound, or an error of the closed list with its path in front."""
    try:
        stream = open_stream()  # type: ignore[operator]
        for block in stream:
            assert np.isfinite(block).all(), path
            assert stream.duration_s < LONGEST_S, path
    except AudioError as error:
        return ErrorCode(error.code) if str(error).startswith(f"{path}: ") else f"strange: {error}"
    return "ok"


def test_ten_thousand_good_files_and_four_corrupt(tmp_path: Path, tiny_model: Path) -> None:
    good, folder = write_sound(tmp_path / "good.wav", sound(0.3)), tmp_path / "clips"
    folder.mkdir()
    for number in range(NUM_GOOD):
        os.link(good, folder / f"{number:05}.wav")
    flac = write_sound(tmp_path / "good.flac", sound(0.3)).read_bytes()
    corrupt = {"00000-.wav": b"", "03000-.mp3": b"no audio " * 500, "06000-.flac": flac[:40], "99999-.wav": b"RIFF"}
    for name, content in corrupt.items():
        (folder / name).write_bytes(content)
    output = tmp_path / "tags.jsonl"
    run = run_watched(classify_command(tiny_model, folder, "-o", output), output)
    report(f"{run.elapsed_s:.1f} s, {run.peak_bytes >> 20} MB; {run.stderr.splitlines()[-1]}")
    assert run.returncode == ExitCode.SOME_FAILED
    failed = [record for record in records(output) if record["status"] == "error"]
    assert {Path(record["path"]).name for record in failed} == set(corrupt)
    assert len(records(output)) == NUM_GOOD + 4
    assert len({record["path"] for record in records(output)}) == NUM_GOOD + 4
    assert f"{NUM_GOOD} ok, 4 failed" in run.stderr
