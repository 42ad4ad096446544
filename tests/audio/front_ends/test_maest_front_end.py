"""MAEST's front end gives the features of its description, in NumPy and torch, whole and in blocks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from maest_reference import maest_fbank, slaney_filters
from numpy.typing import NDArray

from ast_cli.audio.fbank.filter_bank import FbankBackend
from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.audio.front_ends.kaldi import ASTFeatureExtractor
from ast_cli.audio.front_ends.maest import CHUNK_FRAMES, MAESTFeatureExtractor, SlaneyBank
from ast_cli.engine.torch.torch_engine import TorchEngine
from ast_cli.engine.torch.waveforms import WaveformEngine
from ast_cli.errors import CheckpointError, UsageError
from ast_cli.hub.names import PREPROCESSOR_NAME
from ast_cli.training.augmentation import Batch
from ast_cli.training.data.batches import augmented
from ast_cli.training.options import TrainOptions

TOLERANCE = 1e-4  # of features; float32 against float64
SAME = 1e-5  # of features of the same samples in other batches or on another device
MEAN, STD = 2.06755686098554, 1.268292820667291
BACKENDS: tuple[FbankBackend, ...] = ("native", "numpy")
LENGTHS = (1, 255, 256, 257, 511, 512, 513, 4000)


def noise(num_samples: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, num_samples).astype(np.float32)


def chirp(num_samples: int) -> NDArray[np.float32]:
    """Return a tone from 50 to 7,000 Hz that fades from full scale to 1e-4."""
    time = np.arange(num_samples) / 16000
    sweep = 50 + (7000 - 50) * time / (2 * time[-1])
    samples: NDArray[np.float32] = (np.geomspace(1, 1e-4, num_samples) * np.sin(2 * np.pi * sweep * time)).astype("f4")
    return samples


def in_blocks(waveform: NDArray[np.float32], seed: int, largest: int) -> Iterator[NDArray[np.float32]]:
    draw = np.random.default_rng(seed)
    start = 0
    while start < waveform.size:
        size = int(draw.integers(0, largest + 1))
        yield waveform[start : start + size]
        start += size


def whole_fbank(extractor: FeatureExtractor, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate(list(extractor.fbank_blocks([waveform])))


# The numbers


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("compression", ["logC", "log", None])
def test_fbank_equals_that_of_the_description(compression: str | None, backend: FbankBackend) -> None:
    extractor = MAESTFeatureExtractor(log_compression=compression, fbank_backend=backend)
    fbank, expected = whole_fbank(extractor, noise(40_000)), maest_fbank(noise(40_000), compression)
    assert fbank.shape == expected.shape == (1 + 40_000 // 256, 96)
    np.testing.assert_allclose(fbank, expected, rtol=TOLERANCE if compression is None else 0, atol=TOLERANCE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_features_of_a_tone_equal_those_of_the_description(backend: FbankBackend) -> None:
    extractor = MAESTFeatureExtractor(max_length=70, fbank_backend=backend)
    values = extractor(chirp(16_000), 16000, return_tensors="np").input_values[0]
    expected = np.zeros((70, 96))
    expected[:63] = maest_fbank(chirp(16_000))
    np.testing.assert_allclose(values, (expected - MEAN) / (2 * STD), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(values[63:], -0.8151, atol=1e-4)  # padding


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("rate", "n_fft", "hop", "num_bins"), [(22050, 1024, 300, 64), (8000, 255, 100, 8), (16000, 512, 512, 96)]
)
def test_other_sizes_equal_those_of_the_description(
    rate: int, n_fft: int, hop: int, num_bins: int, backend: FbankBackend
) -> None:
    sizes = {"sampling_rate": rate, "n_fft": n_fft, "hop_length": hop, "num_mel_bins": num_bins}
    extractor = MAESTFeatureExtractor(**sizes, fbank_backend=backend)  # type: ignore[arg-type]
    expected = maest_fbank(noise(9000), rate=rate, n_fft=n_fft, hop=hop, num_bins=num_bins)
    np.testing.assert_allclose(whole_fbank(extractor, noise(9000)), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("num_samples", LENGTHS)
def test_every_length_has_a_frame_for_each_hop(num_samples: int, backend: FbankBackend) -> None:
    extractor = MAESTFeatureExtractor(fbank_backend=backend)
    fbank = whole_fbank(extractor, noise(num_samples))
    assert fbank.shape == (1 + num_samples // 256, 96)
    np.testing.assert_allclose(fbank, maest_fbank(noise(num_samples)), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_silence_is_the_same_input_as_padding(backend: FbankBackend) -> None:
    extractor = MAESTFeatureExtractor(max_length=20, fbank_backend=backend)
    values = extractor(np.zeros(2000, np.float32), 16000, return_tensors="np").input_values[0]
    np.testing.assert_array_equal(values, np.broadcast_to(values[-1, -1], values.shape))


def test_numpy_equals_torch_and_batches_equal_single_waveforms() -> None:
    waveforms = np.stack([noise(30_000, seed) for seed in range(3)] + [chirp(30_000)])
    batch = SlaneyBank().of_batch(torch.from_numpy(waveforms), "native")
    through_numpy = SlaneyBank().of_batch(torch.from_numpy(waveforms), "numpy")
    assert batch.dtype == through_numpy.dtype == torch.float32
    for row, numpy_row, waveform in zip(batch, through_numpy, waveforms, strict=True):
        np.testing.assert_array_equal(numpy_row, SlaneyBank().of_waveform(waveform))
        np.testing.assert_allclose(row, numpy_row, rtol=0, atol=2 * SAME)


# Blocks and windows


@pytest.mark.parametrize("seed", range(12))
def test_blocks_of_any_size_give_the_frames_of_the_whole(seed: int) -> None:
    extractor = MAESTFeatureExtractor(fbank_backend=BACKENDS[seed % 2])
    draw = np.random.default_rng(seed)
    waveform = noise(int(draw.integers(1, 3 * CHUNK_FRAMES * 256)), seed)
    largest = int(draw.choice([100, 700, 5000, 200_000]))
    blocks = np.concatenate(list(extractor.fbank_blocks(in_blocks(waveform, seed, largest))))
    np.testing.assert_allclose(blocks, whole_fbank(extractor, waveform), rtol=0, atol=SAME)


def test_an_empty_recording_has_no_frames() -> None:
    extractor = MAESTFeatureExtractor()
    assert list(extractor.fbank_blocks([np.zeros(0, np.float32)])) == []
    assert list(extractor.waveform_windows([np.zeros(0, np.float32)], 20)) == []


@pytest.mark.parametrize("num_samples", [*LENGTHS, 256 * 39, 256 * 40 - 1, 30_000, 60_001])
@pytest.mark.parametrize("hop_frames", [40, 17])
def test_windows_of_samples_give_the_input_of_slices_of_the_fbank(num_samples: int, hop_frames: int) -> None:
    """The path of a GPU and the path of a CPU have the same windows, in the same places, with the same features."""
    extractor, waveform = MAESTFeatureExtractor(max_length=40), noise(num_samples)
    slices = list(extractor.windows(in_blocks(waveform, 1, 9000), hop_frames))
    windows = list(extractor.waveform_windows(in_blocks(waveform, 2, 9000), hop_frames))
    assert [window.start_frame for window in slices] == [window.start_frame for window in windows]
    sizes = [extractor.filter_bank.num_frames(window.content.size) for window in windows]
    assert sizes == [len(window.content) for window in slices]
    samples = np.zeros((len(windows), extractor.filter_bank.num_samples(40)), np.float32)
    for row, window in zip(samples, windows, strict=True):
        row[: window.content.size] = window.content
    engine = WaveformEngine(_Anywhere(), extractor)  # type: ignore[arg-type]
    on_device = engine.input_values(torch.from_numpy(samples), sizes).numpy()
    np.testing.assert_allclose(
        on_device, extractor.input_values([window.content for window in slices]), rtol=0, atol=SAME
    )


class _Anywhere:
    """Stands for an engine whose model is not needed."""

    device = torch.device("cpu")
    device_logits = TorchEngine.device_logits


def test_windows_are_slices_and_differ_from_cut_recordings_in_their_first_and_last_frame() -> None:
    extractor, waveform = MAESTFeatureExtractor(max_length=40), noise(256 * 39 * 3)
    for window in list(extractor.windows([waveform], 39))[1:-1]:
        start = window.start_frame * 256
        alone = maest_fbank(waveform[start : start + 39 * 256])
        differs = np.abs(window.content - alone).max(axis=1) > TOLERANCE
        assert differs.nonzero()[0].tolist() == [0, 39]


# The file of a checkpoint


def test_the_file_names_the_front_end_and_is_written_back(tmp_path: Path) -> None:
    values = {
        "feature_extractor_type": "MAESTFeatureExtractor",
        "auto_map": {"AutoFeatureExtractor": "feature_extraction_maest.MAESTFeatureExtractor"},
        "n_fft": 256,
        "hop_length": 128,
        "log_compression": None,
        "max_length": 626,
        "std": 1.5,
        "owner": "someone",
    }
    (tmp_path / PREPROCESSOR_NAME).write_text(json.dumps(values))
    extractor = FeatureExtractor.from_pretrained(tmp_path)
    assert isinstance(extractor, MAESTFeatureExtractor)
    assert extractor.filter_bank == SlaneyBank(16000, 96, 256, 128, None)
    assert extractor.frame_shift_s == 0.008
    extractor.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / PREPROCESSOR_NAME).read_text())
    assert saved == {
        "padding_side": "right",
        "owner": "someone",
        "feature_extractor_type": "MAESTFeatureExtractor",
        "feature_size": 1,
        "sampling_rate": 16000,
        "num_mel_bins": 96,
        "max_length": 626,
        "padding_value": 0.0,
        "do_normalize": True,
        "mean": MEAN,
        "std": 1.5,
        "return_attention_mask": False,
        "n_fft": 256,
        "hop_length": 128,
        "log_compression": None,
    }
    assert FeatureExtractor.from_pretrained(tmp_path / "saved").to_dict() == saved


def test_a_file_without_values_gets_those_of_the_published_models() -> None:
    extractor = FeatureExtractor.from_dict({"feature_extractor_type": "MAESTFeatureExtractor"})
    assert extractor.filter_bank == SlaneyBank(16000, 96, 512, 256, "logC")
    assert (extractor.max_length, extractor.mean, extractor.std, extractor.padding_value) == (1876, MEAN, STD, 0)
    assert extractor.frame_shift_s == 0.016
    assert extractor.window_s == 30.016


def test_another_class_refuses_the_file() -> None:
    with pytest.raises(CheckpointError, match="needs another front end, MAESTFeatureExtractor"):
        ASTFeatureExtractor.from_dict({"feature_extractor_type": "MAESTFeatureExtractor"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("n_fft", value) for value in (0, 1, -512, 8193, 10**30, 512.0, True, "512", None, [512])),
        *(("hop_length", value) for value in (0, -1, 513, 256.0, True, None, float("nan"))),
        *(("log_compression", value) for value in ("logc", "", 1, False, ["logC"], {"log": 1})),
        *(("num_mel_bins", value) for value in (0, 10**6, None)),
        *(("max_length", value) for value in (0, -2, 1e3, None)),
        ("sampling_rate", 0),
        ("mean", float("nan")),
        ("std", 0),
    ],
)
def test_a_hostile_value_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=rf"{PREPROCESSOR_NAME}: {name} must be"):
        FeatureExtractor.from_dict({"feature_extractor_type": "MAESTFeatureExtractor", name: value})


def test_a_file_without_a_fixed_length_is_refused() -> None:
    with pytest.raises(CheckpointError, match="max_length -1, any number of frames, is not supported"):
        FeatureExtractor.from_dict({"feature_extractor_type": "MAESTFeatureExtractor", "max_length": -1})


def test_torchaudio_has_no_implementation_of_this_front_end() -> None:
    with pytest.raises(UsageError, match="the front end of MAEST has no fbank backend 'torchaudio'"):
        MAESTFeatureExtractor(fbank_backend="torchaudio")


# Augmentation


@pytest.mark.parametrize("compression", ["logC", "log", None])
def test_a_gain_of_the_log_energies_is_that_of_the_waveform(compression: str | None) -> None:
    extractor = MAESTFeatureExtractor(log_compression=compression)
    quiet, loud = (torch.from_numpy(whole_fbank(extractor, gain * noise(8000))) for gain in (np.float32(0.25), 1))
    changed = extractor.fbank_of(extractor.log_energies_of(quiet) + 2 * np.log(4))
    np.testing.assert_allclose(changed, loud, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("compression", ["logC", "log", None])
def test_silence_stays_silence_in_augmentation(compression: str | None) -> None:
    extractor = MAESTFeatureExtractor(log_compression=compression)
    silence = torch.from_numpy(whole_fbank(extractor, np.zeros(8000, np.float32)))
    options = TrainOptions(gain_db=20, filter_db=6, stretch=0.2, mixup=1)
    batch = Batch(silence[None].repeat(3, 1, 1), torch.tensor([len(silence), 10, 20]), torch.eye(3))
    changed = augmented(batch, extractor, options, np.random.default_rng(0))
    assert changed is not batch
    np.testing.assert_allclose(changed.fbank[batch.frame_mask[..., 0]], silence[0, 0], rtol=1e-5)


def test_mixed_clips_have_the_sum_of_their_powers() -> None:
    extractor = MAESTFeatureExtractor()
    fbanks = torch.stack([torch.from_numpy(whole_fbank(extractor, noise(8000, seed))) for seed in range(2)])
    batch = Batch(fbanks, torch.tensor([len(fbanks[0])] * 2), torch.eye(2))
    mixed = augmented(batch, extractor, TrainOptions(mixup=1, mixup_alpha=50), np.random.default_rng(4))
    first = mixed.targets.diagonal()[:, None, None]
    assert ((first > 0.1) & (first < 0.9)).all()
    power = (10 ** fbanks.double() - 1) * first**2 + (10 ** fbanks.flip(0).double() - 1) * (1 - first) ** 2
    np.testing.assert_allclose(mixed.fbank, (1 + power).log10(), rtol=0, atol=TOLERANCE)


# The filters


def test_filters_have_the_area_1_and_the_shape_of_the_description() -> None:
    from ast_cli.audio.front_ends.maest import _tables

    window, filters = _tables(SlaneyBank())
    np.testing.assert_allclose(filters.T, slaney_filters(16000, 512, 96), rtol=0, atol=1e-7)
    assert window[0] == 0
    assert window[256] == 1
