"""Kaldi's filter bank behind the interface that all front ends share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.fbank.filter_bank import FbankBackend
from ast_cli.audio.fbank.mel_bank import FbankConfig
from ast_cli.audio.fbank.numpy_fbank import log_mel_fbank_numpy

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class KaldiBank(FbankConfig):
    """Kaldi's filter bank; a `FilterBank` with the parameters of `FbankConfig`."""

    def of_waveform(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the fbank of one waveform in NumPy, as `log_mel_fbank_numpy` does."""
        return log_mel_fbank_numpy(waveform, self)

    def of_batch(self, waveforms: Tensor, backend: FbankBackend) -> Tensor:
        """Compute the fbanks of waveforms (batch, num_samples) by one of `torch_fbank.FBANK_BACKENDS`."""
        from ast_cli.audio.fbank.torch_fbank import FBANK_BACKENDS

        return FBANK_BACKENDS[backend](waveforms, self)
