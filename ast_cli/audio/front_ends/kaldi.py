"""AST's front end: Kaldi's filter bank of 10 ms frames, as in the checkpoints of AudioSet and Speech Commands."""

from __future__ import annotations

from typing import Any, ClassVar

from ast_cli.audio.fbank.filter_bank import FbankBackend
from ast_cli.audio.fbank.kaldi_bank import KaldiBank
from ast_cli.audio.fbank.mel_bank import FbankConfig
from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.audio.front_ends.unstated import AUDIOSET_MEAN, AUDIOSET_STD


class ASTFeatureExtractor(FeatureExtractor):
    """Turn mono waveforms into normalized log-mel spectrograms of a fixed length.

    Args:
        feature_size: Number of channels of the waveforms; AST supports only 1 (mono).
        sampling_rate: Sampling rate of the waveforms in Hz.
        num_mel_bins: Number of mel filters.
        max_length: Number of frames to pad or truncate to.
        padding_value: Value of padded frames before normalization; the reference pads with 0.
        do_normalize: Whether to apply ``(fbank - mean) / (2 * std)``.
        mean: Mean of the log-mel energies of the training set.
        std: Standard deviation of these energies; the inputs then have mean 0 and standard deviation 0.5.
        return_attention_mask: Whether to return ``attention_mask`` too: 1 for frames of the recording, 0 for padding.
        fbank_backend: Implementation of the filter bank: ``native``, ``numpy`` (without torch) or ``torchaudio``; not
            part of the checkpoint.
        **kwargs: Other keys of a ``preprocessor_config.json``, which are kept and written back.

    Raises:
        UsageError: If a parameter is invalid.
    """

    feature_extractor_type: ClassVar[str] = "ASTFeatureExtractor"
    title: ClassVar[str] = "AST"
    backends: ClassVar[tuple[FbankBackend, ...]] = ("native", "numpy", "torchaudio")

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = 16000,
        num_mel_bins: int = 128,
        max_length: int = 1024,
        padding_value: float = 0.0,
        do_normalize: bool = True,
        mean: float = AUDIOSET_MEAN,
        std: float = AUDIOSET_STD,
        return_attention_mask: bool = False,
        fbank_backend: FbankBackend = "native",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            KaldiBank(sampling_rate, num_mel_bins),
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

    @property
    def fbank_config(self) -> FbankConfig:
        """Parameters of the filter bank."""
        assert isinstance(self.filter_bank, FbankConfig)
        return self.filter_bank
