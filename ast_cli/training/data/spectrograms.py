"""From examples to their log-mel energies: decoded by several processes, one pass, a bad one reported and left out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.fbank.mel_bank import FRAME_SHIFT_S
from ast_cli.audio.feature_extractor import ASTFeatureExtractor
from ast_cli.audio.sample_stream import SampleStream
from ast_cli.dataset.examples import Example
from ast_cli.errors import AstError
from ast_cli.results import FileError
from ast_cli.tagging.decode.opening import open_inputs
from ast_cli.tagging.options import DecodeOptions

UnreadExample = tuple[Example, FileError]
OnProgress = Callable[[int, int], None]  # examples done, and in all


class Spectrogram:
    """One example's log-mel energies, to be iterated once.

    Attributes:
        example: Whose.
        duration_s: Of the audio they cover, in seconds, once iterated.
    """

    def __init__(
        self,
        example: Example,
        open_stream: Callable[[], SampleStream],
        feature_extractor: ASTFeatureExtractor,
        max_frames: int | None,
    ) -> None:
        self.example = example
        self.duration_s = 0.0
        self._open_stream = open_stream
        self._feature_extractor = feature_extractor
        self._max_frames = max_frames

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield consecutive frames, not normalized, each block of shape (num_frames, num_mel_bins).

        Raises:
            AudioError: The example cannot be read; blocks before that are not to be used.
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
        if num_frames == self._max_frames:  # the rest was not heard
            self.duration_s = min(self.duration_s, num_frames * FRAME_SHIFT_S)


def compute_spectrograms(
    examples: Sequence[Example],
    feature_extractor: ASTFeatureExtractor,
    *,
    max_frames: int | None = None,
    workers: DecodeOptions | None = None,
) -> Generator[Spectrogram, None, None]:
    """Yield the examples' spectrograms in order; each is to be iterated before the next is asked for.

    Args:
        examples: Recordings, or parts of them.
        feature_extractor: For its sampling rate and filter bank.
        max_frames: At most so many of each; None for all.
        workers: How many processes decode, and how long they may take; None for the defaults.
    """
    inputs = [example.input for example in examples]
    with open_inputs(inputs, feature_extractor.sampling_rate, workers=workers) as turns:
        for example, turn in zip(examples, turns, strict=True):
            yield Spectrogram(example, turn.open_stream, feature_extractor, max_frames)


def require_any(num_read: int, failures: Sequence[str]) -> None:
    """Make sure that something could be read.

    Args:
        num_read: Examples.
        failures: Why others could not.

    Raises:
        AstError: There is none.
    """
    if not num_read:
        reason = f"; the first: {failures[0]}" if failures else ""
        raise AstError(f"none of the {len(failures)} recordings could be read{reason}")
