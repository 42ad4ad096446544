from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_training import MAX_LENGTH, NUM_MEL_BINS, plain_options, tiny_model

from ast_cli.errors import UsageError
from ast_cli.training.augmentation import kept_tokens
from ast_cli.training.objective import autocast_for, loss_name, predicted_scores, training_logits, training_loss
from ast_cli.training.options import TrainOptions

CPU = torch.device("cpu")


@pytest.fixture
def inputs() -> torch.Tensor:
    return torch.randn(5, MAX_LENGTH, NUM_MEL_BINS, generator=torch.Generator().manual_seed(3))


def draws() -> np.random.Generator:
    return np.random.default_rng(4)


def gradients(options: TrainOptions, inputs: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model = tiny_model(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.1).train()
    torch.manual_seed(9)
    logits = training_logits(model, inputs, options, draws())
    logits.square().sum().backward()
    return logits.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


def test_without_dropped_tokens_the_logits_equal_those_of_the_model(inputs: torch.Tensor) -> None:
    model = tiny_model()
    found = training_logits(model, inputs, plain_options(), draws())
    torch.testing.assert_close(found, model(inputs).logits, atol=1e-6, rtol=0)


def test_dropped_tokens_have_no_influence(inputs: torch.Tensor) -> None:
    """The logits equal those of the blocks on the kept tokens alone, and no dropped pixel has a gradient."""
    model = tiny_model()
    inputs.requires_grad_()
    found = training_logits(model, inputs, plain_options(token_drop=0.5), draws())
    kept = kept_tokens(5, 8, 0.5, draws())
    encoder = model.audio_spectrogram_transformer
    tokens = encoder.embed(inputs)
    for i in range(5):
        x, _, _ = encoder.run_blocks(tokens[i : i + 1, [0, 1, *(2 + kept[i]).tolist()]])
        torch.testing.assert_close(found[i], model.head(encoder.pool(encoder.norm(x)))[0], atol=1e-5, rtol=0)
    found.sum().backward()
    # patches of 8 x 8 lie side by side: (frequency, time) on a grid of 2 x 4
    has_gradient = inputs.grad.reshape(5, 4, 8, 2, 8).abs().sum(dim=(2, 4)).transpose(1, 2).reshape(5, 8) > 0
    assert torch.equal(has_gradient.nonzero()[:, 1].reshape(5, 4), kept)


@pytest.mark.parametrize("token_drop", [0.0, 0.5])
def test_gradient_checkpointing_changes_no_number(inputs: torch.Tensor, token_drop: float) -> None:
    logits, plain = gradients(plain_options(token_drop=token_drop), inputs)
    again, checkpointed = gradients(plain_options(token_drop=token_drop, checkpoint_gradients=True), inputs)
    assert torch.equal(logits, again)
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, atol=1e-6, rtol=1e-5, msg=name)


def test_losses_equal_those_of_torch_in_float32() -> None:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)) * 9
    classes = torch.tensor([0, 1, 2, 3, 1, 1])
    one_hot = F.one_hot(classes, 4).float()
    several = (logits.roll(1, 0) > 0).float()
    assert training_loss(logits, one_hot, "cross-entropy") == pytest.approx(F.cross_entropy(logits, classes).item())
    smooth = F.cross_entropy(logits, classes, label_smoothing=0.1).item()
    assert training_loss(logits, one_hot, "cross-entropy", 0.1) == pytest.approx(smooth)
    bce = F.binary_cross_entropy_with_logits(logits, several).item()
    assert training_loss(logits, several, "bce") == pytest.approx(bce)
    assert training_loss(logits.half(), several, "bce").dtype == torch.float32
    torch.testing.assert_close(torch.from_numpy(predicted_scores(logits, "bce")), logits.sigmoid())
    torch.testing.assert_close(torch.from_numpy(predicted_scores(logits, "cross-entropy")), logits.softmax(dim=1))


def test_the_loss_follows_the_data_unless_it_is_named() -> None:
    assert loss_name(plain_options(), is_multi_label=False) == "cross-entropy"
    assert loss_name(plain_options(), is_multi_label=True) == "bce"
    assert loss_name(plain_options(loss="bce"), is_multi_label=False) == "bce"
    assert loss_name(plain_options(loss="cross-entropy"), is_multi_label=True) == "cross-entropy"


def test_precision_on_a_cpu() -> None:
    assert autocast_for("auto", CPU) is None
    assert autocast_for("fp32", CPU) is None
    assert autocast_for("bf16", CPU) == torch.bfloat16
    with pytest.raises(UsageError, match="--precision fp16 needs a CUDA device"):
        autocast_for("fp16", CPU)
