"""The log-mel energies of a data set, computed once, in one file that need not fit into memory.

The file: 64 bytes of header, the frames of all examples one after another as little-endian float32, an index as JSON,
and the index's length with a last mark. Half the bytes would do as float16, but not hold the fbank's tolerance of 5e-4.
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

from ast_cli.audio.fbank.mel_bank import FRAME_SHIFT_S
from ast_cli.audio.feature_extractor import ASTFeatureExtractor
from ast_cli.dataset.examples import Example
from ast_cli.errors import AstError, AudioError, ErrorCode
from ast_cli.files.atomic import replacing
from ast_cli.results import FileError
from ast_cli.tagging.options import DecodeOptions
from ast_cli.training.data.spectrograms import OnProgress, Spectrogram, UnreadExample, compute_spectrograms, require_any

VERSION = 1  # of the file, and of the numbers in it: a filter bank that computes others must raise it
HEADER = b"ast_cli fbanks\n".ljust(64, b"\0")  # so long that frames start at a cache line
TRAILER = struct.Struct("<Q8s")  # length of the index in bytes, and a mark that only a whole file ends with
END_MARK = b"astend\r\n"
DTYPE = np.dtype("<f4")
# Such a failure may be gone at the next try, although the file is the same.
PASSING_FAILURES = frozenset(
    {ErrorCode.NOT_FOUND, ErrorCode.PERMISSION, ErrorCode.VANISHED, ErrorCode.TIMEOUT, ErrorCode.OUT_OF_MEMORY}
)


class FeatureStore:
    """Log-mel energies by number: not normalized and not padded, memory-mapped.

    Attributes:
        file: Where they are.
        examples: Those that could be read, in the order asked for; `store[i]` belongs to `examples[i]`.
        failures: The others, each with the reason.
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
        """Return one example's frames, shape (num_frames, num_mel_bins): a view that cannot be written."""
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
    feature_extractor: ASTFeatureExtractor,
    *,
    max_frames: int | None,
    folder: Path,
    workers: DecodeOptions | None = None,
    on_progress: OnProgress | None = None,
) -> FeatureStore:
    """Compute the log-mel energies of examples, or find them in the folder where an earlier run left them.

    They are found again if the files' paths, sizes and times, the parts and the filter bank are the same. A file that
    is torn or foreign is made anew; the folder belongs to the caller, who may delete it at any time.

    Args:
        examples: Recordings, or parts of them.
        feature_extractor: For its sampling rate and filter bank.
        max_frames: At most so many of each example; None for all.
        folder: For the file; made if needed.
        workers: How many processes decode, and how long they may take; None for the defaults.
        on_progress: Called after each example with how many are done, and how many there are.

    Returns:
        The energies of the examples that could be read, and why others could not.

    Raises:
        AstError: No example could be read, or the file cannot be written.
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
        bytes_per_minute = feature_extractor.num_mel_bins * DTYPE.itemsize * 60 / FRAME_SHIFT_S
        raise AstError(
            f"{file}: cannot be written ({error.strerror}); a minute of audio takes {bytes_per_minute / 1e6:.1f} MB"
        ) from error
    return FeatureStore(file, index, examples)


def _request(examples: Sequence[Example], extractor: ASTFeatureExtractor, max_frames: int | None) -> list[Any]:
    """Return everything that the numbers depend on."""
    kind = [VERSION, extractor.sampling_rate, extractor.num_mel_bins, extractor.fbank_backend, max_frames]
    return [kind, [_identity(example) for example in examples]]


def _identity(example: Example) -> list[Any]:
    try:
        status = os.stat(example.path)
        content = [status.st_size, status.st_mtime_ns]
    except (OSError, ValueError):
        content = []
    return [os.path.abspath(example.path), *content, example.start_s, example.end_s]


def _read_index(file: Path, key: str) -> dict[str, Any] | None:
    """Return a store's index if it is whole, answers the request, and would not be different by now."""
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
        is_whole = start == len(HEADER) + num_frames * index["num_mel_bins"] * DTYPE.itemsize
        is_final = PASSING_FAILURES.isdisjoint(code for _, code, _ in index["failures"])
        return index if is_whole and is_final and num_frames and index["key"] == key else None
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
