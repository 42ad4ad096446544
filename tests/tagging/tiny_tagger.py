"""A tagger that is small enough for a test, with weights that give different scores."""

from __future__ import annotations

import torch
from tiny_models import small_config

from ast_cli import ASTFeatureExtractor, ASTForAudioClassification, Tagger
from ast_cli.engine.torch.torch_engine import TorchEngine

LABELS = ["Rain", "Speech", "Music", "Waves, surf"]


def tiny_tagger(problem_type: str | None = "multi_label_classification", labels: list[str] = LABELS) -> Tagger:
    torch.manual_seed(0)
    config = small_config(id2label=dict(enumerate(labels)), problem_type=problem_type)
    model = ASTForAudioClassification(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    extractor = ASTFeatureExtractor(num_mel_bins=32, max_length=64)
    return Tagger(TorchEngine(model), extractor, "tiny")
