"""MAEST's front end: centered frames of 32 ms every 16 ms and Slaney's mel filters, as in the music style models."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.fbank.filter_bank import FbankBackend, check_rate_and_bins
from ast_cli.audio.fbank.mel_bank import ENERGY_FLOOR
from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.errors import UsageError
from ast_cli.files.json_object import shown

if TYPE_CHECKING:
    from torch import Tensor

MAX_FFT = 8192  # samples; the published models have 512
SCALE = 10_000  # of energies in logC
LOG_FLOOR = float(np.finfo(np.float64).eps)  # added before the natural logarithm
KALDI_FLOOR = math.log(ENERGY_FLOOR)
COMPRESSIONS = ("logC", "log", None)
CHUNK_FRAMES = 256  # computed at a time, about 1.5 MB, which fits into the processor's cache


@dataclass(frozen=True, slots=True)
class SlaneyBank:
    """A `FilterBank` of triangular filters on Slaney's mel scale, each of area 1, up to half the sampling rate.

    Attributes:
        sampling_rate: Sampling rate of the waveforms in Hz.
        num_mel_bins: Number of filters.
        n_fft: Length of a frame, of its periodic Hann window and of its FFT, in samples.
        hop_length: Number of samples from one frame to the next.
        log_compression: ``logC``, log10(1 + 10000 energy); ``log``, the natural logarithm, in which bins of almost no
            energy contain rounding noise; or None for the energy.
    """

    scales_windows: ClassVar[bool] = False

    sampling_rate: int = 16000
    num_mel_bins: int = 96
    n_fft: int = 512
    hop_length: int = 256
    log_compression: str | None = "logC"

    def __post_init__(self) -> None:
        """Validate the values."""
        check_rate_and_bins(self.sampling_rate, self.num_mel_bins)
        if type(self.n_fft) is not int or not 2 <= self.n_fft <= MAX_FFT:
            raise UsageError(f"n_fft must be from 2 to {MAX_FFT} samples, not {shown(self.n_fft)}")
        if type(self.hop_length) is not int or not 1 <= self.hop_length <= self.n_fft:
            raise UsageError(f"hop_length must be from 1 to n_fft, {self.n_fft} samples, not {shown(self.hop_length)}")
        if self.log_compression not in COMPRESSIONS:
            raise UsageError(f'log_compression must be "logC", "log" or null, not {shown(self.log_compression)}')

    @property
    def frame_length_samples(self) -> int:
        """Number of samples in a frame."""
        return self.n_fft

    @property
    def frame_shift_samples(self) -> int:
        """Number of samples from one frame to the next."""
        return self.hop_length

    @property
    def frame_shift_ms(self) -> float:
        """Milliseconds from one frame to the next: 16."""
        return 1000 * self.hop_length / self.sampling_rate

    @property
    def num_edge_samples(self) -> int:
        """Number of zeros around a recording: half a frame, so that the first frame's center is the first sample."""
        return self.n_fft // 2

    def num_frames(self, num_samples: int) -> int:
        """Return the number of whole frames in samples with their edges."""
        return max(0, 1 + (num_samples - self.n_fft) // self.hop_length)

    def num_samples(self, num_frames: int) -> int:
        """Return the number of samples that frames cover."""
        return (num_frames - 1) * self.hop_length + self.n_fft if num_frames else 0

    def of_waveform(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the fbank of one waveform in NumPy, shape (num_frames, num_mel_bins)."""
        fbank = np.empty((self.num_frames(waveform.size), self.num_mel_bins), np.float32)
        if len(fbank):
            frames = np.lib.stride_tricks.sliding_window_view(waveform, self.n_fft)[:: self.hop_length]
            for start in range(0, len(fbank), CHUNK_FRAMES):
                chunk = slice(start, start + CHUNK_FRAMES)
                fbank[chunk] = self._fbank(np, frames[chunk], *_tables(self))
        return fbank

    def of_batch(self, waveforms: Tensor, backend: FbankBackend) -> Tensor:
        """Compute the fbanks of waveforms (batch, num_samples) in torch, or with ``numpy`` in NumPy."""
        import torch

        if backend == "numpy":
            fbanks = [torch.from_numpy(self.of_waveform(waveform.float().cpu().numpy())) for waveform in waveforms]
            return torch.stack(fbanks).to(waveforms.device)
        tables = _tables_on(self, waveforms.device)
        fbank = waveforms.new_empty((len(waveforms), self.num_frames(waveforms.shape[1]), self.num_mel_bins)).float()
        if fbank.numel():
            frames = waveforms.float().unfold(1, self.n_fft, self.hop_length)  # (batch, num_frames, n_fft), a view
            step = CHUNK_FRAMES if waveforms.device.type == "cpu" else fbank.shape[1]
            for clip, out in zip(frames, fbank, strict=True):
                for start in range(0, len(out), step):
                    out[start : start + step] = self._fbank(torch, clip[start : start + step], *tables)
        return fbank

    def _fbank(self, library: Any, frames: Any, window: Any, filters: Any) -> Any:
        """Compute the fbank of frames (F, n_fft) with the functions of NumPy or of torch, shape (F, num_mel_bins)."""
        spectrum = library.fft.rfft(frames * window)
        energies = (spectrum.real**2 + spectrum.imag**2) @ filters
        return self.compressed(library, energies)

    def compressed(self, library: Any, energies: Any) -> Any:
        """Compress energies, with the functions of NumPy or of torch."""
        if self.log_compression == "logC":
            return library.log10(1 + SCALE * energies)
        return library.log(energies + LOG_FLOOR) if self.log_compression == "log" else energies

    def energies_of(self, fbank: Tensor) -> Tensor:
        """Return the energies of compressed ones."""
        if self.log_compression == "logC":
            return (fbank * math.log(10)).expm1() / SCALE
        return fbank.exp() - LOG_FLOOR if self.log_compression == "log" else fbank


@functools.lru_cache(maxsize=16)
def _tables(bank: SlaneyBank) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the window (n_fft,) and the weights of the filters (n_fft // 2 + 1, num_mel_bins)."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(bank.n_fft) / bank.n_fft)
    edges = _hertz(np.linspace(0, _mel(bank.sampling_rate / 2), bank.num_mel_bins + 2))
    left, center, right = edges[:-2], edges[1:-1], edges[2:]
    hertz = np.fft.rfftfreq(bank.n_fft, 1 / bank.sampling_rate)[:, None]
    heights = np.minimum((hertz - left) / (center - left), (right - hertz) / (right - center))
    filters = np.maximum(0, heights) * 2 / (right - left)
    return window.astype(np.float32), filters.astype(np.float32)


@functools.lru_cache(maxsize=16)
def _tables_on(bank: SlaneyBank, device: Any) -> tuple[Tensor, ...]:
    """Return the same tables on a torch device."""
    import torch

    return tuple(torch.from_numpy(table).to(device) for table in _tables(bank))


# Slaney's scale: linear up to 1000 Hz, which is 15 mel, and above it 27 mel for every factor of 6.4.
def _mel(hertz: float) -> float:
    return float(15 * hertz / 1000 if hertz < 1000 else 15 + 27 * np.log(hertz / 1000) / np.log(6.4))


def _hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mel < 15, mel * 1000 / 15, 1000 * 6.4 ** ((mel - 15) / 27))


class MAESTFeatureExtractor(FeatureExtractor):
    """Turn mono waveforms into normalized log-mel spectrograms of a fixed length, for models of music styles.

    Args:
        feature_size: Number of channels of the waveforms; must be 1 (mono).
        sampling_rate: Sampling rate of the waveforms in Hz.
        num_mel_bins: Number of mel filters.
        max_length: Number of frames to pad or truncate to: 1876 for 30 s.
        padding_value: Value of padded frames before normalization; 0, as of digital silence.
        do_normalize: Whether to apply ``(fbank - mean) / (2 * std)``.
        mean: Mean of the log-mel energies of the training set.
        std: Standard deviation of these energies.
        return_attention_mask: Whether to return ``attention_mask`` too.
        n_fft: As in `SlaneyBank`, as are ``hop_length`` and ``log_compression``.
        fbank_backend: ``native`` or ``numpy``; not part of the checkpoint.
        **kwargs: Other keys of a ``preprocessor_config.json``, which are kept and written back.

    Raises:
        UsageError: If a parameter is invalid.
    """

    feature_extractor_type: ClassVar[str] = "MAESTFeatureExtractor"
    title: ClassVar[str] = "MAEST"
    filter_bank: SlaneyBank

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = 16000,
        num_mel_bins: int = 96,
        max_length: int = 1876,
        padding_value: float = 0.0,
        do_normalize: bool = True,
        mean: float = 2.06755686098554,
        std: float = 1.268292820667291,
        return_attention_mask: bool = False,
        n_fft: int = 512,
        hop_length: int = 256,
        log_compression: str | None = "logC",
        fbank_backend: FbankBackend = "native",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            SlaneyBank(sampling_rate, num_mel_bins, n_fft, hop_length, log_compression),
            feature_size=feature_size,
            max_length=max_length,
            padding_value=padding_value,
            do_normalize=do_normalize,
            mean=mean,
            std=std,
            return_attention_mask=return_attention_mask,
            fbank_backend=fbank_backend,
            extra=kwargs,
        )

    def check_parameters(self) -> None:
        """Validate the parameters; MAEST's own -1 for ``max_length``, any number of frames, is refused."""
        if self.max_length == -1:
            raise UsageError("max_length -1, any number of frames, is not supported: the model needs a fixed length")
        super().check_parameters()

    def log_energies_of(self, fbank: Tensor) -> Tensor:
        """Return the natural logarithm of the energies in fbanks, at least that of Kaldi's floor."""
        return self.filter_bank.energies_of(fbank).clamp(min=0).log().clamp(min=KALDI_FLOOR)

    def fbank_of(self, log_energies: Tensor) -> Tensor:
        """Return the fbanks with these log energies, of which Kaldi's floor stands for no energy."""
        import torch

        energies = log_energies.exp().where(log_energies > KALDI_FLOOR, 0)
        fbank: Tensor = self.filter_bank.compressed(torch, energies)
        return fbank

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``preprocessor_config.json``."""
        names = ("n_fft", "hop_length", "log_compression")
        return super().to_dict() | {name: getattr(self.filter_bank, name) for name in names}
