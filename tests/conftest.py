"""Small recordings and small checkpoints, made where they are needed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

os.environ["HF_HUB_OFFLINE"] = "1"  # no test reaches a network by accident; the hub's tests set their own environment
os.environ["AST_CACHE"] = os.devnull  # no folder: what was measured on this machine changes no test
SAMPLING_RATE = 16000


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def write_wav(tmp_path: Path, rng: np.random.Generator) -> Callable[..., Path]:
    """Return a function that writes noise of a length in seconds to a file below tmp_path."""

    def write(name: str, duration_s: float = 1.0, sampling_rate: int = SAMPLING_RATE, num_channels: int = 1) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = 0.1 * rng.standard_normal((round(duration_s * sampling_rate), num_channels))
        soundfile.write(
            path, samples.astype(np.float32), sampling_rate, subtype="FLOAT" if path.suffix == ".wav" else None
        )
        return path

    return write


@pytest.fixture
def run_ast(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs the command in a process of its own, away from the user's cache and choices."""

    def run(
        *arguments: str, cwd: Path | None = None, stdin: bytes = b"", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("AST_", "HF_"))}
        clean |= {"HF_HOME": str(tmp_path / "hf-home"), "HF_HUB_OFFLINE": "1", **environment}
        done = subprocess.run(
            [sys.executable, "-m", "ast_cli", *arguments],
            input=stdin,
            capture_output=True,
            cwd=cwd,
            env=clean,
            timeout=120,
            check=False,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8", "replace")
        )

    return run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests that load OpenVINO last: with it in the process, a signal that a later test sends crashes Python."""
    items.sort(key=lambda item: item.path.name in ("test_engines.py", "test_export.py", "test_contestants.py"))
