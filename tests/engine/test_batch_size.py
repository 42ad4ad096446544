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


def test_a_requested_batch_size_is_used() -> None:
    assert str(choose_batch_size(engine(), 1)) == "batches of 1 window (as requested)"


@pytest.mark.parametrize(
    ("device_name", "origin"),
    [("cpu", "by the model's size"), ("cuda:0", "default for cuda:0"), ("mps", "default for mps")],
)
def test_the_default_batch_size_is_that_of_the_engine(device_name: str, origin: str) -> None:
    assert str(choose_batch_size(engine(device_name), None)) == f"batches of 8 windows ({origin})"


def test_a_batch_size_that_exceeds_the_memory_is_lowered_for_the_whole_run() -> None:
    chosen = choose_batch_size(engine(), None)
    chosen.lower(2)
    assert str(chosen) == "batches of 2 windows (limited by memory)"


def test_larger_models_get_smaller_batches() -> None:
    sizes = [cpu_batch_size(ASTConfig(hidden_size=width, num_attention_heads=4)) for width in (64, 192, 384, 768)]
    assert sizes == [8, 3, 1, 1]
    assert cpu_batch_size(small_config()) == 8
