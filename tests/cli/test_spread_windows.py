"""``ast classify --windows N`` scores N windows spread over a recording, and says which."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from ast_cli.results import TaggingResult

Run = Callable[..., subprocess.CompletedProcess[str]]
RATE, WINDOW_S = 16_000, 5.12


@pytest.fixture
def minute(tmp_path: Path) -> Path:
    """Return a recording of 60 s, of which every 5 s have another tone."""
    time_s = np.arange(60 * RATE) / RATE
    soundfile.write(tmp_path / "minute.wav", 0.3 * np.sin(2 * np.pi * (200 + 150 * (time_s // 5)) * time_s), RATE)
    return tmp_path / "minute.wav"


def record_of(run_ast: Run, *arguments: str, **options: Any) -> dict[str, Any]:
    done = run_ast("classify", *arguments, "--model", "builtin", "--format", "jsonl", **options)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("suffix", ["wav", "mp3"])
def test_the_scored_windows_are_spread_and_their_scores_are_those_of_these_parts(
    run_ast: Run, minute: Path, tmp_path: Path, suffix: str
) -> None:
    if suffix == "mp3":
        audio, rate = soundfile.read(minute)
        soundfile.write(tmp_path / "minute.mp3", audio, rate)
    file = str(tmp_path / f"minute.{suffix}")
    record = record_of(run_ast, file, "--windows", "2", "--timestamps", "--top-k", "3")
    gap_s = (60 - 2 * WINDOW_S) / 3
    expected = [[gap_s, gap_s + WINDOW_S], [2 * gap_s + WINDOW_S, 2 * gap_s + 2 * WINDOW_S]]
    np.testing.assert_allclose(record["scored_windows"], expected, atol=0.03)
    assert [[window["start_s"], window["end_s"]] for window in record["windows"]] == record["scored_windows"]
    assert record["duration_s"] == pytest.approx(60, abs=0.1)
    for window in record["windows"]:
        part = record_of(run_ast, file, "--start", str(window["start_s"]), "--duration", "5.135", "--top-k", "3")
        assert [tag["label"] for tag in part["tags"]] == [tag["label"] for tag in window["tags"]]
        for ours, alone in zip(window["tags"], part["tags"], strict=True):
            assert ours["score"] == pytest.approx(alone["score"], abs=2e-3)
    assert TaggingResult.from_dict(record).to_dict() == record


def test_a_recording_of_fewer_windows_is_scored_whole(run_ast: Run, minute: Path) -> None:
    spread, whole = (record_of(run_ast, str(minute), "--start", "45", *more) for more in (["--windows", "5"], []))
    assert spread.pop("scored_windows") == [[45.0, 50.12], [50.12, 55.24], [54.86, 59.98]]
    assert [tag["label"] for tag in spread["tags"]] == [tag["label"] for tag in whole["tags"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--windows", "0"], "--windows must be from 1 to 1000, not 0"),
        (["--windows", "3", "--hop", "1"], "--windows and --hop contradict each other: choose one"),
        (["--windows", "3", "--events"], "events are found in all windows: leave out --windows"),
    ],
)
def test_contradictions_are_wrong_usage(run_ast: Run, minute: Path, arguments: list[str], message: str) -> None:
    done = run_ast("classify", str(minute), "--model", "builtin", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {message}\n")


def test_a_resumed_run_must_score_the_same_windows(run_ast: Run, minute: Path, tmp_path: Path) -> None:
    arguments = ["classify", str(minute), "--model", "builtin", "--output", str(tmp_path / "tags.jsonl")]
    assert run_ast(*arguments, "--windows", "2").returncode == 0
    done = run_ast(*arguments, "--windows", "3", "--resume")
    assert done.returncode == 2
    assert "num_windows" in done.stderr or "--windows" in done.stderr
