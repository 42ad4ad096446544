"""BirdSet's front end equals a plain computation in float64, in NumPy and in torch, for clips and long recordings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from birdset_reference import CLIP, RATE, plain_decibels, plain_input
from numpy.typing import NDArray

from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.audio.front_ends.birdset import BirdSetFeatureExtractor
from ast_cli.errors import CheckpointError, UsageError

TOLERANCE = 1e-4  # of input values, whose unit is 4.569 dB


def chirps(num_samples: int, seed: int = 0) -> NDArray[np.float32]:
    """Return noise with rising tones, an offset and changes of level, as a field recording has them."""
    draw = np.random.default_rng(seed)
    time_s = np.arange(num_samples) / RATE
    tone = np.sin(2 * np.pi * (2000 + 900 * (time_s % 1.7)) * time_s) * (np.sin(5 * time_s) > 0.3)
    return (0.01 + 0.02 * draw.standard_normal(num_samples) + 0.3 * tone).astype(np.float32)


@pytest.mark.parametrize("backend", ["native", "numpy"])
@pytest.mark.parametrize("num_samples", [CLIP, 3 * RATE, 1024, CLIP + 777])
def test_input_values_equal_a_plain_computation_in_float64(backend: str, num_samples: int) -> None:
    extractor = BirdSetFeatureExtractor(fbank_backend=backend)  # type: ignore[arg-type]
    clip = chirps(num_samples)
    input_values = extractor(clip, sampling_rate=RATE, return_tensors="np").input_values
    assert input_values.shape == (1, 1024, 128)
    np.testing.assert_allclose(input_values[0], plain_input(clip), atol=TOLERANCE)


@pytest.mark.parametrize("backend", ["native", "numpy"])
def test_digital_silence_is_finite_and_at_the_floor(backend: str) -> None:
    extractor = BirdSetFeatureExtractor(fbank_backend=backend)  # type: ignore[arg-type]
    input_values = extractor(np.zeros(CLIP, np.float32), sampling_rate=RATE, return_tensors="np").input_values
    np.testing.assert_allclose(input_values[0, :501], (-100 + 4.268) / 4.569, atol=TOLERANCE)
    np.testing.assert_allclose(input_values[0, 501:], (-80 + 4.268) / 4.569, atol=TOLERANCE)


@pytest.mark.parametrize("seed", range(3))
def test_windows_of_a_long_recording_are_scaled_one_by_one(seed: int) -> None:
    extractor, waveform = BirdSetFeatureExtractor(fbank_backend="numpy"), chirps(CLIP * 2 + 30_000, seed)
    draw = np.random.default_rng(seed)
    blocks = np.split(waveform, np.sort(draw.integers(0, waveform.size, 20)))
    windows = list(extractor.windows(blocks, extractor.hop_frames(None)))
    last = (waveform.size - CLIP) // 320
    assert [window.start_frame for window in windows] == [0, 500, last]
    for window in windows:
        clip = waveform[window.start_frame * 320 :][:CLIP]
        np.testing.assert_allclose(window.content, plain_decibels(clip), atol=5 * TOLERANCE)


def test_the_samples_of_windows_give_the_same_frames_on_a_device() -> None:
    extractor, waveform = BirdSetFeatureExtractor(), chirps(CLIP + RATE)
    hop_frames = extractor.hop_frames(2.5)
    on_cpu = list(extractor.windows([waveform], hop_frames))
    samples = list(extractor.waveform_windows([waveform], hop_frames))
    assert [window.start_frame for window in samples] == [window.start_frame for window in on_cpu] == [0, 100]
    computed = extractor.fbank(torch.from_numpy(np.stack([window.content for window in samples])))
    for frames, window in zip(computed.numpy(), on_cpu, strict=True):
        np.testing.assert_allclose(frames, window.content, atol=5 * TOLERANCE)


def test_a_hop_longer_than_a_window_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--hop must be from 0.01 s to the model's window of 5.00 s, not 5.01 s"):
        BirdSetFeatureExtractor().hop_frames(5.01)


def test_the_configuration_survives_a_round_trip() -> None:
    extractor = BirdSetFeatureExtractor(mean=-3.5, clip_samples=96_000, hop_length=640)
    values = extractor.to_dict()
    again = FeatureExtractor.from_dict(values)
    assert type(again) is BirdSetFeatureExtractor
    assert again.to_dict() == values
    assert (again.frames_per_window, again.longest_hop_frames, again.window_s) == (151, 150, 3.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_fft": 0}, "n_fft must be a whole number from 16 to 65536, not 0"),
        ({"hop_length": 320.0}, "hop_length must be a whole number from 1 to 65536, not 320.0"),
        ({"clip_samples": 500}, "clip_samples must be longer than half of n_fft and a multiple of hop_length, not 500"),
        ({"max_length": 500}, "max_length must be at least the 501 frames of a window"),
        ({"num_mel_bins": 10**9}, "num_mel_bins must be a whole number from 4 to 1024, not 1000000000"),
        ({"fbank_backend": "torchaudio"}, "the front end of BirdSet has no fbank backend 'torchaudio'"),
    ],
)
def test_an_invalid_parameter_is_refused_by_name(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        BirdSetFeatureExtractor(**values)  # type: ignore[arg-type]
    assert str(raised.value) == message
    with pytest.raises(CheckpointError, match="its file: "):
        BirdSetFeatureExtractor.from_dict({}, "its file", **values)


def test_augmentation_sees_natural_logarithms_and_its_result_becomes_decibels_again() -> None:
    extractor = BirdSetFeatureExtractor()
    decibels = torch.tensor([[-100.0, -80.0, 0.0, 30.0]])
    logarithms = extractor.log_energies_of(decibels)
    torch.testing.assert_close(logarithms.exp(), torch.tensor([[1e-10, 1e-8, 1.0, 1e3]]), rtol=1e-5, atol=0)
    torch.testing.assert_close(extractor.fbank_of(logarithms), decibels, rtol=1e-6, atol=1e-5)
