"""The interface of all filter banks: what a front end computes from samples. Standard library only.

A filter bank turns mono samples into frames of energies on a mel scale. A frame depends on its own samples alone, so a
long recording is computed block by block, and its windows are slices of one long fbank. The exception are banks that
scale each window by itself (`FilterBank.scales_windows`): there, each window is computed from its own samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from ast_cli.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

FbankBackend = Literal["native", "numpy", "torchaudio"]  # implementation of the filter bank
MIN_MEL_BINS, MAX_MEL_BINS = 4, 1024  # Kaldi requires 4


def check_rate_and_bins(sampling_rate: int, num_mel_bins: int) -> None:
    """Validate the parameters that all filter banks have.

    Raises:
        UsageError: If one is invalid; the message names it.
    """
    from ast_cli.audio.samples import MAX_SAMPLING_RATE, MIN_SAMPLING_RATE

    if type(sampling_rate) is not int or not MIN_SAMPLING_RATE <= sampling_rate <= MAX_SAMPLING_RATE:
        limits = f"{MIN_SAMPLING_RATE} to {MAX_SAMPLING_RATE}"
        raise UsageError(f"sampling_rate must be from {limits} Hz, not {sampling_rate!r}")
    if type(num_mel_bins) is not int or not MIN_MEL_BINS <= num_mel_bins <= MAX_MEL_BINS:
        raise UsageError(f"num_mel_bins must be from {MIN_MEL_BINS} to {MAX_MEL_BINS}, not {num_mel_bins!r}")


class FilterBank(Protocol):
    """Parameters and computation of one kind of filter bank.

    The samples of a recording begin and end with ``num_edge_samples`` zeros; the callers of the other methods add them.
    """

    @property
    def sampling_rate(self) -> int:
        """Sampling rate of the waveforms in Hz."""

    @property
    def num_mel_bins(self) -> int:
        """Number of mel filters."""

    @property
    def frame_length_samples(self) -> int:
        """Number of samples in a frame."""

    @property
    def frame_shift_samples(self) -> int:
        """Number of samples from one frame to the next."""

    @property
    def frame_shift_ms(self) -> float:
        """Milliseconds from one frame to the next, by which positions are converted to times."""

    @property
    def num_edge_samples(self) -> int:
        """Number of zeros before the first sample of a recording and after its last; 0 if frames are not centered."""

    @property
    def scales_windows(self) -> bool:
        """Whether each window is scaled by itself, so that its frames also depend on the rest of the window."""

    def num_frames(self, num_samples: int) -> int:
        """Return the number of whole frames in this many samples; if windows are scaled, that of a whole window."""

    def num_samples(self, num_frames: int) -> int:
        """Return the number of samples that frames cover."""

    def of_waveform(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the fbank of one waveform (num_samples,) in NumPy, shape (num_frames, num_mel_bins)."""

    def of_batch(self, waveforms: Tensor, backend: FbankBackend) -> Tensor:
        """Compute the fbanks of waveforms (batch, num_samples) on their device, (batch, num_frames, num_mel_bins).

        Raises:
            UsageError: If the bank has no such implementation.
        """
