"""A compact copy of a recording for listening in the page: Opus in WebM, which every current browser plays."""

from __future__ import annotations

import io

import av
import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.samples import MODEL_SAMPLING_RATE

MIME_TYPE = "audio/webm; codecs=opus"
BITS_PER_S = 24_000  # of mono at 16 kHz, what the model hears: 3 kB for each second
FRAME_MS = "60"  # the longest frame of Opus, for the fewest bytes of container
BYTES_PER_S = BITS_PER_S / 8 * 1.15  # with the container, for noise


class OpusPreview:
    """Encodes mono samples as they arrive, and gives up when the result becomes too large.

    Args:
        max_bytes: Largest size of the result.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._file = io.BytesIO()
        self._container = av.open(self._file, "w", format="webm")
        self._stream = self._container.add_stream("libopus", rate=MODEL_SAMPLING_RATE, layout="mono")
        self._stream.bit_rate = BITS_PER_S
        self._stream.options = {"application": "audio", "frame_duration": FRAME_MS}
        self._num_samples = 0
        self._is_too_large = False

    def add(self, samples: NDArray[np.float32]) -> None:
        """Encode samples at 16 kHz, shape (num_samples,)."""
        if self._is_too_large or not samples.size:
            return
        clipped = np.clip(samples, -1, 1)[None]  # (1, num_samples)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(clipped), format="flt", layout="mono")
        frame.sample_rate = MODEL_SAMPLING_RATE
        frame.pts = self._num_samples
        self._num_samples += samples.size
        self._container.mux(self._stream.encode(frame))
        self._is_too_large = self._file.tell() > self._max_bytes

    def close(self) -> bytes | None:
        """Return the file; None if it would be too large."""
        if not self._is_too_large:
            self._container.mux(self._stream.encode(None))
        self._container.close()
        content = self._file.getvalue()
        return None if self._is_too_large or len(content) > self._max_bytes else content
