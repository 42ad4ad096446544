"""The waveform and the spectrogram of a recording as compact pictures of bounded size, made while it is read."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from ast_cli.report_page.folding import FoldingRows

TILE_COLUMNS = 2048  # of one image, so that a browser decodes only what is seen
OVERVIEW_COLUMNS = 2048  # one image of the whole recording, for when all of it is seen
WEBP_OPTIONS = {"quality": "40", "compression_level": "2"}  # 13 bytes for a column of 128 bins
SHOWN_RANGE = 14.0  # natural logarithms of energy from black to white, 61 dB
LOUDEST_PERCENTILE = 99.9  # white, so that one click does not darken the rest
QUIETEST_PERCENTILE = 5.0  # black, where that is less than SHOWN_RANGE below


@dataclass(frozen=True, slots=True)
class Tiles:
    """Images side by side, each `TILE_COLUMNS` wide but the last: WebP, gray, low frequencies at the bottom.

    Attributes:
        column_s: Seconds of one column.
        num_columns: Width of all images in pixels.
        images: The images.
    """

    column_s: float
    num_columns: int
    images: tuple[bytes, ...]


def peak_bytes(peaks: FoldingRows) -> bytes:
    """Return one byte for each step of a waveform: its peak, from 0 to 255 for the loudest of the recording."""
    values = peaks.rows()[:, 0].astype(np.float32)
    loudest = float(values.max(initial=0.0))
    return np.round(values * (255 / loudest) if loudest else values).astype(np.uint8).tobytes()


def spectrogram_tiles(energies: FoldingRows, frame_s: float) -> tuple[Tiles, ...]:
    """Return the images of a log-mel spectrogram, and before them an overview if it is long.

    Args:
        energies: Log-mel energies, a row of mel bins for each frame.
        frame_s: Seconds from one frame to the next.
    """
    gray = _gray(energies.rows())  # (num_columns, num_mel_bins)
    column_s = frame_s * energies.num_folded
    levels = []
    if len(gray) > 2 * OVERVIEW_COLUMNS:
        number = -(-len(gray) // OVERVIEW_COLUMNS)
        missing = -len(gray) % number
        padded = np.pad(gray, ((0, missing), (0, 0)), mode="edge")
        levels.append((column_s * number, padded.reshape(-1, number, gray.shape[1]).max(axis=1)))
    levels.append((column_s, gray))
    return tuple(Tiles(seconds, len(columns), tuple(_images(columns))) for seconds, columns in levels)


def _gray(rows: NDArray[np.float16]) -> NDArray[np.uint8]:
    """Map log energies to 0 to 255, by their percentiles."""
    if not len(rows):
        return np.zeros(rows.shape, np.uint8)
    sampled = rows[:: max(1, len(rows) // OVERVIEW_COLUMNS)].astype(np.float32)
    white = float(np.percentile(sampled, LOUDEST_PERCENTILE))
    black = max(white - SHOWN_RANGE, float(np.percentile(sampled, QUIETEST_PERCENTILE)))
    scale = 255 / (white - black) if white > black else 0.0
    gray = np.empty(rows.shape, np.uint8)
    for start in range(0, len(rows), TILE_COLUMNS):
        part = rows[start : start + TILE_COLUMNS].astype(np.float32)
        gray[start : start + TILE_COLUMNS] = np.clip((part - black) * scale, 0, 255)
    return gray


def _images(columns: NDArray[np.uint8]) -> list[bytes]:
    return [_webp(columns[start : start + TILE_COLUMNS]) for start in range(0, len(columns), TILE_COLUMNS)]


def _webp(columns: NDArray[np.uint8]) -> bytes:
    """Return columns (num_columns, num_mel_bins) as an image, the first bin at the bottom."""
    picture = np.ascontiguousarray(columns.T[::-1])
    encoder = av.CodecContext.create("libwebp", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.height, encoder.width = picture.shape
    encoder.pix_fmt = "yuv420p"
    encoder.time_base = Fraction(1)
    encoder.options = WEBP_OPTIONS
    frame = av.VideoFrame.from_ndarray(picture, format="gray").reformat(format="yuv420p")
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
