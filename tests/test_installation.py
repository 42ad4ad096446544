"""A fresh installation works: every sample is tagged, and ``ast doctor`` finds nothing wrong.

These tests need no torch: `tests/newest.sh short` runs them without it, on ONNX Runtime.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from ast_cli.errors import ExitCode
from ast_cli.tagging.inputs import AUDIO_EXTENSIONS

ROOT = Path(__file__).parent.parent
HAS_TORCH = importlib.util.find_spec("torch") is not None


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ast_cli", *arguments]
    environment = {**os.environ, "AST_MODEL": "builtin"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200, check=False)


def test_every_sample_is_tagged() -> None:
    done = run("classify", str(ROOT / "sample_audio"), "--format", "jsonl", "--quiet")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    samples = {file.name for file in (ROOT / "sample_audio").iterdir() if file.suffix in AUDIO_EXTENSIONS}
    assert len(samples) > 10
    assert {Path(record["path"]).name: record["status"] for record in records} == dict.fromkeys(samples, "ok")
    assert (done.returncode, done.stderr) == (ExitCode.OK, "")


def test_doctor_finds_nothing_wrong_that_is_installed() -> None:
    done = run("doctor", "--json")
    document = json.loads(done.stdout)
    wrong = {check["engine"] for check in document["checks"] if not check["is_right"]} - {"torchaudio"}
    assert wrong == (set() if HAS_TORCH else {"torch"})
    assert done.returncode == (ExitCode.OK if HAS_TORCH else ExitCode.FATAL)


def test_the_file_of_oldest_versions_holds_the_least_that_pyproject_allows() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    needed = project["dependencies"] + [
        name for extra in ("onnxruntime", "openvino") for name in needed_by(project, extra)
    ]
    lines = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8").splitlines()
    oldest = dict(line.split("==") for line in lines if not line.startswith("#"))
    for requirement in needed:
        name, least = requirement.split(">=")
        version = oldest[name]
        assert version == least or version.removesuffix(".0") == least, requirement


def needed_by(project: dict[str, dict[str, list[str]]], extra: str) -> list[str]:
    return project["optional-dependencies"][extra]
