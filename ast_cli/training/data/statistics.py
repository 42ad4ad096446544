"""Mean and standard deviation of the log-mel energies of a training set, in one pass and constant memory."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.feature_extractor import MAX_STATISTIC, FeatureExtractor
from ast_cli.dataset.examples import Example
from ast_cli.errors import AudioError, UsageError
from ast_cli.files.json_object import read_json_object, write_json_object
from ast_cli.hub.names import PREPROCESSOR_NAME
from ast_cli.results import FileError
from ast_cli.tagging.options import DecodeOptions
from ast_cli.training.data.spectrograms import OnProgress, Spectrogram, UnreadExample, compute_spectrograms, require_any

MIN_STD = 1 / MAX_STATISTIC  # smallest std that a feature extractor accepts


class Moments:
    """Running count, mean and squared deviations of numbers that arrive in blocks.

    Blocks are merged by the pairwise update of Chan, Golub and LeVeque (1979) in float64, which keeps the digits that
    sums of squares lose.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self._deviations = 0.0  # sum of (x - mean) ** 2

    @property
    def std(self) -> float:
        """Population standard deviation of the numbers so far."""
        return math.sqrt(self._deviations / self.count) if self.count else 0.0

    def add(self, block: NDArray[np.floating[Any]]) -> None:
        """Add all numbers of an array of any shape."""
        numbers = block.astype(np.float64)
        mean = float(numbers.mean()) if numbers.size else 0.0
        self._merge(numbers.size, mean, float(np.square(numbers - mean).sum()))

    def add_constant(self, value: float, count: int) -> None:
        """Add the same number ``count`` times."""
        self._merge(count, value, 0.0)

    def merge(self, other: Moments) -> None:
        """Add the numbers of other moments."""
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
    """Statistics of a training set for a feature extractor.

    Attributes:
        mean: Mean of all log-mel energies.
        std: Standard deviation of all log-mel energies.
        num_mel_bins: Mel bins per frame.
        num_examples: Number of examples that could be read.
        num_frames: Number of frames counted, including padding.
        num_padded_frames: Number of padding frames among them.
        duration_s: Duration of the audio counted, in seconds.
        failures: Examples that could not be read, with the errors.
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
        """Return the JSON form of ``ast stats --json``, without the error messages."""
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
    feature_extractor: FeatureExtractor,
    *,
    max_frames: int | None = None,
    padded: bool = False,
    workers: DecodeOptions | None = None,
    on_progress: OnProgress | None = None,
) -> FbankStatistics:
    """Compute the mean and standard deviation over the frames of all examples.

    All numbers of all frames have the same weight. The script of the original project (``src/get_norm_stats.py`` of
    YuanGongND/ast) first pads or cuts every clip to the length of the model; ``padded`` does the same. The script then
    averages the standard deviations of batches of 1000 clips; here it is the deviation of all numbers together.

    Args:
        examples: Recordings, or parts of them; labels are not used.
        feature_extractor: Feature extractor with the filter bank; its own mean and std are not used.
        max_frames: Most frames of each example; None for all, or for the extractor's length if ``padded``.
        padded: Whether shorter examples are padded to that length with the extractor's padding value.
        workers: Number of decoding processes and their timeout; None for the defaults.
        on_progress: Callback after each example, with the examples done and their number.

    Raises:
        AstError: If no example could be read.
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
    """Return the moments of one example alone, so that a file that fails halfway can be discarded."""
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
    """Write mean and std to the ``preprocessor_config.json`` of a checkpoint; all other keys stay.

    Returns:
        The path of the file.

    Raises:
        UsageError: If the folder has no such file, it has another number of mel bins, or all frames are equal.
        CheckpointError: If the file cannot be read or written.
    """
    file = preprocessor_file(folder)
    if statistics.std < MIN_STD:
        raise UsageError("all frames are equal: their standard deviation is 0 and cannot normalize inputs")
    values = read_json_object(file)
    extractor = FeatureExtractor.from_dict(values, str(file))
    if extractor.num_mel_bins != statistics.num_mel_bins:
        raise UsageError(
            f"{file}: has {extractor.num_mel_bins} mel bins, but the statistics are of {statistics.num_mel_bins}"
        )
    write_json_object(file, {**values, "mean": statistics.mean, "std": statistics.std})
    return file


def preprocessor_file(folder: Path) -> Path:
    """Return the ``preprocessor_config.json`` of a checkpoint folder, which contains mean and std.

    Raises:
        UsageError: If the folder has no such file.
    """
    file = folder / PREPROCESSOR_NAME
    if not file.is_file():
        raise UsageError(f"{folder}: contains no {PREPROCESSOR_NAME}; name the folder of a checkpoint")
    return file
