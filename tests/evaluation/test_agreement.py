from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ast_cli.evaluation.agreement import agreement


def test_divergence_is_the_loss_above_its_lowest_value(rng: np.random.Generator) -> None:
    logits = torch.from_numpy(rng.normal(size=(20, 7)).astype(np.float32))
    targets = rng.random((20, 7)).astype(np.float32)
    tensor = torch.from_numpy(targets)
    loss = F.binary_cross_entropy_with_logits(logits, tensor) - F.binary_cross_entropy(tensor, tensor)
    found = agreement(logits.sigmoid().numpy(), targets, is_multi_label=True)
    assert found.divergence == pytest.approx(loss.item(), abs=1e-5)
    targets /= targets.sum(axis=1, keepdims=True)
    expected = F.kl_div(logits.log_softmax(dim=1), torch.from_numpy(targets), reduction="batchmean")
    found = agreement(logits.softmax(dim=1).numpy(), targets, is_multi_label=False)
    assert found.divergence == pytest.approx(expected.item(), abs=1e-5)
    assert agreement(targets, targets, is_multi_label=False).divergence == pytest.approx(0, abs=1e-6)


def test_first_labels_and_first_five_are_compared() -> None:
    targets = np.array([[0.9, 0.8, 0.7, 0.6, 0.5, 0.1, 0], [1, 1, 0.2, 0.3, 0.1, 0.15, 0]], np.float32)
    scores = np.array([[0.1, 0.9, 0.8, 0.2, 0.3, 0.7, 0], [0.5, 0.9, 0.2, 0.3, 0.1, 0.15, 0]], np.float32)
    found = agreement(scores, targets, is_multi_label=True)
    assert (found.num_examples, found.top_1, found.top_5) == (2, 0.5, 0.9)  # the second has two equal targets
    assert found.to_dict().keys() == {"num_examples", "top_1", "top_5", "divergence"}
    assert agreement(scores[:, :5], targets[:, :5], is_multi_label=True).top_5 is None
