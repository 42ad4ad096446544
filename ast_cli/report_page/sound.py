"""What the page shows and plays of a recording's sound, made in one pass over its samples, in bounded memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.fbank.blocks import fbank_blocks
from ast_cli.audio.fbank.kaldi_bank import KaldiBank
from ast_cli.audio.fbank.mel_bank import FRAME_SHIFT_S
from ast_cli.audio.samples import MODEL_SAMPLING_RATE
from ast_cli.report_page.folding import FoldingRows
from ast_cli.report_page.pictures import Tiles, peak_bytes, spectrogram_tiles
from ast_cli.report_page.preview import OpusPreview

FBANK = KaldiBank()  # that of AudioSet's models
PEAK_SAMPLES = 320  # one peak for each 20 ms
PEAK_S = PEAK_SAMPLES / MODEL_SAMPLING_RATE
MAX_COLUMNS = 131_072  # of one recording's spectrogram: 22 minutes at 10 ms, 24 h at 1.3 s; 1.7 MB


@dataclass(frozen=True, slots=True)
class Sound:
    """The sound of one recording.

    Attributes:
        duration_s: Length in seconds.
        peak_s: Seconds of one peak.
        peaks: One byte for each peak.
        spectrogram: Images of the spectrogram, from coarse to fine.
        preview: Audio for the player; None if it would be too large.
    """

    duration_s: float
    peak_s: float
    peaks: bytes
    spectrogram: tuple[Tiles, ...]
    preview: bytes | None


def read_sounds(
    streams: Sequence[Iterable[NDArray[np.float32]]], *, max_columns: int, max_preview_bytes: int
) -> list[Sound]:
    """Read a recording once, and return its pictures and its preview, or those of each of its channels.

    Channels are read in turns, a block at a time, so that none has to be kept for another.

    Args:
        streams: Consecutive mono samples at 16 kHz, each block of shape (num_samples,); one stream for each channel.
        max_columns: Largest width of each spectrogram in pixels.
        max_preview_bytes: Largest size of each preview; 0 for none.
    """
    readers = [_Reader(max_columns, max_preview_bytes) for _ in streams]
    fbanks = [
        fbank_blocks(reader.passing(stream), FBANK, "numpy") for reader, stream in zip(readers, streams, strict=True)
    ]
    for blocks in itertools.zip_longest(*fbanks):
        for reader, frames in zip(readers, blocks, strict=True):
            if frames is not None:
                reader.energies.add(frames)
    return [reader.sound() for reader in readers]


class _Reader:
    """Collects what is shown of a stream while its blocks pass through."""

    def __init__(self, max_columns: int, max_preview_bytes: int) -> None:
        self.energies = FoldingRows(max_columns, FBANK.num_mel_bins)
        self._peaks = FoldingRows(max_columns, 1)
        self._preview = OpusPreview(max_preview_bytes) if max_preview_bytes else None
        self._num_samples = 0
        self._pending = np.zeros(0, np.float32)

    def passing(self, blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Yield the blocks unchanged."""
        for block in blocks:
            self._num_samples += block.size
            self._add_peaks(block)
            if self._preview:
                self._preview.add(block)
            yield block
        if self._pending.size:
            self._peaks.add(np.abs(self._pending).max(keepdims=True)[None])

    def _add_peaks(self, block: NDArray[np.float32]) -> None:
        samples = np.concatenate([self._pending, block]) if self._pending.size else block
        num_whole = samples.size // PEAK_SAMPLES * PEAK_SAMPLES
        self._peaks.add(np.abs(samples[:num_whole].reshape(-1, PEAK_SAMPLES)).max(axis=1)[:, None])
        self._pending = samples[num_whole:].copy()

    def sound(self) -> Sound:
        """Return what was collected."""
        return Sound(
            duration_s=self._num_samples / MODEL_SAMPLING_RATE,
            peak_s=PEAK_S * self._peaks.num_folded,
            peaks=peak_bytes(self._peaks),
            spectrogram=spectrogram_tiles(self.energies, FRAME_SHIFT_S),
            preview=self._preview.close() if self._preview else None,
        )
