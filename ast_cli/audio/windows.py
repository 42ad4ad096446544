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

from ast_cli.audio.mel_bank import FRAME_SHIFT_S
from ast_cli.errors import UsageError


@dataclass(frozen=True, slots=True, eq=False)
class FbankWindow:
    """One window of a recording.

    Attributes:
        start_frame: Index of its first frame in the recording.
        fbank: Log-mel energies, shape (max_length, num_mel_bins), or fewer frames if the recording has fewer.
    """

    start_frame: int
    fbank: NDArray[np.float32]


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
        raise UsageError(f"the hop must be from 0.01 s to the model's window of {window_s:.2f} s, not {hop_s:g} s")
    return hop_frames


def slice_windows(
    fbank_blocks: Iterable[NDArray[np.float32]], max_length: int, hop_frames: int
) -> Iterator[FbankWindow]:
    """Cut a stream of fbank frames into windows, holding no more than one window and one block.

    Args:
        fbank_blocks: Consecutive frames, each block of shape (num_frames, num_mel_bins).
        max_length: Frames in a window.
        hop_frames: Frames from one window's start to the next, at most ``max_length``.
    """
    held: list[NDArray[np.float32]] = []  # frames from held_start on
    held_start = held_frames = next_start = 0
    for block in fbank_blocks:
        held.append(block)
        held_frames += len(block)
        if held_start + held_frames < next_start + max_length:
            continue
        fbank = np.concatenate(held)
        while next_start + max_length <= held_start + held_frames:
            offset = next_start - held_start
            yield FbankWindow(next_start, fbank[offset : offset + max_length])
            next_start += hop_frames
        # The last max_length frames stay: they may become the window that is moved back to the end.
        fbank = fbank[max(0, held_frames - max_length) :].copy()
        held_start += held_frames - len(fbank)
        held, held_frames = [fbank], len(fbank)
    num_frames = held_start + held_frames
    if num_frames == 0:
        return
    last_end = next_start - hop_frames + max_length if next_start else 0
    if num_frames > last_end:
        yield FbankWindow(max(0, num_frames - max_length), np.concatenate(held)[-max_length:])
