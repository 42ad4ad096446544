"""The choice of the engine by the request, the machine and the installed packages."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_engines import save_tiny

from ast_cli import Tagger
from ast_cli.engine import choice
from ast_cli.engine.choice import auto_engines, engines_for, load_engine, resolve_engine
from ast_cli.engine.graph.model_cache import can_keep_models
from ast_cli.engine.options import EngineOptions
from ast_cli.errors import EngineMissingError

BOTH = "openvino onnxruntime"
SAMPLE = Path(__file__).resolve().parents[2] / "sample_audio" / "dog.wav"
needs_onnxruntime = pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="it is missing")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that describes a machine: its packages beside torch, and whether it has a GPU and bfloat16."""

    def describe(installed: str = BOTH, *, gpu: bool = False, bfloat16: bool = False) -> None:
        monkeypatch.setattr(choice, "is_installed", lambda package: package in ["torch", *installed.split()])
        monkeypatch.setattr(choice, "has_gpu", lambda: gpu)
        monkeypatch.setattr(choice, "multiplies_bfloat16", lambda: bfloat16)

    return describe


def test_auto_is_the_default() -> None:
    assert EngineOptions().engine == "auto"


@pytest.mark.parametrize(
    ("options", "has", "expected"),
    [
        ({}, {}, "openvino onnxruntime torch"),
        ({}, {"installed": "onnxruntime"}, "onnxruntime torch"),
        ({}, {"installed": ""}, "torch"),
        ({"device": "cpu"}, {}, "openvino onnxruntime torch"),
        ({}, {"gpu": True}, "torch"),
        ({"device": "cpu"}, {"gpu": True}, "openvino onnxruntime torch"),
        ({"device": "cuda"}, {}, "torch"),
        ({"device": "cuda:1"}, {}, "torch"),
        ({"device": "mps"}, {}, "torch"),
        ({"attn_implementation": "eager"}, {}, "torch"),
        ({"dtype": "float32"}, {}, "openvino onnxruntime torch"),
        ({"dtype": "fp32"}, {}, "openvino onnxruntime torch"),
        ({"dtype": "float16"}, {"bfloat16": True}, "torch"),
        ({"dtype": "fp16"}, {"bfloat16": True}, "torch"),
        ({"dtype": "tf32"}, {"bfloat16": True}, "torch"),
        ({"dtype": "bf16"}, {"bfloat16": True}, "openvino torch"),
        ({"dtype": "bfloat16"}, {"bfloat16": True, "installed": "onnxruntime"}, "torch"),
        ({"dtype": "bfloat16"}, {"bfloat16": True, "gpu": True}, "torch"),
        ({"dtype": "bfloat16"}, {}, "torch"),
        ({"num_threads": 1, "unnamed_labels": True}, {}, "openvino onnxruntime torch"),
    ],
)
def test_auto_depends_on_request_machine_and_packages(
    options: dict[str, Any], has: dict[str, Any], expected: str, machine: Callable[..., None]
) -> None:
    machine(**has)
    assert auto_engines(EngineOptions(**options)) == tuple(expected.split())
    assert resolve_engine(EngineOptions(**options)) == expected.split()[0]


@pytest.mark.parametrize("engine", ["torch", "compile", "onnxruntime", "openvino"])
def test_a_named_engine_is_taken_whatever_the_machine(engine: Any, machine: Callable[..., None]) -> None:
    for gpu in (False, True):
        machine(gpu=gpu)
        assert engines_for("builtin", EngineOptions(engine)) == (engine,)


def test_a_large_checkpoint_that_would_be_converted_at_each_run_is_run_by_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: Callable[..., None]
) -> None:
    machine()
    folder = save_tiny(tmp_path / "model")
    (tmp_path / "file").touch()
    for cache, limit, expected in (
        (tmp_path / "file" / "cache", 0, "torch"),
        (tmp_path / "file" / "cache", choice.LARGE_CHECKPOINT_BYTES, "openvino"),
        (tmp_path / "cache", 0, "openvino"),
    ):
        monkeypatch.setenv("AST_CACHE", str(cache))
        monkeypatch.setattr(choice, "LARGE_CHECKPOINT_BYTES", limit)
        assert engines_for(folder, EngineOptions())[0] == expected
    assert not (tmp_path / "cache").exists()  # it was only looked for


def test_models_can_be_kept_where_their_folder_can_be_made_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for folder, expected in ((tmp_path, True), (tmp_path / "a" / "b", True), (tmp_path / "file" / "a", False)):
        monkeypatch.setenv("AST_CACHE", str(folder))
        assert can_keep_models() == expected
    monkeypatch.setattr(os, "access", lambda folder, _mode: Path(folder) != tmp_path)
    monkeypatch.setenv("AST_CACHE", str(tmp_path / "a"))
    assert not can_keep_models()


VERSIONS = "__version__ = '2.13.0'\ndebug = False\n{}\ngit_version = 'cf30153'\n"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("cuda: Optional[str] = None\nhip: Optional[str] = None", None),
        ("cuda: Optional[str] = '12.6'\nhip: Optional[str] = None", "cuda"),
        ("cuda = '11.8'\nhip = None", "cuda"),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '6.4.43482'", "hip"),
        ("cuda = None\nhip = None\nxpu: Optional[str] = '20250101'", None),
    ],
)
def test_what_torch_was_built_for_is_read_from_its_file(
    lines: str, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: SimpleNamespace(origin=str(tmp_path / "init.py")))
    assert choice.torch_gpu_build() == "cuda"  # without the file, whether there is a CUDA device decides
    (tmp_path / "version.py").write_text(VERSIONS.format(lines))
    assert choice.torch_gpu_build() == expected
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert choice.torch_gpu_build() is None


def test_the_file_of_this_torch_says_what_torch_says() -> None:
    torch = pytest.importorskip("torch")
    expected = "cuda" if torch.version.cuda else "hip" if torch.version.hip else None
    if torch.backends.mps.is_built():
        expected = "mps"
    assert choice.torch_gpu_build() == expected
    assert choice.has_gpu() == (torch.cuda.is_available() or torch.backends.mps.is_available())


@pytest.mark.parametrize(("machine_name", "expected"), [("arm64", "mps"), ("x86_64", None)])
def test_torch_on_a_mac_finds_the_gpu_of_apples_processor(
    machine_name: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(choice.platform, "machine", lambda: machine_name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: SimpleNamespace(origin="torch/__init__.py"))
    assert choice.torch_gpu_build() == expected
    assert choice.has_gpu() == (expected == "mps")


@pytest.mark.parametrize(
    ("init_code", "count_code", "count", "expected"), [(0, 0, 2, 2), (0, 0, 0, 0), (100, 0, 2, 0), (0, 3, 2, 0)]
)
def test_cuda_devices_are_counted_by_the_driver(
    init_code: int, count_code: int, count: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count_devices(number: Any) -> int:
        number._obj.value = count
        return count_code

    driver = SimpleNamespace(cuInit=lambda _flags: init_code, cuDeviceGetCount=count_devices)
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: driver)
    monkeypatch.setattr(choice, "torch_gpu_build", lambda: "cuda")
    assert choice.num_cuda_devices() == expected
    assert choice.has_gpu() == (expected > 0)


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(choice, "CUDA_DRIVER", "libno-such-driver.so.1")
    monkeypatch.setattr(choice, "CUDA_DRIVERS", {})
    monkeypatch.setattr(choice, "AMD_GPU_DRIVER", tmp_path / "kfd")
    for build in ("cuda", "hip", None):
        monkeypatch.setattr(choice, "torch_gpu_build", lambda build=build: build)
        assert not choice.has_gpu()
    (tmp_path / "kfd").touch()
    monkeypatch.setattr(choice, "torch_gpu_build", lambda: "hip")
    assert choice.has_gpu()


def run_with_broken(packages: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command where packages are installed but raise when they are imported."""
    for package in packages.split():
        (folder / f"{package}.py").write_text("raise ImportError('libstdc++.so.6: too old\\nsecond line')\n")
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-m", "ast_cli", *arguments, "--device", "cpu"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_runtimes_that_cannot_be_imported_leave_the_default_to_torch(tmp_path: Path) -> None:
    arguments = ["classify", str(SAMPLE), "--model", "builtin", "--format", "jsonl"]
    broken = run_with_broken(BOTH, tmp_path, *arguments)
    assert (broken.returncode, broken.stderr) == (0, "")
    named = run_with_broken(BOTH, tmp_path, *arguments, "--engine", "torch")
    assert broken.stdout == named.stdout
    refused = run_with_broken(BOTH, tmp_path, *arguments, "--engine", "onnxruntime")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        "error: onnxruntime is installed but cannot be imported (libstdc++.so.6: too old): install it again, or use "
        "--engine torch\n"
    )


@needs_onnxruntime
def test_a_runtime_that_cannot_be_imported_leaves_the_default_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    importable = choice.runtime_engine

    def without_openvino(name: Any) -> Any:
        if name == "openvino":
            raise EngineMissingError("openvino cannot be imported")
        return importable(name)

    monkeypatch.setattr(choice, "auto_engines", lambda _options: ("openvino", "onnxruntime", "torch"))
    monkeypatch.setattr(choice, "runtime_engine", without_openvino)
    assert load_engine("builtin", EngineOptions()).name == "onnxruntime"


@needs_onnxruntime
def test_the_python_default_extracts_what_torch_alone_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "auto_engines", lambda _options: ("onnxruntime", "torch"))
    tagger, in_torch = (Tagger.from_pretrained("builtin", engine=name, device="cpu") for name in ("auto", "torch"))
    assert tagger.engine.name == "onnxruntime"
    for what in ("embedding", "attentions", "hidden-states", "logits"):
        ours, expected = (each.extract(SAMPLE, what=what).main for each in (tagger, in_torch))
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-3 if what == "hidden-states" else 1e-4)
    assert tagger.engine.name == "onnxruntime"
