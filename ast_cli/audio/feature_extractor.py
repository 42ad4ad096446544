"""The feature extractor of all front ends: computes the model's ``input_values`` from waveforms and from recordings.

A front end is a filter bank and the few numbers that follow it: length, padding, mean and standard deviation. Each
family of checkpoints has a subclass in `ast_cli.audio.front_ends`, which knows the keys of its
``preprocessor_config.json``; everything above works with this class and knows no family.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.fbank.blocks import check_fbank_backend, edge_of, fbank_blocks, fbanks_of
from ast_cli.audio.fbank.filter_bank import FbankBackend, FilterBank
from ast_cli.audio.front_ends import extractor_class, extractor_type
from ast_cli.audio.front_ends.unstated import FrontEndName, front_end_parameters, warn_of_unused_front_end
from ast_cli.audio.samples import MODEL_SAMPLING_RATE
from ast_cli.audio.waveforms import Waveform, as_batch, checked_waveform, is_tensor
from ast_cli.audio.windows import (
    AudioWindow,
    hop_frames_of,
    slice_waveform,
    slice_waveform_at,
    slice_windows,
    spread_starts,
    thinned,
)
from ast_cli.errors import AstWarning, CheckpointError, UsageError
from ast_cli.files.json_object import read_json_object, shown, write_json_object
from ast_cli.hub.folders import checkpoint_folder
from ast_cli.hub.names import CODE_KEYS, CONFIG_NAME, PREPROCESSOR_NAME
from ast_cli.keyed_output import KeyedOutput

if TYPE_CHECKING:
    from torch import Tensor

MAX_STATISTIC = 1e6  # log energies lie between -16 and 88; with larger statistics, float32 inputs overflow
MAX_LENGTH_LIMIT = 100_000  # frames; 1000 s, far above any published checkpoint

Fbank = TypeVar("Fbank", NDArray[np.float32], "Tensor")


class BatchFeature(KeyedOutput):
    """Result of the extractor: ``features["input_values"]``, ``features.input_values``, ``model(**features)``."""

    def to(self, *args: Any, **kwargs: Any) -> BatchFeature:
        """Return a copy whose tensors are moved or cast by `torch.Tensor.to`; other values are unchanged."""
        return BatchFeature({k: v.to(*args, **kwargs) if is_tensor(v) else v for k, v in self.items()})


class FeatureExtractor:
    """Turn mono waveforms into normalized mel spectrograms of a fixed length.

    Args:
        filter_bank: The filter bank of the family.
        feature_size: Number of channels of the waveforms; must be 1 (mono).
        max_length: Number of frames to pad or truncate to.
        padding_value: Value of padded frames before normalization.
        do_normalize: Whether to apply ``(fbank - mean) / (num_stds * std)``.
        mean: Mean of the energies of the training set.
        std: Standard deviation of these energies.
        return_attention_mask: Whether to return ``attention_mask`` too: 1 for frames of the recording, 0 for padding.
        fbank_backend: Implementation of the filter bank: ``native``, ``numpy`` (without torch) or ``torchaudio``; not
            part of the checkpoint.
        extra: Other keys of a ``preprocessor_config.json``, which are kept and written back.

    Raises:
        UsageError: If a parameter is invalid.
    """

    feature_extractor_type: ClassVar[str]  # as written to preprocessor_config.json
    title: ClassVar[str]  # name of the family, for messages
    published_rate: ClassVar[int] = MODEL_SAMPLING_RATE  # Hz, of every published checkpoint of the family
    num_stds: ClassVar[float] = 2  # standard deviations that a unit of the input stands for
    backends: ClassVar[tuple[FbankBackend, ...]] = ("native", "numpy")

    def __init__(
        self,
        filter_bank: FilterBank,
        *,
        feature_size: int,
        max_length: int,
        padding_value: float,
        do_normalize: bool,
        mean: float,
        std: float,
        return_attention_mask: bool,
        fbank_backend: FbankBackend,
        extra: dict[str, Any],
    ) -> None:
        self.filter_bank = filter_bank
        self.feature_size = feature_size
        self.max_length = max_length
        self.padding_value = padding_value
        self.do_normalize = do_normalize
        self.mean = mean
        self.std = std
        self.return_attention_mask = return_attention_mask
        self.extra = extra
        self.check_parameters()
        check_fbank_backend(fbank_backend)
        if fbank_backend not in self.backends:
            raise UsageError(f"the front end of {self.title} has no fbank backend {fbank_backend!r}")
        self.fbank_backend = fbank_backend

    @property
    def sampling_rate(self) -> int:
        """Sampling rate of the waveforms in Hz."""
        return self.filter_bank.sampling_rate

    @property
    def num_mel_bins(self) -> int:
        """Number of mel filters."""
        return self.filter_bank.num_mel_bins

    @property
    def frame_shift_s(self) -> float:
        """Seconds from one frame to the next."""
        return self.filter_bank.frame_shift_ms / 1000

    @property
    def frames_per_s(self) -> float:
        """Number of frames that begin in a second."""
        return 1000 / self.filter_bank.frame_shift_ms

    @property
    def frames_per_window(self) -> int:
        """Number of frames that are computed for a whole window; the input is padded if ``max_length`` is larger."""
        return self.max_length

    @property
    def scaled_window_frames(self) -> int | None:
        """Number of frames of a window that is scaled by itself, so that no other part of an fbank is an input.

        None if each frame depends on its own samples alone, and any part of a long fbank is an input.
        """
        return self.frames_per_window if self.filter_bank.scales_windows else None

    @property
    def longest_hop_frames(self) -> int:
        """Number of frames from one window to the next if windows are adjacent, which is the length of a window."""
        return self.frames_per_window

    def hop_frames(self, hop_s: float | None) -> int:
        """Convert a hop in seconds to whole frames; None means adjacent windows.

        Raises:
            UsageError: If the hop is shorter than one frame or longer than a window.
        """
        return hop_frames_of(hop_s, self.longest_hop_frames, self.filter_bank.frame_shift_ms)

    @property
    def window_s(self) -> float:
        """Length of a window in seconds."""
        return self.longest_hop_frames * self.filter_bank.frame_shift_ms / 1000

    def check_parameters(self) -> None:
        """Validate the parameters; the filter bank validates its own.

        Raises:
            UsageError: If a parameter is invalid; the message names it.
        """
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
                f"pass sampling_rate to {type(self).__name__}: without it, a waveform at a rate other than "
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
            warnings.warn(f"{type(self).__name__} ignores {', '.join(kwargs)}", AstWarning, stacklevel=2)
        if return_tensors not in (None, "pt", "np"):
            raise UsageError(f"return_tensors must be 'pt', 'np' or None, not {return_tensors!r}")
        waveforms = as_batch(raw_speech, self.filter_bank.frame_length_samples)
        fbanks = self._fbanks([checked_waveform(waveform, self.sampling_rate, stacklevel=4) for waveform in waveforms])
        input_values = self.input_values(fbanks)
        features = BatchFeature(input_values=self._in_form(input_values, return_tensors))
        if self.return_attention_mask:
            num_frames = np.array([len(fbank) for fbank in fbanks])
            mask = (np.arange(self.max_length) < num_frames[:, None]).astype(np.int64)
            features["attention_mask"] = self._in_form(mask, return_tensors)
        return features

    def _fbanks(self, waveforms: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Return the fbank of the first window of each waveform."""
        bank, edge = self.filter_bank, edge_of(self.filter_bank)
        num_used = bank.num_samples(self.frames_per_window)  # the rest would be truncated
        if edge.size:
            waveforms = [np.concatenate([edge, waveform, edge]) for waveform in waveforms]
        if bank.scales_windows:
            waveforms = [np.pad(waveform, (0, max(0, num_used - waveform.size))) for waveform in waveforms]
        return fbanks_of([waveform[:num_used] for waveform in waveforms], bank, self.fbank_backend)

    @staticmethod
    def _in_form(batch: NDArray[Any], return_tensors: str | None) -> Tensor | NDArray[Any] | list[NDArray[Any]]:
        """Convert a batch to the type that ``return_tensors`` requests."""
        if return_tensors == "pt":
            import torch

            return torch.from_numpy(batch)
        return batch if return_tensors == "np" else list(batch)

    def fbank(self, waveforms: Tensor) -> Tensor:
        """Return the fbanks (batch, num_frames, num_mel_bins) of waveforms (batch, num_samples) with their edges."""
        return self.filter_bank.of_batch(waveforms, self.fbank_backend)

    def fbank_blocks(self, blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Yield the fbank of one waveform that arrives in blocks, each block of shape (num_frames, num_mel_bins).

        If the front end scales windows, these are the fbanks of adjacent windows one after another.
        """
        if self.filter_bank.scales_windows:
            return (window.content for window in self.windows(blocks, self.longest_hop_frames))
        return fbank_blocks(blocks, self.filter_bank, self.fbank_backend)

    def windows(self, blocks: Iterable[NDArray[np.float32]], hop_frames: int) -> Iterator[AudioWindow]:
        """Yield the windows of one waveform that arrives in blocks, each an fbank (num_frames, num_mel_bins).

        Args:
            blocks: Consecutive mono samples, each block of shape (num_samples,).
            hop_frames: Number of frames from the start of one window to the next.
        """
        if not self.filter_bank.scales_windows:
            yield from slice_windows(self.fbank_blocks(blocks), self.frames_per_window, hop_frames)
            return
        for window in self.waveform_windows(blocks, hop_frames):
            (fbank,) = fbanks_of([window.content], self.filter_bank, self.fbank_backend)
            yield AudioWindow(window.start_frame, fbank)

    def waveform_windows(self, blocks: Iterable[NDArray[np.float32]], hop_frames: int) -> Iterator[AudioWindow]:
        """Yield the same windows as samples (num_samples,), from which `fbank` computes them on another device."""
        return slice_waveform(blocks, self.filter_bank, self.frames_per_window, hop_frames)

    def spread_windows(
        self, blocks: Iterable[NDArray[np.float32]], num_windows: int, duration_s: float | None
    ) -> Iterator[AudioWindow]:
        """Yield windows spread evenly over one waveform, each an fbank; see `spread_waveform_windows`."""
        for window in self.spread_waveform_windows(blocks, num_windows, duration_s):
            (fbank,) = fbanks_of([window.content], self.filter_bank, self.fbank_backend)
            yield AudioWindow(window.start_frame, fbank)

    def spread_waveform_windows(
        self, blocks: Iterable[NDArray[np.float32]], num_windows: int, duration_s: float | None
    ) -> Iterator[AudioWindow]:
        """Yield windows spread evenly over one waveform as samples, with equal gaps before, between and after them.

        All windows of a waveform that is not longer than these; it is read to its end in any case.

        Args:
            blocks: Consecutive mono samples, each block of shape (num_samples,).
            num_windows: Number of windows.
            duration_s: Length of the waveform in seconds as far as it is known before, which may be wrong; None if it
                is not, and the places of the windows are then even to half of the distance between them at worst.
        """
        bank = self.filter_bank
        if duration_s is None:
            yield from thinned(self.waveform_windows(blocks, self.longest_hop_frames), num_windows)
            return
        num_frames = round(duration_s * bank.sampling_rate) // bank.frame_shift_samples
        starts = spread_starts(num_frames, self.longest_hop_frames, num_windows)
        if starts is None:
            yield from self.waveform_windows(blocks, self.longest_hop_frames)
        else:
            yield from slice_waveform_at(blocks, bank, self.frames_per_window, starts)

    def input_values(self, fbanks: Sequence[Fbank]) -> Fbank:
        """Pad or truncate fbanks to ``max_length`` frames, then normalize them.

        Padding precedes normalization, as in the reference: with AudioSet's mean and std a padded frame becomes +0.467
        and digital silence -1.278, and the models were trained with this difference.

        Args:
            fbanks: Fbanks, each of shape (num_frames, num_mel_bins), as arrays or as tensors.

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
            padded /= self.num_stds * self.std
        return padded

    def log_energies_of(self, fbank: Tensor) -> Tensor:
        """Return the natural logarithm of the energies in fbanks, at least that of Kaldi's floor: augmentation's form.

        A family whose fbank is something else overrides this and `fbank_of`, its inverse.
        """
        return fbank

    def fbank_of(self, log_energies: Tensor) -> Tensor:
        """Return the fbanks with these log energies, of which Kaldi's floor stands for no energy."""
        return log_energies

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``preprocessor_config.json``."""
        return {
            "padding_side": "right",
            **self.extra,
            "feature_extractor_type": self.feature_extractor_type,
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
    def from_dict(cls, values: Mapping[str, Any], where: str = PREPROCESSOR_NAME, **overrides: Any) -> Self:
        """Build the extractor from the content of ``preprocessor_config.json``; missing keys get the family's values.

        ``FeatureExtractor.from_dict`` returns an extractor of the family that the content names.

        Args:
            values: Content of the file.
            where: Path of the file, for messages.
            **overrides: Parameters that replace those of the file.

        Raises:
            CheckpointError: If the file belongs to another feature extractor, or a value is invalid.
        """
        kind = extractor_type(values, where)
        family = extractor_class(kind)
        if not issubclass(family, cls):
            raise CheckpointError(f"{where}: needs another front end, {kind}, than {cls.__name__}")
        names_no_parameter = ("feature_extractor_type", "fbank_backend", *CODE_KEYS)
        values = {key: value for key, value in values.items() if key not in names_no_parameter}
        try:
            return family(**{**values, **overrides})
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
    ) -> Self:
        """Load the extractor of a checkpoint; ``FeatureExtractor.from_pretrained`` loads that of any family.

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
        return f"{type(self).__name__}({json.dumps(self.to_dict())})"


def _filled(shape: tuple[int, ...], value: float, like: Any) -> Any:
    """Return a float32 array filled with one value, or a tensor on the same device if ``like`` is a tensor."""
    if is_tensor(like):
        return like.new_full(shape, float(value), dtype=sys.modules["torch"].float32)
    return np.full(shape, value, np.float32)
