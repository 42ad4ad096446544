"""Every engine gives the torch engine's logits without importing torch, and a missing one is an error with a remedy."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tiny_engines import CONFIGURATIONS, each_engine, features, save_tiny

from ast_cli import ASTForAudioClassification, Tagger
from ast_cli.engine import choice
from ast_cli.engine.choice import load_engine, resolve_engine
from ast_cli.engine.graph.builder import GraphBuilder
from ast_cli.engine.graph.onnx_file import onnx_chunks, weight_chunks
from ast_cli.engine.options import EngineOptions
from ast_cli.engine.torch.torch_engine import TorchEngine
from ast_cli.errors import CheckpointError, DeviceError, EngineMissingError, UsageError
from ast_cli.model.arrays import load_arrays

TOLERANCE = 1e-4  # float32 logits of two runtimes, which fuse and sum in other orders
HALF_TOLERANCE = 2e-2  # float16 keeps 11 significant bits
SAMPLE = Path(__file__).resolve().parents[2] / "sample_audio" / "dog.wav"


@each_engine
@pytest.mark.parametrize("changes", CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_logits_equal_the_torch_engines_for_every_architecture_and_batch_size(
    tmp_path: Path, engine: Any, changes: dict[str, Any]
) -> None:
    folder = save_tiny(tmp_path, **changes)
    torch_engine = TorchEngine.load(folder, device="cpu")
    other = load_engine(folder, EngineOptions(engine, unnamed_labels=True))
    assert other.config == torch_engine.config
    assert (other.name, other.device_name, other.dtype_name) == (engine, "cpu", "float32")
    for batch in (1, 3, 2):
        x = features(other.config, batch)
        logits = other.logits(x)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, torch_engine.logits(x), rtol=0, atol=TOLERANCE)


@each_engine
def test_logits_of_the_builtin_model_equal_the_torch_engines(engine: Any) -> None:
    torch_engine = TorchEngine.load("builtin", device="cpu")
    other = load_engine("builtin", EngineOptions(engine, num_threads=1))
    x = features(other.config, 3)
    np.testing.assert_allclose(other.logits(x), torch_engine.logits(x), rtol=0, atol=TOLERANCE)


@each_engine
def test_classify_gives_the_same_and_imports_no_torch(engine: str, run_ast: Callable[..., Any], tmp_path: Path) -> None:
    program = (
        "import sys\nfrom ast_cli.cli import main\n"
        "try:\n    main()\nfinally:\n"
        "    print(sorted({'torch', 'transformers', 'sklearn'} & sys.modules.keys()), file=sys.stderr)\n"
    )
    arguments = ["classify", str(SAMPLE), "--model", "builtin", "--format", "json", "--top-k", "10", "--timestamps"]
    arguments += ["--events", "--threshold", "0.01"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments, "--engine", engine], capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == "[]"
    (ours,) = json.loads(done.stdout)
    (expected,) = json.loads(run_ast(*arguments, "--engine", "torch").stdout)
    assert [tag["label"] for tag in ours["tags"]] == [tag["label"] for tag in expected["tags"]]
    for mine, theirs in zip(ours["tags"], expected["tags"], strict=True):
        assert mine["score"] == pytest.approx(theirs["score"], abs=TOLERANCE)
    assert [event["label"] for event in ours["events"]] == [event["label"] for event in expected["events"]]


@each_engine
def test_logits_that_are_not_finite_are_an_error(tmp_path: Path, engine: Any) -> None:
    import torch

    model = ASTForAudioClassification.from_pretrained(save_tiny(tmp_path))
    torch.nn.init.constant_(model.head.fc.weight, 3e38)
    model.save_pretrained(tmp_path)
    loaded = load_engine(tmp_path, EngineOptions(engine))
    with pytest.raises(CheckpointError, match="outputs are not finite in float32"):
        loaded.logits(features(loaded.config, 1))


@each_engine
def test_unsupported_devices_and_types_are_refused_naming_an_alternative(engine: Any) -> None:
    with pytest.raises(DeviceError, match=f"the {engine} engine runs on the CPU, not on cuda:0; use --engine torch"):
        load_engine("builtin", EngineOptions(engine, device="cuda:0"))
    with pytest.raises(DeviceError, match=f"the {engine} engine computes in .*, not in float16; use --engine torch"):
        load_engine("builtin", EngineOptions(engine, dtype="float16"))
    tagger = Tagger.from_pretrained("builtin", engine=engine)
    with pytest.raises(UsageError, match=f"the {engine} engine computes only logits"):
        tagger.extract(SAMPLE, what="embedding")
    assert tagger.extract(SAMPLE, what="logits").main.shape == (tagger.config.num_labels,)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_engine_that_is_not_installed_is_an_error_naming_the_remedy(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "is_installed", lambda _package: False)
    with pytest.raises(EngineMissingError, match=rf"pip install {engine}, or choose another engine") as raised:
        load_engine("builtin", EngineOptions(engine))
    assert raised.value.exit_code == 2
    assert resolve_engine(EngineOptions("auto")) == "torch"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu sse2 avx512f avx512_bf16 amx_tile", True),
        ("fpu sse2 avx512f amx_bf16 amx_tile", True),
        ("fpu sse2 avx512f avx512_fp16 amx_tile", False),
        ("fpu not_avx512_bf16 avx512_bf16_not", False),
        ("", False),
    ],
)
def test_bfloat16_support_is_read_from_the_flags_of_linux(
    tmp_path: Path, flags: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    processors = [f"processor\t: {number}\nmodel name\t: A CPU\nflags\t\t: {flags}\n\n" for number in range(2)]
    monkeypatch.setattr(choice, "CPU_INFO", tmp_path / "cpuinfo")
    assert not choice.multiplies_bfloat16()  # no such file: no Linux
    choice.CPU_INFO.write_text("".join(processors))
    assert choice.multiplies_bfloat16() == expected


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is missing")
@pytest.mark.skipif(not choice.CPU_INFO.exists(), reason="needs /proc/cpuinfo of Linux")
def test_auto_never_chooses_a_data_type_that_openvino_refuses() -> None:
    from ast_cli.engine.graph.openvino_engine import has_bfloat16, the_core

    if has_bfloat16(the_core()):  # OpenVINO may detect more than Linux reports
        pytest.skip("openvino refuses no bfloat16 on this processor")
    assert resolve_engine(EngineOptions("auto", "cpu", "bfloat16")) == "torch"


def test_an_unknown_engine_is_refused(run_ast: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="--engine must be one of torch, compile"):
        EngineOptions("tensorflow")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="--threads must be from 1 to 1024, not 0"):
        EngineOptions(num_threads=0)
    done = run_ast("classify", str(SAMPLE), "--engine", "tensorflow")
    assert done.returncode == 2


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("changes", CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_files_are_valid_onnx(tmp_path: Path, changes: dict[str, Any], dtype: str) -> None:
    weights, config = load_arrays(save_tiny(tmp_path, **changes))
    graph = GraphBuilder(config, weights, dtype).build()
    graph.metadata["labels"] = "a, b, ü"
    model = onnx.load_from_string(b"".join(onnx_chunks(graph, "ast 1.2")))
    onnx.checker.check_model(model, full_check=True)
    assert (model.producer_name, model.producer_version) == ("ast", "1.2")
    assert {entry.key: entry.value for entry in model.metadata_props} == {"labels": "a, b, ü"}
    (spectrogram,), (logits,) = model.graph.input, model.graph.output
    assert [d.dim_param or d.dim_value for d in spectrogram.type.tensor_type.shape.dim] == ["batch", 60, 32]
    assert [d.dim_param or d.dim_value for d in logits.type.tensor_type.shape.dim] == ["batch", 3]


def test_a_model_with_weights_in_a_second_file_gives_the_same_logits(tmp_path: Path) -> None:
    weights, config = load_arrays(save_tiny(tmp_path / "model"))
    graph = GraphBuilder(config, weights).build()
    whole = onnx.load_from_string(b"".join(onnx_chunks(graph, "ast")))
    (tmp_path / "model.onnx").write_bytes(b"".join(onnx_chunks(graph, "ast", "w.bin")))
    (tmp_path / "w.bin").write_bytes(b"".join(weight_chunks(graph)))
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    apart = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    outside = [tensor for tensor in apart.graph.initializer if tensor.external_data]
    assert 0 < len(outside) < len(apart.graph.initializer)
    offsets = [int(entry.value) for tensor in outside for entry in tensor.external_data if entry.key == "offset"]
    assert all(offset % 64 == 0 for offset in offsets)
    read = onnx.load(tmp_path / "model.onnx")
    for ours, expected in zip(read.graph.initializer, whole.graph.initializer, strict=True):
        assert ours.name == expected.name
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(ours), onnx.numpy_helper.to_array(expected))


def test_an_activation_function_is_refused_by_engines_without_torch(tmp_path: Path) -> None:
    weights, config = load_arrays(save_tiny(tmp_path))
    config.hidden_act = abs
    with pytest.raises(CheckpointError, match="only the torch engine can run"):
        GraphBuilder(config, weights).build()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own compiler
def test_compiled_logits_equal_the_torch_engines_and_kernels_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AST_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    folder = save_tiny(tmp_path / "model", num_hidden_layers=1)
    said: list[str] = []
    engine = load_engine(folder, EngineOptions("compile", device="cpu"), said.append)
    torch_engine = TorchEngine.load(folder, device="cpu")
    for batch in (2, 2, 1):
        x = features(engine.config, batch)
        np.testing.assert_allclose(engine.logits(x), torch_engine.logits(x), rtol=0, atol=TOLERANCE)
    assert len(said) == 2
    assert any((tmp_path / "cache" / "kernels").iterdir())


def test_the_compile_engine_without_a_compiler_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(EngineMissingError, match="needs a C\\+\\+ compiler"):
        load_engine("builtin", EngineOptions("compile", device="cpu"))


@each_engine
def test_the_number_of_threads_is_used_and_reported_in_facts(engine: Any) -> None:
    one, two = (load_engine("builtin", EngineOptions(engine, num_threads=number)) for number in (1, 2))
    assert (one.facts["threads"], two.facts["threads"]) == ("1", "2")


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is missing")
def test_only_float32_graphs_for_openvino_have_an_operation_after_the_mlp(tmp_path: Path) -> None:
    from ast_cli.engine.graph.openvino_engine import OpenVinoEngine

    weights, config = load_arrays(save_tiny(tmp_path))
    found = {}
    for dtype in ("auto", "float32", "bfloat16"):
        nodes = OpenVinoEngine.builder_for(dtype)(config, weights).build().nodes
        added = [node for node in nodes if node.operator == "LeakyRelu"]
        found[dtype] = len(added)
        assert all(node.attributes == {"alpha": 1.0} for node in added)  # which changes nothing
    assert found == {"auto": 3, "float32": 3, "bfloat16": 0}
