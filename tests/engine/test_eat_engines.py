"""Every engine gives the logits of EAT that a computation in NumPy gives, from its published files."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from eat_checkpoints import CONFIG, FRAMES, eat_features, eat_logits, eat_weights, write_eat
from onnx.reference import ReferenceEvaluator
from tiny_engines import each_engine, int8_name

from ast_cli import Tagger
from ast_cli.engine.choice import load_engine
from ast_cli.engine.graph.builder import GraphBuilder
from ast_cli.engine.graph.prepared import as_bytes
from ast_cli.engine.graph.quantization import CalibratedBuilder, DynamicBuilder, calibrate, smoothed
from ast_cli.engine.options import EngineOptions
from ast_cli.engine.torch import onednn
from ast_cli.engine.torch.compile_engine import COMPILERS
from ast_cli.engine.torch.torch_engine import TorchEngine
from ast_cli.errors import CheckpointError
from ast_cli.export import ExportOptions, export_model
from ast_cli.model.arrays import load_arrays

TOLERANCE = 1e-4  # float32 logits of two runtimes, which fuse and sum in other orders, as in test_engines.py
HALF_TOLERANCE = 2e-2
SAMPLES = Path(__file__).resolve().parents[2] / "sample_audio"
WEIGHTS = eat_weights()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_eat(tmp_path / "eat")


@each_engine
@pytest.mark.parametrize("changes", [{}, {"depth": 1}, {"qkv_bias": False}, {"hidden_act": "relu"}], ids=str)
def test_a_runtime_gives_the_logits_and_the_same_again_from_its_cache(
    tmp_path: Path, engine: Any, changes: dict[str, Any]
) -> None:
    folder = write_eat(tmp_path, **changes)
    torch_engine = TorchEngine.load(folder, device="cpu")
    for _ in range(2):  # converted, then from the cache
        loaded = load_engine(folder, EngineOptions(engine))
        assert loaded.config == torch_engine.config
        for batch in (1, 3, 2):
            x = eat_features(batch)
            expected = torch_engine.logits(x)
            if "hidden_act" not in changes:
                np.testing.assert_allclose(expected, eat_logits(x, eat_weights(CONFIG | changes)), rtol=0, atol=1e-4)
            np.testing.assert_allclose(loaded.logits(x), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="there is no C++ compiler")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own compiler
def test_the_compiled_model_gives_the_logits(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AST_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    loaded = load_engine(folder, EngineOptions("compile", device="cpu"))
    np.testing.assert_allclose(
        loaded.logits(eat_features(2)), eat_logits(eat_features(2), WEIGHTS), rtol=0, atol=TOLERANCE
    )


@pytest.mark.skipif(not onednn.is_available(), reason="this torch, or this processor, has no oneDNN operator")
@pytest.mark.parametrize("min_tokens", [0, 10_000], ids=["own attention", "torch's attention"])
def test_onednn_gives_the_logits(folder: Path, min_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "MIN_TOKENS", min_tokens)
    monkeypatch.setattr(onednn, "attends_in_blocks", lambda: True)
    engine = TorchEngine.load(folder, device="cpu")
    assert any(isinstance(module, onednn.OneDnnAttention) for module in engine.model.modules())
    x = eat_features()
    np.testing.assert_allclose(engine.logits(x), eat_logits(x, WEIGHTS), rtol=0, atol=TOLERANCE)
    assert engine.embeddings(x).shape == (3, CONFIG["embed_dim"])


def test_the_graph_is_valid_and_its_last_block_computes_one_row(folder: Path) -> None:
    weights, config = load_arrays(folder)
    for builder in (GraphBuilder(config, weights), GraphBuilder(config, weights, "float16")):
        model = onnx.load_from_string(as_bytes(builder.build()))
        onnx.checker.check_model(model, full_check=True)
    model = onnx.load_from_string(as_bytes(GraphBuilder(config, weights).build()))
    norms = [node.output[0] for node in model.graph.node if node.op_type == "LayerNormalization"]
    assert len(norms) == 1 + 2 * CONFIG["depth"] + 1  # before the blocks, in them, in the head
    model.graph.output.append(onnx.helper.make_tensor_value_info(norms[-2], onnx.TensorProto.FLOAT, None))
    logits, last_tokens = ReferenceEvaluator(model).run(None, {"input_values": eat_features()})
    assert last_tokens.shape == (3, 1, CONFIG["embed_dim"])
    np.testing.assert_allclose(logits, eat_logits(eat_features(), WEIGHTS), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("builder", [DynamicBuilder, CalibratedBuilder])
@each_engine
def test_int8_stays_close(folder: Path, engine: Any, builder: Any) -> None:
    from ast_cli.engine.choice import runtime_engine

    weights, config = load_arrays(folder)
    x = eat_features(16)
    extra = (calibrate(str(folder), [x]),) if builder is CalibratedBuilder else ()
    graph = builder(config, weights, *extra).build()
    options = EngineOptions(engine, dtype="float32")
    logits = runtime_engine(engine).from_graph(graph, config, options).logits(x)
    expected = eat_logits(x, WEIGHTS)
    assert np.abs(logits - expected).max() > 0
    assert np.corrcoef(logits.ravel(), expected.ravel())[0, 1] > 0.99


def test_equalizing_ranges_keeps_the_sums_of_a_post_norm_block(folder: Path) -> None:
    weights, config = load_arrays(folder)
    x = eat_features()
    ranges = calibrate(str(folder), [x])
    equalized, narrower = smoothed(config, weights, ranges)
    assert narrower.keys() == ranges.keys()
    changed = {name.split("blocks.")[1][2:] for name in weights if not np.array_equal(weights[name], equalized[name])}
    assert changed == {"attn.qkv.weight", "attn.qkv.bias", "attn.proj.weight"}
    from ast_cli.engine.graph.onnxruntime_engine import OnnxRuntimeEngine

    graph = GraphBuilder(config, equalized).build()
    logits = OnnxRuntimeEngine.from_graph(graph, config, EngineOptions("onnxruntime")).logits(x)
    np.testing.assert_allclose(logits, eat_logits(x, WEIGHTS), rtol=0, atol=TOLERANCE)


def test_ranges_are_those_of_the_inputs_of_the_layers(folder: Path) -> None:
    from eat_checkpoints import eat_tokens

    x = eat_features()
    ranges = calibrate(str(folder), [x[:1], x[1:]])
    states, _ = eat_tokens(x, WEIGHTS)
    for i, state in enumerate(states[:-1]):
        low, high = ranges[f"audio_spectrogram_transformer.blocks.{i}.attn.qkv"]
        np.testing.assert_allclose(low, np.minimum(state.min(axis=(0, 1)), 0), rtol=0, atol=1e-5)
        np.testing.assert_allclose(high, np.maximum(state.max(axis=(0, 1)), 0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("format_name", ["onnx", "openvino"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("as_file", [False, True], ids=["folder", "file"])
def test_an_exported_model_tags_like_its_checkpoint(
    folder: Path, tmp_path: Path, format_name: Any, dtype: Any, as_file: bool
) -> None:
    if format_name == "openvino" and importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    output = tmp_path / "out" / {"onnx": "model_of_eat.onnx", "openvino": "model_of_eat.xml"}[format_name]
    output = output if as_file else output.parent
    calibrate_on = {"calibrate": SAMPLES} if dtype == "int8" else {}
    exported = export_model(ExportOptions(str(folder), output, format_name, dtype, **calibrate_on))
    if not as_file:
        config = json.loads((output / "config.json").read_text())
        assert (config["model_type"], config["dtype"], config["img_size"]) == ("eat", dtype, [FRAMES, 32])
    engine = load_engine(exported.files[0], EngineOptions())
    assert engine.dtype_name == (int8_name(engine.name) if dtype == "int8" else dtype)
    x = eat_features()
    logits, expected = engine.logits(x), eat_logits(x, WEIGHTS)
    if dtype == "int8":
        assert np.corrcoef(logits.ravel(), expected.ravel())[0, 1] > 0.97
    else:
        np.testing.assert_allclose(logits, expected, rtol=0, atol={"float32": 1e-4, "float16": HALF_TOLERANCE}[dtype])
    tags = Tagger.from_pretrained(str(output)).classify(SAMPLES / "dog.wav", top_k=527)
    theirs = Tagger.from_pretrained(str(folder)).classify(SAMPLES / "dog.wav", top_k=527)
    scores = {tag.label: tag.score for tag in theirs.tags}
    differences = [abs(tag.score - scores[tag.label]) for tag in tags.tags]
    assert max(differences) < {"float32": 1e-4, "float16": 5e-3, "int8": 0.2}[dtype]


def test_a_pretrained_model_is_refused_by_every_engine(tmp_path: Path) -> None:
    folder = write_eat(tmp_path, model_variant="pretrain")
    for engine in ("torch", "onnxruntime"):
        with pytest.raises(CheckpointError, match="an encoder without a classification head"):
            load_engine(folder, EngineOptions(engine))
    with pytest.raises(CheckpointError, match="an encoder without a classification head"):
        export_model(ExportOptions(str(folder), tmp_path / "out"))


def test_the_command_tags_extracts_and_measures(folder: Path, tmp_path: Path, run_ast: Callable[..., Any]) -> None:
    sample = str(SAMPLES / "dog.wav")
    done = [
        json.loads(run_ast("classify", sample, "--model", str(folder), "--engine", engine, "--format", "json").stdout)[
            0
        ]
        for engine in ("torch", "onnxruntime")
    ]
    for mine, theirs in zip(done[0]["tags"], done[1]["tags"], strict=True):
        assert mine["label"] == theirs["label"]
        assert mine["score"] == pytest.approx(theirs["score"], abs=1e-4)
    for what, shape in (("embedding", (24,)), ("hidden-states", (4, 29, 24)), ("attentions", (3, 4, 29, 29))):
        output = tmp_path / f"{what}.npz"
        run_ast("extract", sample, "--model", str(folder), "--what", what, "--output", str(output))
        with np.load(output) as arrays:
            assert arrays[what.replace("-", "_")].shape[-len(shape) :] == shape
    measured = run_ast("benchmark", "--model", str(folder), "--repeats", "1", "--json", "--engine", "torch")
    assert json.loads(measured.stdout)["model"]["num_tokens"] == 29


def test_flop_are_counted_with_one_row_in_the_last_block(folder: Path) -> None:
    from ast_cli.benchmark.peers import flop_per_window

    _, config = load_arrays(folder)
    N, C, M = 29, 24, 60
    block = 4 * N * C * C + 2 * N * N * C + 2 * N * C * M
    last = 4 * C * C + 2 * 4 * N * C + 2 * C * M
    assert flop_per_window(config) == 2 * (28 * 64 * C + 2 * block + last + C * 527)


def test_comparing_with_transformers_is_refused(folder: Path) -> None:
    from ast_cli.benchmark.peers import load_model, load_references
    from ast_cli.errors import UsageError

    with pytest.raises(UsageError, match="transformers has no model of type eat; leave out --compare"):
        load_references(load_model(str(folder)), ["sdpa"])


def test_shared_weights_are_those_of_the_model(folder: Path) -> None:
    engine = TorchEngine.load(folder, device="cpu")
    assert torch.equal(
        engine.model.audio_spectrogram_transformer.pos_embed,
        torch.from_numpy(WEIGHTS["model.fixed_positional_encoder.positions"]),
    )
