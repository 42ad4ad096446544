"""Kaldi-compatible log-mel filter-bank energies, batched, on any torch device, always in float32.

The steps and their order are those of ``torchaudio.compliance.kaldi.fbank`` with a Hann window and no dither. The order
matters: a bin of almost no energy holds rounding noise, and only the same roundings give the same logarithm. Fusing the
pre-emphasis into one multiply-add, for one, moves such bins by 8e-3.
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
CPU_CHUNK_FRAMES = 512  # work of about 3 MB at a time stays near the processor's cache
NUM_BANDS = 4  # of neighboring filters: each sees a part of the spectrum, together they need a third of the products


def log_mel_fbank(waveforms: Tensor, config: FbankConfig = DEFAULT_CONFIG) -> Tensor:
    """Compute Kaldi-compatible log-mel filter-bank energies of a batch.

    Equals ``torchaudio.compliance.kaldi.fbank`` with a Hann window and no dither (tests/audio/test_fbank.py holds the
    tolerance).

    Args:
        waveforms: Mono samples in [-1, 1], shape (batch, num_samples), all at ``config.sampling_rate``.
        config: Defaults to 128 bins at 16 kHz.

    Returns:
        Natural-log energies, float32, shape (batch, num_frames, num_mel_bins);
        num_frames = 1 + (num_samples - 400) // 160 at 16 kHz, 0 when there are fewer than 400 samples.

    Raises:
        UsageError: The waveforms are not a floating-point batch of shape (batch, num_samples).
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
    torch.sub(frames[:, :1], scaled[:, :1], out=emphasized[:, :1])  # the first sample is its own predecessor
    emphasized *= window
    spectrum = torch.fft.rfft(padded)  # (F, 257) complex
    power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
    for band in bands:
        torch.mm(power[:, band.frequencies], band.weights, out=out[:, band.filters])


class _Band(NamedTuple):
    """Neighboring filters of the mel bank: which, which of the 257 frequencies they see, and how (seen, filters)."""

    filters: slice
    frequencies: slice
    weights: Tensor


@functools.lru_cache(maxsize=16)
def _tables(config: FbankConfig, device: torch.device, num_bands: int) -> tuple[Tensor, tuple[_Band, ...]]:
    """Return the window (400,) and the mel bank in bands, on a device."""
    window = torch.hann_window(config.frame_length_samples, periodic=False)
    bank = torch.from_numpy(mel_filter_bank_numpy(config).copy())  # (num_mel_bins, 257)
    bands, start = [], 0
    for filters in bank.tensor_split(num_bands):
        seen = filters.any(0).nonzero()
        frequencies = slice(int(seen.min()), int(seen.max()) + 1) if len(seen) else slice(0, 0)
        weights = filters[:, frequencies].T.contiguous().to(device)
        bands.append(_Band(slice(start, start + len(filters)), frequencies, weights))
        start += len(filters)
    return window.to(device), tuple(bands)


def torchaudio_fbank(waveforms: Tensor, config: FbankConfig = DEFAULT_CONFIG) -> Tensor:
    """Compute the same by torchaudio itself, where it is installed and loads: a second opinion, not a need.

    Args and result as in `log_mel_fbank`.

    Raises:
        DeviceError: torchaudio is missing, or its wheel was built for another torch.
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
    """Import torchaudio's Kaldi module, or say why it cannot be had."""
    try:
        from torchaudio.compliance import kaldi
    except (ImportError, OSError) as error:  # OSError: a wheel built against another torch
        raise DeviceError(
            f"torchaudio cannot be used here ({error}); install the build that belongs to your torch, "
            "or keep the built-in fbank, which needs none"
        ) from error
    return kaldi  # type: ignore[no-any-return]


def numpy_fbank(waveforms: Tensor, config: FbankConfig = DEFAULT_CONFIG) -> Tensor:
    """Compute the same with NumPy (`numpy_fbank.py`), without torch; args and result as in `log_mel_fbank`."""
    clips = [torch.from_numpy(log_mel_fbank_numpy(waveform.float().cpu().numpy(), config)) for waveform in waveforms]
    return torch.stack(clips).to(waveforms.device)


FbankFunction = Callable[[Tensor, FbankConfig], Tensor]
FBANK_BACKENDS: dict[str, FbankFunction] = {
    "native": log_mel_fbank,
    "numpy": numpy_fbank,
    "torchaudio": torchaudio_fbank,
}
