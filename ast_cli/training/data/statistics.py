"""Mean and standard deviation of a training set's log-mel energies, in one pass and constant memory."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.feature_extractor import MAX_STATISTIC, ASTFeatureExtractor
from ast_cli.dataset.examples import Example
from ast_cli.errors import AudioError, UsageError
from ast_cli.files.json_object import read_json_object, write_json_object
from ast_cli.hub.names import PREPROCESSOR_NAME
from ast_cli.results import FileError
from ast_cli.tagging.options import DecodeOptions
from ast_cli.training.data.spectrograms import OnProgress, Spectrogram, UnreadExample, compute_spectrograms, require_any

MIN_STD = 1 / MAX_STATISTIC  # what a feature extractor takes


class Moments:
    """Count, mean and squared deviations of numbers that arrive in blocks.

    Blocks are merged by the pairwise update of Chan, Golub and LeVeque (1979) in float64, which does not lose digits
    as sums of squares do.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self._deviations = 0.0  # sum of (x - mean) ** 2

    @property
    def std(self) -> float:
        """Standard deviation of the numbers themselves, not an estimate from a sample."""
        return math.sqrt(self._deviations / self.count) if self.count else 0.0

    def add(self, block: NDArray[np.floating[Any]]) -> None:
        """Count all numbers of a block, of any shape."""
        numbers = block.astype(np.float64)
        mean = float(numbers.mean()) if numbers.size else 0.0
        self._merge(numbers.size, mean, float(np.square(numbers - mean).sum()))

    def add_constant(self, value: float, count: int) -> None:
        """Count one number many times."""
        self._merge(count, value, 0.0)

    def merge(self, other: Moments) -> None:
        """Count what another has counted."""
        self._merge(other.count, other.mean, other._deviations)

    def _merge(self, count: int, mean: float, deviations: float) -> None:
        if not count:
            return
        total, delta = self.count + count, mean - self.mean
        self._deviations += deviations + delta * delta * (self.count * count / total)
        self.mean += delta * (count / total)
        self.count = total


@dataclass(frozen=True, slots=True)
class FbankStatistics:
    """What a feature extractor needs to know about its training set.

    Attributes:
        mean: Of all log-mel energies.
        std: Their standard deviation.
        num_mel_bins: Of a frame.
        num_examples: That could be read.
        num_frames: That were counted, padding included.
        num_padded_frames: Of those, the padding.
        duration_s: Of the audio counted, in seconds.
        failures: Examples that could not be read, and why.
    """

    mean: float
    std: float
    num_mel_bins: int
    num_examples: int
    num_frames: int
    num_padded_frames: int
    duration_s: float
    failures: tuple[UnreadExample, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return what ``ast stats --json`` prints, but for the failures' texts."""
        return {
            "mean": self.mean,
            "std": self.std,
            "num_mel_bins": self.num_mel_bins,
            "num_examples": self.num_examples,
            "num_failed": len(self.failures),
            "num_frames": self.num_frames,
            "num_padded_frames": self.num_padded_frames,
            "duration_s": self.duration_s,
        }


def compute_statistics(
    examples: Sequence[Example],
    feature_extractor: ASTFeatureExtractor,
    *,
    max_frames: int | None = None,
    padded: bool = False,
    workers: DecodeOptions | None = None,
    on_progress: OnProgress | None = None,
) -> FbankStatistics:
    """Compute the mean and standard deviation over the frames of all examples.

    All numbers of all frames count alike. The original project's script (``src/get_norm_stats.py`` of
    YuanGongND/ast) pads or cuts every clip to the model's length first; ``padded`` does so too. It then takes the mean
    of the standard deviations of batches of 1000 clips, here as ever the deviation is that of all numbers together.

    Args:
        examples: Recordings, or parts of them; labels do not matter.
        feature_extractor: For its filter bank; its own mean and std are not used.
        max_frames: At most so many of each example; None for all, or for the extractor's length if ``padded``.
        padded: Whether shorter examples are filled up to that length with the extractor's padding value.
        workers: How many processes decode, and how long they may take; None for the defaults.
        on_progress: Called after each example with how many are done, and how many there are.

    Raises:
        AstError: No example could be read.
    """
    bins, length = feature_extractor.num_mel_bins, max_frames
    if padded and length is None:
        length = feature_extractor.max_length
    moments, durations_s, num_padded_frames, failures = Moments(), list[float](), 0, list[UnreadExample]()
    spectrograms = compute_spectrograms(examples, feature_extractor, max_frames=length, workers=workers)
    with contextlib.closing(spectrograms):
        for number, spectrogram in enumerate(spectrograms):
            try:
                own = _moments_of(spectrogram)
                if padded and length is not None:
                    num_missing = length - own.count // bins
                    own.add_constant(feature_extractor.padding_value, num_missing * bins)
                    num_padded_frames += num_missing
                moments.merge(own)
                durations_s.append(spectrogram.duration_s)
            except AudioError as error:
                failures.append((spectrogram.example, FileError(error.code, str(error))))
            if on_progress is not None:
                on_progress(number + 1, len(examples))
    require_any(len(durations_s), [error.message for _, error in failures])
    num_frames = moments.count // bins
    return FbankStatistics(
        moments.mean,
        moments.std,
        bins,
        len(durations_s),
        num_frames,
        num_padded_frames,
        math.fsum(durations_s),
        tuple(failures),
    )


def _moments_of(fbank: Spectrogram) -> Moments:
    """Return one example's moments: a file that fails halfway then counts for nothing."""
    moments = Moments()
    for block in fbank:
        moments.add(block)
    return moments


def mean_and_std(fbanks: Iterable[NDArray[np.float32]]) -> tuple[float, float]:
    """Return the mean and standard deviation over stored fbanks, each of shape (num_frames, num_mel_bins)."""
    moments = Moments()
    for fbank in fbanks:
        moments.add(fbank)
    return moments.mean, moments.std


def apply_statistics(statistics: FbankStatistics, folder: Path) -> Path:
    """Write mean and std into a checkpoint's ``preprocessor_config.json``; its other keys stay.

    Returns:
        The file.

    Raises:
        UsageError: The folder holds no such file, or one of other features; or all frames are alike.
        CheckpointError: The file cannot be read or written.
    """
    file = preprocessor_file(folder)
    if statistics.std < MIN_STD:
        raise UsageError("all frames are alike: there is no standard deviation to normalize by")
    values = read_json_object(file)
    extractor = ASTFeatureExtractor.from_dict(values, str(file))
    if extractor.num_mel_bins != statistics.num_mel_bins:
        raise UsageError(
            f"{file}: is for {extractor.num_mel_bins} mel bins, but the statistics are of {statistics.num_mel_bins}"
        )
    write_json_object(file, {**values, "mean": statistics.mean, "std": statistics.std})
    return file


def preprocessor_file(folder: Path) -> Path:
    """Return the file of a checkpoint folder that holds mean and std.

    Raises:
        UsageError: There is none.
    """
    file = folder / PREPROCESSOR_NAME
    if not file.is_file():
        raise UsageError(f"{folder}: holds no {PREPROCESSOR_NAME}; name the folder of a checkpoint")
    return file
