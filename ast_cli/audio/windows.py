"""Division of a recording into windows of the model: one long fbank, cut at exact frames.

A window has ``max_length`` frames, and a window starts every ``hop_frames`` frames. If the windows do not reach the end
of a recording that is longer than one window, one more window ends on the last whole frame, so no padding is needed. A
recording shorter than a window gives one short window, which the feature extractor pads as the reference does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.fbank.blocks import with_edges
from ast_cli.audio.fbank.filter_bank import FilterBank
from ast_cli.errors import UsageError


@dataclass(frozen=True, slots=True, eq=False)
class AudioWindow:
    """A window of a recording, before or after the filter bank.

    Attributes:
        start_frame: Index of the window's first frame in the recording.
        content: Log-mel energies of shape (max_length, num_mel_bins), with fewer frames if the recording has fewer;
            before the filter bank, the samples of these frames, shape (num_samples,).
    """

    start_frame: int
    content: NDArray[np.float32]


def hop_frames_of(hop_s: float | None, longest_frames: int, frame_shift_ms: float) -> int:
    """Convert a hop in seconds to whole frames.

    Args:
        hop_s: Seconds from the start of one window to the start of the next; None for adjacent windows.
        longest_frames: Hop of adjacent windows in frames.
        frame_shift_ms: Milliseconds from one frame to the next.

    Raises:
        UsageError: If the hop is shorter than one frame, or longer than a window and would skip frames.
    """
    if hop_s is None:
        return longest_frames
    frame_s = frame_shift_ms / 1000
    hop_frames = round(hop_s / frame_s) if math.isfinite(hop_s) else 0
    if not 1 <= hop_frames <= longest_frames:
        window_s = longest_frames * frame_s
        raise UsageError(f"--hop must be from {frame_s:g} s to the model's window of {window_s:.2f} s, not {hop_s:g} s")
    return hop_frames


def slice_windows(
    fbank_blocks: Iterable[NDArray[np.float32]], max_length: int, hop_frames: int
) -> Iterator[AudioWindow]:
    """Cut a stream of fbank frames into windows, with at most one window and one block in memory.

    Args:
        fbank_blocks: Consecutive frames, each block of shape (num_frames, num_mel_bins).
        max_length: Length of a window in frames.
        hop_frames: Number of frames from the start of one window to the next, at most ``max_length``.
    """
    for start_frame, fbank in _slice(fbank_blocks, max_length, hop_frames, row_step=1):
        yield AudioWindow(start_frame, fbank)


def slice_waveform(
    blocks: Iterable[NDArray[np.float32]], bank: FilterBank, max_length: int, hop_frames: int
) -> Iterator[AudioWindow]:
    """Cut a stream of samples into the samples of the same windows, for a filter bank on a GPU or one that scales them.

    A frame depends only on its own samples, so the fbank of these samples equals the window of the long fbank; a bank
    that scales windows has no long fbank. The samples begin and end with the zeros that the bank asks for.

    Args:
        blocks: Consecutive mono samples, each block of shape (num_samples,).
        bank: The filter bank.
        max_length: Length of a window in frames.
        hop_frames: Number of frames from the start of one window to the next, at most ``max_length``.
    """
    step = bank.frame_shift_samples
    edged = with_edges(blocks, bank)
    for start, samples in _slice(edged, bank.num_samples(max_length), hop_frames * step, row_step=step):
        num_whole = bank.num_samples(max(1, bank.num_frames(samples.size)))
        missing = max(0, num_whole - samples.size)  # of a recording shorter than one frame, or than a scaled window
        yield AudioWindow(start // step, np.pad(samples, (0, missing)) if missing else samples[:num_whole])


def spread_starts(num_frames: int, window_frames: int, num_windows: int) -> list[int] | None:
    """Return the first frames of windows spread evenly over a recording: equal gaps before, between and after them.

    None if the recording is not longer than this many windows, which then are all of its windows.

    Args:
        num_frames: Length of the recording in frames.
        window_frames: Length of a window in frames.
        num_windows: Number of windows.
    """
    gaps = num_frames - num_windows * window_frames
    if gaps <= 0:
        return None
    return [i * window_frames + round(gaps * (i + 1) / (num_windows + 1)) for i in range(num_windows)]


def thinned(windows: Iterable[AudioWindow], num_windows: int) -> list[AudioWindow]:
    """Choose windows spread evenly over a recording whose length is known only at its end.

    Of all windows, every second, fourth ... is kept, so that memory holds at most four times as many as are chosen;
    those nearest to even places are chosen.

    Args:
        windows: All windows of the recording.
        num_windows: Number of windows to choose, if there are as many.
    """
    kept: list[tuple[int, AudioWindow]] = []
    step, total = 1, 0
    for number, window in enumerate(windows):
        total = number + 1
        if number % step == 0:
            kept.append((number, AudioWindow(window.start_frame, window.content.copy())))
        if len(kept) > 4 * num_windows:
            kept, step = kept[::2], 2 * step
    places = spread_starts(total, 1, num_windows)
    if places is None:
        return [window for _, window in kept]
    nearest = {min(kept, key=lambda each: abs(each[0] - place))[0] for place in places}
    return [window for number, window in kept if number in nearest]


def slice_waveform_at(
    blocks: Iterable[NDArray[np.float32]], bank: FilterBank, max_length: int, starts: Iterable[int]
) -> Iterator[AudioWindow]:
    """Cut a stream of samples into the samples of windows that start at certain frames, and read it to its end.

    Memory holds two windows and a block. If the stream is shorter than expected, the first window that it does not
    fill is moved back to end with it, and further ones are left out.

    Args:
        blocks: Consecutive mono samples, each block of shape (num_samples,).
        bank: The filter bank.
        max_length: Length of a window in frames.
        starts: First frames of the windows, in increasing order.
    """
    step, num_rows = bank.frame_shift_samples, bank.num_samples(max_length)
    waiting = [start * step for start in starts]
    held = np.zeros(0, np.float32)  # the samples from held_start on: all of the next window, or the last of the stream
    held_start, last_start = 0, -1
    pending: list[NDArray[np.float32]] = []
    num_pending = 0
    for block in with_edges(blocks, bank):
        pending.append(block)
        num_pending += block.size
        if num_pending < num_rows and (not waiting or held_start + held.size + num_pending < waiting[0] + num_rows):
            continue
        held = np.concatenate([held, *pending])
        pending, num_pending = [], 0
        while waiting and waiting[0] + num_rows <= held_start + held.size:
            last_start = waiting.pop(0)
            yield AudioWindow(last_start // step, held[last_start - held_start :][:num_rows].copy())
        keep_from = max(0, held.size - num_rows) // step * step  # a window may be moved back to the end
        if waiting:
            keep_from = max(0, min(keep_from, waiting[0] - held_start))
        held, held_start = held[keep_from:].copy(), held_start + keep_from
    if waiting:
        held = np.concatenate([held, *pending])
        start = max(0, held_start + held.size - num_rows) // step * step
        if held.size and start > last_start:
            samples = held[max(0, start - held_start) :][:num_rows]
            num_whole = bank.num_samples(max(1, bank.num_frames(samples.size)))
            yield AudioWindow(start // step, np.pad(samples, (0, max(0, num_whole - samples.size)))[:num_whole])


def _slice(
    blocks: Iterable[NDArray[np.float32]], num_rows: int, hop_rows: int, row_step: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Cut a stream of rows into windows of ``num_rows`` rows, and yield the index of the first row with each window.

    The last window ends on the last row, or less than ``row_step`` rows before it, to start on a multiple of that step.
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
        # Keep the last rows: they may become the additional window at the end.
        rows = rows[max(0, held_rows - num_rows) // row_step * row_step :].copy()
        held_start += held_rows - len(rows)
        held, held_rows = [rows], len(rows)
    end = held_start + held_rows
    start = max(0, end - num_rows) // row_step * row_step
    last_start = next_start - hop_rows  # negative if there was no window yet
    if end and (next_start == 0 or start > last_start):
        yield start, np.concatenate(held)[start - held_start :][:num_rows]
