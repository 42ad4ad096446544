"""Making features alike changes no result, and what is rounded afterwards is nearer to the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_engines import CONFIGURATIONS, features, save_tiny

from ast_cli import ASTConfig
from ast_cli.engine.choice import EngineOptions
from ast_cli.engine.graph import GraphBuilder
from ast_cli.engine.quantisation import CalibratedBuilder, calibrate, smoothed
from ast_cli.model.arrays import Weights, load_arrays
from ast_cli.model.layout import ENCODER_PREFIX

pytest.importorskip("onnxruntime")


def logits_of(builder: GraphBuilder, config: ASTConfig, x: NDArray[np.float32]) -> NDArray[np.float32]:
    from ast_cli.engine.onnxruntime_engine import OnnxRuntimeEngine

    return OnnxRuntimeEngine.from_graph(builder.build(), config, EngineOptions("onnxruntime")).logits(x)


def with_wide_features(weights: Weights, num_layers: int) -> dict[str, NDArray[Any]]:
    """Return the weights of an equal model in which some features are far wider than others, as in trained ones."""
    widened = dict(weights)
    for i in range(num_layers):
        for layer, norm in (("attn.qkv", "norm1"), ("mlp.fc1", "norm2")):
            name = f"{ENCODER_PREFIX}blocks.{i}."
            width = np.where(np.arange(len(weights[f"{name}{norm}.weight"])) % 7 == 0, 20, 1).astype(np.float32)
            widened[f"{name}{layer}.weight"] = weights[f"{name}{layer}.weight"] / width
            for part in ("weight", "bias"):
                widened[f"{name}{norm}.{part}"] = weights[f"{name}{norm}.{part}"] * width
    return widened


@pytest.mark.parametrize("changes", CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_features_made_alike_give_the_same_logits(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = save_tiny(tmp_path, **changes)
    weights, config = load_arrays(folder)
    before = {name: array.copy() for name, array in weights.items()}
    x = features(config, 3)
    ranges = calibrate(str(folder), [x])
    anew, narrower = smoothed(config, weights, ranges)
    expected = logits_of(GraphBuilder(config, weights), config, x)
    np.testing.assert_allclose(logits_of(GraphBuilder(config, anew), config, x), expected, rtol=0, atol=1e-4)
    assert all(np.array_equal(before[name], array) for name, array in weights.items())
    assert narrower.keys() == ranges.keys()
    for name, (low, high) in narrower.items():
        num_features = config.hidden_size if name.endswith((".q", ".k")) else weights[f"{name}.weight"].shape[1]
        assert low.shape == high.shape == (num_features,)
        assert (low <= 0).all()
        assert (high >= 0).all()


def test_wide_features_no_longer_drown_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ast_cli import ASTForAudioClassification

    folder = save_tiny(tmp_path)
    weights, config = load_arrays(folder)
    model = ASTForAudioClassification.from_pretrained(folder)
    widened = with_wide_features(weights, config.num_hidden_layers)
    model.load_state_dict({name: model.state_dict()[name].new_tensor(array) for name, array in widened.items()})
    model.save_pretrained(folder)
    x = features(config, 8)
    ranges = calibrate(str(folder), [x])
    expected = logits_of(GraphBuilder(config, widened), config, x)
    ours = logits_of(CalibratedBuilder(config, widened, ranges), config, x)
    monkeypatch.setattr("ast_cli.engine.quantisation.smoothed", lambda _config, weights, ranges: (weights, ranges))
    plain = logits_of(CalibratedBuilder(config, widened, ranges), config, x)
    errors = [float(np.square(logits - expected).mean()) for logits in (ours, plain)]
    assert errors[0] < 0.1 * errors[1]
