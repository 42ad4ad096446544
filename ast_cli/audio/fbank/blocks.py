"""Which form of the filter bank, and its use on waveforms that arrive in blocks; only some import torch.

``native`` is ours in torch, ``numpy`` ours in NumPy, ``torchaudio`` torchaudio's.
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
    """Refuse a filter bank that is not there.

    Raises:
        UsageError: No such name.
    """
    if backend not in get_args(FbankBackend):
        raise UsageError(f"fbank_backend must be one of {', '.join(get_args(FbankBackend))}, not {backend!r}")


def fbanks_of(
    waveforms: Sequence[NDArray[np.float32]], config: FbankConfig, backend: FbankBackend
) -> list[NDArray[np.float32]]:
    """Compute the fbank of each waveform (num_samples,); equal lengths are computed together.

    Returns:
        Shape (num_frames, num_mel_bins) each.

    Raises:
        DeviceError: torchaudio was asked for and is not there.
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
    """Compute the fbank of one waveform that arrives in blocks: the same frames as of the whole, in constant memory.

    A waveform of fewer samples than a frame is padded with zeros to one frame; one of no samples gives nothing.

    Args:
        blocks: Consecutive mono samples, each of shape (num_samples,).
        config: Which filter bank.
        backend: Which form of it.

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
            with _one_thread(backend):
                fbanks = fbanks_of([pending], config, backend)
            yield from fbanks
            pending = pending[num_frames * config.frame_shift_samples :]
    if not heard_frame and pending.size:
        yield from fbanks_of([pad_to_one_frame(pending, config)], config, backend)


@contextlib.contextmanager
def _one_thread(backend: FbankBackend) -> Iterator[None]:
    """Have torch compute in this thread alone.

    A block is milliseconds of work in a dozen steps. Sharing each out among threads gains little where all cores are
    free, and where they are not, as beside the processes that decode, every step waits for the slowest (measured on two
    busy cores: 36 ms instead of 1 for half a second of audio).
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
    """Append zeros to a waveform (num_samples,) that is shorter than one frame."""
    missing = config.frame_length_samples - waveform.size
    return np.pad(waveform, (0, missing)) if missing > 0 else waveform
