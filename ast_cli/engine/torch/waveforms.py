"""Compute logits from waveforms on a GPU: copy, filter bank, normalization and model, without waiting in between.

A GPU works through its queues while the processor continues. Two slots take turns: while the device computes one batch,
the processor writes the next one into the page-locked memory of the other slot, from which it is copied while the
computation runs. The processor waits only when logits are needed, or when a slot is reused.

The samples are copied as float32, 656 KB per window. A GPU that tags 700 windows per second needs 0.5 GB/s, a fiftieth
of the bandwidth of its bus, and the features are the same as those of the CPU's filter bank. On a CPU the same steps
run one after another, so the tests need no GPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.engine.interface import finite
from ast_cli.engine.torch.torch_engine import TorchEngine

NUM_SLOTS = 2


class WaveformEngine:
    """Runs the filter bank and the model of a torch engine on waveforms.

    Args:
        engine: Engine with the loaded model; everything runs on its device.
        feature_extractor: Feature extractor of the same checkpoint.
    """

    def __init__(self, engine: TorchEngine, feature_extractor: FeatureExtractor) -> None:
        self.engine = engine
        self.feature_extractor = feature_extractor
        self.slots = [_Slot(engine.device) for _ in range(NUM_SLOTS)]
        self.copying = torch.cuda.Stream(engine.device) if engine.device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def start(self, waveforms: Sequence[NDArray[np.float32]]) -> StartedBatch:
        """Queue a batch and return before it is computed.

        Args:
            waveforms: Samples of at most one window each, covering whole frames, shape (num_samples,).

        Raises:
            torch.OutOfMemoryError: If the batch does not fit into the memory of the device.
        """
        self.slots.reverse()
        slot = self.slots[0]
        slot.finish()  # its memory is overwritten below
        bank, extractor = self.feature_extractor.filter_bank, self.feature_extractor
        num_frames = [bank.num_frames(waveform.size) for waveform in waveforms]
        try:
            slot.reserve(len(waveforms), bank.num_samples(extractor.frames_per_window))
            num_rows = len(slot.host) if self.engine.keeps_batch_size else len(waveforms)
            samples = slot.upload(waveforms, num_rows, self.copying)
            logits = self.engine.device_logits(self.input_values(samples, num_frames))
            slot.batch = StartedBatch(self.engine, logits[: len(waveforms)].float())
        except torch.OutOfMemoryError:
            slot.release()  # the next batch will be smaller
            raise
        return slot.batch

    @torch.inference_mode()
    def input_values(self, samples: Tensor, num_frames: Sequence[int]) -> Tensor:
        """Compute features on the device of the samples, equal to those of `FeatureExtractor.input_values`.

        Args:
            samples: Samples of one window per row, zeros after their end, shape (batch, num_samples).
            num_frames: Number of frames with audio in each row; further rows are padding of the batch.

        Returns:
            Features in float32, shape (batch, max_length, num_mel_bins).
        """
        extractor = self.feature_extractor
        fbank = extractor.fbank(samples)  # (batch, frames_per_window, num_mel_bins)
        if (num_missing := extractor.max_length - fbank.shape[1]) > 0:
            fbank = functional.pad(fbank, (0, 0, 0, num_missing), value=extractor.padding_value)
        for row, num_audio_frames in enumerate(num_frames):
            if num_audio_frames < extractor.max_length:
                fbank[row, num_audio_frames:] = extractor.padding_value
        return extractor.normalized(fbank)


class StartedBatch:
    """A batch in the queue of the device."""

    def __init__(self, engine: TorchEngine, logits: Tensor) -> None:
        self._engine = engine
        self._host = torch.empty(logits.shape, pin_memory=logits.is_cuda)
        self._host.copy_(logits, non_blocking=True)
        self._done = torch.cuda.current_stream(logits.device).record_event() if logits.is_cuda else None

    def wait(self) -> None:
        """Wait until the device has computed the batch and no longer needs its inputs."""
        if self._done is not None:
            self._done.synchronize()

    def logits(self) -> NDArray[np.float32]:
        """Wait for the logits and return them, shape (batch, num_labels).

        Raises:
            CheckpointError: If they are not finite.
        """
        self.wait()
        return finite(self._host.numpy(), self._engine.dtype_name)


class _Slot:
    """Memory for the samples of one batch: page-locked memory of the host, and memory of the device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.batch: StartedBatch | None = None
        self.host = torch.empty(0)
        self.samples = torch.empty(0)

    def finish(self) -> None:
        """Wait until the batch that uses this slot is computed."""
        if self.batch is not None:
            self.batch.wait()
            self.batch = None

    def reserve(self, num_windows: int, num_samples: int) -> None:
        """Allocate memory for this many windows, unless the slot has enough."""
        if len(self.host) < num_windows:
            self.host = torch.empty(num_windows, num_samples, pin_memory=self.device.type == "cuda")
            self.samples = torch.empty(num_windows, num_samples, device=self.device)
            if self.device.type == "cuda":  # queued kernels may still use the memory just allocated
                torch.cuda.current_stream(self.device).synchronize()

    def release(self) -> None:
        """Free the memory of the slot."""
        self.host, self.samples = torch.empty(0), torch.empty(0)

    def upload(
        self, waveforms: Sequence[NDArray[np.float32]], num_rows: int, copying: torch.cuda.Stream | None
    ) -> Tensor:
        """Copy waveforms to the device and return them, padded with zeros, shape (num_rows, num_samples)."""
        host, samples = self.host[:num_rows], self.samples[:num_rows]
        rows = host.numpy()
        rows[len(waveforms) :] = 0
        for row, waveform in zip(rows, waveforms, strict=False):
            row[: waveform.size] = waveform
            row[waveform.size :] = 0
        if copying is None:
            return samples.copy_(host)
        with torch.cuda.stream(copying):  # runs while the previous batch is computed
            samples.copy_(host, non_blocking=True)
        torch.cuda.current_stream(self.device).wait_stream(copying)
        return samples
