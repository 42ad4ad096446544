"""The scripts in benchmarks/ run with a tiny model, in seconds, including their checks that results are equal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from installed import needs_transformers
from tiny_models import small_config

from ast_cli import ASTFeatureExtractor, ASTForAudioClassification

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
LABELS = {0: "dog", 1: "rain", 2: "Waves, surf", 3: "clock", 4: "speech"}


def run(script: str, *arguments: str, expected_code: int = 0) -> str:
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == expected_code, done.stderr
    return done.stdout + done.stderr if expected_code else done.stdout


@pytest.fixture
def tiny_checkpoint(tmp_path: Path) -> Path:
    """Return a checkpoint whose window contains the whole clip of 5 s, as the pipeline processes only one window."""
    config = small_config(max_length=512, num_mel_bins=128, id2label=LABELS, problem_type="multi_label_classification")
    ASTForAudioClassification(config).save_pretrained(tmp_path / "tiny")
    ASTFeatureExtractor(max_length=512).save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.mark.parity
@needs_transformers
def test_the_smoke_run_of_the_gpu_script_passes_on_the_cpu(tmp_path: Path) -> None:
    printed = run("gpu.py", "--smoke", "--json", str(tmp_path / "gpu.json"))
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert {row["batch_size"] for row in report["attentions"]["measurements"]} == {1, 2}
    assert {m["library"] for m in report["attentions"]["measurements"]} == {"ast", "transformers"}
    assert [row["batch_size"] for row in report["rates"]] == [3]
    assert report["latency"]["plain"]["median_ms"] > 0
    assert report["folder"]["num_windows"] > report["folder"]["num_files"] == 3
    assert "| transformers sdpa | sdpa |" in printed


@pytest.mark.parity
@needs_transformers
def test_the_comparison_checks_equality_and_writes_its_tables(tiny_checkpoint: Path, tmp_path: Path) -> None:
    peers = "transformers sdpa,transformers eager,ast torch"
    files = ("--json", str(tmp_path / "table.json"), "--markdown", str(tmp_path / "table.md"))
    printed = run("compare.py", "--model", str(tiny_checkpoint), "--rounds", "2", "--peers", peers, *files)
    report = json.loads((tmp_path / "table.json").read_text())
    assert [row["name"] for row in report["rows"]] == peers.split(",")
    assert report["rows"][0]["ratio"] == 1
    assert all(row["max_abs_difference"] < 1e-4 for row in report["rows"])
    assert (tmp_path / "table.md").read_text() in printed
    assert "torch" in report["machine"]["versions"]


@pytest.mark.parity
@needs_transformers
def test_the_whole_command_is_compared_with_the_pipeline(tiny_checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "command.json"
    run("command.py", "--model", str(tiny_checkpoint), "--rounds", "1", "--json", str(file))
    baseline, ours = json.loads(file.read_text())["rows"]
    assert (baseline["name"], ours["name"]) == ("transformers pipeline", "ast classify (torch)")
    assert ours["median_s"] > 0
    if sys.platform == "linux":
        assert ours["peak_mb"] > 50  # torch alone takes that


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_whole_commands_of_the_engines_are_compared_first_use_included(tiny_checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    file, cases = tmp_path / "engines.json", "file,first,unkept"
    arguments = ("--model", str(tiny_checkpoint), "--rounds", "1", "--cases", cases, "--json", str(file))
    printed = run("default_engine.py", *arguments)
    rows = json.loads(file.read_text())["rows"]
    assert [(row["case"], row["engine"]) for row in rows] == [
        (case, engine) for case in cases.split(",") for engine in ("torch", "onnxruntime")
    ]
    assert all(row["median_s"] > 0 and row["cpu_s"] > 0 and row["peak_mb"] > 20 for row in rows)
    assert "| one file, nothing can be kept | onnxruntime |" in printed


def test_an_unknown_peer_is_refused() -> None:
    assert "unknown peers" in run("compare.py", "--peers", "nobody", expected_code=2)
