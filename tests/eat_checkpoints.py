"""Small checkpoints of EAT in the layout that is published, and its computation in plain NumPy.

Written from the published description, without the code under test.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

Arrays = dict[str, NDArray[Any]]

WIDTH, DEPTH, HEADS, HIDDEN = 24, 3, 4, 60
PATCH, FRAMES, BINS, ROWS = 8, 56, 32, 11  # 7 x 4 patches, and positions for 11 x 4
CONFIG: dict[str, Any] = {
    "_name_or_path": "worstchan/EAT",
    "activation_dropout": 0.0,
    "architectures": ["EATModel"],
    "attn_drop_rate": 0.0,
    "auto_map": {"AutoConfig": "configuration_eat.EATConfig", "AutoModel": "modeling_eat.EATModel"},
    "depth": DEPTH,
    "drop_rate": 0.0,
    "embed_dim": WIDTH,
    "end_drop_path_rate": 0.0,
    "fixed_positions": True,
    "img_size": [FRAMES, BINS],
    "in_chans": 1,
    "layer_norm_first": False,
    "max_length": ROWS,
    "mel_bins": BINS,
    "mlp_ratio": 2.5,
    "model_type": "eat",
    "model_variant": "finetune",
    "norm_affine": True,
    "norm_eps": 1e-6,
    "num_classes": 527,
    "num_heads": HEADS,
    "patch_size": PATCH,
    "post_mlp_drop": 0.0,
    "qkv_bias": True,
    "start_drop_path_rate": 0.0,
    "stride": PATCH,
    "torch_dtype": "float32",
    "transformers_version": "4.51.3",
}


def eat_weights(config: dict[str, Any] = CONFIG, seed: int = 0) -> Arrays:
    """Return random weights under the published names; those of a pretrained model have no head."""
    rng = np.random.default_rng(seed)
    C, M = config["embed_dim"], round(config["embed_dim"] * config["mlp_ratio"])
    shapes: dict[str, tuple[int, ...]] = {
        "model.extra_tokens": (1, 1, C),
        "model.fixed_positional_encoder.positions": (1, config["max_length"] * (BINS // PATCH), C),
        "model.local_encoder.proj.weight": (C, 1, PATCH, PATCH),
        "model.local_encoder.proj.bias": (C,),
    }
    norms, linears = ["model.pre_norm"], {}
    for block in (f"model.blocks.{i}" for i in range(config["depth"])):
        norms += [f"{block}.norm1", f"{block}.norm2"]
        linears |= {f"{block}.attn.qkv": (3 * C, C), f"{block}.attn.proj": (C, C)}
        linears |= {f"{block}.mlp.fc1": (M, C), f"{block}.mlp.fc2": (C, M)}
    if config["model_variant"] == "finetune":
        norms.append("model.fc_norm")
        linears["model.head"] = (config["num_classes"], C)
    for norm in norms:
        shapes |= {f"{norm}.weight": (C,), f"{norm}.bias": (C,)}
    for layer, (num_out, num_in) in linears.items():
        shapes |= {f"{layer}.weight": (num_out, num_in), f"{layer}.bias": (num_out,)}
    if not config["qkv_bias"]:
        shapes = {name: shape for name, shape in shapes.items() if not name.endswith("qkv.bias")}
    weights = {name: rng.standard_normal(shape) * 0.3 for name, shape in shapes.items()}
    for norm in norms:
        weights[f"{norm}.weight"] += 1
    return {name: array.astype(np.float32) for name, array in weights.items()}


def write_eat(folder: Path, *, as_pickle: bool = False, front_end: bool = True, **changes: Any) -> Path:
    """Write a checkpoint as it is published, with a front end that fits it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = CONFIG | changes
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = eat_weights(config)
    if as_pickle:
        torch.save({name: torch.from_numpy(array) for name, array in weights.items()}, folder / "pytorch_model.bin")
    else:
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    if front_end:
        values = {"feature_extractor_type": "ASTFeatureExtractor", "max_length": config["img_size"][0]}
        values |= {"num_mel_bins": BINS, "mean": -4.268, "std": 4.569}
        (folder / "preprocessor_config.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def eat_tokens(input_values: NDArray[Any], weights: Arrays) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Compute in float64 the tokens before and after each block, and the attention probabilities of each block."""
    w = {name.removeprefix("model."): array.astype(np.float64) for name, array in weights.items()}
    B, T, F = len(input_values), input_values.shape[1] // PATCH, input_values.shape[2] // PATCH
    patches = input_values.astype(np.float64).reshape(B, T, PATCH, F, PATCH).transpose(0, 1, 3, 2, 4)
    kernels = w["local_encoder.proj.weight"].reshape(-1, PATCH * PATCH)
    x = patches.reshape(B, T * F, PATCH * PATCH) @ kernels.T + w["local_encoder.proj.bias"]  # time-major
    x = x + w["fixed_positional_encoder.positions"][:, : T * F]
    x = np.concatenate([np.repeat(w["extra_tokens"], B, axis=0), x], axis=1)
    states, attentions = [layer_norm(x, w, "pre_norm")], []
    num_blocks = 1 + max(int(name.split(".")[1]) for name in w if name.startswith("blocks."))
    for block in (f"blocks.{i}" for i in range(num_blocks)):
        x = states[-1]
        attended, probabilities = self_attention(x, w, f"{block}.attn")
        r = layer_norm(x + attended, w, f"{block}.norm1")
        hidden = gelu(linear(r, w, f"{block}.mlp.fc1"))
        states.append(layer_norm(r + linear(hidden, w, f"{block}.mlp.fc2"), w, f"{block}.norm2"))
        attentions.append(probabilities)
    return states, attentions


def eat_logits(input_values: NDArray[Any], weights: Arrays) -> NDArray[Any]:
    w = {name.removeprefix("model."): array.astype(np.float64) for name, array in weights.items()}
    cls_token = eat_tokens(input_values, weights)[0][-1][:, 0]
    return linear(layer_norm(cls_token, w, "fc_norm"), w, "head")


def self_attention(x: NDArray[Any], w: Arrays, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    C = x.shape[-1]
    q, k, v = np.split(linear(x, w, f"{name}.qkv"), 3, axis=2)
    heads, probabilities = [], []
    for head in range(HEADS):
        part = slice(head * C // HEADS, (head + 1) * C // HEADS)
        scores = np.einsum("bqd,bkd->bqk", q[..., part], k[..., part]) * (C // HEADS) ** -0.5
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        probabilities.append(scores / scores.sum(axis=-1, keepdims=True))
        heads.append(probabilities[-1] @ v[..., part])
    return linear(np.concatenate(heads, axis=-1), w, f"{name}.proj"), np.stack(probabilities, axis=1)


def linear(x: NDArray[Any], w: Arrays, name: str) -> NDArray[Any]:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", np.zeros(1))


def layer_norm(x: NDArray[Any], w: Arrays, name: str) -> NDArray[Any]:
    centered = x - x.mean(axis=-1, keepdims=True)
    variance = (centered**2).mean(axis=-1, keepdims=True)
    return centered / np.sqrt(variance + 1e-6) * w[f"{name}.weight"] + w[f"{name}.bias"]


def gelu(x: NDArray[Any]) -> NDArray[Any]:
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def eat_features(batch: int = 3, frames: int = FRAMES) -> NDArray[np.float32]:
    return (np.random.default_rng(batch).standard_normal((batch, frames, BINS)) * 0.5).astype(np.float32)
