from __future__ import annotations

import copy
import math

import pytest
import torch
from tiny_training import plain_options, tiny_model
from torch import nn

from ast_cli.training.optimizer import (
    WeightAverage,
    learning_rate_factor,
    make_optimizer,
    parameter_groups,
    set_learning_rate,
)
from ast_cli.training.options import TrainOptions, learning_rate_for

UPDATES = 7  # in an epoch
ENCODER = "audio_spectrogram_transformer."


def factors(options: TrainOptions) -> list[float]:
    return [learning_rate_factor(update, UPDATES, options) for update in range(options.epochs * UPDATES)]


def torchs(scheduler_of: object, num_steps: int, every: int) -> list[float]:
    """Return the rates of a torch scheduler for a peak of 1, stepped after a given number of updates."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = scheduler_of(optimizer)
    rates = []
    for step in range(num_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % every == 0:
            scheduler.step()
    return rates


@pytest.mark.parametrize(("start", "every", "factor"), [(5, 1, 0.85), (2, 1, 0.5), (10, 5, 0.5), (0, 3, 0.1)])
def test_the_step_schedule_equals_multi_step_lr(start: int, every: int, factor: float) -> None:
    """The original calls MultiStepLR(optimizer, range(start, 1000, every), gamma), stepped once an epoch."""
    options = plain_options(epochs=25, schedule="step", step_start=start, step_every=every, step_factor=factor)

    def multi_step(optimizer: torch.optim.Optimizer) -> object:
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, list(range(start, 1000, every)), factor)

    assert factors(options) == pytest.approx(torchs(multi_step, 25 * UPDATES, UPDATES))


def test_the_cosine_schedule_equals_cosine_annealing_lr() -> None:
    options = plain_options(epochs=9, schedule="cosine")

    def cosine(optimizer: torch.optim.Optimizer) -> object:
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 9 * UPDATES)

    assert factors(options) == pytest.approx(torchs(cosine, 9 * UPDATES, 1))


def test_the_warm_up_is_linear_and_the_cosine_begins_after_it() -> None:
    found = factors(plain_options(epochs=9, schedule="cosine", warmup_epochs=2.0))
    assert found[:14] == pytest.approx([(i + 1) / 14 for i in range(14)])
    assert found[14:] == pytest.approx([0.5 * (1 + math.cos(math.pi * i / 49)) for i in range(49)])
    assert factors(plain_options(schedule="constant", warmup_steps=4))[:6] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    longer = factors(plain_options(schedule="constant", warmup_steps=4, warmup_epochs=1.0))
    assert longer[:8] == pytest.approx([1 / 7, 2 / 7, 3 / 7, 4 / 7, 5 / 7, 6 / 7, 1, 1])
    stepped = factors(plain_options(epochs=9, schedule="step", warmup_epochs=2.0, step_start=1, step_factor=0.5))
    assert stepped[7] == pytest.approx(8 / 14 * 0.5)


def test_groups_hold_every_parameter_once_with_its_decay_and_rate() -> None:
    model = tiny_model()
    options = plain_options(learning_rate=1e-3, weight_decay=0.05, layer_decay=0.5, head_factor=10.0)
    found = {id(p): group for group in parameter_groups(model, options) for p in group["params"]}
    assert len(found) == len(list(model.parameters()))
    of_name = {name: found[id(parameter)] for name, parameter in model.named_parameters()}
    decayed = {name for name, group in of_name.items() if group["weight_decay"]}
    assert decayed == {
        name for name, p in model.named_parameters() if p.ndim > 1 and not name.endswith(("token", "pos_embed"))
    }
    assert {of_name[name]["weight_decay"] for name in decayed} == {0.05}
    peaks = {  # two blocks: embeddings 3 from the head, which is beside the last norm
        "pos_embed": 1e-3 / 8,
        "patch_embed.proj.weight": 1e-3 / 8,
        "blocks.0.attn.qkv.weight": 1e-3 / 4,
        "blocks.1.mlp.fc2.bias": 1e-3 / 2,
        "norm.weight": 1e-3,
    }
    for name, peak in peaks.items():
        assert of_name[ENCODER + name]["peak"] == pytest.approx(peak)
    assert of_name["head.fc.weight"]["peak"] == of_name["head.norm.bias"]["peak"] == pytest.approx(1e-2)


def test_a_frozen_encoder_is_in_no_group() -> None:
    model = tiny_model()
    groups = parameter_groups(model, plain_options(freeze_encoder=True))
    assert {id(p) for group in groups for p in group["params"]} == {id(p) for p in model.head.parameters()}


def test_the_default_learning_rate_grows_as_the_width_falls() -> None:
    assert learning_rate_for(768) == pytest.approx(5e-5)
    assert learning_rate_for(192) == pytest.approx(2e-4)
    groups = parameter_groups(tiny_model(), plain_options(learning_rate=None))
    assert groups[0]["peak"] == pytest.approx(learning_rate_for(16))


def test_updates_equal_those_of_adamw_with_the_rates_and_decays_of_the_groups() -> None:
    options = plain_options(learning_rate=1e-2, weight_decay=0.1, beta1=0.8, beta2=0.98)
    model, plain = tiny_model(), tiny_model()
    optimizer = make_optimizer(model, options)
    named = dict(plain.named_parameters())
    is_decayed = {n: p.ndim > 1 and not n.endswith(("token", "pos_embed")) for n, p in named.items()}
    reference = torch.optim.AdamW(
        [{"params": [p], "weight_decay": 0.1 if is_decayed[n] else 0.0} for n, p in named.items()],
        lr=0.5 * 1e-2,
        betas=(0.8, 0.98),
    )
    for seed in range(3):
        for each in (model, plain):
            generator = torch.Generator().manual_seed(seed)
            for parameter in each.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
        assert set_learning_rate(optimizer, 0.5) == pytest.approx(5e-3)
        optimizer.step()
        reference.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, named[name], atol=1e-6, rtol=0, msg=name)


def wander(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))


def test_the_moving_average_follows_its_formula() -> None:
    model = tiny_model()
    average = WeightAverage(copy.deepcopy(model), plain_options(average="ema", ema_decay=0.6))
    expected = model.head.fc.weight.detach().double()
    for update in range(1, 31):
        wander(model, update)
        average.after_update(model)
        average.after_epoch(model, update)  # changes nothing
        decay = min(0.6, update / (update + 10))
        expected = decay * expected + (1 - decay) * model.head.fc.weight.detach().double()
    torch.testing.assert_close(average.model.head.fc.weight.double(), expected, atol=1e-5, rtol=0)
    assert average.count == 30
    assert not any(parameter.requires_grad for parameter in average.model.parameters())


def test_the_mean_over_epochs_begins_at_average_start() -> None:
    model = tiny_model()
    average = WeightAverage(copy.deepcopy(model), plain_options(average="epochs", average_start=2, epochs=9))
    seen = []
    for epoch in range(6):
        wander(model, epoch)
        average.after_update(model)  # changes nothing
        average.after_epoch(model, epoch)
        if epoch >= 2:
            seen.append(model.audio_spectrogram_transformer.pos_embed.detach().clone())
    expected = torch.stack(seen).mean(dim=0)
    torch.testing.assert_close(average.model.audio_spectrogram_transformer.pos_embed, expected, atol=1e-5, rtol=0)
    assert average.count == 4
