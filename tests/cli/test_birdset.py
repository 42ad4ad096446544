"""BirdSet's checkpoints, which state no front end, through the commands."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hub_layouts import ebird_codes, write_ast
from tone_folders import write_tone_folders

Run = Callable[..., subprocess.CompletedProcess[str]]
SAMPLES = Path(__file__).resolve().parents[2] / "sample_audio"
NAMED = "by its labels this is an AST for BirdSet, so the front end for BirdSet is used (32000 Hz, mean -4.268, std "


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """Return a small random model in the layout of BirdSet's checkpoints, without a ``preprocessor_config.json``."""
    write_ast(tmp_path / "birds", ebird_codes(411), num_mel_bins=128, max_length=1024)
    return tmp_path / "birds"


def test_windows_of_five_seconds_are_tagged_with_sigmoids(run_ast: Run, birds: Path, tmp_path: Path) -> None:
    arguments = ["classify", str(SAMPLES / "crowd.ogg"), "--model", "birds", "--timestamps", "--format", "jsonl"]
    done = run_ast(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(NAMED) == 1
    record = json.loads(done.stdout)
    assert record["activation"] == "sigmoid"
    assert [(window["start_s"], window["end_s"]) for window in record["windows"]] == [(0.0, 5.0), (1.0, 6.0)]


def test_an_export_and_a_fine_tuned_model_state_the_front_end(run_ast: Run, birds: Path, tmp_path: Path) -> None:
    file = str(SAMPLES / "dog.wav")
    assert run_ast("export", "--model", "birds", "--output", "exported", cwd=tmp_path).returncode == 0
    write_tone_folders(tmp_path / "data")
    tuned = run_ast(*("finetune", "data", "--model", "birds", "--output", "tuned", "--epochs", "1"), cwd=tmp_path)
    assert tuned.returncode == 0, tuned.stderr
    outputs = {}
    for model in ("birds", "exported", "tuned"):
        done = run_ast("extract", file, "--model", model, "--what", "input-values", "-o", f"{model}.npz", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert (NAMED in done.stderr) == (model == "birds")
        outputs[model] = np.load(tmp_path / f"{model}.npz")["input_values"]
    assert outputs["birds"].shape == (1, 1024, 128)
    for model in ("exported", "tuned"):
        np.testing.assert_array_equal(outputs[model], outputs["birds"])
    scores = []
    for model in ("birds", "exported"):
        done = run_ast("classify", file, "--model", model, "--format", "jsonl", "--top-k", "411", cwd=tmp_path)
        scores.append(json.loads(done.stdout))
    ours, theirs = ({tag["label"]: tag["score"] for tag in record["tags"]} for record in scores)
    assert max(abs(ours[label] - theirs[label]) for label in ours) < 1e-4
