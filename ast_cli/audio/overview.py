"""A recording at a glance: its waveform and log-mel spectrogram in at most 2048 columns, in constant memory.

Samples arrive in blocks, and neither their number nor the length in a header is known to be right. Columns therefore
begin short; whenever there are too many, neighbors are joined and all later columns are twice as long.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.fbank.blocks import RunningFbank
from ast_cli.audio.fbank.filter_bank import FbankBackend
from ast_cli.audio.fbank.kaldi_bank import KaldiBank
from ast_cli.audio.fbank.mel_bank import FRAME_SHIFT_S, LOW_HZ, mel_scale
from ast_cli.audio.sample_stream import SampleStream
from ast_cli.errors import WarningCode

MAX_COLUMNS = 2048  # twice as many as a picture of 1200 pixels shows
ENVELOPE_STEP_S = 0.001  # shortest column of the waveform


@dataclass(frozen=True, slots=True, eq=False)
class Overview:
    """The waveform and the spectrogram of a recording, pooled over time.

    Attributes:
        start_s: Position of the first sample in the recording, in seconds.
        duration_s: Length of the audio, in seconds.
        lowest: Lowest sample of each column of the waveform, shape (num_envelope_columns,).
        highest: Highest sample of each of these columns.
        envelope_column_s: Length of these columns, in seconds; the last one may be shorter.
        log_energies: Natural logarithm of the mean energy of each mel filter, shape (num_columns, num_mel_bins).
        column_s: Length of the columns of the spectrogram, in seconds.
        config: Parameters of the filter bank.
    """

    start_s: float
    duration_s: float
    lowest: NDArray[np.float32]
    highest: NDArray[np.float32]
    envelope_column_s: float
    log_energies: NDArray[np.float32]
    column_s: float
    config: KaldiBank

    def bin_of(self, frequency_hz: float) -> float:
        """Return the position of a frequency among the mel filters: 0 is the center of the first one."""
        low, high = float(mel_scale(LOW_HZ)), float(mel_scale(self.config.sampling_rate / 2))
        step = (high - low) / (self.config.num_mel_bins + 1)
        return (float(mel_scale(frequency_hz)) - low) / step - 1


class OverviewBuilder:
    """Makes the overview of a recording whose samples are handed over block by block.

    Args:
        config: Parameters of the filter bank; the samples have its rate.
        backend: Implementation of the filter bank.
        max_columns: Greatest number of columns of a result.
    """

    def __init__(self, config: KaldiBank, backend: FbankBackend = "numpy", max_columns: int = MAX_COLUMNS) -> None:
        self._config = config
        self._fbank = RunningFbank(config, backend)
        per_step = max(1, round(config.sampling_rate * ENVELOPE_STEP_S))
        self._lowest = _Columns(np.minimum, per_step, max_columns)
        self._highest = _Columns(np.maximum, per_step, max_columns)
        self._energies = _Columns(np.add, 1, max_columns)

    def add(self, block: NDArray[np.float32]) -> None:
        """Add a block of mono samples in [-1, 1], shape (num_samples,)."""
        samples = block[:, None]
        self._lowest.add(samples)
        self._highest.add(samples)
        for frames in self._fbank.add(block):
            self._energies.add(np.exp(frames, dtype=np.float64))

    def overview(self, start_s: float, duration_s: float) -> Overview:
        """Return the overview of all blocks; called once, after the last of them.

        Args:
            start_s: Position of the first sample in the recording, in seconds.
            duration_s: Length of the audio, in seconds.
        """
        for frames in self._fbank.rest():
            self._energies.add(np.exp(frames, dtype=np.float64))
        sums, counts = self._energies.columns(), self._energies.counts()
        return Overview(
            start_s=start_s,
            duration_s=duration_s,
            lowest=self._lowest.columns()[:, 0].astype(np.float32),
            highest=self._highest.columns()[:, 0].astype(np.float32),
            envelope_column_s=self._lowest.rows_per_column / self._config.sampling_rate,
            log_energies=np.log(sums / counts[:, None]).astype(np.float32),
            column_s=self._energies.rows_per_column * FRAME_SHIFT_S,
            config=self._config,
        )


class _Columns:
    """Joins consecutive rows of equal width to columns: their sum, minimum or maximum.

    Args:
        ufunc: Function that joins two rows.
        rows_per_column: Number of rows of a column at the beginning.
        max_columns: Greatest number of columns.
    """

    def __init__(self, ufunc: np.ufunc, rows_per_column: int, max_columns: int) -> None:
        self.rows_per_column = rows_per_column
        self._ufunc = ufunc
        self._max_columns = max_columns
        self._complete: list[NDArray[np.float64]] = []
        self._last: NDArray[np.float64] | None = None  # the column that is not complete yet
        self._num_last = 0  # its number of rows

    def add(self, rows: NDArray[np.floating]) -> None:
        """Add rows, shape (num_rows, width)."""
        while len(rows):
            taken = rows[: self.rows_per_column - self._num_last]
            if len(taken) == self.rows_per_column:  # all whole columns at once
                num_whole = min(len(rows) // self.rows_per_column, self._max_columns - len(self._complete))
                taken = rows[: num_whole * self.rows_per_column]
                whole = taken.reshape(num_whole, self.rows_per_column, rows.shape[1])
                self._complete += list(self._ufunc.reduce(whole, axis=1, dtype=np.float64))
            else:
                joined = self._ufunc.reduce(taken, axis=0, dtype=np.float64)
                self._last = joined if self._last is None else self._ufunc(self._last, joined)
                self._num_last += len(taken)
                if self._num_last == self.rows_per_column:
                    self._complete.append(self._last)
                    self._last, self._num_last = None, 0
            rows = rows[len(taken) :]
            if len(self._complete) == self._max_columns:
                self._join_neighbors()

    def _join_neighbors(self) -> None:
        pairs = np.stack(self._complete).reshape(len(self._complete) // 2, 2, -1)
        self._complete = list(self._ufunc.reduce(pairs, axis=1))
        self.rows_per_column *= 2

    def columns(self) -> NDArray[np.float64]:
        """Return the columns, shape (num_columns, width); the last one may be of fewer rows."""
        return np.stack([*self._complete, *([] if self._last is None else [self._last])])

    def counts(self) -> NDArray[np.int64]:
        """Return the number of rows of each column, shape (num_columns,)."""
        last = [self._num_last] if self._num_last else []
        return np.array([self.rows_per_column] * len(self._complete) + last, np.int64)


class WatchedStream:
    """A stream of mono samples that hands each block to a builder before its reader gets it.

    Args:
        stream: The stream.
        builder: What makes the overview.
    """

    def __init__(self, stream: SampleStream, builder: OverviewBuilder) -> None:
        self.sampling_rate = stream.sampling_rate
        self.num_channels = stream.num_channels
        self.start_s = stream.start_s
        self._stream = stream
        self._builder = builder

    @property
    def warnings(self) -> set[WarningCode]:
        """Problems found so far."""
        return self._stream.warnings

    @property
    def duration_s(self) -> float:
        """Length in seconds of the audio read so far."""
        return self._stream.duration_s

    @property
    def header_duration_s(self) -> float | None:
        """Length in seconds of the audio to read according to the source's header."""
        return self._stream.header_duration_s

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield the samples, each block of shape (num_samples,)."""
        for block in self._stream:
            self._builder.add(block)
            yield block

    def close(self) -> None:
        """Close the source."""
        self._stream.close()
