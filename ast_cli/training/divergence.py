"""Telling that a training run has gone wrong although its loss is still a number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ast_cli.training.objective import CROSS_ENTROPY
from ast_cli.training.options import TrainOptions

DIVERGED = 2.0  # times the loss that training began with


def beginning_loss(first_loss: float, loss: str, num_labels: int) -> float:
    """Return the loss that no run should stay above: the first batch's, or that of knowing nothing if it is larger.

    A model that scores all labels alike has ln(num_labels) in cross-entropy and ln 2 in binary cross-entropy, whatever
    the targets. The first batch is looked at before any weight has changed; it is above that where the base model is
    sure of other things than the data.
    """
    return max(first_loss, math.log(num_labels if loss == CROSS_ENTROPY else 2))


def diverged_epoch(history: Sequence[Mapping[str, Any]], began_at: float, num_warmup_updates: int) -> int | None:
    """Return the first epoch whose mean training loss is above twice the loss that training began with.

    A run that learns is below `beginning_loss` within its first epoch or soon after; one whose learning rate is far too
    high is above a multiple of it from the start, as its logits grow without bound, and may never become NaN. The first
    epoch's own mean is no measure: at such rates it is often the worst of all. Measured on a tiny model: rates with
    which it still learnt stayed below 1.4 times, and rates from three times the highest of those upwards were above 2.4
    times. Epochs that end within the warm-up are left out: what goes wrong there may come right.

    Args:
        history: A row for each epoch; see `ast_cli.training.history`.
        began_at: `beginning_loss`.
        num_warmup_updates: Updates over which the learning rate rises.

    Returns:
        Its number, from 1; None where there is none.
    """
    for row in history:
        if row["update"] > num_warmup_updates and row["train_loss"] > DIVERGED * began_at:
            return int(row["epoch"])
    return None


def remedies(options: TrainOptions, *, is_half_precision: bool) -> str:
    """Return what helps against a loss that grows or is no number."""
    tips = ["a lower --learning-rate", "a longer --warmup-epochs"]
    if options.max_gradient_norm != 1:
        tips.append("--max-gradient-norm 1")
    if is_half_precision:
        tips.append("--precision fp32")
    return f"{', '.join(tips[:-1])} or {tips[-1]}"
