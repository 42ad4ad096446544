"""A run with the filter bank on the device of the model gives the same results as one with it on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_tagger import tiny_tagger

from ast_cli import ClassifyOptions, Tagger
from ast_cli.engine.torch.torch_engine import TorchEngine
from ast_cli.tagging.decode.opening import Turn
from ast_cli.tagging.inputs import Input
from ast_cli.tagging.score import batch
from ast_cli.tagging.score.classify import classify_turns
from ast_cli.tagging.score.recording import WaveformStream
from ast_cli.tagging.score.runner import DeviceRunner, HostRunner, runner_for

SCORE_TOLERANCE = 1e-5  # float32 numbers are added in another order


@pytest.fixture
def tagger() -> Tagger:
    return tiny_tagger()


def test_model_on_a_cpu_has_the_filter_bank_on_the_cpu(tagger: Tagger) -> None:
    assert isinstance(runner_for(tagger.engine, tagger.feature_extractor), HostRunner)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
@pytest.mark.parametrize("hop_s", [None, 0.25])
def test_results_do_not_depend_on_where_the_filter_bank_runs(
    tagger: Tagger,
    write_wav: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    hop_s: float | None,
    batch_size: int,
) -> None:
    paths = [str(write_wav(f"{i}.wav", length)) for i, length in enumerate((2.0, 0.3, 0.01, 1.237, 0.65))]
    paths.insert(2, "missing.wav")
    changes = {"timestamps": True, "top_k": 4, "hop_s": hop_s, "batch_size": batch_size}
    expected = list(tagger.classify_paths(paths, **changes))
    monkeypatch.setattr(batch, "runner_for", DeviceRunner)
    for ours, plain in zip(tagger.classify_paths(paths, **changes), expected, strict=True):
        assert (ours.path, ours.status, ours.duration_s) == (plain.path, plain.status, plain.duration_s)
        assert ours.warnings == plain.warnings
        for window, other in zip(ours.windows or (), plain.windows or (), strict=True):
            assert (window.start_s, window.end_s) == (other.start_s, other.end_s)
            by_label = {tag.label: tag.score for tag in other.tags}
            for tag in window.tags:
                assert tag.score == pytest.approx(by_label[tag.label], abs=SCORE_TOLERANCE)


def test_device_without_enough_memory_gets_smaller_batches(
    tagger: Tagger, write_wav: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_wav("long.wav", 4.0)
    expected = tagger.classify(path, top_k=4, batch_size=4)
    monkeypatch.setattr(batch, "runner_for", DeviceRunner)
    assert isinstance(tagger.engine, TorchEngine)
    device_logits = tagger.engine.device_logits

    def small(input_values: torch.Tensor) -> torch.Tensor:
        if len(input_values) > 1:
            raise torch.OutOfMemoryError("no room for two")
        return device_logits(input_values)

    monkeypatch.setattr(tagger.engine, "device_logits", small)
    with pytest.warns(match="out of memory"):
        result = tagger.classify(path, top_k=4, batch_size=4)
    for tag, other in zip(result.tags, expected.tags, strict=True):
        assert (tag.label, tag.score) == (other.label, pytest.approx(other.score, abs=SCORE_TOLERANCE))


def test_windows_are_reported_at_once_with_batch_size_1_on_a_gpu(
    tagger: Tagger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "runner_for", DeviceRunner)
    options = ClassifyOptions(timestamps=True, stream=True, batch_size=1)
    num_read = 0

    class Live(WaveformStream):
        def __iter__(self) -> Iterator[NDArray[np.float32]]:
            nonlocal num_read
            for block in np.split(self._samples, 4):
                num_read += 1
                yield block

    noise = (0.1 * np.random.default_rng(0).standard_normal(4 * 11_000)).astype(np.float32)
    live = Live(noise, 16000, 16000, options)
    num_read_before = [num_read for _ in classify_turns(tagger, [Turn(Input("live"), lambda: live)], options)]
    assert num_read_before[:3] == [1, 2, 3]  # each block contains a window of 10,480 samples; none waits for the next
