from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tiny_models import small_config

from ast_cli import ASTConfig
from ast_cli.engine.batch_size import choose_batch_size
from ast_cli.engine.interface import cpu_batch_size


def engine(device_name: str = "cpu", default_batch_size: int = 8) -> Any:
    return SimpleNamespace(device_name=device_name, default_batch_size=default_batch_size)


def test_a_size_that_was_asked_for_is_taken() -> None:
    assert str(choose_batch_size(engine(), 1)) == "batches of 1 window (as asked for)"


@pytest.mark.parametrize(
    ("device_name", "origin"), [("cpu", "by the model's size"), ("cuda:0", "as suits cuda:0"), ("mps", "as suits mps")]
)
def test_else_the_engine_knows(device_name: str, origin: str) -> None:
    assert str(choose_batch_size(engine(device_name), None)) == f"batches of 8 windows ({origin})"


def test_what_the_memory_does_not_hold_is_not_tried_again() -> None:
    chosen = choose_batch_size(engine(), None)
    chosen.lower(2)
    assert str(chosen) == "batches of 2 windows (what the memory holds)"


def test_the_larger_a_model_the_smaller_its_batches() -> None:
    sizes = [cpu_batch_size(ASTConfig(hidden_size=width, num_attention_heads=4)) for width in (64, 192, 384, 768)]
    assert sizes == [8, 3, 1, 1]
    assert cpu_batch_size(small_config()) == 8
