"""Rows over time in bounded memory: when there are too many, each two neighbors become one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class FoldingRows:
    """Rows of equal steps in time, of which at most a limit is kept, however many are added.

    Where there are more, each row is the maximum of a power of two of them, so that short sounds stay visible.

    Args:
        limit: Largest number of rows.
        width: Number of values in a row.

    Attributes:
        num_folded: Number of added rows in each row that is kept.
    """

    def __init__(self, limit: int, width: int) -> None:
        self.num_folded = 1
        self._limit = limit
        self._blocks: list[NDArray[np.float16]] = []
        self._num_rows = 0
        self._pending = np.zeros((0, width), np.float32)

    def add(self, rows: NDArray[np.float32]) -> None:
        """Add rows, shape (num_rows, width)."""
        rows = np.concatenate([self._pending, rows]) if len(self._pending) else rows
        num_whole = len(rows) // self.num_folded * self.num_folded
        self._pending = rows[num_whole:].copy()
        self._keep(_folded(rows[:num_whole], self.num_folded).astype(np.float16))
        while self._num_rows > self._limit:
            self._fold()

    def rows(self) -> NDArray[np.float16]:
        """Return the rows that are kept, the last of which may be of fewer added rows; shape (num_rows, width)."""
        last = [self._pending.max(axis=0, keepdims=True).astype(np.float16)] if len(self._pending) else []
        return np.concatenate([*self._blocks, *last]) if self._blocks or last else self._pending.astype(np.float16)

    def _keep(self, rows: NDArray[np.float16]) -> None:
        if len(rows):
            self._blocks.append(rows)
            self._num_rows += len(rows)

    def _fold(self) -> None:
        rows = np.concatenate(self._blocks)
        num_whole = len(rows) // 2 * 2
        odd = np.repeat(rows[num_whole:].astype(np.float32), self.num_folded, axis=0)  # as many as were added
        self._pending = np.concatenate([odd, self._pending])
        self._blocks, self._num_rows, self.num_folded = [], 0, self.num_folded * 2
        self._keep(_folded(rows[:num_whole], 2))


def _folded(rows: NDArray[Any], number: int) -> NDArray[Any]:
    """Return the maximum of each ``number`` rows; their count must be a multiple of it."""
    return rows if number == 1 else rows.reshape(-1, number, rows.shape[1]).max(axis=1)
