"""Choosing how many windows run at once: found in spite of noise, kept, and never a reason to fail."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_models import small_config

from ast_cli import ASTForAudioClassification
from ast_cli.engine.micro_batch import (
    CANDIDATES,
    MIN_INPUTS,
    NUM_ROUNDS,
    NUM_WINDOWS_MEASURED,
    BatchSizeSearch,
    cache_file,
    choose_micro_batch,
    keep,
    kept,
    machine_key,
)
from ast_cli.engine.torch.torch_engine import TorchEngine


@pytest.fixture(scope="module")
def engine() -> TorchEngine:
    return TorchEngine(ASTForAudioClassification(small_config(num_hidden_layers=1)))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "batch_sizes.json"


def searched(seconds: Callable[[int], float]) -> tuple[int, list[int]]:
    """Run a search on a machine on which a batch takes so long; return the answer and the sizes tried."""
    search, tried = BatchSizeSearch(), []
    while search.best is None:
        tried.append(search.batch_size)
        search.add(search.batch_size, seconds(search.batch_size))
    assert search.batch_size == search.best
    return search.best, tried


@pytest.mark.parametrize("fastest", CANDIDATES)
def test_fastest_size_per_window_is_found(fastest: int) -> None:
    best, tried = searched(lambda size: size * (1.0 if size == fastest else 1.1))
    assert best == fastest
    assert sum(tried) == NUM_WINDOWS_MEASURED


def test_smaller_of_two_sizes_that_differ_by_less_than_5_percent_is_taken() -> None:
    assert searched(lambda size: size * {1: 1.2, 2: 1.049, 4: 1.02, 8: 1.0, 16: 1.03}[size])[0] == 2
    assert searched(lambda size: size * {1: 1.2, 2: 1.06, 4: 1.02, 8: 1.0, 16: 1.03}[size])[0] == 4


def test_bursts_of_noise_and_slow_first_batches_do_not_change_the_answer() -> None:
    noise = random.Random(0)
    for _ in range(50):
        disturbed = {(size, noise.randrange(1, NUM_ROUNDS + 1)) for size in CANDIDATES for _ in range(2)}
        rounds = dict.fromkeys(CANDIDATES, -1)

        def seconds(size: int, rounds: dict[int, int] = rounds, disturbed: set[tuple[int, int]] = disturbed) -> float:
            rounds[size] += 1
            slow = rounds[size] == 0 or (size, rounds[size]) in disturbed
            return size * (1.0 if size == 4 else 1.1) * (noise.uniform(1.0, 1.14) if slow else 1.0)

        assert searched(seconds)[0] == 4


def test_hopeless_sizes_are_not_tried_again() -> None:
    best, tried = searched(lambda size: size * (1.7 if size <= 2 else 2.0))
    assert best == 1
    assert tried.count(16) == 2


def test_batch_that_is_not_full_says_nothing() -> None:
    search = BatchSizeSearch((4, 8))
    search.add(3, 0.0)
    assert search.batch_size == 4


def test_many_inputs_are_measured_on_once_and_later_runs_repeat(engine: TorchEngine, cache: Path) -> None:
    first = choose_micro_batch(engine, None, MIN_INPUTS)
    sizes = []
    while first.origin != "measured":
        sizes.append(first.num_windows)
        first.add(first.num_windows, first.num_windows * (1.0 if first.num_windows == 8 else 2.0))
    assert sizes[: len(CANDIDATES)] == list(CANDIDATES)
    assert first.num_windows == 8
    assert json.loads(cache.read_text()) == {machine_key(engine): 8}
    for num_inputs in (1, MIN_INPUTS):
        assert str(choose_micro_batch(engine, None, num_inputs)) == "batches of 8 windows (measured before)"
    assert str(choose_micro_batch(engine, 1, MIN_INPUTS)) == "batches of 1 window (as asked for)"


def test_few_inputs_go_by_the_models_size_and_keep_nothing(engine: TorchEngine, cache: Path) -> None:
    chosen = choose_micro_batch(engine, None, MIN_INPUTS - 1)
    chosen.add(chosen.num_windows, 1.0)
    assert (chosen.num_windows, chosen.origin) == (engine.default_batch_size, "by the model's size")
    assert not cache.exists()


def test_what_the_memory_does_not_hold_is_not_tried_again(engine: TorchEngine) -> None:
    chosen = choose_micro_batch(engine, None, MIN_INPUTS)
    chosen.lower(2)
    chosen.add(2, 1.0)
    assert str(chosen) == "batches of 2 windows (what the memory holds)"


def test_key_changes_with_what_the_answer_depends_on(engine: TorchEngine) -> None:
    half = TorchEngine(ASTForAudioClassification(engine.config), dtype=torch.bfloat16)
    others = [half, TorchEngine(ASTForAudioClassification(small_config(num_hidden_layers=2)))]
    assert len({machine_key(one) for one in [engine, *others]}) == 3
    assert f"threads {torch.get_num_threads()}" in machine_key(engine)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"key": 0}', b'{"key": true}', b'{"key": 1e9}']
)
def test_file_that_makes_no_sense_is_ignored_and_replaced(cache: Path, content: bytes) -> None:
    cache.parent.mkdir()
    cache.write_bytes(content)
    assert kept("key") is None
    keep("key", 4)
    assert kept("key") == 4
    assert [file.name for file in cache.parent.iterdir()] == [cache.name]


def test_what_others_kept_stays(cache: Path) -> None:
    keep("one", 4)
    keep("two", 8)
    assert (kept("one"), kept("two"), kept("three")) == (4, 8, None)


def test_folder_that_cannot_be_written_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AST_CACHE", os.devnull)
    keep("key", 4)
    assert kept("key") is None


def test_cache_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_file() == tmp_path / "ast" / "batch_sizes.json"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says the specification
    assert cache_file() == Path.home() / ".cache" / "ast" / "batch_sizes.json"
