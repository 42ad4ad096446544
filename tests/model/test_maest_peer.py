"""Models of MAEST's own package, renamed to the hub's layout, have the same logits here.

The package is ``maest-infer`` (AGPL-3.0). These tests run it where it is installed; nothing of it is in this project.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_models import randomize
from torch import Tensor

from ast_cli import ASTForAudioClassification
from ast_cli.audio.feature_extractor import FeatureExtractor

TOLERANCE = 1e-4  # of logits
HIDDEN, LAYERS, HEADS, NUM_LABELS = 48, 3, 3, 7
HUB_EPS = 1e-6
# Names of a block on the hub and in the package; the package has query, key and value in one matrix.
BLOCK_NAMES = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}


@pytest.fixture
def maest_infer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the package; of torchaudio, which it imports, it needs nothing for spectrograms that are handed over."""
    transforms = ModuleType("torchaudio.transforms")
    for name in ("Spectrogram", "MelScale"):
        setattr(transforms, name, lambda *_args, **_kwargs: torch.nn.Identity())
    torchaudio = ModuleType("torchaudio")
    torchaudio.transforms = transforms  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchaudio", torchaudio)
    monkeypatch.setitem(sys.modules, "torchaudio.transforms", transforms)
    return pytest.importorskip("maest_infer", exc_type=ImportError)


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of the package to those of the hub."""
    encoder = {
        "embeddings.cls_token": state["cls_token"],
        "embeddings.distillation_token": state["dist_token"],
        "embeddings.patch_embeddings.projection.weight": state["patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": state["patch_embed.proj.bias"],
        "layernorm.weight": state["norm.weight"],
        "layernorm.bias": state["norm.bias"],
    }
    grid = state["freq_new_pos_embed"] + state["time_new_pos_embed"]  # (1, HIDDEN, frequency, time)
    positions = [state["new_pos_embed"], grid.flatten(2).transpose(1, 2)]
    encoder["embeddings.position_embeddings"] = torch.cat(positions, dim=1)
    for i in range(LAYERS):
        for kind in ("weight", "bias"):
            own = {name: state[f"blocks.{i}.{theirs}.{kind}"] for name, theirs in BLOCK_NAMES.items()}
            parts = state[f"blocks.{i}.attn.qkv.{kind}"].chunk(3)
            own |= {
                f"attention.attention.{name}": part for name, part in zip(("query", "key", "value"), parts, strict=True)
            }
            encoder |= {f"encoder.layer.{i}.{name}.{kind}": tensor for name, tensor in own.items()}
    head = {"layernorm": "head.0", "dense": "head.1"}
    return {f"audio_spectrogram_transformer.{name}": tensor.contiguous() for name, tensor in encoder.items()} | {
        f"classifier.{name}.{kind}": state[f"{theirs}.{kind}"]
        for name, theirs in head.items()
        for kind in ("weight", "bias")
    }


def write_folder(folder: Path, max_length: int, state: dict[str, Tensor]) -> None:
    folder.mkdir()
    config = {
        "model_type": "audio-spectrogram-transformer",
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 4 * HIDDEN,
        "layer_norm_eps": HUB_EPS,
        "max_length": max_length,
        "num_mel_bins": 96,
        "id2label": {str(i): f"Electronic---Style {i}" for i in range(NUM_LABELS)},
        "problem_type": "multi_label_classification",
    }
    (folder / "config.json").write_text(json.dumps(config))
    front_end = {"feature_extractor_type": "MAESTFeatureExtractor", "max_length": max_length}
    (folder / "preprocessor_config.json").write_text(json.dumps(front_end))
    save_file(renamed(state), folder / "model.safetensors")


@pytest.mark.parity
@pytest.mark.parametrize("max_length", [626, 1876])
def test_logits_equal_those_of_the_package(maest_infer: Any, tmp_path: Path, max_length: int) -> None:
    sizes = {"embed_dim": HIDDEN, "depth": LAYERS, "num_heads": HEADS, "num_classes": NUM_LABELS}
    peer = maest_infer.MAEST(img_size=(96, max_length), patch_size=16, stride=(10, 10), distilled=True, **sizes)
    randomize(peer)
    assert peer.head[0].eps == 1e-5
    peer.head[0].eps = HUB_EPS  # a configuration on the hub has one epsilon for all
    write_folder(tmp_path / "maest", max_length, peer.state_dict())
    extractor = FeatureExtractor.from_pretrained(tmp_path / "maest")
    model = ASTForAudioClassification.from_pretrained(tmp_path / "maest").eval()
    waveforms = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 256 * max_length)).astype(np.float32)
    waveforms[0] *= 0.01
    input_values = extractor(waveforms, 16000, return_tensors="pt").input_values
    with torch.inference_mode():
        logits = model(input_values).logits
        expected = peer(input_values.transpose(1, 2))[0]
    assert logits[0].sub(logits[1]).abs().min() > 10 * TOLERANCE  # the inputs matter
    np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE)
