from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import small_config
from typer.testing import CliRunner

from ast_cli import ASTFeatureExtractor
from ast_cli.benchmark import run as benchmark
from ast_cli.benchmark.options import BenchmarkOptions
from ast_cli.benchmark.peers import random_model
from ast_cli.benchmark.report import (
    BenchmarkReport,
    Machine,
    Measurement,
    ModelFacts,
    SpeedUp,
    StageTime,
)
from ast_cli.cli import app
from ast_cli.cli import benchmark as command
from ast_cli.errors import UsageError

REPORT = BenchmarkReport(
    Machine("Linux-6.1", "A processor", "cpu", "A processor", 2, {"python": "3.11.7", "torch": "2.13.0"}),
    ModelFacts("base", "random", 86_594_063, 1214, 10.24, 242_217_345_024),
    1.5e-6,
    (
        Measurement("ast", "torch", "sdpa", "float32", 1, 5, 2000.0, 12.5, 0.5, 0.1953125, 0.1211),
        Measurement("ast", "torch", "eager", "float32", 1, 5, 3000.0, 125.0, 0.3333333, 0.29296875, 0.0807),
        Measurement("transformers", "torch", "sdpa", "float32", 1, 5, 2100.0, 9.25, 0.4761905, 0.205078, 0.1243),
    ),
    (
        SpeedUp("float32", 1, "eager", "sdpa", 3000.0, 2000.0, 1.5),
        SpeedUp("float32", 1, "transformers sdpa", "sdpa", 2100.0, 2000.0, 1.05),
    ),
    (
        StageTime("decode", "cpu", 1, 12.5, 0.25, 800.0),
        StageTime("model", "cpu", 1, 1953.125, 12.2, 5.12),
    ),
)

EXPECTED_TEXT = """\
base: random weights, 86.6 M parameters, 1214 tokens, windows of 10.24 s with
  242 GFLOP
torch engine on cpu: A processor, 2 CPU thread(s)
Linux-6.1; python 3.11.7, torch 2.13.0
logits equal those of transformers within 1.5e-06 in float32

float32:

| Batch | Engine            |   ms | Spread | Windows/s |   RTF | TFLOP/s |
| ----: | ----------------- | ---: | -----: | --------: | ----: | ------: |
|     1 | torch sdpa        | 2000 |   12.5 |       0.5 | 0.195 |   0.121 |
|     1 | torch eager       | 3000 |    125 |     0.333 | 0.293 |  0.0807 |
|     1 | transformers sdpa | 2100 |   9.25 |     0.476 | 0.205 |   0.124 |

| dtype   | Batch | torch eager, ms | torch sdpa, ms | Speed-up |
| ------- | ----: | --------------: | -------------: | -------: |
| float32 |     1 |            3000 |           2000 |     1.50 |

| dtype   | Batch | transformers sdpa, ms | torch sdpa, ms | Speed-up |
| ------- | ----: | --------------------: | -------------: | -------: |
| float32 |     1 |                  2100 |           2000 |     1.05 |

| Stage  | Device | Batch | ms per 10 s of audio | Spread | x real time |
| ------ | ------ | ----: | -------------------: | -----: | ----------: |
| decode | cpu    |     1 |                 12.5 |   0.25 |         800 |
| model  | cpu    |     1 |                 1953 |   12.2 |        5.12 |

ms: median time of a batch. Spread: interquartile range.
RTF: real-time factor, processing time / audio time.
TFLOP/s: operations of matrix products; --json contains the formula.
"""


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[BenchmarkOptions]:
    """Replace the benchmark by a fixed report, and record the options it is called with."""
    calls: list[BenchmarkOptions] = []

    def answer(options: BenchmarkOptions, report_progress: Callable[[str], None]) -> BenchmarkReport:
        calls.append(options)
        report_progress("timing")
        return REPORT

    monkeypatch.setattr(benchmark, "run_benchmark", answer)
    return calls


def test_tables_are_aligned_text(requested: list[BenchmarkOptions]) -> None:
    result = CliRunner().invoke(app, ["benchmark"])
    assert (result.exit_code, result.stdout, result.stderr) == (0, EXPECTED_TEXT, "")
    assert requested == [BenchmarkOptions()]


def test_the_largest_numbers_and_longest_names_fit_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    largest = {"num_repeats": 3, "median_ms": 123456.7, "spread_ms": 123456.7, "windows_per_s": 1234.5}
    smallest = {"real_time_factor": 1.23e-5, "tflop_per_s": 1.23e-5}
    runners = [("ast", "torch", "sdpa"), ("ast", "compile", "eager"), ("transformers", "torch", "eager")]
    measurements = tuple(
        Measurement(*runner, dtype, 65536, **largest, **smallest)  # type: ignore[arg-type]
        for dtype in ("float32", "bfloat16")
        for runner in runners
    )
    speed_ups = (SpeedUp("bfloat16", 65536, "transformers eager", "compile eager", 123456.7, 123456.7, 1.0),)
    stages = (StageTime("decode", "cuda:10", 65536, 123456.7, 123456.7, 123456.7),)
    command.render(dataclasses.replace(REPORT, measurements=measurements, speed_ups=speed_ups, stages=stages))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line.endswith(":")] == ["float32:", "bfloat16:"]


def test_a_long_model_path_is_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    path = "/models/" + "-".join(["long"] * 20)
    command.render(dataclasses.replace(REPORT, model=dataclasses.replace(REPORT.model, name=path)))
    assert capsys.readouterr().out.splitlines()[0] == f"{path}:"


def test_json_output_is_only_the_report(requested: list[BenchmarkOptions]) -> None:
    result = CliRunner().invoke(app, ["benchmark", "--json"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == REPORT.to_dict()


def test_every_option_reaches_the_run(requested: list[BenchmarkOptions]) -> None:
    line = (
        "benchmark --model builtin --engine compile --attn eager,sdpa --dtype fp32,bf16 --batch-size 1,2,4,8 "
        "--device cuda:1 --compare transformers --repeats 7 --warmup 2 --threads 3"
    )
    assert CliRunner().invoke(app, line.split()).exit_code == 0
    expected = BenchmarkOptions(
        "builtin", "compile", ("eager", "sdpa"), ("fp32", "bf16"), (1, 2, 4, 8), "cuda:1", "transformers", 7, 2, 3
    )
    assert requested == [expected]


def test_progress_is_shown_only_on_a_terminal(
    requested: list[BenchmarkOptions], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    command.benchmark()
    assert terminal.getvalue() == "timing ...\n"
    assert capsys.readouterr().out == EXPECTED_TEXT  # and test_tables_are_aligned_text: nothing where it is piped


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-size", "1,x"], "--batch-size must be whole numbers separated by commas, not 'x'"),
        (["--batch-size", "1,-2"], "--batch-size must be whole numbers separated by commas, not '-2'"),
        (["--batch-size", ","], "--batch-size must name at least one number"),
        (["--attn", "flash"], "--attn must be one or more of sdpa, eager, not 'flash'"),
        (["--compare", "onnx"], "--compare must be transformers, not 'onnx'"),
    ],
)
def test_a_wrong_option_is_a_usage_error(requested: list[BenchmarkOptions], arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["benchmark", *arguments])
    assert isinstance(result.exception, UsageError)
    assert str(result.exception) == message
    assert requested == []


def test_a_real_run_keeps_stdout_for_the_document_and_warns_on_stderr(tmp_path: Path) -> None:
    random_model(small_config(num_labels=3)).save_pretrained(tmp_path)
    ASTFeatureExtractor(num_mel_bins=32, max_length=64).save_pretrained(tmp_path)
    options = "--dtype fp16 --device cpu --batch-size 2 --repeats 1 --threads 1 --json".split()
    line = [sys.executable, "-m", "ast_cli", "benchmark", "--model", str(tmp_path), *options]
    result = subprocess.run(line, capture_output=True, text=True, timeout=120, check=True)
    record = json.loads(result.stdout)
    cells = [(m["attn"], m["dtype"], m["batch_size"], m["num_repeats"]) for m in record["measurements"]]
    assert cells == [("sdpa", "float16", 2, 1), ("eager", "float16", 2, 1)]
    assert result.stderr == "warning: float16 is slow on a CPU; float32 or bfloat16 is faster there\n"
