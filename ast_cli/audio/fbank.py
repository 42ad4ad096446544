"""Kaldi-compatible log-mel filter-bank energies, batched, on any torch device, always in float32.

The steps and their order are those of ``torchaudio.compliance.kaldi.fbank`` with a Hann window and no dither. The order
matters: a bin of almost no energy holds rounding noise, and only the same roundings give the same logarithm. Fusing the
pre-emphasis into one multiply-add, for one, moves such bins by 8e-3.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ast_cli.audio.mel_bank import ENERGY_FLOOR, FRAME_LENGTH_MS, FRAME_SHIFT_MS, LOW_HZ, PREEMPHASIS, FbankConfig
from ast_cli.audio.mel_bank import mel_filter_bank as mel_filter_bank_numpy
from ast_cli.errors import DeviceError, UsageError

DEFAULT_CONFIG = FbankConfig()
CPU_CHUNK_FRAMES = 512  # work of about 3 MB at a time stays near the processor's cache


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
        _frame_energies(frames.reshape(-1, config.frame_length_samples), config, energies.view(-1, config.num_mel_bins))
    else:
        for clip_frames, clip_energies in zip(frames, energies, strict=True):
            for chunk, out in zip(
                clip_frames.split(CPU_CHUNK_FRAMES), clip_energies.split(CPU_CHUNK_FRAMES), strict=True
            ):
                _frame_energies(chunk, config, out)
    return energies.clamp_min_(ENERGY_FLOOR).log_()


def _frame_energies(frames: Tensor, config: FbankConfig, out: Tensor) -> None:
    """Write the mel energies of frames (F, 400) to ``out`` (F, num_mel_bins)."""
    mel_bank, window = _tables(config, frames.device)
    length = config.frame_length_samples
    frames = frames - frames.mean(1, keepdim=True)  # Kaldi's remove_dc_offset
    scaled = frames * PREEMPHASIS
    padded = frames.new_zeros((frames.shape[0], config.fft_length))
    emphasised = padded[:, :length]
    torch.sub(frames[:, 1:], scaled[:, :-1], out=emphasised[:, 1:])
    torch.sub(frames[:, :1], scaled[:, :1], out=emphasised[:, :1])  # the first sample is its own predecessor
    emphasised *= window
    spectrum = torch.fft.rfft(padded)  # (F, 257) complex
    power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
    torch.mm(power, mel_bank.T, out=out)


@functools.lru_cache(maxsize=16)
def _tables(config: FbankConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the mel bank (num_mel_bins, 257) and the window (400,) on a device."""
    window = torch.hann_window(config.frame_length_samples, periodic=False)
    return torch.from_numpy(mel_filter_bank_numpy(config).copy()).to(device), window.to(device)


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


FbankFunction = Callable[[Tensor, FbankConfig], Tensor]
FBANK_BACKENDS: dict[str, FbankFunction] = {"native": log_mel_fbank, "torchaudio": torchaudio_fbank}


def fbank_blocks(
    blocks: Iterable[NDArray[np.float32]], config: FbankConfig, compute: FbankFunction = log_mel_fbank
) -> Iterator[NDArray[np.float32]]:
    """Compute the fbank of one waveform that arrives in blocks: the same frames as of the whole, in constant memory.

    A waveform of fewer samples than a frame is padded with zeros to one frame; one of no samples gives nothing.

    Args:
        blocks: Consecutive mono samples, each of shape (num_samples,).
        config: Which filter bank.
        compute: One of `FBANK_BACKENDS`.

    Yields:
        Consecutive frames, each of shape (num_frames, num_mel_bins).
    """
    pending = np.zeros(0, np.float32)
    heard_frame = False
    for block in blocks:
        pending = np.concatenate([pending, block]) if pending.size else block
        num_frames = config.num_frames(pending.size)
        if num_frames:
            heard_frame = True
            yield _fbank_numpy(pending, config, compute)
            pending = pending[num_frames * config.frame_shift_samples :]
    if not heard_frame and pending.size:
        yield _fbank_numpy(pad_to_one_frame(pending, config), config, compute)


def pad_to_one_frame(waveform: NDArray[np.float32], config: FbankConfig) -> NDArray[np.float32]:
    """Append zeros to a waveform (num_samples,) that is shorter than one frame."""
    missing = config.frame_length_samples - waveform.size
    return np.pad(waveform, (0, missing)) if missing > 0 else waveform


def _fbank_numpy(waveform: NDArray[np.float32], config: FbankConfig, compute: FbankFunction) -> NDArray[np.float32]:
    """Return the fbank of one waveform (num_samples,) as (num_frames, num_mel_bins)."""
    writable = waveform if waveform.flags.writeable else waveform.copy()
    fbank: NDArray[np.float32] = compute(torch.from_numpy(writable)[None], config)[0].numpy()
    return fbank
