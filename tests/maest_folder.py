"""A small checkpoint with random weights in the layout of MAEST's on the hub, written without the package's code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

LABELS = ("Electronic---House", "Rock---Shoegaze", "Jazz---Bop", "Hip Hop---Trap", "Blues---Delta Blues")
MEAN, STD = 2.06755686098554, 1.268292820667291
MAX_LENGTH, NUM_MEL_BINS = 64, 96
HIDDEN, LAYERS, INTERMEDIATE = 16, 2, 24
REMOTE_CODE = "feature_extraction_maest.py"
EXECUTED = "executed"  # the file that this code would leave behind


def write_maest_folder(folder: Path, *, as_pickle: bool = False) -> Path:
    """Write configuration, front end, weights, and code that nobody may run."""
    folder.mkdir(parents=True)
    config = {
        "architectures": ["ASTForAudioClassification"],
        "model_type": "audio-spectrogram-transformer",
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "intermediate_size": INTERMEDIATE,
        "layer_norm_eps": 1e-6,
        "patch_size": 16,
        "frequency_stride": 10,
        "time_stride": 10,
        "max_length": MAX_LENGTH,
        "num_mel_bins": NUM_MEL_BINS,
        "id2label": {str(i): label for i, label in enumerate(LABELS)},
        "label2id": {label: i for i, label in enumerate(LABELS)},
    }
    preprocessor = {
        "auto_map": {"AutoFeatureExtractor": f"{REMOTE_CODE.removesuffix('.py')}.MAESTFeatureExtractor"},
        "do_normalize": True,
        "feature_extractor_type": "MAESTFeatureExtractor",
        "feature_size": 1,
        "hop_length": 256,
        "log_compression": "logC",
        "max_length": MAX_LENGTH,
        "mean": MEAN,
        "n_fft": 512,
        "num_mel_bins": NUM_MEL_BINS,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
        "sampling_rate": 16000,
        "std": STD,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    (folder / REMOTE_CODE).write_text(f"import pathlib\npathlib.Path(__file__).with_name('{EXECUTED}').touch()\n")
    if as_pickle:
        torch.save(random_weights(), folder / "pytorch_model.bin")
    else:
        save_file(random_weights(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def random_weights() -> dict[str, Tensor]:
    """Return weights by the names of the hub; they are large enough that scores differ from window to window."""
    draw = np.random.default_rng(0)
    grid = [(size - 16) // 10 + 1 for size in (NUM_MEL_BINS, MAX_LENGTH)]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, HIDDEN),
        "embeddings.distillation_token": (1, 1, HIDDEN),
        "embeddings.position_embeddings": (1, grid[0] * grid[1] + 2, HIDDEN),
        "embeddings.patch_embeddings.projection.weight": (HIDDEN, 1, 16, 16),
        "embeddings.patch_embeddings.projection.bias": (HIDDEN,),
    }
    for i in range(LAYERS):
        linears = {
            "attention.attention.query": (HIDDEN, HIDDEN),
            "attention.attention.key": (HIDDEN, HIDDEN),
            "attention.attention.value": (HIDDEN, HIDDEN),
            "attention.output.dense": (HIDDEN, HIDDEN),
            "intermediate.dense": (INTERMEDIATE, HIDDEN),
            "output.dense": (HIDDEN, INTERMEDIATE),
        }
        for name, (num_outputs, num_inputs) in linears.items():
            shapes[f"encoder.layer.{i}.{name}.weight"] = (num_outputs, num_inputs)
            shapes[f"encoder.layer.{i}.{name}.bias"] = (num_outputs,)
        for name in ("layernorm_before", "layernorm_after"):
            shapes[f"encoder.layer.{i}.{name}.weight"] = shapes[f"encoder.layer.{i}.{name}.bias"] = (HIDDEN,)
    shapes["layernorm.weight"] = shapes["layernorm.bias"] = (HIDDEN,)
    state: dict[str, Any] = {f"audio_spectrogram_transformer.{name}": shape for name, shape in shapes.items()}
    state |= {"classifier.layernorm.weight": (HIDDEN,), "classifier.layernorm.bias": (HIDDEN,)}
    state |= {"classifier.dense.weight": (len(LABELS), HIDDEN), "classifier.dense.bias": (len(LABELS),)}
    for name, shape in state.items():
        noise = torch.from_numpy(draw.normal(0, 0.3, shape).astype(np.float32))
        state[name] = noise + 1 if "norm" in name and name.endswith("weight") else noise
    return state
