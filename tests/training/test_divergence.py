from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from tiny_training import plain_options, tiny_trainer

from ast_cli.training.objective import diverged_epoch, reference_loss, remedies


def history(*losses: float) -> list[dict[str, Any]]:
    return [{"epoch": i, "update": 10 * i, "train_loss": loss} for i, loss in enumerate(losses, start=1)]


@pytest.mark.parametrize(
    ("first_loss", "loss", "num_labels", "expected"),
    [
        (0.01, "cross-entropy", 50, math.log(50)),  # a base model that knows the data already
        (9.0, "cross-entropy", 50, 9.0),  # one that is sure of something else
        (0.01, "bce", 527, math.log(2)),
        (0.8, "bce", 527, 0.8),
    ],
)
def test_the_reference_loss_is_that_of_the_first_batch_or_of_equal_scores(
    first_loss: float, loss: str, num_labels: int, expected: float
) -> None:
    assert reference_loss(first_loss, loss, num_labels) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("losses", "num_warmup_updates", "epoch"),
    [
        ((1.9, 1.0, 0.5), 0, None),
        ((2.0, 2.0), 0, None),
        ((2.1, 0.5), 0, 1),  # in the first epoch, with which others could not be compared
        ((0.5, 0.1, 30.0, 40.0), 0, 3),
        ((5.0, 1.0, 0.5), 10, None),  # within the warm-up
        ((5.0, 5.0, 0.5), 10, 2),
        ((), 0, None),
    ],
)
def test_a_loss_above_twice_the_reference_is_divergence(
    losses: tuple[float, ...], num_warmup_updates: int, epoch: int | None
) -> None:
    assert diverged_epoch(history(*losses), 1.0, num_warmup_updates) == epoch


def test_remedies_leave_out_settings_already_in_use() -> None:
    assert remedies(plain_options(max_gradient_norm=1.0), is_half_precision=False) == (
        "a lower --learning-rate or a longer --warmup-epochs"
    )
    assert remedies(plain_options(max_gradient_norm=0.0), is_half_precision=True) == (
        "a lower --learning-rate, a longer --warmup-epochs, --max-gradient-norm 1 or --precision fp32"
    )


@pytest.mark.parametrize(
    ("learning_rate", "diverges"), [(1e-4, False), (1e-2, False), (0.03, False), (1.0, True), (10.0, True)]
)
def test_real_runs_diverge_where_the_learning_rate_is_far_too_high(
    tmp_path: Path, learning_rate: float, diverges: bool
) -> None:
    trainer = tiny_trainer(plain_options(epochs=4, learning_rate=learning_rate), tmp_path)
    assert trainer.diverged_epoch is None
    trainer.run()
    assert (trainer.diverged_epoch is not None) == diverges


def test_a_resumed_run_keeps_its_reference_loss(tmp_path: Path) -> None:
    whole = tiny_trainer(plain_options(epochs=2, learning_rate=10.0), tmp_path)
    whole.run()
    resumed = tiny_trainer(plain_options(epochs=2, learning_rate=10.0), tmp_path)
    assert resumed.resume()
    assert (resumed.reference_loss, resumed.diverged_epoch) == (whole.reference_loss, 1)
