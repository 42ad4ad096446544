"""Every command works with a checkpoint in MAEST's layout, from its files alone and without the code beside them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from maest_folder import EXECUTED, LABELS, MAX_LENGTH, MEAN, REMOTE_CODE, STD, write_maest_folder
from maest_reference import maest_fbank
from numpy.typing import NDArray
from tone_folders import write_tone_folders

Run = Callable[..., "subprocess.CompletedProcess[str]"]

TOLERANCE = 1e-4
HOP_FRAMES = 32  # 0.512 s
NUM_SAMPLES = 40_000  # 157 frames: windows at 0, 32 and 64, and one that ends on the last frame
STARTS = (0, 32, 64, 93)
# Records what is imported, compiled or run; it is installed before anything of the program.
HOOK = """
import os, sys
log = open(os.environ["AUDIT_LOG"], "a")
def hook(event, arguments):
    if event in ("import", "compile", "exec") and "feature_extraction" in str(arguments):
        log.write(f"{event} {arguments}\\n")
    elif event == "import" and arguments[0] == "ast_cli":
        log.write("started\\n")
    log.flush()
sys.addaudithook(hook)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = write_maest_folder(tmp_path / "discogs-maest")
    yield folder
    assert not (folder / EXECUTED).exists()


@pytest.fixture
def song(tmp_path: Path) -> Path:
    path = tmp_path / "song.wav"
    soundfile.write(path, waveform(), 16000, subtype="FLOAT")
    return path


def waveform() -> NDArray[np.float32]:
    """Return noise whose loudness and pitch change, so that each window has scores of its own."""
    time = np.arange(NUM_SAMPLES) / 16000
    noise = np.random.default_rng(0).standard_normal(NUM_SAMPLES)
    samples = 0.3 * np.sin(2 * np.pi * (200 + 900 * time) * time) + 0.1 * time * noise
    return samples.astype(np.float32)


def expected_input(starts: tuple[int, ...] = STARTS) -> NDArray[np.float32]:
    """Return the input of windows by the description of MAEST, shape (num_windows, MAX_LENGTH, 96)."""
    fbank = maest_fbank(waveform())
    windows = np.stack([fbank[start : start + MAX_LENGTH] for start in starts])
    return ((windows - MEAN) / (2 * STD)).astype(np.float32)


def expected_logits(folder: Path, starts: tuple[int, ...] = STARTS) -> NDArray[np.float32]:
    """Return the logits of the reference library's model, which reads the weights itself."""
    transformers = pytest.importorskip("transformers")
    model = transformers.ASTForAudioClassification.from_pretrained(folder, attn_implementation="eager")
    with torch.inference_mode():
        logits: NDArray[np.float32] = model.eval()(torch.from_numpy(expected_input(starts))).logits.numpy()
    return logits


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    scores: NDArray[np.float32] = 1 / (1 + np.exp(-logits))
    return scores


def result_of(run_ast: Run, *arguments: str) -> dict[str, Any]:
    done = run_ast("classify", *arguments, "--format", "jsonl", "--top-k", "9")
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def scores_of(tags: list[dict[str, Any]]) -> list[float]:
    """Return the scores in the order of the model's labels."""
    scores = {tag["label"]: tag["score"] for tag in tags}
    return [scores[label] for label in LABELS]


@pytest.mark.parity
@pytest.mark.parametrize("as_pickle", [False, True])
def test_classify_gives_the_scores_of_the_reference(run_ast: Run, tmp_path: Path, song: Path, as_pickle: bool) -> None:
    folder = write_maest_folder(tmp_path / "maest", as_pickle=as_pickle)
    logits = expected_logits(folder)
    options = ("--timestamps", "--hop", str(HOP_FRAMES * 0.016))
    result = result_of(run_ast, str(song), "--model", str(folder), *options)
    assert [window["start_s"] for window in result["windows"]] == [start * 0.016 for start in STARTS]
    assert [window["end_s"] for window in result["windows"]] == [*(s * 0.016 + 1.024 for s in STARTS[:-1]), 2.5]
    scores = [scores_of(window["tags"]) for window in result["windows"]]
    np.testing.assert_allclose(scores, sigmoid(logits), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(scores_of(result["tags"]), sigmoid(logits).mean(axis=0), rtol=0, atol=TOLERANCE)
    assert np.ptp(scores, axis=0).min() > 10 * TOLERANCE  # each window has its own
    assert not (folder / EXECUTED).exists()


def test_the_code_beside_a_checkpoint_is_never_imported(run_ast: Run, folder: Path, song: Path, tmp_path: Path) -> None:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK)
    log, path = tmp_path / "audit.log", os.pathsep.join([str(tmp_path / "hook"), str(Path(__file__).parents[2])])
    assert (folder / REMOTE_CODE).is_file()
    done = run_ast("classify", str(song), "--model", str(folder), cwd=folder, PYTHONPATH=path, AUDIT_LOG=str(log))
    assert done.returncode == 0, done.stderr
    assert set(log.read_text().splitlines()) == {"started"}


@pytest.mark.parity
def test_extract_gives_the_numbers_of_the_reference(run_ast: Run, folder: Path, song: Path, tmp_path: Path) -> None:
    def extracted(what: str, name: str) -> NDArray[np.float32]:
        output = tmp_path / f"{what}.npz"
        hop = ("--hop", str(HOP_FRAMES * 0.016)) if what != "fbank" else ()
        done = run_ast("extract", str(song), "--what", what, "--model", str(folder), "-o", str(output), *hop)
        assert done.returncode == 0, done.stderr
        with np.load(output) as arrays:
            array: NDArray[np.float32] = arrays[name]
        return array

    np.testing.assert_allclose(extracted("fbank", "fbank"), maest_fbank(waveform()), rtol=0, atol=TOLERANCE)
    values = extracted("input-values", "input_values")
    np.testing.assert_allclose(values, expected_input(), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(
        extracted("logits", "window_logits"), expected_logits(folder), rtol=0, atol=10 * TOLERANCE
    )  # of inputs that may differ by the tolerance
    transformers = pytest.importorskip("transformers")
    model = transformers.ASTForAudioClassification.from_pretrained(folder).eval().audio_spectrogram_transformer
    with torch.inference_mode():
        pooled = model(torch.from_numpy(expected_input())).pooler_output.numpy()
    embeddings = extracted("embedding", "window_embeddings")
    np.testing.assert_allclose(embeddings, pooled, rtol=0, atol=10 * TOLERANCE)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_exported_model_brings_the_front_end(
    run_ast: Run, folder: Path, song: Path, tmp_path: Path, engine: str
) -> None:
    pytest.importorskip(engine)
    kind = "onnx" if engine == "onnxruntime" else "openvino"
    exported = tmp_path / "exported"
    done = run_ast("export", "--model", str(folder), "--format", kind, "--output", str(exported))
    assert done.returncode == 0, done.stderr
    assert not (exported / REMOTE_CODE).exists()
    (file,) = (*exported.glob("*.onnx"), *exported.glob("*.xml"))
    own = result_of(run_ast, str(song), "--model", str(folder))
    through_folder = result_of(run_ast, str(song), "--model", str(exported))
    alone = shutil.copytree(exported, tmp_path / "alone", ignore=shutil.ignore_patterns("*.json")) / file.name
    for result in (through_folder, result_of(run_ast, str(song), "--model", str(alone))):
        np.testing.assert_allclose(scores_of(result["tags"]), scores_of(own["tags"]), rtol=0, atol=TOLERANCE)


def test_a_finetuned_model_keeps_the_front_end(run_ast: Run, folder: Path, tmp_path: Path) -> None:
    data, output = write_tone_folders(tmp_path / "data"), tmp_path / "trained"
    command = ["finetune", str(data), "--model", str(folder), "-o", str(output), "--batch-size", "2", "--threads", "1"]
    command += ["--validation-fraction", "0.25", "--mixup", "0.5", "--gain-db", "3", "--workers", "1"]
    done = run_ast(*command, "--epochs", "1")
    assert done.returncode == 0, done.stderr
    written = json.loads((output / "preprocessor_config.json").read_text())
    original = json.loads((folder / "preprocessor_config.json").read_text())
    del original["auto_map"]
    assert {**written, "mean": MEAN, "std": STD} == original
    card = (output / "README.md").read_text()
    assert "from windows of 1.02 s at 16 kHz" in card
    assert "transformers" not in card
    classified = result_of(run_ast, str(data / "Low" / "3.wav"), "--model", str(output))
    assert {tag["label"] for tag in classified["tags"]} == {"Low", "High, very"}
    evaluated = run_ast("evaluate", str(data), "--model", str(output), "--format", "json")
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)["num_examples"] == 8


def test_stats_are_those_of_the_front_end(run_ast: Run, folder: Path, song: Path) -> None:
    done = run_ast("stats", str(song), "--apply", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    expected, statistics = maest_fbank(waveform()), json.loads(done.stdout)
    assert statistics["num_frames"] == len(expected)
    assert statistics["mean"] == pytest.approx(expected.mean(), abs=TOLERANCE)
    assert statistics["std"] == pytest.approx(expected.std(), abs=TOLERANCE)
    values = json.loads((folder / "preprocessor_config.json").read_text())
    assert (values["mean"], values["std"]) == (statistics["mean"], statistics["std"])


def test_benchmark_measures_windows_of_16_ms_frames(run_ast: Run, folder: Path) -> None:
    options = ("--batch-size", "1", "--repeats", "3", "--warmup", "1", "--attn", "sdpa", "--threads", "1", "--json")
    done = run_ast("benchmark", "--model", str(folder), *options)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["model"]["window_s"] == pytest.approx(MAX_LENGTH * 0.016)
    (measured,) = report["measurements"]
    assert measured["real_time_factor"] == pytest.approx(measured["median_ms"] / 1000 / (MAX_LENGTH * 0.016), rel=1e-4)


def test_a_run_is_resumed(run_ast: Run, folder: Path, song: Path, tmp_path: Path) -> None:
    again = shutil.copy(song, tmp_path / "again.wav")
    output = tmp_path / "tags.jsonl"
    options = ("--model", str(folder), "--output", str(output))
    assert run_ast("classify", str(song), *options).returncode == 0
    first = output.read_bytes()
    done = run_ast("classify", str(song), str(again), *options, "--resume")
    assert done.returncode == 0, done.stderr
    assert output.read_bytes().startswith(first)
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [record["path"] for record in records] == [str(song), str(again)]
    assert records[0]["tags"] == records[1]["tags"]
    values = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(values | {"log_compression": "log"}))
    refused = run_ast("classify", str(song), str(again), *options, "--resume")
    assert refused.returncode != 0
    assert "model" in refused.stderr


@pytest.mark.parametrize("num_samples", [1, 256, 511])
def test_recordings_of_less_than_a_frame_get_scores(
    run_ast: Run, folder: Path, tmp_path: Path, num_samples: int
) -> None:
    soundfile.write(tmp_path / "short.wav", waveform()[:num_samples], 16000, subtype="FLOAT")
    result = result_of(run_ast, str(tmp_path / "short.wav"), "--model", str(folder))
    assert len(result["tags"]) == len(LABELS)
    assert result["warnings"] == ["too_short"]
