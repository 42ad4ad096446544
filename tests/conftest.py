"""Small recordings and small checkpoints, made where they are needed."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from warm_python import CAN_FORK, WarmPython, libraries_for

if "PYTEST_XDIST_WORKER" in os.environ:  # threads of several processes that wait for each other cost tenfold
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"  # no test reaches a network by accident; the hub's tests set their own environment
os.environ["AST_CACHE"] = os.devnull  # no folder: what was measured on this machine changes no test
os.environ["AST_CONFIG"] = ""  # nor does an ast.toml of this machine
SAMPLING_RATE = 16000
RUN_TIMEOUT_S = 120
PORTABLE_MKL = "COMPATIBLE"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test of portable roundings in a process whose Intel MKL takes the same code on every processor.

    Where there is almost no energy the filter bank's values are rounding noise, which MKL's code for AVX2 and AVX-512
    makes otherwise on Intel's processors. MKL reads the choice once, before its first use.
    """
    if pyfuncitem.get_closest_marker("portable_roundings") is None or os.environ.get("MKL_CBWR") == PORTABLE_MKL:
        return None
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", pyfuncitem.nodeid]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    done = subprocess.run(
        command,
        env=clean | {"MKL_CBWR": PORTABLE_MKL},
        cwd=pyfuncitem.config.rootpath,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if "1 skipped" in done.stdout:
        pytest.skip("skipped in the process of its own")
    return True


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


@pytest.fixture(scope="session")
def warm_python() -> Iterator[Callable[[tuple[str, ...]], WarmPython | None]]:
    """Return a function that gives what runs the command without importing libraries, where that can be had."""
    with contextlib.ExitStack() as servers:

        @functools.cache
        def started(libraries: tuple[str, ...]) -> WarmPython | None:
            return servers.enter_context(WarmPython(libraries)) if CAN_FORK else None

        yield started


@pytest.fixture
def run_ast(
    tmp_path: Path, warm_python: Callable[[tuple[str, ...]], WarmPython | None]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs the command in a process of its own, away from the user's cache and choices."""

    def run(
        *arguments: str, cwd: Path | None = None, stdin: bytes = b"", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("AST_", "HF_"))}
        clean |= {
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
            "HF_HOME": str(tmp_path / "hf-home"),
            "HF_HUB_OFFLINE": "1",
            "AST_CACHE": os.devnull,
            **environment,
        }
        words, folder = [str(argument) for argument in arguments], str(cwd or Path.cwd())
        changes_python = any(name.startswith("PYTHON") for name in environment)
        python = None if changes_python else warm_python(libraries_for(words))
        if python is not None:
            done = python.run(words, stdin=stdin, cwd=folder, env=clean, timeout_s=RUN_TIMEOUT_S)
        else:
            command = [sys.executable, "-m", "ast_cli", *words]
            done = subprocess.run(
                command, input=stdin, capture_output=True, cwd=folder, env=clean, timeout=RUN_TIMEOUT_S, check=False
            )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8", "replace")
        )

    return run
