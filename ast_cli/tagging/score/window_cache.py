"""Recognize repeated windows, such as digital silence, test tones and loops, so that the model scores them once.

Only windows that are equal in every number share scores, so no result changes. Comparing each window with all others
would cost more than it saves. A window is therefore looked up by a thousand of its numbers, and compared in full only
with the one that has the same.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_WINDOWS = 32  # 16 MB with AudioSet's windows; a loop of up to this many windows is recognized
NUM_KEY_NUMBERS = 1_024


@dataclass(slots=True, eq=False)
class DistinctWindow:
    """A window that the model has scored or will score.

    Attributes:
        content: Fbank of shape (num_frames, num_mel_bins), or samples of shape (num_samples,).
        scores: Scores of shape (num_labels,); None until the model has run.
    """

    content: NDArray[np.float32]
    scores: Any = None


class WindowCache:
    """The distinct windows that a run has used most recently, found by their content.

    Args:
        max_windows: Number of windows to keep; 0 to recognize no repeated windows.
    """

    def __init__(self, max_windows: int = MAX_WINDOWS) -> None:
        self.max_windows = max_windows
        self._windows: OrderedDict[bytes, DistinctWindow] = OrderedDict()  # the least recently used first

    def find(self, content: NDArray[np.float32]) -> tuple[DistinctWindow, bool]:
        """Return the window with this content, and whether it is new."""
        key = _key(content)
        known = self._windows.get(key)
        if known is not None and np.array_equal(known.content, content):
            self._windows.move_to_end(key)
            return known, False
        window = DistinctWindow(content)
        if self.max_windows:
            window.content = content.copy()  # a view would keep the whole block in memory
            self._windows[key] = window
            self._windows.move_to_end(key)
            if len(self._windows) > self.max_windows:
                self._windows.popitem(last=False)
        return window, True


def _key(content: NDArray[np.float32]) -> bytes:
    """Return some of the numbers as a key; the step between them is odd, so that every mel bin occurs."""
    step = max(1, content.size // NUM_KEY_NUMBERS) | 1
    return content.ravel()[::step].tobytes()
