"""The filter bank in NumPy, for engines without torch, with the steps of `torch_fbank.py` in the same order.

The rounding of NumPy's FFT differs from torch's, which shows in bins of almost no energy. The tolerance in
tests/audio/test_numpy_fbank.py is 5e-4 for energies of at least 1e-7 of the largest in the frame, and 1e-2 for others.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.fbank.mel_bank import ENERGY_FLOOR, PREEMPHASIS, FbankConfig, mel_filter_bank

CHUNK_FRAMES = 256  # about 1.5 MB, which fits into the processor's cache


def log_mel_fbank_numpy(waveform: NDArray[np.float32], config: FbankConfig) -> NDArray[np.float32]:
    """Compute Kaldi-compatible log-mel filter-bank energies of one waveform.

    Args:
        waveform: Mono samples in [-1, 1], float32, shape (num_samples,), at ``config.sampling_rate``.
        config: Parameters of the filter bank.

    Returns:
        Natural-log energies, float32, shape (num_frames, num_mel_bins); 0 frames if the waveform is shorter than one.
    """
    num_frames = config.num_frames(waveform.size)
    energies = np.empty((num_frames, config.num_mel_bins), np.float32)
    if num_frames:
        windows = np.lib.stride_tricks.sliding_window_view(waveform, config.frame_length_samples)
        frames = windows[:: config.frame_shift_samples]  # (num_frames, 400), a view
        for start in range(0, num_frames, CHUNK_FRAMES):
            _frame_energies(frames[start : start + CHUNK_FRAMES], config, energies[start : start + CHUNK_FRAMES])
    np.maximum(energies, ENERGY_FLOOR, out=energies)
    return np.log(energies, out=energies)


def _frame_energies(frames: NDArray[np.float32], config: FbankConfig, out: NDArray[np.float32]) -> None:
    """Write the mel energies of frames (F, 400) to ``out`` (F, num_mel_bins)."""
    mel_bank, window = _tables(config)
    frames = frames - frames.mean(axis=1, keepdims=True)  # Kaldi's remove_dc_offset
    padded = np.zeros((len(frames), config.fft_length), np.float32)
    emphasized = padded[:, : config.frame_length_samples]
    scaled = frames * np.float32(PREEMPHASIS)
    np.subtract(frames[:, 1:], scaled[:, :-1], out=emphasized[:, 1:])
    np.subtract(
        frames[:, :1], scaled[:, :1], out=emphasized[:, :1]
    )  # for the first sample, Kaldi uses the sample itself as its predecessor
    emphasized *= window
    spectrum = np.fft.rfft(padded)  # (F, 257)
    power = np.square(spectrum.real, dtype=np.float32)
    power += np.square(spectrum.imag, dtype=np.float32)
    np.matmul(power, mel_bank, out=out)


@functools.lru_cache(maxsize=16)
def _tables(config: FbankConfig) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mel bank (257, num_mel_bins) and the symmetric Hann window (400,)."""
    window = np.hanning(config.frame_length_samples).astype(np.float32)
    return np.ascontiguousarray(mel_filter_bank(config).T), window
