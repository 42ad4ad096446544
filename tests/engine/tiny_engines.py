"""Small checkpoints and features for tests of engines, and a parametrization over the installed engines."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_models import small_config

from ast_cli import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "one block, one head": {"num_hidden_layers": 1, "num_attention_heads": 1},
    "no biases": {"qkv_bias": False},
    "relu": {"hidden_act": "relu"},
    "selu": {"hidden_act": "selu"},
    "tanh gelu": {"hidden_act": "gelu_new"},
    "odd patches": {"patch_size": 7, "frequency_stride": 3, "time_stride": 11},
    "large epsilon": {"layer_norm_eps": 0.1},
}


def save_tiny(folder: Path, **changes: Any) -> Path:
    import torch

    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40}
    config = small_config(**{**sizes, "max_length": 60, "id2label": {0: "a", 1: "b", 2: "c"}, **changes})
    model = ASTForAudioClassification(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    ASTFeatureExtractor(num_mel_bins=32, max_length=60).save_pretrained(folder)
    return folder


def features(config: ASTConfig, batch: int) -> NDArray[np.float32]:
    shape = (batch, config.max_length, config.num_mel_bins)
    return np.random.default_rng(batch).standard_normal(shape).astype(np.float32)


def int8_name(engine: str) -> str:
    """Return the data type that an engine reports for an int8 model; OpenVINO adds bfloat16 if supported."""
    if engine == "openvino":
        from ast_cli.engine.graph.openvino_engine import has_bfloat16, the_core

        if has_bfloat16(the_core()):
            return "int8+bfloat16"
    return "int8"


def installed(engine: str) -> Any:
    missing = importlib.util.find_spec(engine) is None
    return pytest.param(engine, marks=pytest.mark.skipif(missing, reason=f"{engine} is not installed"))


each_engine = pytest.mark.parametrize("engine", [installed("onnxruntime"), installed("openvino")])
