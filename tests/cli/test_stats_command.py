from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ast_cli.audio.decode import load_waveform
from ast_cli.audio.front_ends.kaldi import ASTFeatureExtractor
from ast_cli.hub.folders import checkpoint_folder

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def data(write_wav: Callable[..., Path], tmp_path: Path) -> Path:
    for split, label, duration_s in (("train", "Dog", 1.0), ("train", "Cat", 0.5), ("test", "Cat", 2.0)):
        write_wav(f"data/{split}/{label}/{duration_s}.wav", duration_s)
    return tmp_path / "data"


def fbanks_of(folder: Path) -> np.ndarray:
    """Return all frames of all recordings below a folder."""
    waveforms = [torch.from_numpy(load_waveform(path))[None] for path in sorted(folder.rglob("*.wav"))]
    return torch.cat([ASTFeatureExtractor().fbank(waveform)[0] for waveform in waveforms]).double().numpy()


def test_the_table_names_the_keys_of_preprocessor_config_json(run_ast: Run, data: Path) -> None:
    done = run_ast("stats", str(data), "--split", "train")
    frames = fbanks_of(data / "train")
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    (mean_name, mean), (std_name, std) = lines[0].split()[:2], lines[1].split()[:2]
    assert (mean_name, std_name) == ("mean", "std")
    assert float(mean) == pytest.approx(frames.mean(), abs=1e-4)
    assert float(std) == pytest.approx(frames.std(), abs=1e-4)
    assert lines[2] == f"over {len(frames)} frames of 128 mel bins: 2 recordings, 1.5 s"
    assert lines[3].startswith(f'in preprocessor_config.json: "mean": {mean}')
    assert "warning" not in done.stderr  # only how far it is, on a slow machine


def test_json_contains_the_statistics_and_failures_end_in_exit_code_3(run_ast: Run, data: Path) -> None:
    (data / "train" / "Dog" / "bad.wav").write_bytes(b"no audio at all" * 9)
    done = run_ast("stats", str(data), "--json", "--workers", "0")
    assert done.returncode == 3
    values = json.loads(done.stdout)
    (data / "train" / "Dog" / "bad.wav").unlink()
    frames = fbanks_of(data)
    assert values["mean"] == pytest.approx(frames.mean(), abs=1e-4)
    assert values["std"] == pytest.approx(frames.std(), abs=1e-4)
    assert (values["type"], values["num_frames"], values["num_examples"], values["num_failed"]) == (
        "statistics",
        len(frames),
        3,
        1,
    )
    (failure,) = values["failures"]
    assert failure["path"].endswith("bad.wav")
    assert failure["error"]["code"] == "not_audio"
    assert "error: " in done.stderr
    assert "note: all splits are used (train, test); --split train selects one" in done.stderr


def test_statistics_are_written_into_a_checkpoint_with_its_own_filter_bank(
    run_ast: Run, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint_folder("builtin"), folder)
    file = folder / "preprocessor_config.json"
    before = json.loads(file.read_text())
    done = run_ast("stats", str(data), "--apply", str(folder), "--json", "-q")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    printed = json.loads(done.stdout)
    assert printed["num_mel_bins"] == before["num_mel_bins"]
    assert json.loads(file.read_text()) == {**before, "mean": printed["mean"], "std": printed["std"]}


def test_folds_padding_and_lengths_are_applied(run_ast: Run, data: Path) -> None:
    manifest = data / "data.csv"
    manifest.write_text("path,fold\ntrain/Dog/1.0.wav,1\ntrain/Cat/0.5.wav,2\ntest/Cat/2.0.wav,3\n")
    done = run_ast(
        "stats", str(manifest), "--fold", "1,3", "--padded", "--max-length", "150", "--num-mel-bins", "16", "--json"
    )
    values = json.loads(done.stdout)
    assert (values["num_examples"], values["num_frames"], values["num_padded_frames"]) == (2, 300, 52)
    assert (values["num_mel_bins"], values["padded"]) == (16, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "validation"], "has no examples of the split 'validation'; its splits are train, test"),
        (["--fold", "1"], "has no examples of fold 1; it has no fold column"),
        (["--fold", "one"], "--fold takes whole numbers with commas between them, not 'one'"),
        (["--num-mel-bins", "2"], "num_mel_bins must be from 4"),
        (["--max-length", "0"], "max_length must be from 1"),
        (["--apply", "nowhere"], "nowhere: contains no preprocessor_config.json"),
    ],
)
def test_invalid_arguments_are_usage_errors(run_ast: Run, data: Path, arguments: list[str], message: str) -> None:
    done = run_ast("stats", str(data), *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) <= 2  # a note may come first
    assert done.stdout == ""


def test_missing_and_unreadable_recordings_have_their_exit_codes(run_ast: Run, tmp_path: Path) -> None:
    assert run_ast("stats", str(tmp_path / "*.wav")).returncode == 4
    done = run_ast("stats", str(tmp_path / "no.wav"))
    assert done.returncode == 1
    assert "none of the 1 recordings could be read" in done.stderr
