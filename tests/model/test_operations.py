"""Operations and weights of a model; the operations are compared with torch's own count in tests/benchmark."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import tiny_config

from ast_cli import ASTForAudioClassification
from ast_cli.model.config import ASTConfig
from ast_cli.model.operations import flop_per_window, num_weights

MAEST: dict[str, Any] = {"num_mel_bins": 96, "num_labels": 400}


@pytest.mark.parametrize("changes", [{}, {"qkv_bias": False}, {"num_labels": 7}])
def test_the_weights_are_those_of_the_model(changes: dict[str, Any]) -> None:
    config = tiny_config(**changes)
    with torch.device("meta"):
        model = ASTForAudioClassification(config)
    assert num_weights(config) == sum(parameter.numel() for parameter in model.parameters())


def test_maest_has_the_published_number_of_weights() -> None:
    assert num_weights(ASTConfig(max_length=1876, **MAEST)) == 86_858_128


@pytest.mark.parametrize(("max_length", "gmac"), [(316, 25.3), (626, 53.3), (1256, 119.1), (1876, 195.5)])
def test_maest_takes_the_known_number_of_multiply_adds(max_length: int, gmac: float) -> None:
    counted = flop_per_window(ASTConfig(max_length=max_length, **MAEST), trimmed=False) / 2e9
    # the known numbers leave out the patch embedding, which is 0.3 % of the shortest window
    assert counted == pytest.approx(gmac, rel=0.004)
