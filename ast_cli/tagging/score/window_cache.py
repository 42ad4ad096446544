"""Windows that were heard before: digital silence, test tones and loops are given to the model once.

Only windows equal in every number share scores, so no result changes. Comparing all windows with all would cost more
than it saves; a window is looked up by a thousand of its numbers, and compared whole with the one that has the same.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_WINDOWS = 32  # kept: 16 MB at AudioSet's size; a loop of up to so many windows is recognized
NUM_KEY_NUMBERS = 1_024


@dataclass(slots=True, eq=False)
class DistinctWindow:
    """A window that the model has seen or will see.

    Attributes:
        content: What the model hears, shape (num_frames, num_mel_bins) or (num_samples,).
        scores: Shape (num_labels,); None until the model has run.
    """

    content: NDArray[np.float32]
    scores: Any = None


class WindowCache:
    """The last distinct windows of a run, by content.

    Args:
        max_windows: How many to keep; 0 to recognize none.
    """

    def __init__(self, max_windows: int = MAX_WINDOWS) -> None:
        self.max_windows = max_windows
        self._windows: OrderedDict[bytes, DistinctWindow] = OrderedDict()  # the least recently heard first

    def find(self, content: NDArray[np.float32]) -> tuple[DistinctWindow, bool]:
        """Return the window of this content, and whether it is new."""
        key = _key(content)
        known = self._windows.get(key)
        if known is not None and np.array_equal(known.content, content):
            self._windows.move_to_end(key)
            return known, False
        window = DistinctWindow(content)
        if self.max_windows:
            window.content = content.copy()  # a view would keep the block alive that it was cut from
            self._windows[key] = window
            self._windows.move_to_end(key)
            if len(self._windows) > self.max_windows:
                self._windows.popitem(last=False)
        return window, True


def _key(content: NDArray[np.float32]) -> bytes:
    """Return some of the numbers, spread over the whole by an odd step, so that every mel bin is among them."""
    step = max(1, content.size // NUM_KEY_NUMBERS) | 1
    return content.ravel()[::step].tobytes()
