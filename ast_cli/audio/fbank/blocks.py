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

from ast_cli.audio.fbank.filter_bank import FbankBackend, FilterBank
from ast_cli.errors import UsageError


def check_fbank_backend(backend: str) -> None:
    """Validate the name of a filter bank's implementation.

    Raises:
        UsageError: If no filter bank has an implementation of this name.
    """
    if backend not in get_args(FbankBackend):
        raise UsageError(f"fbank_backend must be one of {', '.join(get_args(FbankBackend))}, not {backend!r}")


def fbanks_of(
    waveforms: Sequence[NDArray[np.float32]], bank: FilterBank, backend: FbankBackend
) -> list[NDArray[np.float32]]:
    """Compute the fbank of each waveform of shape (num_samples,), as one batch if their lengths are equal.

    The waveforms already contain the zeros of `FilterBank.num_edge_samples`, if they belong to them.

    Returns:
        The fbank of each waveform, shape (num_frames, num_mel_bins).

    Raises:
        DeviceError: If the backend is torchaudio and it cannot be imported.
    """
    if backend == "numpy":
        return [bank.of_waveform(waveform) for waveform in waveforms]
    import torch

    if len({waveform.size for waveform in waveforms}) > 1:
        return [fbank for waveform in waveforms for fbank in fbanks_of([waveform], bank, backend)]
    batch = waveforms[0][None] if len(waveforms) == 1 and waveforms[0].flags.writeable else np.stack(waveforms)
    return list(bank.of_batch(torch.from_numpy(batch), backend).numpy())


def fbank_blocks(
    blocks: Iterable[NDArray[np.float32]], bank: FilterBank, backend: FbankBackend = "native"
) -> Iterator[NDArray[np.float32]]:
    """Compute the fbank of one waveform that arrives in blocks, with the frames of the whole waveform.

    Memory use is constant. A waveform shorter than a frame is padded with zeros to one frame; an empty waveform gives
    no frames. The bank must not scale windows.

    Args:
        blocks: Consecutive mono samples, each block of shape (num_samples,).
        bank: The filter bank.
        backend: Implementation of the filter bank.

    Yields:
        Consecutive frames, each block of shape (num_frames, num_mel_bins).
    """
    running = RunningFbank(bank, backend)
    for block in blocks:
        yield from running.add(block)
    yield from running.rest()


class RunningFbank:
    """The fbank of one waveform whose blocks are handed over one by one; `fbank_blocks` says what it computes.

    Args:
        bank: The filter bank.
        backend: Implementation of the filter bank.
    """

    def __init__(self, bank: FilterBank, backend: FbankBackend = "native") -> None:
        self._bank = bank
        self._backend = backend
        self._pending = edge_of(bank)
        self._has_samples = False
        self._has_frames = False

    def add(self, block: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return the frames that a block of samples (num_samples,) completes, (num_frames, num_mel_bins), if any."""
        self._has_samples |= block.size > 0
        self._pending = np.concatenate([self._pending, block]) if self._pending.size else block
        num_frames = self._bank.num_frames(self._pending.size)
        if not num_frames:
            return []
        self._has_frames = True
        with _one_thread(self._backend):
            fbanks = fbanks_of([self._pending], self._bank, self._backend)
        self._pending = self._pending[num_frames * self._bank.frame_shift_samples :]
        return fbanks

    def rest(self) -> list[NDArray[np.float32]]:
        """Return the frames that end after the last sample, or the one frame of a waveform shorter than a frame."""
        if not self._has_samples:
            return []
        edge = edge_of(self._bank)
        frames = self.add(edge) if edge.size else []
        if self._has_frames:
            return frames
        return fbanks_of([pad_to_one_frame(self._pending, self._bank)], self._bank, self._backend)


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


def edge_of(bank: FilterBank) -> NDArray[np.float32]:
    """Return the zeros before the first sample and after the last one, shape (num_edge_samples,)."""
    return np.zeros(bank.num_edge_samples, np.float32)


def with_edges(blocks: Iterable[NDArray[np.float32]], bank: FilterBank) -> Iterator[NDArray[np.float32]]:
    """Yield blocks of samples between the zeros before the first and after the last; an empty waveform stays empty."""
    has_samples = False
    for block in blocks:
        if block.size and not has_samples:
            has_samples = True
            yield edge_of(bank)
        yield block
    if has_samples:
        yield edge_of(bank)


def pad_to_one_frame(waveform: NDArray[np.float32], bank: FilterBank) -> NDArray[np.float32]:
    """Pad a waveform of shape (num_samples,) with zeros to the length of one frame; longer ones are returned as is."""
    missing = bank.frame_length_samples - waveform.size
    return np.pad(waveform, (0, missing)) if missing > 0 else waveform
