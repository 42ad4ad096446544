"""Long recordings cut into model windows: one long fbank, sliced frame-exactly.

A window is ``max_length`` frames. Windows start every ``hop_frames``. When a recording is longer than one window and
its end is not reached, one more window is moved back to end on the last whole frame, so that no padding is heard. A
recording shorter than a window gives one short window, which the feature extractor pads as the reference does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.fbank.mel_bank import FRAME_SHIFT_S, FbankConfig
from ast_cli.errors import UsageError


@dataclass(frozen=True, slots=True, eq=False)
class AudioWindow:
    """One window of a recording, before or after the filter bank.

    Attributes:
        start_frame: Index of its first frame in the recording.
        content: Log-mel energies, shape (max_length, num_mel_bins), or fewer frames if the recording has fewer; before
            the filter bank the samples of those frames, shape (num_samples,).
    """

    start_frame: int
    content: NDArray[np.float32]


def hop_frames_of(hop_s: float | None, max_length: int) -> int:
    """Convert a hop in seconds to whole 10 ms frames.

    Args:
        hop_s: Seconds from one window's start to the next; None for windows side by side.
        max_length: Frames in a window.

    Raises:
        UsageError: The hop is under one frame, or leaves frames unheard between windows.
    """
    if hop_s is None:
        return max_length
    hop_frames = round(hop_s / FRAME_SHIFT_S) if math.isfinite(hop_s) else 0
    if not 1 <= hop_frames <= max_length:
        window_s = max_length * FRAME_SHIFT_S
        raise UsageError(f"--hop must be from 0.01 s to the model's window of {window_s:.2f} s, not {hop_s:g} s")
    return hop_frames


def slice_windows(
    fbank_blocks: Iterable[NDArray[np.float32]], max_length: int, hop_frames: int
) -> Iterator[AudioWindow]:
    """Cut a stream of fbank frames into windows, holding no more than one window and one block.

    Args:
        fbank_blocks: Consecutive frames, each block of shape (num_frames, num_mel_bins).
        max_length: Frames in a window.
        hop_frames: Frames from one window's start to the next, at most ``max_length``.
    """
    for start_frame, fbank in _slice(fbank_blocks, max_length, hop_frames, row_step=1):
        yield AudioWindow(start_frame, fbank)


def slice_waveform(
    blocks: Iterable[NDArray[np.float32]], config: FbankConfig, max_length: int, hop_frames: int
) -> Iterator[AudioWindow]:
    """Cut a stream of samples into the samples of the same windows, for a filter bank elsewhere.

    A frame depends on its own samples alone, so the fbank of these samples is the window of the long fbank.

    Args:
        blocks: Consecutive mono samples, each of shape (num_samples,).
        config: Of the filter bank.
        max_length: Frames in a window.
        hop_frames: Frames from one window's start to the next, at most ``max_length``.
    """
    step = config.frame_shift_samples
    for start, samples in _slice(blocks, config.num_samples(max_length), hop_frames * step, row_step=step):
        num_whole = config.num_samples(max(1, config.num_frames(samples.size)))
        missing = max(0, num_whole - samples.size)  # of a recording shorter than one frame
        yield AudioWindow(start // step, np.pad(samples, (0, missing)) if missing else samples[:num_whole])


def _slice(
    blocks: Iterable[NDArray[np.float32]], num_rows: int, hop_rows: int, row_step: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Cut a stream of rows into windows of ``num_rows``, each with the index of its first row.

    The last window is moved back to end on the last row, or before it, so that it starts on a multiple of ``row_step``
    """
    held: list[NDArray[np.float32]] = []  # rows from held_start on
    held_start = held_rows = next_start = 0
    for block in blocks:
        held.append(block)
        held_rows += len(block)
        if held_start + held_rows < next_start + num_rows:
            continue
        rows = np.concatenate(held)
        while next_start + num_rows <= held_start + held_rows:
            offset = next_start - held_start
            yield next_start, rows[offset : offset + num_rows]
            next_start += hop_rows
        # The last rows stay: they may become the window that is moved back to the end.
        rows = rows[max(0, held_rows - num_rows) // row_step * row_step :].copy()
        held_start += held_rows - len(rows)
        held, held_rows = [rows], len(rows)
    end = held_start + held_rows
    start = max(0, end - num_rows) // row_step * row_step
    last_start = next_start - hop_rows  # negative where there was no window
    if end and (next_start == 0 or start > last_start):
        yield start, np.concatenate(held)[start - held_start :][:num_rows]
