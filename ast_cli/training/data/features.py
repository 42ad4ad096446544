"""The log-mel energies of a data set, computed once and stored in a memory-mapped file.

The file consists of a header of 64 bytes, the frames of all examples one after another as little-endian float32, an
index as JSON, and a trailer with the length of the index and an end mark. With float16 it would have half the size, but
not meet the tolerance of the filter bank, 5e-4.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.dataset.examples import Example
from ast_cli.errors import AstError, AudioError, ErrorCode
from ast_cli.files.atomic import replacing
from ast_cli.results import FileError
from ast_cli.tagging.options import DecodeOptions
from ast_cli.training.data.spectrograms import OnProgress, Spectrogram, UnreadExample, compute_spectrograms, require_any

VERSION = 1  # of the file format and of its numbers; to be raised when the filter bank computes other values
HEADER = b"ast_cli fbanks\n".ljust(64, b"\0")  # 64 bytes, so that frames start at a cache line
TRAILER = struct.Struct("<Q8s")  # length of the index in bytes, and END_MARK, with which only a complete file ends
END_MARK = b"astend\r\n"
DTYPE = np.dtype("<f4")
# These failures may be temporary: the next try may succeed although the file is the same.
PASSING_FAILURES = frozenset(
    {ErrorCode.NOT_FOUND, ErrorCode.PERMISSION, ErrorCode.VANISHED, ErrorCode.TIMEOUT, ErrorCode.OUT_OF_MEMORY}
)


class FeatureStore:
    """Memory-mapped log-mel energies by index, neither normalized nor padded.

    Attributes:
        file: File with the energies.
        examples: Examples that could be read, in the requested order; `store[i]` belongs to `examples[i]`.
        failures: Examples that could not be read, with the errors.
    """

    def __init__(self, file: Path, index: dict[str, Any], examples: Sequence[Example]) -> None:
        self.file = file
        lengths: list[int | None] = index["num_frames"]
        self.examples = tuple(example for example, length in zip(examples, lengths, strict=True) if length is not None)
        self.failures: tuple[UnreadExample, ...] = tuple(
            (examples[number], FileError(ErrorCode(code), message)) for number, code, message in index["failures"]
        )
        self._ends = np.cumsum([length for length in lengths if length is not None])
        shape = (int(self._ends[-1]), index["num_mel_bins"])
        self._frames = np.memmap(file, DTYPE, "r", len(HEADER), shape)

    def __len__(self) -> int:
        """Return the number of examples that could be read."""
        return len(self.examples)

    def __getitem__(self, number: int) -> NDArray[np.float32]:
        """Return the frames of one example, shape (num_frames, num_mel_bins), as a read-only view."""
        if number < 0:
            number += len(self)
        if not 0 <= number < len(self):
            raise IndexError(f"example {number} of {len(self)}")
        start = self._ends[number - 1] if number else 0
        return np.asarray(self._frames[start : self._ends[number]])

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield the frames of each example in order."""
        return (self[number] for number in range(len(self)))


def compute_features(
    examples: Sequence[Example],
    feature_extractor: FeatureExtractor,
    *,
    max_frames: int | None,
    folder: Path,
    workers: DecodeOptions | None = None,
    on_progress: OnProgress | None = None,
) -> FeatureStore:
    """Compute the log-mel energies of examples, or load those that an earlier run stored in the folder.

    Stored energies are used if paths, sizes and modification times of the recordings, their parts, and the filter bank
    are the same. A truncated or foreign file is replaced. The caller owns the folder and may delete it at any time.

    Args:
        examples: Recordings, or parts of them.
        feature_extractor: Feature extractor with the sampling rate and the filter bank.
        max_frames: Most frames of each example; None for all.
        folder: Folder for the file, created if needed.
        workers: Number of decoding processes and their timeout; None for the defaults.
        on_progress: Callback after each example, with the examples done and their number.

    Returns:
        The energies of the examples that could be read, and the errors of the others.

    Raises:
        AstError: If no example could be read, or the file cannot be written.
    """
    request = _request(examples, feature_extractor, max_frames)
    key = hashlib.sha256(json.dumps(request).encode("ascii")).hexdigest()
    file = folder / f"fbanks-{key[:16]}.bin"
    if (index := _read_index(file, key)) is not None:
        return FeatureStore(file, index, examples)
    spectrograms = compute_spectrograms(examples, feature_extractor, max_frames=max_frames, workers=workers)
    try:
        with contextlib.closing(spectrograms), replacing(file, is_shared=True) as stream:
            index = _write(stream, key, spectrograms, feature_extractor.num_mel_bins, len(examples), on_progress)
    except OSError as error:
        bytes_per_minute = feature_extractor.num_mel_bins * DTYPE.itemsize * 60 / feature_extractor.frame_shift_s
        raise AstError(
            f"{file}: cannot be written ({error.strerror}); a minute of audio needs {bytes_per_minute / 1e6:.1f} MB"
        ) from error
    return FeatureStore(file, index, examples)


def _request(examples: Sequence[Example], extractor: FeatureExtractor, max_frames: int | None) -> list[Any]:
    """Return all that the energies depend on: filter bank, number of frames, and files."""
    kind = [VERSION, repr(extractor.filter_bank), extractor.fbank_backend, max_frames]
    return [kind, [_identity(example) for example in examples]]


def _identity(example: Example) -> list[Any]:
    try:
        status = os.stat(example.path)
        content = [status.st_size, status.st_mtime_ns]
    except (OSError, ValueError):
        content = []
    return [os.path.abspath(example.path), *content, example.start_s, example.end_s]


def _read_index(file: Path, key: str) -> dict[str, Any] | None:
    """Return the index of a store; None if the file is incomplete, of other data, or has temporary failures."""
    try:
        with open(file, "rb") as stream:
            num_bytes = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, num_bytes - TRAILER.size))
            num_index_bytes, mark = TRAILER.unpack(stream.read(TRAILER.size))
            start = num_bytes - TRAILER.size - num_index_bytes
            if mark != END_MARK or start < len(HEADER):
                return None
            stream.seek(start)
            index: dict[str, Any] = json.loads(stream.read(num_index_bytes))
        num_frames = sum(length or 0 for length in index["num_frames"])
        is_complete = start == len(HEADER) + num_frames * index["num_mel_bins"] * DTYPE.itemsize
        is_final = PASSING_FAILURES.isdisjoint(code for _, code, _ in index["failures"])
        return index if is_complete and is_final and num_frames and index["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return None


def _write(
    stream: BinaryIO,
    key: str,
    spectrograms: Iterator[Spectrogram],
    num_mel_bins: int,
    num_examples: int,
    on_progress: OnProgress | None,
) -> dict[str, Any]:
    """Write header, frames and index; return the index."""
    stream.write(HEADER)
    lengths: list[int | None] = []
    failures: list[tuple[int, str, str]] = []
    for number, spectrogram in enumerate(spectrograms):
        start = stream.tell()
        try:
            lengths.append(sum(_write_block(stream, block) for block in spectrogram))
        except AudioError as error:
            stream.seek(start)
            stream.truncate()
            lengths.append(None)
            failures.append((number, str(error.code), str(error)))
        if on_progress is not None:
            on_progress(number + 1, num_examples)
    require_any(num_examples - len(failures), [message for _, _, message in failures])
    index = {"key": key, "num_mel_bins": num_mel_bins, "num_frames": lengths, "failures": failures}
    content = json.dumps(index).encode("ascii")
    stream.write(content + TRAILER.pack(len(content), END_MARK))
    return index


def _write_block(stream: BinaryIO, block: NDArray[np.float32]) -> int:
    stream.write(np.ascontiguousarray(block, DTYPE).data)
    return len(block)
