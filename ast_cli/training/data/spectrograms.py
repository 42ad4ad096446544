"""Log-mel energies of examples, decoded by several processes in one pass; unreadable examples are reported."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.audio.sample_stream import SampleStream
from ast_cli.dataset.examples import Example
from ast_cli.errors import AstError
from ast_cli.results import FileError
from ast_cli.tagging.decode.opening import open_inputs
from ast_cli.tagging.options import DecodeOptions

UnreadExample = tuple[Example, FileError]
OnProgress = Callable[[int, int], None]  # called with the examples done and their number


class Spectrogram:
    """The log-mel energies of one example, to be iterated once.

    Attributes:
        example: The example.
        duration_s: Duration in seconds of the audio they cover; known after the iteration.
    """

    def __init__(
        self,
        example: Example,
        open_stream: Callable[[], SampleStream],
        feature_extractor: FeatureExtractor,
        max_frames: int | None,
    ) -> None:
        self.example = example
        self.duration_s = 0.0
        self._open_stream = open_stream
        self._feature_extractor = feature_extractor
        self._max_frames = max_frames

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield blocks of consecutive frames, not normalized, each of shape (num_frames, num_mel_bins).

        Raises:
            AudioError: If the example cannot be read; the blocks before must then be discarded.
        """
        num_frames = 0
        with contextlib.closing(self._open_stream()) as stream:
            for block in self._feature_extractor.fbank_blocks(stream):
                wanted = block if self._max_frames is None else block[: self._max_frames - num_frames]
                num_frames += len(wanted)
                yield wanted
                if num_frames == self._max_frames:
                    break
            self.duration_s = stream.duration_s
        if num_frames == self._max_frames:  # the stream may have decoded more than these frames
            self.duration_s = min(self.duration_s, num_frames * self._feature_extractor.frame_shift_s)


def compute_spectrograms(
    examples: Sequence[Example],
    feature_extractor: FeatureExtractor,
    *,
    max_frames: int | None = None,
    workers: DecodeOptions | None = None,
) -> Generator[Spectrogram, None, None]:
    """Yield the spectrograms of examples in order; each must be iterated before the next is requested.

    Args:
        examples: Recordings, or parts of them.
        feature_extractor: Feature extractor with the sampling rate and the filter bank.
        max_frames: Most frames of each example; None for all.
        workers: Number of decoding processes and their timeout; None for the defaults.
    """
    inputs = [example.input for example in examples]
    with open_inputs(inputs, feature_extractor.sampling_rate, workers=workers) as turns:
        for example, turn in zip(examples, turns, strict=True):
            yield Spectrogram(example, turn.open_stream, feature_extractor, max_frames)


def require_any(num_read: int, failures: Sequence[str]) -> None:
    """Check that at least one example could be read.

    Args:
        num_read: Number of examples that could be read.
        failures: Error messages of the others.

    Raises:
        AstError: If no example could be read.
    """
    if not num_read:
        reason = f"; first error: {failures[0]}" if failures else ""
        raise AstError(f"none of the {len(failures)} recordings could be read{reason}")
