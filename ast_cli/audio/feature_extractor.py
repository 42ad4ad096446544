"""ASTFeatureExtractor: computes the model's ``input_values`` and reads and writes ``preprocessor_config.json``."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.fbank.blocks import check_fbank_backend, fbank_blocks, fbanks_of
from ast_cli.audio.fbank.mel_bank import FRAME_LENGTH_MS, FbankConfig
from ast_cli.audio.front_end import (
    AUDIOSET_MEAN,
    AUDIOSET_STD,
    FbankBackend,
    FrontEndName,
    front_end_parameters,
    warn_of_unused_front_end,
)
from ast_cli.audio.samples import INTEGER_SCALES, MAX_PEAK, scale_to_float32
from ast_cli.errors import AstWarning, AudioError, CheckpointError, ErrorCode, UsageError
from ast_cli.files.json_object import (
    FEATURE_EXTRACTOR_TYPE,
    read_json_object,
    refuse_foreign_front_end,
    shown,
    write_json_object,
)
from ast_cli.hub.folders import checkpoint_folder
from ast_cli.hub.names import CONFIG_NAME, PREPROCESSOR_NAME
from ast_cli.keyed_output import KeyedOutput

if TYPE_CHECKING:
    from torch import Tensor

MAX_STATISTIC = 1e6  # log energies lie between -16 and 88; with larger statistics, float32 inputs overflow
MAX_LENGTH_LIMIT = 100_000  # frames; 1000 s, far above any published checkpoint

Waveform: TypeAlias = "NDArray[Any] | Tensor | Sequence[float]"
Fbank = TypeVar("Fbank", NDArray[np.float32], "Tensor")


def is_tensor(value: object) -> TypeGuard[Tensor]:
    """Return whether a value is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


class BatchFeature(KeyedOutput):
    """Result of the extractor: ``features["input_values"]``, ``features.input_values``, ``model(**features)``."""

    def to(self, *args: Any, **kwargs: Any) -> BatchFeature:
        """Return a copy whose tensors are moved or cast by `torch.Tensor.to`; other values are unchanged."""
        return BatchFeature({k: v.to(*args, **kwargs) if is_tensor(v) else v for k, v in self.items()})


class ASTFeatureExtractor:
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
        self.feature_size = feature_size
        self.num_mel_bins = num_mel_bins
        self.max_length = max_length
        self.padding_value = padding_value
        self.do_normalize = do_normalize
        self.mean = mean
        self.std = std
        self.return_attention_mask = return_attention_mask
        self.extra = kwargs
        self._check_parameters()
        check_fbank_backend(fbank_backend)
        self.fbank_backend = fbank_backend
        self.fbank_config = FbankConfig(sampling_rate, num_mel_bins)

    @property
    def sampling_rate(self) -> int:
        """Sampling rate of the waveforms in Hz."""
        return self.fbank_config.sampling_rate

    def _check_parameters(self) -> None:
        """Validate the parameters; `FbankConfig` validates the sampling rate and the number of mel bins."""
        if self.feature_size != 1:
            raise UsageError(f"feature_size must be 1, a mono waveform, not {self.feature_size!r}")
        if type(self.max_length) is not int or not 1 <= self.max_length <= MAX_LENGTH_LIMIT:
            raise UsageError(f"max_length must be from 1 to {MAX_LENGTH_LIMIT} frames, not {self.max_length!r}")
        for name in ("padding_value", "mean", "std"):
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not abs(value) < float("inf"):
                raise UsageError(f"{name} must be a finite number, not {shown(value)}")
            if abs(value) > MAX_STATISTIC:
                raise UsageError(f"{name} must be between {-MAX_STATISTIC:g} and {MAX_STATISTIC:g}, not {shown(value)}")
        if self.std <= 0:
            raise UsageError(f"std must be above 0, not {self.std}")
        if self.std < 1 / MAX_STATISTIC:
            raise UsageError(f"std must be at least {1 / MAX_STATISTIC:g}, not {self.std}")
        for name in ("do_normalize", "return_attention_mask"):
            if type(getattr(self, name)) is not bool:
                raise UsageError(f"{name} must be true or false, not {shown(getattr(self, name))}")

    def __call__(
        self,
        raw_speech: Waveform | Sequence[Waveform],
        sampling_rate: int | None = None,
        return_tensors: Literal["pt", "np"] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Compute the features of one or several mono waveforms.

        Args:
            raw_speech: One waveform of shape (num_samples,) as an array, tensor or list of floats, or several waveforms
                as a list or as an array of shape (batch, num_samples). Floats are samples in [-1, 1]; a peak above 10
                gives a warning. Arrays of 8, 16 or 32-bit integers are scaled by their type.
            sampling_rate: Sampling rate of the waveforms in Hz; pass it, so that a wrong sampling rate is an error.
            return_tensors: ``pt`` or ``np`` for one tensor or array; None for a list of arrays.
            **kwargs: Ignored with a warning; the reference's ``padding`` and ``truncation`` are accepted, but every
                waveform is padded or truncated to ``max_length``.

        Returns:
            ``input_values``, float32, shape (batch, max_length, num_mel_bins), and, if configured, ``attention_mask``,
            shape (batch, max_length).

        Raises:
            UsageError: If the sampling rate differs, an array has more than two dimensions, the data type has no known
                scale, or a waveform is shorter than one frame of 25 ms.
            AudioError: If a waveform contains no samples, or samples that are not finite.
        """
        if sampling_rate is None:
            warnings.warn(
                "pass sampling_rate to ASTFeatureExtractor: without it, a waveform at a rate other than "
                f"{self.sampling_rate} Hz gives wrong features without an error",
                AstWarning,
                stacklevel=2,
            )
        elif sampling_rate != self.sampling_rate:
            raise UsageError(
                f"this feature extractor takes waveforms at {self.sampling_rate} Hz, not {sampling_rate} Hz: "
                "resample them first (ast_cli.load_waveform does)"
            )
        if kwargs:
            warnings.warn(f"ASTFeatureExtractor ignores {', '.join(kwargs)}", AstWarning, stacklevel=2)
        if return_tensors not in (None, "pt", "np"):
            raise UsageError(f"return_tensors must be 'pt', 'np' or None, not {return_tensors!r}")
        waveforms = _as_batch(raw_speech, self.fbank_config.frame_length_samples)
        fbanks = self._fbanks([checked_waveform(waveform, self.sampling_rate, stacklevel=4) for waveform in waveforms])
        input_values = self.input_values(fbanks)
        features = BatchFeature(input_values=self._in_form(input_values, return_tensors))
        if self.return_attention_mask:
            num_frames = np.array([len(fbank) for fbank in fbanks])
            mask = (np.arange(self.max_length) < num_frames[:, None]).astype(np.int64)
            features["attention_mask"] = self._in_form(mask, return_tensors)
        return features

    def _fbanks(self, waveforms: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Return the fbank of each waveform, with at most ``max_length`` frames."""
        num_used = self.fbank_config.num_samples(self.max_length)  # the rest would be truncated
        return fbanks_of([waveform[:num_used] for waveform in waveforms], self.fbank_config, self.fbank_backend)

    @staticmethod
    def _in_form(batch: NDArray[Any], return_tensors: str | None) -> Tensor | NDArray[Any] | list[NDArray[Any]]:
        """Convert a batch to the type that ``return_tensors`` requests."""
        if return_tensors == "pt":
            import torch

            return torch.from_numpy(batch)
        return batch if return_tensors == "np" else list(batch)

    def fbank(self, waveforms: Tensor) -> Tensor:
        """Return log-mel energies of shape (batch, num_frames, num_mel_bins) for waveforms (batch, num_samples)."""
        from ast_cli.audio.fbank.torch_fbank import FBANK_BACKENDS

        return FBANK_BACKENDS[self.fbank_backend](waveforms, self.fbank_config)

    def fbank_blocks(self, blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Yield the log-mel energies of one waveform that arrives in blocks, as `fbank_blocks` does."""
        return fbank_blocks(blocks, self.fbank_config, self.fbank_backend)

    def input_values(self, fbanks: Sequence[Fbank]) -> Fbank:
        """Pad or truncate fbanks to ``max_length`` frames, then normalize them.

        Padding precedes normalization, as in the reference: with AudioSet's mean and std a padded frame becomes +0.467
        and digital silence -1.278, and the models were trained with this difference.

        Args:
            fbanks: Log-mel energies, each of shape (num_frames, num_mel_bins), as arrays or as tensors.

        Returns:
            Array, or tensor on the device of the fbanks, of shape (batch, max_length, num_mel_bins).
        """
        batch: Fbank = _filled((len(fbanks), self.max_length, self.num_mel_bins), self.padding_value, like=fbanks[0])
        for row, fbank in zip(batch, fbanks, strict=True):
            num_frames = min(len(fbank), self.max_length)
            row[:num_frames] = fbank[:num_frames]
        return self.normalized(batch)

    def normalized(self, padded: Fbank) -> Fbank:
        """Normalize padded fbanks of shape (batch, max_length, num_mel_bins) in place, and return them."""
        if self.do_normalize:
            padded -= self.mean
            padded /= 2 * self.std
        return padded

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``preprocessor_config.json``."""
        return {
            "padding_side": "right",
            **self.extra,
            "feature_extractor_type": FEATURE_EXTRACTOR_TYPE,
            "feature_size": self.feature_size,
            "sampling_rate": self.sampling_rate,
            "num_mel_bins": self.num_mel_bins,
            "max_length": self.max_length,
            "padding_value": self.padding_value,
            "do_normalize": self.do_normalize,
            "mean": self.mean,
            "std": self.std,
            "return_attention_mask": self.return_attention_mask,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = PREPROCESSOR_NAME, **overrides: Any) -> ASTFeatureExtractor:
        """Build the extractor from the content of ``preprocessor_config.json``; missing keys get AudioSet's values.

        Args:
            values: Content of the file.
            where: Path of the file, for messages.
            **overrides: Parameters that replace those of the file.

        Raises:
            CheckpointError: If the file belongs to another feature extractor, or a value is invalid.
        """
        refuse_foreign_front_end(values, where)
        values = {key: value for key, value in values.items() if key not in ("feature_extractor_type", "fbank_backend")}
        try:
            return cls(**{**values, **overrides})
        except (UsageError, TypeError) as error:
            raise CheckpointError(f"{where}: {error}") from error

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        front_end: FrontEndName | None = None,
        config: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> ASTFeatureExtractor:
        """Load the extractor of a checkpoint.

        Args:
            model: Folder, alias or hub id, as in `ast_cli.ASTForAudioClassification.from_pretrained`.
            front_end: ``audioset`` or ``speech-commands``, for a checkpoint without a ``preprocessor_config.json``
                whose labels do not determine the front end.
            config: Content to use instead of the checkpoint's ``config.json``.
            **overrides: Parameters to change, e.g. ``max_length=512``.

        Raises:
            CheckpointError: If the file is not valid JSON, belongs to another feature extractor or contains an invalid
                value, or if it is missing and the front end cannot be determined.
            HubError: If the checkpoint is not on this machine and cannot be downloaded.
        """
        folder = checkpoint_folder(model)
        file = folder / PREPROCESSOR_NAME
        if file.is_file():
            warn_of_unused_front_end(front_end, file)
            return cls.from_dict(read_json_object(file), str(file), **overrides)
        parameters = front_end_parameters(model, folder, front_end, config)
        return cls.from_dict(parameters, str(folder / CONFIG_NAME), **overrides)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``preprocessor_config.json`` into a folder, which is created if needed.

        Raises:
            CheckpointError: If the file cannot be written.
        """
        write_json_object(Path(folder) / PREPROCESSOR_NAME, self.to_dict())

    def __repr__(self) -> str:
        """Return the class name with all parameters as JSON."""
        return f"ASTFeatureExtractor({json.dumps(self.to_dict())})"


def _filled(shape: tuple[int, ...], value: float, like: Any) -> Any:
    """Return a float32 array filled with one value, or a tensor on the same device if ``like`` is a tensor."""
    if is_tensor(like):
        return like.new_full(shape, float(value), dtype=sys.modules["torch"].float32)
    return np.full(shape, value, np.float32)


def _as_batch(raw_speech: Any, frame_length_samples: int) -> list[Any]:
    """Return a list of waveforms from one waveform or several, without copying them."""
    if isinstance(raw_speech, np.ndarray) or is_tensor(raw_speech):
        if raw_speech.ndim > 2:
            raise UsageError(
                f"a waveform has one dimension and a batch two, but this array has {raw_speech.ndim}: "
                f"{_remedy(raw_speech)}"
            )
        if raw_speech.ndim == 2 and 0 < raw_speech.shape[1] < min(frame_length_samples, len(raw_speech)):
            num_waveforms, num_samples = raw_speech.shape
            raise UsageError(
                f"an array of shape {(num_waveforms, num_samples)} is a batch of {num_waveforms} waveforms of "
                f"{num_samples} samples each; if it is one recording, {_remedy(raw_speech)}"
            )
        batch = list(raw_speech) if raw_speech.ndim == 2 else [raw_speech]
    elif isinstance(raw_speech, list | tuple) and raw_speech and not np.isscalar(raw_speech[0]):
        batch = list(raw_speech)
    else:
        batch = [raw_speech]
    if not batch:
        raise AudioError(ErrorCode.NO_SAMPLES, "the batch contains no waveforms")
    return batch


def _as_array(numbers: Any) -> NDArray[Any]:
    """Return a list of Python numbers as an array of floats; integers above 1 stay integers, whose scale is unknown."""
    try:
        array = np.asarray(numbers)
    except ValueError:  # rows of unequal length
        array = np.asarray(None)
    if array.dtype.kind not in "fiu":
        raise UsageError(
            f"a waveform is an array, a tensor or a list of floats, not {type(numbers).__name__} "
            "(ast_cli.load_waveform reads a file)"
        )
    is_unambiguous = array.dtype.kind != "f" and array.size and np.abs(array).max() <= 1
    return array.astype(np.float32) if is_unambiguous else array


def as_float32(waveform: Waveform) -> NDArray[np.float32]:
    """Return one waveform as float32 samples in [-1, 1], shape (num_samples,).

    Integer samples are scaled by their type; the reference takes int16 samples as they are, 32,768 times too loud.

    Raises:
        UsageError: If the waveform is not one-dimensional, or its type has no known scale.
        AudioError: If the waveform contains no samples, or samples that are not finite.
    """
    if is_tensor(waveform):
        waveform = waveform.detach().cpu()
        array: NDArray[Any] = (waveform.float() if waveform.is_floating_point() else waveform).numpy()
    elif isinstance(waveform, np.ndarray):
        array = waveform
    else:
        array = _as_array(waveform)
    if array.ndim != 1:
        raise UsageError(f"a waveform must be mono, shape (num_samples,), not {array.shape}: {_remedy(array)}")
    if array.size == 0:
        raise AudioError(ErrorCode.NO_SAMPLES, "the waveform contains no samples")
    samples = scale_to_float32(array)
    if samples is None:
        raise UsageError(f"samples of type {array.dtype} have no known scale: convert them to floats in [-1, 1]")
    if not np.isfinite(samples).all():
        raise AudioError(ErrorCode.NON_FINITE, "the waveform contains NaN or infinite samples: replace them by 0 first")
    return samples


def checked_waveform(waveform: Waveform, sampling_rate: int, *, stacklevel: int = 3) -> NDArray[np.float32]:
    """Return one waveform as `as_float32` does, and check that it is a plausible recording.

    A peak above `MAX_PEAK` times full scale gives a warning.

    Args:
        waveform: Mono samples, shape (num_samples,).
        sampling_rate: Sampling rate in Hz.
        stacklevel: Stack level of the warning: 2 for the caller's line, 3 for the line of the caller's caller.

    Raises:
        UsageError: If the waveform is shorter than one frame, or as in `as_float32`.
        AudioError: As in `as_float32`.
    """
    samples = as_float32(waveform)
    frame_length_samples = int(sampling_rate) * FRAME_LENGTH_MS // 1000
    if samples.size < frame_length_samples:
        raise UsageError(
            f"a waveform of {samples.size} samples is shorter than one frame, {FRAME_LENGTH_MS} ms or "
            f"{frame_length_samples} samples at {sampling_rate} Hz: pass a whole recording, shape (num_samples,)"
        )
    peak = float(max(samples.max(), -samples.min()))
    if peak > MAX_PEAK:
        warnings.warn(
            f"the waveform's peak is {peak:g}, {peak:.0f} times full scale (1), so its features will be wrong; "
            "divide 16-bit samples by 32768, or pass the int16 array unchanged",
            AstWarning,
            stacklevel=stacklevel,
        )
    return samples


def _remedy(array: NDArray[Any] | Tensor) -> str:
    """Return advice on how to get one waveform from an array of another shape.

    Of two axes, the shorter one is taken for the channels.
    """
    if array.ndim == 0:
        return "a single number is not a recording"
    if array.ndim > 2:
        first = ", ".join("0" * (array.ndim - 2))
        return f"select one recording, such as waveform[{first}], and mix its channels down"
    axis = 0 if array.shape[0] <= array.shape[1] else 1
    dtype = str(array.dtype).removeprefix("torch.")
    steps = {str(integer): round(1 / scale) for integer, scale in INTEGER_SCALES.items()}
    scaled = (
        f"(waveform / {steps[dtype]})" if dtype in steps else "waveform"
    )  # the mean of integers would lose their scale
    return f"mix its channels down with {scaled}.mean(axis={axis})"
