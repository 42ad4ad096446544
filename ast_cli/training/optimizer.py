"""Parameter groups, learning-rate schedule, and averages of the weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ast_cli.model.transformer import ASTForAudioClassification
from ast_cli.training.muon import Muon
from ast_cli.training.options import TrainOptions, learning_rate_for

FROZEN_LEARNING_RATE = 3e-4  # of a linear probe, before the factor of the head: a head tolerates more than an encoder
UNDECAYED = ("cls_token", "dist_token", "pos_embed")


def parameter_groups(model: ASTForAudioClassification, options: TrainOptions) -> list[dict[str, Any]]:
    """Return the parameter groups of an optimizer: ``params``, ``weight_decay``, and ``peak``, the peak learning rate.

    With ``optimizer = muon`` the groups of the matrices of the blocks also have the ``num_parts`` of `Muon`.

    The rate is multiplied by ``layer_decay`` for each block further from the head (as in BEiT, Bao et al., 2021).
    Biases, norms, tokens and position embeddings have no weight decay. A frozen encoder is in no group.
    """
    num_layers = len(model.audio_spectrogram_transformer.blocks)
    rate = options.learning_rate
    if rate is None:
        rate = FROZEN_LEARNING_RATE if options.freeze_encoder else learning_rate_for(model.config.hidden_size)
    groups: dict[tuple[float, float, int], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        is_head = name.startswith("head.")
        if options.freeze_encoder and not is_head:
            continue
        peak = rate * options.layer_decay ** (num_layers + 1 - layer_of(name, num_layers))
        if is_head:
            peak *= options.head_factor
        num_parts = _num_parts(name, parameter) if options.optimizer == "muon" else 0
        if num_parts:
            peak *= options.muon_factor
        is_undecayed = parameter.ndim <= 1 or name.rpartition(".")[2] in UNDECAYED
        key = (peak, 0.0 if is_undecayed else options.weight_decay, num_parts)
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": params, "weight_decay": decay, "peak": peak, **({"num_parts": num_parts} if num_parts else {})}
        for (peak, decay, num_parts), params in groups.items()
    ]


def _num_parts(name: str, parameter: nn.Parameter) -> int:
    """Return the number of matrices stacked in a parameter of a block; 0 for other parameters."""
    if ".blocks." not in name or parameter.ndim != 2:
        return 0
    return 3 if name.endswith("qkv.weight") else 1


def layer_of(name: str, num_layers: int) -> int:
    """Return the depth of a parameter: 0 for embeddings, then the number of its block, then the last norm and head."""
    name = name.removeprefix("audio_spectrogram_transformer.")
    if name.startswith("blocks."):
        return int(name.split(".")[1]) + 1
    return num_layers + 1 if name.startswith(("norm.", "head.")) else 0


def make_optimizer(model: ASTForAudioClassification, options: TrainOptions) -> torch.optim.AdamW:
    """Return AdamW or Muon over `parameter_groups`; `set_learning_rate` sets the rates before each update."""
    kind = Muon if options.optimizer == "muon" else torch.optim.AdamW
    return kind(parameter_groups(model, options), lr=0.0, betas=(options.beta1, options.beta2))


def learning_rate_factor(update: int, updates_per_epoch: int, options: TrainOptions) -> float:
    """Return the factor of the peak learning rate at an update, counted from 0 over the whole run.

    The warm-up is linear. ``step`` counts epochs as the original does (PyTorch's MultiStepLR). ``cosine`` falls to zero
    over the updates after the warm-up.
    """
    warmup = num_warmup_updates(updates_per_epoch, options)
    rise = min(1.0, (update + 1) / warmup) if warmup else 1.0
    if options.schedule == "step":
        num_falls = max(0, (update // updates_per_epoch - options.step_start) // options.step_every + 1)
        return rise * float(options.step_factor**num_falls)
    if options.schedule == "cosine" and update >= warmup:
        done = (update - warmup) / max(1, options.epochs * updates_per_epoch - warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return rise


def num_warmup_updates(updates_per_epoch: int, options: TrainOptions) -> int:
    """Return the number of updates of the warm-up."""
    return max(options.warmup_steps, round(options.warmup_epochs * updates_per_epoch))


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set the learning rate of every group; return the highest."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return float(max(group["lr"] for group in optimizer.param_groups))


class WeightAverage:
    """An average of the weights of a model in training.

    Args:
        average: A copy of the model that holds the average; it is never trained.
        options: Options with the kind of average.

    Attributes:
        model: The copy.
        count: Number of states of the weights in the average so far.
    """

    def __init__(self, average: ASTForAudioClassification, options: TrainOptions) -> None:
        self.model = average.requires_grad_(False).eval()
        self.options = options
        self.count = 0

    def after_update(self, model: nn.Module) -> None:
        """Include the weights after an update: ``ema`` moves by 1 - decay, and faster at its beginning."""
        if self.options.average == "ema":
            self.count += 1
            self._move(model, 1 - min(self.options.ema_decay, self.count / (self.count + 10)))

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        """Include the weights after an epoch: ``epochs`` is their mean from ``average_start`` on."""
        if self.options.average == "epochs" and epoch >= self.options.average_start:
            self.count += 1
            self._move(model, 1 / self.count)

    @torch.no_grad()
    def _move(self, model: nn.Module, fraction: float) -> None:
        own: list[Tensor] = list(self.model.parameters())
        torch._foreach_lerp_(own, [parameter.detach() for parameter in model.parameters()], fraction)
