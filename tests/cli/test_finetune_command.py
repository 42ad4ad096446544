"""``ast finetune`` in processes of its own: killed, interrupted, resumed, and given invalid arguments."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tone_folders import write_tone_folders

from ast_cli.training.options import settings

Run = Callable[..., "subprocess.CompletedProcess[str]"]
TINY = (
    "--model scratch:32x2 --num-mel-bins 32 --max-length 48 --time-stride 16 --frequency-stride 16 --batch-size 2 "
    "--learning-rate 1e-3 --validation-fraction 0.25 --token-drop 0.25 --mixup 0.5 --average ema "
    "--threads 1 --workers 1"
).split()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_tone_folders(tmp_path / "data")


def started(data: Path, output: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ast_cli", "finetune", str(data), "-o", str(output), *TINY, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_epochs(process: subprocess.Popen[bytes], output: Path, num_epochs: int) -> None:
    """Wait until the history has ``num_epochs`` rows."""
    deadline = time.monotonic() + 100
    while process.poll() is None and time.monotonic() < deadline:
        history = output / "history.csv"
        if history.exists() and len(history.read_text().splitlines()) > num_epochs:
            return
        time.sleep(0.005)
    raise AssertionError(f"ended with {process.returncode} before epoch {num_epochs}: {process.stderr.read()!r}")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_killed_and_interrupted_runs_end_with_the_same_weights_as_an_uninterrupted_one(
    run_ast: Run, data: Path, tmp_path: Path
) -> None:
    epochs = ("--epochs", "24")
    whole = started(data, tmp_path / "whole", *epochs)
    output = tmp_path / "parts"
    with started(data, output, *epochs) as process:
        wait_for_epochs(process, output, 4)
        process.send_signal(signal.SIGSTOP)  # it keeps the lock, however slow the next line is
        second = run_ast("finetune", str(data), "-o", str(output), *TINY, *epochs, "--resume")
        assert second.returncode == 1
        assert f"is being written by another run (process {process.pid}" in second.stderr
        process.send_signal(signal.SIGKILL)
    assert (process.returncode, (output / "model.safetensors").exists()) == (-signal.SIGKILL, False)
    num_rows = len((output / "history.csv").read_text().splitlines())
    with started(data, output, *epochs, "--resume") as process:
        wait_for_epochs(process, output, num_rows + 4)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert re.search(r"resuming after epoch \d+, update \d", stderr.decode())
    last = stderr.decode().splitlines()[-1]
    assert last == f"stopped; to continue, run the same command with --resume (state saved in {output})"
    done = run_ast("finetune", str(data), "-o", str(output), *TINY, *epochs, "--resume")
    assert done.returncode == 0, done.stderr
    _, stderr = whole.communicate(timeout=100)
    assert whole.returncode == 0, stderr
    for name in ("model.safetensors", "config.json", "preprocessor_config.json", "training_options.toml"):
        assert (output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert sorted(os.listdir(output)) == sorted(os.listdir(tmp_path / "whole"))
    assert done.stdout.splitlines()[0] == str(output)
    assert re.fullmatch(r"validation accuracy  [01]\.\d{4}  \(2 clips\)", done.stdout.splitlines()[1])


def test_a_model_fine_tuned_from_the_built_in_one_tags_a_file(run_ast: Run, data: Path, tmp_path: Path) -> None:
    (data / "Low" / "bad.wav").write_bytes(b"no audio at all " * 9)
    output = tmp_path / "mine"
    settings = ("--freeze-encoder", "--epochs", "20", "--batch-size", "4", "--learning-rate", "0.01", "--threads", "1")
    done = run_ast("finetune", str(data), "-o", str(output), *settings, "--workers", "1")
    assert done.returncode == 3
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "bad.wav" in errors[0]
    assert "1 clip left out" in done.stderr
    assert re.search(r"^epoch 20/20  loss \d\.\d{4}  .*clips/s  0 s left$", done.stderr, re.MULTILINE)
    assert done.stderr.count("epoch ") < 10  # of 20, which take milliseconds each
    assert len((output / "history.csv").read_text().splitlines()) == 21
    tagged = run_ast("classify", str(data / "Low" / "3.wav"), "--model", str(output), "--top-k", "1", "-f", "jsonl")
    record = json.loads(tagged.stdout)
    assert record["tags"][0]["label"] == "Low"


def test_folds_are_printed_with_their_mean(run_ast: Run, data: Path, tmp_path: Path) -> None:
    rows = [
        f'"{file.relative_to(data)}","{file.parent.name}",{i % 2}' for i, file in enumerate(sorted(data.rglob("*.wav")))
    ]
    (data / "folds.csv").write_text("\n".join(["path,label,fold", *rows]))
    recipe = tmp_path / "quick.toml"
    recipe.write_text("epochs = 2\n")
    done = run_ast(
        "finetune",
        str(data / "folds.csv"),
        "-o",
        str(tmp_path / "out"),
        "--folds",
        *TINY,
        "--recipe",
        str(recipe),
        "-q",
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == str(tmp_path / "out")
    for fold in (0, 1):
        assert re.fullmatch(rf"fold {fold} accuracy  \d\.\d{{4}}  \(4 clips\)", lines[1 + fold])
    values = [float(line.split()[3]) for line in lines[1:3]]
    deviation = np.std(values, ddof=1)
    assert lines[3] == f"mean accuracy  {np.mean(values):.4f}  (standard deviation {deviation:.4f})"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "-o", "out"], "nowhere: there is no such file or folder"),
        (["data", "-o", "out", "--epochs", "0"], "error: --epochs must be from 1 to 1e+06, not 0"),
        (["data", "-o", "out", "--recipe", "esc5"], "there is no recipe 'esc5'"),
        (["data", "-o", "out", "--folds", "--fold", "1"], "--folds holds out every fold in turn and --fold one"),
        (["data", "-o", "out", "--soft-weight", "0.5"], "--soft-weight 0.5 needs soft targets: add --soft-targets"),
        (["data", "-o", "out", "--soft-targets", "none.csv"], "none.csv: cannot be read (No such file or directory)"),
        (["data", "-o", "out", "--model", "scratch:10"], "write scratch:HIDDENxLAYERS"),
        (["data", "-o", "out", "--model", ""], "--model is empty: name a model"),
        (["data", "-o", "out", "--resume"], "there is no run in out"),
        (["data", "-o", "data"], "--output data is the data itself"),
        (["data", "-o", "full"], "full exists and is not empty: add --resume to continue its run, or --force"),
        (["empty", "-o", "out"], "empty"),
        (["one", "-o", "out"], "one: all examples have the label 'Low'; at least two classes are needed"),
    ],
)
def test_invalid_arguments_are_usage_errors_and_write_nothing(
    run_ast: Run, data: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "Low").symlink_to(data / "Low")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    done = run_ast("finetune", *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_base_model_is_the_flag_else_ast_model_else_the_built_in_one(
    run_ast: Run, data: Path, tmp_path: Path
) -> None:
    probe = ("--freeze-encoder", "--epochs", "1", "--threads", "1", "--workers", "1")
    for name, flags, variable, base in (
        ("variable", (), "scratch:64x1", "scratch:64x1"),
        ("flag", ("--model", "scratch:64x2"), "scratch:64x1", "scratch:64x2"),
        ("neither", (), "", "builtin"),
    ):
        done = run_ast("finetune", str(data), "-o", name, *probe, *flags, cwd=tmp_path, AST_MODEL=variable)
        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path / name / "results.json").read_text())["base"] == base


def test_every_setting_is_a_flag(run_ast: Run) -> None:
    done = run_ast("finetune", "--help", COLUMNS="200")
    for name in settings():
        assert f"--{name.replace('_', '-')}" in done.stdout


def test_flags_of_version_0_1_still_work(run_ast: Run, data: Path, tmp_path: Path) -> None:
    older = (
        "--epochs",
        "1",
        "--normalise",
        "data",
        "--optimiser=muon",
        "--accumulate",
        "2",
        "--validation-share",
        "0.5",
    )
    command = ("finetune", str(data), "--output", "old", *TINY, *older)
    done = run_ast(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    settings_used = (tmp_path / "old" / "training_options.toml").read_text()
    for line in ('normalize = "data"', 'optimizer = "muon"', "gradient_accumulation = 2", "validation_fraction = 0.5"):
        assert line in settings_used
