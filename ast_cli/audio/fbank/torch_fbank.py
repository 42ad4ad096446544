"""Kaldi-compatible log-mel filter-bank energies of batches, on any torch device, always in float32.

The steps and their order are those of ``torchaudio.compliance.kaldi.fbank`` with a Hann window and no dither. The order
matters: a bin of almost no energy contains rounding noise, and only the same roundings give the same logarithm. For
example, fusing the pre-emphasis into one multiply-add changes such bins by 8e-3.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from ast_cli.audio.fbank.mel_bank import ENERGY_FLOOR, FRAME_LENGTH_MS, FRAME_SHIFT_MS, LOW_HZ, PREEMPHASIS, FbankConfig
from ast_cli.audio.fbank.mel_bank import mel_filter_bank as mel_filter_bank_numpy
from ast_cli.audio.fbank.numpy_fbank import log_mel_fbank_numpy
from ast_cli.errors import DeviceError, UsageError

DEFAULT_CONFIG = FbankConfig()
CPU_CHUNK_FRAMES = 512  # about 3 MB at a time, to stay near the processor's cache
# Neighboring filters form bands: each band multiplies only its part of the spectrum, a third of all products in total.
NUM_BANDS = 4


def log_mel_fbank(waveforms: Tensor, config: FbankConfig = DEFAULT_CONFIG) -> Tensor:
    """Compute Kaldi-compatible log-mel filter-bank energies of a batch.

    Equals ``torchaudio.compliance.kaldi.fbank`` with a Hann window and no dither (tests/audio/test_fbank.py holds the
    tolerance).

    Args:
        waveforms: Mono samples in [-1, 1], shape (batch, num_samples), all at ``config.sampling_rate``.
        config: Parameters of the filter bank, by default 128 bins at 16 kHz.

    Returns:
        Natural-log energies, float32, shape (batch, num_frames, num_mel_bins);
        num_frames = 1 + (num_samples - 400) // 160 at 16 kHz, or 0 for fewer than 400 samples.

    Raises:
        UsageError: If the waveforms are not a floating-point batch of shape (batch, num_samples).
    """
    if waveforms.ndim != 2 or not waveforms.is_floating_point():
        shape = tuple(waveforms.shape)
        raise UsageError(
            f"waveforms must be floating point of shape (batch, num_samples), not {waveforms.dtype} {shape}"
        )
    batch, num_frames = waveforms.shape[0], config.num_frames(waveforms.shape[1])
    if batch == 0 or num_frames == 0:
        return waveforms.new_zeros((batch, num_frames, config.num_mel_bins), dtype=torch.float32)
    frames = waveforms.float().unfold(1, config.frame_length_samples, config.frame_shift_samples)  # (B, F, 400), a view
    energies = torch.empty((batch, num_frames, config.num_mel_bins), device=waveforms.device)
    if waveforms.is_cuda:
        rows = frames.reshape(-1, config.frame_length_samples)
        _frame_energies(rows, config, energies.view(-1, config.num_mel_bins), num_bands=1)  # one kernel, not four
    else:
        for clip_frames, clip_energies in zip(frames, energies, strict=True):
            for chunk, out in zip(
                clip_frames.split(CPU_CHUNK_FRAMES), clip_energies.split(CPU_CHUNK_FRAMES), strict=True
            ):
                _frame_energies(chunk, config, out, NUM_BANDS)
    return energies.clamp_min_(ENERGY_FLOOR).log_()


def _frame_energies(frames: Tensor, config: FbankConfig, out: Tensor, num_bands: int) -> None:
    """Write the mel energies of frames (F, 400) to ``out`` (F, num_mel_bins)."""
    window, bands = _tables(config, frames.device, num_bands)
    length = config.frame_length_samples
    frames = frames - frames.mean(1, keepdim=True)  # Kaldi's remove_dc_offset
    scaled = frames * PREEMPHASIS
    padded = frames.new_zeros((frames.shape[0], config.fft_length))
    emphasized = padded[:, :length]
    torch.sub(frames[:, 1:], scaled[:, :-1], out=emphasized[:, 1:])
    torch.sub(
        frames[:, :1], scaled[:, :1], out=emphasized[:, :1]
    )  # for the first sample, Kaldi uses the sample itself as its predecessor
    emphasized *= window
    spectrum = torch.fft.rfft(padded)  # (F, 257) complex
    power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
    for band in bands:
        torch.mm(power[:, band.frequencies], band.weights, out=out[:, band.filters])


class _Band(NamedTuple):
    """A band of neighboring filters of the mel bank.

    Attributes:
        filters: Range of the filters' indices.
        frequencies: Range of the FFT bins, of 257 at 16 kHz, in which the filters have weights.
        weights: Weights, shape (num_frequencies, num_filters).
    """

    filters: slice
    frequencies: slice
    weights: Tensor


@functools.lru_cache(maxsize=16)
def _tables(config: FbankConfig, device: torch.device, num_bands: int) -> tuple[Tensor, tuple[_Band, ...]]:
    """Return the Hann window (400,) and the bands of the mel bank, on a device."""
    window = torch.hann_window(config.frame_length_samples, periodic=False)
    bank = torch.from_numpy(mel_filter_bank_numpy(config).copy())  # (num_mel_bins, 257)
    bands, start = [], 0
    for filters in bank.tensor_split(num_bands):
        used = filters.any(0).nonzero()
        frequencies = slice(int(used.min()), int(used.max()) + 1) if len(used) else slice(0, 0)
        weights = filters[:, frequencies].T.contiguous().to(device)
        bands.append(_Band(slice(start, start + len(filters)), frequencies, weights))
        start += len(filters)
    return window.to(device), tuple(bands)


def torchaudio_fbank(waveforms: Tensor, config: FbankConfig = DEFAULT_CONFIG) -> Tensor:
    """Compute the same energies with torchaudio, an optional dependency, for comparison.

    Arguments and result are those of `log_mel_fbank`.

    Raises:
        DeviceError: If torchaudio is missing, or was built for another version of torch.
    """
    kaldi = _import_torchaudio_kaldi()
    clips = [
        kaldi.fbank(
            waveform[None].float(),
            sample_frequency=config.sampling_rate,
            window_type="hanning",
            num_mel_bins=config.num_mel_bins,
            frame_length=FRAME_LENGTH_MS,
            frame_shift=FRAME_SHIFT_MS,
            low_freq=LOW_HZ,
            preemphasis_coefficient=PREEMPHASIS,
        )
        for waveform in waveforms
    ]
    return torch.stack(clips)


def _import_torchaudio_kaldi() -> ModuleType:
    """Import torchaudio's Kaldi module, or raise an error that says why it cannot be imported."""
    try:
        from torchaudio.compliance import kaldi
    except (ImportError, OSError) as error:  # OSError: a wheel built against another torch
        raise DeviceError(
            f"torchaudio cannot be imported ({error}); install the build that matches your torch, "
            "or use the native fbank, which does not need torchaudio"
        ) from error
    return kaldi  # type: ignore[no-any-return]


def numpy_fbank(waveforms: Tensor, config: FbankConfig = DEFAULT_CONFIG) -> Tensor:
    """Compute the same energies with NumPy (`numpy_fbank.py`); arguments and result are those of `log_mel_fbank`."""
    clips = [torch.from_numpy(log_mel_fbank_numpy(waveform.float().cpu().numpy(), config)) for waveform in waveforms]
    return torch.stack(clips).to(waveforms.device)


FbankFunction = Callable[[Tensor, FbankConfig], Tensor]
FBANK_BACKENDS: dict[str, FbankFunction] = {
    "native": log_mel_fbank,
    "numpy": numpy_fbank,
    "torchaudio": torchaudio_fbank,
}
