"""Choice of the filter bank's implementation, and its use on waveforms that arrive in blocks.

``native`` is our implementation in torch, ``numpy`` our implementation in NumPy, which does not import torch, and
``torchaudio`` is torchaudio's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.fbank.mel_bank import FbankConfig
from ast_cli.audio.fbank.numpy_fbank import log_mel_fbank_numpy
from ast_cli.audio.front_end import FbankBackend
from ast_cli.errors import UsageError


def check_fbank_backend(backend: str) -> None:
    """Validate the name of a filter bank's implementation.

    Raises:
        UsageError: If there is no implementation of this name.
    """
    if backend not in get_args(FbankBackend):
        raise UsageError(f"fbank_backend must be one of {', '.join(get_args(FbankBackend))}, not {backend!r}")


def fbanks_of(
    waveforms: Sequence[NDArray[np.float32]], config: FbankConfig, backend: FbankBackend
) -> list[NDArray[np.float32]]:
    """Compute the fbank of each waveform of shape (num_samples,), as one batch if their lengths are equal.

    Returns:
        Log-mel energies of each waveform, shape (num_frames, num_mel_bins).

    Raises:
        DeviceError: If the backend is torchaudio and it cannot be imported.
    """
    if backend == "numpy":
        return [log_mel_fbank_numpy(waveform, config) for waveform in waveforms]
    import torch

    from ast_cli.audio.fbank.torch_fbank import FBANK_BACKENDS

    compute = FBANK_BACKENDS[backend]
    if len({waveform.size for waveform in waveforms}) > 1:
        return [fbank for waveform in waveforms for fbank in fbanks_of([waveform], config, backend)]
    batch = waveforms[0][None] if len(waveforms) == 1 and waveforms[0].flags.writeable else np.stack(waveforms)
    return list(compute(torch.from_numpy(batch), config).numpy())


def fbank_blocks(
    blocks: Iterable[NDArray[np.float32]], config: FbankConfig, backend: FbankBackend = "native"
) -> Iterator[NDArray[np.float32]]:
    """Compute the fbank of one waveform that arrives in blocks, with the frames of the whole waveform.

    Memory use is constant. A waveform shorter than a frame is padded with zeros to one frame; an empty waveform gives
    no frames.

    Args:
        blocks: Consecutive mono samples, each block of shape (num_samples,).
        config: Parameters of the filter bank.
        backend: Implementation of the filter bank.

    Yields:
        Consecutive frames, each block of shape (num_frames, num_mel_bins).
    """
    running = RunningFbank(config, backend)
    for block in blocks:
        yield from running.add(block)
    yield from running.rest()


class RunningFbank:
    """The fbank of one waveform whose blocks are handed over one by one; `fbank_blocks` says what it computes.

    Args:
        config: Parameters of the filter bank.
        backend: Implementation of the filter bank.
    """

    def __init__(self, config: FbankConfig, backend: FbankBackend = "native") -> None:
        self._config = config
        self._backend = backend
        self._pending = np.zeros(0, np.float32)
        self._has_frames = False

    def add(self, block: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return the frames that a block of samples (num_samples,) completes, (num_frames, num_mel_bins), if any."""
        self._pending = np.concatenate([self._pending, block]) if self._pending.size else block
        num_frames = self._config.num_frames(self._pending.size)
        if not num_frames:
            return []
        self._has_frames = True
        with _one_thread(self._backend):
            fbanks = fbanks_of([self._pending], self._config, self._backend)
        self._pending = self._pending[num_frames * self._config.frame_shift_samples :]
        return fbanks

    def rest(self) -> list[NDArray[np.float32]]:
        """Return the one frame of a waveform that was shorter than a frame; of others there is no rest."""
        if self._has_frames or not self._pending.size:
            return []
        return fbanks_of([pad_to_one_frame(self._pending, self._config)], self._config, self._backend)


@contextlib.contextmanager
def _one_thread(backend: FbankBackend) -> Iterator[None]:
    """Limit torch to one thread inside a ``with`` block.

    A block of samples takes milliseconds, in a dozen steps. Several threads gain little if all cores are free. If the
    cores are busy, for example with decoding, every step waits for the slowest thread: on two busy cores, half a second
    of audio took 36 ms instead of 1 ms.
    """
    if backend == "numpy":
        yield
        return
    import torch

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def pad_to_one_frame(waveform: NDArray[np.float32], config: FbankConfig) -> NDArray[np.float32]:
    """Pad a waveform of shape (num_samples,) with zeros to the length of one frame; longer ones are returned as is."""
    missing = config.frame_length_samples - waveform.size
    return np.pad(waveform, (0, missing)) if missing > 0 else waveform
