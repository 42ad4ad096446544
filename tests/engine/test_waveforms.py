"""Logits from samples as on a GPU: the usual features, one batch ahead. The CPU runs the same steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_models import small_config

from ast_cli import ASTFeatureExtractor, ASTForAudioClassification
from ast_cli.engine.torch.torch_engine import TorchEngine
from ast_cli.engine.torch.waveforms import NUM_SLOTS, WaveformEngine
from ast_cli.errors import CheckpointError

TOLERANCE = 1e-5  # the same float32 operations on the same samples, grouped otherwise
GPU_TOLERANCE = 1e-2  # logits of about 1 in float32: another FFT, whose rounding noise matters in empty bins
EXTRACTOR = ASTFeatureExtractor(num_mel_bins=32, max_length=64)
WINDOW_SAMPLES = EXTRACTOR.fbank_config.num_samples(64)
DEVICES = [pytest.param("cpu"), pytest.param("cuda", marks=pytest.mark.gpu)]


def make_engine(device: str = "cpu", scale: float = 0.3) -> TorchEngine:
    torch.manual_seed(0)
    model = ASTForAudioClassification(small_config(num_labels=4))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=scale)
    return TorchEngine(model, device)


def noise(num_samples: int, seed: int) -> NDArray[np.float32]:
    return (0.1 * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


def plain_logits(engine: TorchEngine, waveforms: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    fbanks = [EXTRACTOR.fbank(torch.from_numpy(waveform)[None])[0].numpy() for waveform in waveforms]
    return engine.logits(EXTRACTOR.input_values(fbanks))


@pytest.mark.parametrize("device", DEVICES)
def test_logits_equal_those_of_the_feature_extractor(device: str) -> None:
    engine = make_engine(device)
    lengths = [WINDOW_SAMPLES, 400, WINDOW_SAMPLES - 160, WINDOW_SAMPLES]
    waveforms = [noise(length, seed) for seed, length in enumerate(lengths)]
    logits = WaveformEngine(engine, EXTRACTOR).start(waveforms).logits()
    tolerance = TOLERANCE if device == "cpu" else GPU_TOLERANCE
    np.testing.assert_allclose(logits, plain_logits(engine, waveforms), rtol=0, atol=tolerance)


@pytest.mark.parametrize("device", DEVICES)
def test_batches_started_one_after_another_keep_their_logits(device: str) -> None:
    engine = make_engine(device)
    batches = [[noise(WINDOW_SAMPLES, seed + i) for i in range(1 + seed % 3)] for seed in range(7)]
    waveform_engine = WaveformEngine(engine, EXTRACTOR)
    started = [waveform_engine.start(waveforms) for waveforms in batches]
    tolerance = TOLERANCE if device == "cpu" else GPU_TOLERANCE
    for batch, waveforms in zip(started, batches, strict=True):
        np.testing.assert_allclose(batch.logits(), plain_logits(engine, waveforms), rtol=0, atol=tolerance)


def test_a_shorter_window_contains_no_samples_of_the_previous_batch() -> None:
    engine = make_engine()
    waveform_engine = WaveformEngine(engine, EXTRACTOR)
    short = noise(4_000, 1)
    alone = waveform_engine.start([short]).logits()
    for seed in (2, 3):
        waveform_engine.start([noise(WINDOW_SAMPLES, seed)])
    np.testing.assert_array_equal(waveform_engine.start([short]).logits(), alone)


def test_the_last_batch_is_padded_for_an_engine_that_keeps_its_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine()
    monkeypatch.setattr(engine, "keeps_batch_size", True)
    sizes, device_logits = list[int](), engine.device_logits
    monkeypatch.setattr(engine, "device_logits", lambda values: sizes.append(len(values)) or device_logits(values))
    waveform_engine = WaveformEngine(engine, EXTRACTOR)
    batches = [[noise(WINDOW_SAMPLES, 10 * seed + i) for i in range(size)] for seed, size in enumerate((4, 4, 1, 3))]
    for waveforms in batches:
        logits = waveform_engine.start(waveforms).logits()
        np.testing.assert_allclose(logits, plain_logits(engine, waveforms), rtol=0, atol=TOLERANCE)
    assert sizes == [4, 4, 4, 4]


def test_a_smaller_batch_is_not_padded_after_the_memory_ran_out(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine()
    monkeypatch.setattr(engine, "keeps_batch_size", True)
    device_logits = engine.device_logits

    def small(values: torch.Tensor) -> torch.Tensor:
        if len(values) > 2:
            raise torch.OutOfMemoryError("no room for three")
        return device_logits(values)

    monkeypatch.setattr(engine, "device_logits", small)
    waveform_engine = WaveformEngine(engine, EXTRACTOR)
    waveforms = [noise(WINDOW_SAMPLES, seed) for seed in range(4)]
    with pytest.raises(torch.OutOfMemoryError):
        waveform_engine.start(waveforms)
    logits = waveform_engine.start(waveforms[:2]).logits()
    np.testing.assert_allclose(logits, plain_logits(engine, waveforms[:2]), rtol=0, atol=TOLERANCE)


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(CheckpointError, match="not finite"):
        WaveformEngine(make_engine(scale=1e30), EXTRACTOR).start([noise(WINDOW_SAMPLES, 0)]).logits()


@pytest.mark.gpu
def test_a_batch_is_started_before_the_previous_one_is_computed() -> None:
    engine = make_engine("cuda")
    waveform_engine = WaveformEngine(engine, EXTRACTOR)
    # What waits for the device at its first use: kernels, each slot's memory, page-locked memory for logits.
    started = [waveform_engine.start([noise(WINDOW_SAMPLES, seed)]) for seed in range(2 * NUM_SLOTS)]
    for batch in started:
        batch.logits()
    started.clear()
    torch.cuda._sleep(1_000_000_000)  # cycles: half a second in which the device is busy
    busy = torch.cuda.current_stream().record_event()
    batch = waveform_engine.start([noise(WINDOW_SAMPLES, 1)])
    assert not busy.query()
    assert np.isfinite(batch.logits()).all()
    assert busy.query()
