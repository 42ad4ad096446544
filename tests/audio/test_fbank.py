"""The filter bank equals the reference, for whole waveforms and in blocks, alone and in a batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from ast_cli.audio.fbank.blocks import fbank_blocks
from ast_cli.audio.fbank.kaldi_bank import KaldiBank
from ast_cli.audio.fbank.mel_bank import ENERGY_FLOOR, FbankConfig, mel_filter_bank
from ast_cli.audio.fbank.torch_fbank import log_mel_fbank, torchaudio_fbank
from ast_cli.errors import DeviceError, UsageError

TESTS = Path(__file__).resolve().parents[1]
FIXTURE = TESTS / "fixtures" / "fbank_reference.safetensors"
FULL_REFERENCE = TESTS.parent.parent / "shared" / "golden" / "fbank_reference.safetensors"

# Tolerance of natural-log energies against torchaudio's: a twentieth of a percent in energy. Bins of almost no energy
# contain rounding noise, which depends on the order of operations; with the same order they stay within it.
FBANK_TOLERANCE = 5e-4
NOISE_TOLERANCE = 1e-2  # in these bins, if another processor's code computes the Fourier transform
SAME_MATHS_TOLERANCE = 1e-6  # the same operations on the same frames, but a matrix product may sum in another order
EMPTY_FILTER = 3  # at 128 bins, 16 kHz and 512 points


def noise(num_samples: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, num_samples).astype(np.float32)


def fbank_of(waveform: NDArray[np.float32], config: FbankConfig | None = None) -> NDArray[np.float32]:
    return log_mel_fbank(torch.from_numpy(waveform)[None], config or FbankConfig())[0].numpy()


def assert_equals_reference(tensors: dict[str, NDArray[np.float32]]) -> None:
    names = [name.removeprefix("kaldi_fbank/") for name in tensors if name.startswith("kaldi_fbank/")]
    assert len(names) == 10
    for name in names:
        fbank = fbank_of(tensors[f"waveform/{name}"])
        np.testing.assert_allclose(fbank, tensors[f"kaldi_fbank/{name}"], rtol=0, atol=FBANK_TOLERANCE, err_msg=name)


@pytest.mark.portable_roundings
def test_fbank_equals_torchaudio_on_every_element() -> None:
    assert_equals_reference(load_file(FIXTURE))


def test_fbank_equals_torchaudio_on_this_processor_except_for_rounding_noise() -> None:
    """Bins of rounding noise, below 1e-7 of the largest energy of their frame, depend on the processor."""
    tensors = load_file(FIXTURE)
    for name in [name for name in tensors if name.startswith("kaldi_fbank/")]:
        expected = tensors[name]
        fbank = fbank_of(tensors[f"waveform/{name.removeprefix('kaldi_fbank/')}"])
        audible = expected >= expected.max(axis=1, keepdims=True) - np.log(1e7)
        np.testing.assert_allclose(fbank[audible], expected[audible], rtol=0, atol=FBANK_TOLERANCE, err_msg=name)
        np.testing.assert_allclose(fbank, expected, rtol=0, atol=NOISE_TOLERANCE, err_msg=name)


@pytest.mark.portable_roundings
def test_fbank_equals_torchaudio_on_every_element_of_the_full_reference() -> None:
    if not FULL_REFERENCE.is_file():
        pytest.skip("../shared/golden is not beside this repository")
    assert_equals_reference(load_file(FULL_REFERENCE))


@pytest.mark.parity
@pytest.mark.parametrize("num_mel_bins", [40, 128])
def test_fbank_equals_an_installed_torchaudio(num_mel_bins: int) -> None:
    waveforms, config = torch.from_numpy(noise(3 * 8000).reshape(3, 8000)), FbankConfig(num_mel_bins=num_mel_bins)
    try:
        reference = torchaudio_fbank(waveforms, config)
    except DeviceError as error:
        pytest.skip(str(error))
    torch.testing.assert_close(log_mel_fbank(waveforms, config), reference, rtol=0, atol=FBANK_TOLERANCE)


class BrokenFinder:
    """An import hook under which importing torchaudio fails, as if it was built for another torch."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def find_spec(self, name: str, *_: object) -> None:
        if name.startswith("torchaudio"):
            raise self.error


@pytest.mark.parametrize("error", [OSError("libcudart.so.13: cannot open"), ImportError("No module named it")])
def test_a_failed_import_of_torchaudio_is_an_error_with_advice(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [BrokenFinder(error), *sys.meta_path])
    with pytest.raises(DeviceError) as raised:
        torchaudio_fbank(torch.zeros(1, 400))
    assert str(raised.value) == (
        f"torchaudio cannot be imported ({error}); install the build that matches your torch, "
        "or use the native fbank, which does not need torchaudio"
    )


@pytest.mark.parametrize("num_samples", [399, 400, 559, 560, 16000, 100_000])
def test_batch_equals_single(num_samples: int) -> None:
    waveforms = torch.from_numpy(noise(3 * num_samples).reshape(3, num_samples))
    batch = log_mel_fbank(waveforms)
    assert batch.shape == (3, max(0, 1 + (num_samples - 400) // 160), 128)
    assert batch.dtype == torch.float32
    single = torch.cat([log_mel_fbank(waveform[None]) for waveform in waveforms])
    torch.testing.assert_close(batch, single, rtol=0, atol=SAME_MATHS_TOLERANCE)


def test_an_empty_batch_gives_an_empty_fbank() -> None:
    assert log_mel_fbank(torch.zeros(0, 16000)).shape == (0, 98, 128)


def random_blocks(waveform: NDArray[np.float32], seed: int) -> Iterator[NDArray[np.float32]]:
    """Split samples into random blocks, from empty ones and single samples to more than a second."""
    draw = np.random.default_rng(seed)
    start = 0
    while start < waveform.size:
        size = int(draw.choice([0, 1, 7, 159, 160, 161, 399, 400, 401, 1000, 4096, 20_000]))
        yield waveform[start : start + size]
        start += size


@pytest.mark.parametrize("seed", range(25))
def test_blocks_give_the_frames_of_the_whole_waveform(seed: int) -> None:
    waveform = noise(int(np.random.default_rng(seed).integers(400, 60_000)), seed)
    blocks = list(fbank_blocks(random_blocks(waveform, seed), KaldiBank()))
    np.testing.assert_allclose(np.concatenate(blocks), fbank_of(waveform), rtol=0, atol=SAME_MATHS_TOLERANCE)


@pytest.mark.parametrize("num_samples", [1, 160, 399])
def test_a_short_waveform_in_blocks_is_padded_to_one_frame(num_samples: int) -> None:
    waveform = noise(num_samples)
    blocks = list(fbank_blocks(iter(np.array_split(waveform, 2)), KaldiBank()))
    assert len(blocks) == 1
    np.testing.assert_array_equal(blocks[0], fbank_of(np.pad(waveform, (0, 400 - num_samples))))


def test_no_samples_in_blocks_give_no_frames() -> None:
    assert list(fbank_blocks(iter([np.zeros(0, np.float32)]), KaldiBank())) == []


@pytest.mark.parametrize("num_mel_bins", [23, 40, 64, 80, 128, 256])
@pytest.mark.parametrize("sampling_rate", [8000, 16000, 44100])
def test_any_bank_at_any_rate_equals_the_plain_formula(num_mel_bins: int, sampling_rate: int) -> None:
    config = FbankConfig(sampling_rate, num_mel_bins)
    waveform = noise(sampling_rate // 4)
    fbank, expected = fbank_of(waveform, config), plain_fbank(waveform, config)
    assert fbank.shape == expected.shape == (config.num_frames(waveform.size), num_mel_bins)
    # Energies: 1e-4 for the FFT in float32; 2e-5 of a frame's largest because the corners of a triangle are rounded to
    # float32 mel, which is 1e-5 of a weight and much of a filter that touches an FFT bin with its corner alone.
    largest = np.exp(expected.max(axis=1, keepdims=True))
    assert (np.abs(np.exp(fbank) - np.exp(expected)) <= 1e-4 * np.exp(expected) + 2e-5 * largest).all()


def plain_fbank(waveform: NDArray[np.float32], config: FbankConfig) -> NDArray[np.float64]:
    """Compute the fbank frame by frame in double precision, as described in Kaldi's documentation."""
    length, shift = config.sampling_rate * 25 // 1000, config.sampling_rate * 10 // 1000
    fft_length = 2 ** int(np.ceil(np.log2(length)))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / (length - 1))
    bank, rows = plain_bank(config, fft_length), []
    for start in range(0, waveform.size - length + 1, shift):
        frame = waveform[start : start + length].astype(np.float64)
        frame = frame - frame.mean()
        frame = (frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])) * window
        power = np.abs(np.fft.rfft(frame, fft_length)) ** 2
        rows.append(np.log(np.maximum(bank @ power, ENERGY_FLOOR)))
    return np.array(rows)


def plain_bank(config: FbankConfig, fft_length: int) -> NDArray[np.float64]:
    """Build filters that are triangular on the mel scale, from 20 Hz to half the sampling rate, one by one."""

    def mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1127.0 * np.log(1.0 + hz / 700.0)

    low, high = mel(np.array([20.0, config.sampling_rate / 2]))
    edges = np.linspace(low, high, config.num_mel_bins + 2)
    at = mel(np.arange(fft_length // 2) * config.sampling_rate / fft_length)
    bank = np.zeros((config.num_mel_bins, fft_length // 2 + 1))
    for row, (left, center, right) in zip(bank, zip(edges, edges[1:], edges[2:], strict=False), strict=False):
        row[:-1] = np.interp(at, [left, center, right], [0.0, 1.0, 0.0])
    return bank


def test_the_empty_filter_of_the_published_models_is_a_constant() -> None:
    empty = np.flatnonzero(~mel_filter_bank(FbankConfig()).any(axis=1))
    assert empty.tolist() == [EMPTY_FILTER]
    column = fbank_of(noise(16000))[:, EMPTY_FILTER]
    np.testing.assert_allclose(column, np.full(98, -15.9424), rtol=0, atol=5e-5)  # log(1.1920929e-07), four decimals


def test_digital_silence_is_the_floor() -> None:
    np.testing.assert_allclose(fbank_of(np.zeros(800, np.float32)), np.log(np.float32(ENERGY_FLOOR)), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_computed_in_float32(dtype: torch.dtype) -> None:
    waveforms = torch.from_numpy(noise(4000))[None].to(dtype)
    fbank = log_mel_fbank(waveforms)
    assert fbank.dtype == torch.float32
    assert torch.equal(fbank, log_mel_fbank(waveforms.float()))


@pytest.mark.parametrize("waveforms", [torch.zeros(16000), torch.zeros(1, 1, 16000), torch.zeros(1, 16000).int()])
def test_input_that_is_not_a_batch_of_floats_is_refused(waveforms: torch.Tensor) -> None:
    with pytest.raises(UsageError, match=r"floating point of shape \(batch, num_samples\), not torch\.\w+ \("):
        log_mel_fbank(waveforms)


@pytest.mark.parametrize("values", [(999, 128), (768001, 128), (16000, 3), (16000, 1025)])
def test_invalid_filter_banks_are_refused(values: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="must be from"):
        FbankConfig(*values)


@pytest.mark.parametrize("num_frames", [0, 1, 2, 128, 1024])
def test_frames_and_samples_convert_both_ways(num_frames: int) -> None:
    config = FbankConfig()
    num_samples = config.num_samples(num_frames)
    assert num_samples == {0: 0, 1: 400, 2: 560, 128: 20_720, 1024: 164_080}[num_frames]
    assert config.num_frames(num_samples) == num_frames
    assert config.num_frames(max(0, num_samples - 1)) == max(0, num_frames - 1)


@pytest.mark.gpu
def test_fbank_on_cuda_equals_the_reference_where_there_is_energy() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    tensors = load_file(FIXTURE)
    for name in [name.removeprefix("kaldi_fbank/") for name in tensors if name.startswith("kaldi_fbank/")]:
        fbank = log_mel_fbank(torch.from_numpy(tensors[f"waveform/{name}"])[None].cuda())[0].cpu().numpy()
        expected = tensors[f"kaldi_fbank/{name}"]
        # Below 1e-7 of the frame's largest energy (16.1 in natural logarithms) there is only rounding noise.
        audible = expected >= expected.max(axis=1, keepdims=True) - np.log(1e7)
        np.testing.assert_allclose(fbank[audible], expected[audible], rtol=0, atol=FBANK_TOLERANCE, err_msg=name)
        np.testing.assert_allclose(fbank, expected, rtol=0, atol=1e-2, err_msg=name)
