"""Checkpoints with random weights in the layouts of the hub, made without the project's code.

The names and shapes are those of the published files, written out here once more, so that a mistake of the project's
own tables cannot hide.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file


def ebird_codes(number: int) -> list[str]:
    """Return labels in the form of eBird's codes, the first of them of real species."""
    real = ["eurbla", "comcha", "amecro", "houspa", "grbwar1", "y00475"]
    letters = "abcdefghijklmnopqrstuvwxyz"
    made = (f"{''.join(start)}war{1 + i % 3}" for i, start in enumerate(itertools.product(letters, repeat=3)))
    return [*real, *itertools.islice(made, number - len(real))]


def write_ast(
    folder: Path,
    labels: Sequence[str],
    *,
    num_mel_bins: int,
    max_length: int,
    width: int = 16,
    num_layers: int = 2,
    seed: int = 0,
    preprocessor: dict[str, Any] | None = None,
    **config: Any,
) -> dict[str, NDArray[np.float32]]:
    """Write ``config.json`` and ``model.safetensors`` of a small AST as transformers names its tensors."""
    patch, stride = config.get("patch_size", 16), config.get("time_stride", 10)
    num_tokens = 2 + ((num_mel_bins - patch) // stride + 1) * ((max_length - patch) // stride + 1)
    draw, encoder = np.random.default_rng(seed), "audio_spectrogram_transformer."
    shapes: dict[str, tuple[int, ...]] = {
        f"{encoder}embeddings.cls_token": (1, 1, width),
        f"{encoder}embeddings.distillation_token": (1, 1, width),
        f"{encoder}embeddings.position_embeddings": (1, num_tokens, width),
        f"{encoder}embeddings.patch_embeddings.projection.weight": (width, 1, patch, patch),
        f"{encoder}embeddings.patch_embeddings.projection.bias": (width,),
        "classifier.dense.weight": (len(labels), width),
        "classifier.dense.bias": (len(labels),),
    }
    linears = {"intermediate.dense": (2 * width, width), "output.dense": (width, 2 * width)}
    linears |= {f"attention.attention.{part}": (width, width) for part in ("query", "key", "value")}
    linears |= {"attention.output.dense": (width, width)}
    norms = [f"{encoder}layernorm", "classifier.layernorm"]
    for layer in range(num_layers):
        name = f"{encoder}encoder.layer.{layer}."
        norms += [f"{name}layernorm_before", f"{name}layernorm_after"]
        for linear, shape in linears.items():
            shapes |= {f"{name}{linear}.weight": shape, f"{name}{linear}.bias": shape[:1]}
    for norm in norms:
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    tensors = {name: draw.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    for norm in norms:
        tensors[f"{norm}.weight"] += 1
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    values = {
        "architectures": ["ASTForAudioClassification"],
        "model_type": "audio-spectrogram-transformer",
        "hidden_size": width,
        "num_hidden_layers": num_layers,
        "num_attention_heads": 2,
        "intermediate_size": 2 * width,
        "patch_size": patch,
        "frequency_stride": stride,
        "time_stride": stride,
        "num_mel_bins": num_mel_bins,
        "max_length": max_length,
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        **config,
    }
    (folder / "config.json").write_text(json.dumps(values))
    if preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return tensors
