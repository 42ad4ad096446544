"""Models small enough to make in a test: all configurations of tests start here."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ast_cli.model.config import ASTConfig

# Odd sizes: no two dimensions are equal, so that none can be taken for another.
TINY: dict[str, Any] = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "patch_size": 4,
    "frequency_stride": 3,
    "time_stride": 5,
    "max_length": 31,
    "num_mel_bins": 18,
}
# The patches of the published models, 16x16 with strides of 10, on a window of 0.64 s.
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_length": 64,
    "num_mel_bins": 32,
}
FIVE_LABELS = {0: "dog", 1: "rain", 2: "Waves, surf", 3: "clock", 4: "speech"}


def tiny_config(**changes: Any) -> ASTConfig:
    labels = {} if "num_labels" in changes else {"id2label": FIVE_LABELS}
    return ASTConfig(**{**TINY, **labels, **changes})


def small_config(**changes: Any) -> ASTConfig:
    return ASTConfig(**{**SMALL, **changes})


def randomize(model: Any, seed: int = 0, scale: float = 0.3) -> Any:
    """Fill every parameter: fresh models have zero biases, tokens and positions, which would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator) * scale
            is_norm_weight = "norm" in name and name.endswith("weight")
            parameter.copy_(noise + 1 if is_norm_weight else noise)
    assert isinstance(model, nn.Module)
    return model.eval()


def spectrograms(config: Any, batch: int = 3, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, config.max_length, config.num_mel_bins, generator=generator) * 0.5
