from __future__ import annotations

import csv
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ast_cli.dataset.examples import Example
from ast_cli.errors import ErrorCode
from ast_cli.evaluation.evaluate import Evaluation, FailedExample, ModelResult
from ast_cli.evaluation.metrics import Metrics, multi_label_metrics, single_label_metrics
from ast_cli.evaluation.table import evaluation_text
from ast_cli.results import FileError

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path, write_wav: Callable[..., Path]) -> Path:
    """A folder per class of the built-in model, with one file that is no audio."""
    for name in ("Rain/a.wav", "Rain/b.wav", "Bark/c.wav", "Bark/d.wav"):
        write_wav(f"clips/{name}", 0.5)
    (tmp_path / "clips/Bark/e.wav").write_text("no audio")
    return tmp_path / "clips"


def test_single_label_data_from_clips_to_thresholds_that_classify_reads(folder: Path, run_ast: Run) -> None:
    thresholds, plot, predictions = (folder.parent / name for name in ("t.json", "p.png", "p.csv"))
    files = ["--thresholds-output", str(thresholds), "--plot", str(plot), "--predictions", str(predictions)]
    done = run_ast("evaluate", str(folder), "--model", "builtin", "--format", "json", *files)
    assert done.returncode == 3, done.stderr
    assert f"error: {folder}/Bark/e.wav" in done.stderr
    record = json.loads(done.stdout, parse_constant=pytest.fail)
    assert (record["schema_version"], record["type"], record["problem"]) == (1, "evaluation", "single_label")
    assert (record["num_examples"], record["num_failed"], len(record["failures"])) == (4, 1, 1)
    assert sum(map(sum, record["confusion_matrix"]["counts"])) == 4
    assert sum(each["num_scores"] for each in record["calibration"]["bins"]) == 4  # of the predicted labels
    assert plot.read_bytes().startswith(b"\x89PNG")

    values = {label: found["threshold"] for label, found in json.loads(thresholds.read_text())["labels"].items()}
    assert set(values) == {"Rain", "Bark"}
    rows = [row for row in csv.DictReader(predictions.read_text().splitlines()) if not row["error_code"]]
    arguments = ["classify", str(folder / "Rain"), str(folder / "Bark"), "--model", "builtin", "--format", "jsonl"]
    tags = run_ast(*arguments, "--thresholds", str(thresholds), "--quiet")
    kept = {record["path"]: record["tags"] for record in map(json.loads, tags.stdout.splitlines())}
    for row in rows:
        reached = {label for label, value in values.items() if float(row[label]) >= value}
        found = {tag["label"] for tag in kept[row["path"]] if tag["label"] in values}
        assert found == reached


def test_several_labels_an_ensemble_and_a_table_in_a_file(folder: Path, run_ast: Run) -> None:
    manifest, output = folder / "data.csv", folder.parent / "result.txt"
    manifest.write_text("path,labels,split\nRain/a.wav,Rain,test\nRain/b.wav,Rain;Bark,test\nBark/c.wav,,test\n"
                        "Bark/d.wav,Bark,train\n")  # fmt: skip
    models = ["--model", "builtin", "--model", "builtin"]
    done = run_ast("evaluate", str(manifest), *models, "--split", "test", "--output", str(output), "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    text = output.read_text()
    assert text.startswith(f"builtin + builtin on {manifest}: 3 examples of 2 classes\nmAP ")
    assert "mean of their scores" in text
    assert "519 labels have no examples and are not included in the means" in text


def test_the_suffix_of_output_chooses_the_format_unless_format_does(folder: Path, run_ast: Run) -> None:
    for name, arguments in (("by-name.json", ()), ("table.json", ("--format", "table")), ("x", ("--format", "json"))):
        done = run_ast("evaluate", "clips", "--model", "builtin", "--output", name, *arguments, cwd=folder.parent)
        assert done.returncode == 3  # one of the files is no audio
    by_name, table, by_format = ((folder.parent / name).read_text() for name in ("by-name.json", "table.json", "x"))
    assert json.loads(by_name) == json.loads(by_format)
    assert table.startswith("builtin on clips: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "dev"], "has no examples of the split 'dev'"),
        (["--fold", "one"], "--fold takes whole numbers with commas between them, not 'one'"),
        (["--plot", "x.jpg"], "name a file that ends in .png"),
        (["--predictions", "x.txt"], "name a file that ends in .jsonl or .csv"),
        (["--output", "no/such/x.json"], "the folder no/such does not exist"),
        (["--output", "clips"], "is a folder"),
        (
            ["--output", "x.jsonl"],
            "--output x.jsonl: .jsonl is not a supported format; name a file that ends in .json or .txt",
        ),
        (["--output", "old.json"], "exists: add --force"),
        (["--output", "clips/Rain/a.wav", "--format", "json", "--force"], "is part of the data"),
        (["--plot", os.devnull, "--force"], "is not a regular file"),
        (["--output", "new.json", "--thresholds-output", "new.json"], "name the same file"),
        (["--workers", "-1"], "workers must be from 0"),
        (["--model", ""], "--model is empty: name a model"),
    ],
)
def test_usage_errors_are_one_sentence(folder: Path, run_ast: Run, arguments: list[str], message: str) -> None:
    (folder.parent / "old.json").write_text("{}")
    done = run_ast("evaluate", "clips", *arguments, cwd=folder.parent)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_run_that_can_score_no_example_fails(tmp_path: Path, run_ast: Run) -> None:
    for name in ("Rain/a.wav", "Bark/b.wav"):
        path = tmp_path / "clips" / name
        path.parent.mkdir(parents=True)
        path.write_text("no audio")
    done = run_ast("evaluate", "clips", "--model", "builtin", "--workers", "0", "--output", "x.json", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: none of 2 examples could be scored")
    assert not (tmp_path / "x.json").exists()


def evaluation(*metrics: Metrics, scores: np.ndarray, targets: np.ndarray) -> Evaluation:
    examples = tuple(Example(f"{row}.wav", ("Rain",)) for row in range(len(scores)))
    failure = FailedExample(Example("bad.wav", ("Rain",)), FileError(ErrorCode.NOT_AUDIO, "bad.wav: no audio"))
    models = tuple(ModelResult(f"m{i}", result) for i, result in enumerate(metrics[:-1] or metrics))
    return Evaluation("clips", models, metrics[-1], examples, (failure,), 2, ("Rain", "Bark", "C"), scores, targets)


def test_the_table_of_single_label_data() -> None:
    scores, targets = np.eye(3, dtype=np.float32)[[0, 0, 1, 0]], np.array([0, 0, 1, 1])
    metrics = single_label_metrics(scores, targets, ["Rain", "Ba\x1brk", "C"])
    assert evaluation_text(evaluation(metrics, scores=scores, targets=targets)) == (
        "m0 on clips: 4 examples of 2 classes, 1 failed, 2 with unknown labels left out\n"
        "accuracy 75.00% (95 % confidence: 30.06% to 95.44%), macro F1 0.7333\n"
        "expected calibration error 0.2500\n"
        "\n"
        "class     examples  precision  recall      F1\n"
        "Rain             2     0.6667  1.0000  0.8000\n"
        "Ba\\x1brk         2     1.0000  0.5000  0.6667\n"
        "\n"
        "most frequent mistakes\n"
        "     1  Ba\\x1brk predicted as Rain\n"
        "\n"
        "1 label has no examples and is not included in the means: C\n"
    )


def test_the_table_of_multi_label_data_and_an_ensemble() -> None:
    scores = np.array([[0.9, 0.8, 0.1], [0.7, 0.9, 0.1], [0.1, 0.2, 0.1]], np.float32)
    targets = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 1]], bool)
    metrics = multi_label_metrics(scores, targets, ["Rain", "Bark", "C"])
    text = evaluation_text(evaluation(metrics, metrics, metrics, scores=scores, targets=targets))
    assert text == (
        "m0 + m1 on clips: 3 examples of 3 classes, 1 failed, 2 with unknown labels left out\n"
        "mAP 0.8333, AUC 0.7500, d' 0.9539, lwlrap 0.7500\n"
        "expected calibration error 0.4556\n"
        "\n"
        "model                 examples     mAP     AUC      d'  lwlrap\n"
        "m0                           3  0.8333  0.7500  0.9539  0.7500\n"
        "m1                           3  0.8333  0.7500  0.9539  0.7500\n"
        "mean of their scores         3  0.8333  0.7500  0.9539  0.7500\n"
        "\n"
        "class  examples      AP     AUC      d'\n"
        "Rain          2  1.0000  1.0000       -\n"
        "C             3  1.0000       -       -\n"
        "Bark          1  0.5000  0.5000  0.0000\n"
    )
