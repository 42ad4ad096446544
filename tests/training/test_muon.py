from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from tiny_training import plain_options, tiny_model, tiny_trainer
from torch import Tensor, nn

from ast_cli.training.muon import COEFFICIENTS, NUM_STEPS, Muon, orthogonalized
from ast_cli.training.optimizer import make_optimizer, parameter_groups, set_learning_rate

SHAPES = [(48, 16), (16, 48), (24, 24), (1, 8)]


def gradients(shape: tuple[int, ...], num_updates: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(len(shape) + sum(shape))
    return [torch.randn(shape, generator=generator) for _ in range(num_updates)]


def moved(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, updates: list[Tensor]) -> Tensor:
    for gradient in updates:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


@pytest.mark.portable_roundings
@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_come_close_to_one_and_directions_stay(shape: tuple[int, int]) -> None:
    matrix = gradients(shape, 1)[0] * 1e-4
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    s = torch.logspace(0, -2, len(s)) * 1e-4  # far apart
    within = u.mT @ orthogonalized((u * s @ vh)[None])[0] @ vh.mT
    values = within.diagonal()
    assert 0.6 < values.min() <= values.max() < 1.3
    torch.testing.assert_close(within, values.diag(), atol=1e-4, rtol=0)


def test_a_zero_matrix_stays_zero() -> None:
    assert torch.equal(orthogonalized(torch.zeros(2, 3, 4)), torch.zeros(2, 3, 4))


def test_the_faster_order_for_long_matrices_equals_the_plain_iteration() -> None:
    """The singular values of a gradient fall off, and another order of products rounds differently."""
    wide = gradients((32, 128), 1)[0] @ torch.diag(torch.logspace(0, -4, 128))
    x = wide / wide.norm()
    for _ in range(NUM_STEPS):
        gram = x @ x.mT
        x = COEFFICIENTS[0] * x + (COEFFICIENTS[1] * gram + COEFFICIENTS[2] * gram @ gram) @ x
    torch.testing.assert_close(orthogonalized(wide[None])[0], x, atol=1e-4, rtol=0)
    torch.testing.assert_close(orthogonalized(wide.mT[None])[0], x.mT, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_updates_equal_those_of_torchs_muon_up_to_bfloat16_rounding(shape: tuple[int, int]) -> None:
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon to compare with")
    start, updates = torch.zeros(shape) + 0.01, gradients(shape, 3)
    own, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    reference = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.3, adjust_lr_fn="match_rms_adamw")
    optimizer = Muon([{"params": [own], "num_parts": 1, "weight_decay": 0.3, "lr": 0.1}])
    expected = moved(reference, theirs, updates)
    difference = (moved(optimizer, own, updates) - expected).norm() / (expected - start).norm()
    assert difference < 0.02


def test_a_stack_of_matrices_is_updated_like_its_parts() -> None:
    start, updates = gradients((24, 8), 1)[0], gradients((24, 8), 3)
    stack = nn.Parameter(start.clone())
    moved(Muon([{"params": [stack], "num_parts": 3, "lr": 0.1}]), stack, updates)
    for rows in (slice(0, 8), slice(8, 16), slice(16, 24)):
        part = nn.Parameter(start[rows].clone())
        moved(Muon([{"params": [part], "num_parts": 1, "lr": 0.1}]), part, [update[rows] for update in updates])
        torch.testing.assert_close(stack[rows], part, atol=1e-6, rtol=0)


def test_only_the_matrices_of_the_blocks_are_updated_by_muon() -> None:
    model = tiny_model()
    options = plain_options(optimizer="muon", muon_factor=3.0, learning_rate=1e-3, weight_decay=0.1)
    found = {id(p): group for group in parameter_groups(model, options) for p in group["params"]}
    of_name = {name: found[id(parameter)] for name, parameter in model.named_parameters()}
    num_parts = {name: group["num_parts"] for name, group in of_name.items() if "num_parts" in group}
    kinds = {"attn.qkv": 3, "attn.proj": 1, "mlp.fc1": 1, "mlp.fc2": 1}
    assert num_parts == {
        f"audio_spectrogram_transformer.blocks.{block}.{kind}.weight": parts
        for block in (0, 1)
        for kind, parts in kinds.items()
    }
    for name, group in of_name.items():
        assert group["peak"] == pytest.approx(3e-3 if name in num_parts else 1e-3)


def test_other_parameters_are_updated_by_adamw() -> None:
    models = {name: tiny_model() for name in ("muon", "adamw")}
    for name, model in models.items():
        optimizer = make_optimizer(model, plain_options(optimizer=name, learning_rate=1e-2, weight_decay=0.1))
        for seed in range(3):
            generator = torch.Generator().manual_seed(seed)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            set_learning_rate(optimizer, 0.5)
            optimizer.step()
    others = dict(models["adamw"].named_parameters())
    for name, parameter in models["muon"].named_parameters():
        is_same = torch.equal(parameter, others[name])
        assert is_same != (".blocks." in name and parameter.ndim == 2), name


def test_the_state_of_muon_survives_a_checkpoint() -> None:
    model = tiny_model()
    options = plain_options(optimizer="muon", learning_rate=1e-2)
    first = make_optimizer(model, options)
    again = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    set_learning_rate(first, 1.0)
    first.step()
    again.load_state_dict(model.state_dict())
    second = make_optimizer(again, options)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for optimizer, each in ((first, model), (second, again)):
        for parameter in each.parameters():
            parameter.grad = torch.full_like(parameter, -0.5)
        optimizer.step()
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_run_with_muon_learns(tmp_path: Path) -> None:
    trainer = tiny_trainer(plain_options(optimizer="muon", learning_rate=1e-2, epochs=8), tmp_path)
    trainer.run()
    losses = [row["train_loss"] for row in trainer.progress.history]
    assert losses[-1] < 0.5 * losses[0]
