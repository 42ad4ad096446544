"""The filter bank in NumPy equals the reference in bins with energy, and does not import torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from ast_cli.audio.fbank.mel_bank import ENERGY_FLOOR, FbankConfig
from ast_cli.audio.fbank.numpy_fbank import log_mel_fbank_numpy

TESTS = Path(__file__).resolve().parents[1]
FIXTURE = TESTS / "fixtures" / "fbank_reference.safetensors"
FULL_REFERENCE = TESTS.parent.parent / "shared" / "golden" / "fbank_reference.safetensors"

# The rounding of NumPy's FFT differs from torch's. The difference is small in bins of at least a ten-millionth of their
# frame's largest energy; below that, the logarithm is that of rounding noise.
TOLERANCE, LOUD_SHARE, QUIET_TOLERANCE = 5e-4, 1e-7, 1e-2


@pytest.mark.parametrize("file", [FIXTURE, FULL_REFERENCE], ids=["fixture", "full reference"])
def test_numpy_fbank_equals_torchaudio_where_there_is_energy(file: Path) -> None:
    if not file.is_file():
        pytest.skip("../shared/golden is not beside this repository")
    tensors = load_file(file)
    names = [name.removeprefix("kaldi_fbank/") for name in tensors if name.startswith("kaldi_fbank/")]
    assert len(names) == 10
    for name in names:
        expected = tensors[f"kaldi_fbank/{name}"]
        fbank = log_mel_fbank_numpy(tensors[f"waveform/{name}"], FbankConfig())
        assert fbank.dtype == np.float32
        assert fbank.shape == expected.shape
        is_loud = np.exp(expected) >= LOUD_SHARE * np.exp(expected).max(axis=1, keepdims=True)
        difference = np.abs(fbank - expected)
        assert difference[is_loud].max() <= TOLERANCE, name
        assert difference.max() <= QUIET_TOLERANCE, name


def noise(num_samples: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(-0.5, 0.5, num_samples).astype(np.float32)


@pytest.mark.parametrize(("rate", "num_mel_bins"), [(16_000, 128), (8_000, 40), (44_100, 64)])
def test_numpy_fbank_equals_the_torch_form_at_any_size(rate: int, num_mel_bins: int) -> None:
    torch = pytest.importorskip("torch")
    from ast_cli.audio.fbank.torch_fbank import log_mel_fbank

    config, waveform = FbankConfig(rate, num_mel_bins), noise(5 * rate)
    expected = log_mel_fbank(torch.from_numpy(waveform)[None], config)[0].numpy()
    np.testing.assert_allclose(log_mel_fbank_numpy(waveform, config), expected, rtol=0, atol=2 * TOLERANCE)


def test_fewer_samples_than_a_frame_give_no_frames() -> None:
    assert log_mel_fbank_numpy(noise(399), FbankConfig()).shape == (0, 128)
    assert log_mel_fbank_numpy(noise(400), FbankConfig()).shape == (1, 128)


def test_digital_silence_is_the_floor_everywhere() -> None:
    fbank = log_mel_fbank_numpy(np.zeros(4000, np.float32), FbankConfig())
    np.testing.assert_array_equal(fbank, np.full_like(fbank, np.log(np.float32(ENERGY_FLOOR))))


def test_numpy_fbank_does_not_import_torch() -> None:
    program = "import sys; import ast_cli.audio.fbank.numpy_fbank; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
