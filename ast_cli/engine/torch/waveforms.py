"""From waveforms to logits on a GPU: copy, filter bank, normalization and model, batch after batch without waiting.

A GPU runs what it was told in the order of its queues, and the processor that told it goes on. Two slots take turns:
while the device computes one batch, the next is written into the other slot's page-locked memory, from which the copy
runs beside the computation. Nothing is waited for until logits are asked for, or a slot is needed again.

The samples travel as float32, 656 KB a window: a GPU that tags 700 windows a second takes 0.5 GB/s, a fiftieth of
what its bus carries, and the features stay those of the CPU's filter bank. On a CPU the same steps run one after
another, so that the tests need no GPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ast_cli.audio.feature_extractor import ASTFeatureExtractor
from ast_cli.engine.interface import finite
from ast_cli.engine.torch.torch_engine import TorchEngine

NUM_SLOTS = 2


class WaveformEngine:
    """Runs a torch engine and its filter bank on waveforms.

    Args:
        engine: The loaded model; its device and data type count.
        feature_extractor: Of the same checkpoint.
    """

    def __init__(self, engine: TorchEngine, feature_extractor: ASTFeatureExtractor) -> None:
        self.engine = engine
        self.feature_extractor = feature_extractor
        self.slots = [_Slot(engine.device) for _ in range(NUM_SLOTS)]
        self.copying = torch.cuda.Stream(engine.device) if engine.device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def start(self, waveforms: Sequence[NDArray[np.float32]]) -> StartedBatch:
        """Queue a batch and return before it is computed.

        Args:
            waveforms: Samples of whole frames, each of shape (num_samples,), of one window at most.

        Raises:
            torch.OutOfMemoryError: The device cannot hold the batch.
        """
        self.slots.reverse()
        slot = self.slots[0]
        slot.finish()  # its memory is written anew
        config, extractor = self.feature_extractor.fbank_config, self.feature_extractor
        num_frames = [config.num_frames(waveform.size) for waveform in waveforms]
        try:
            slot.reserve(len(waveforms), config.num_samples(extractor.max_length))
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
        """Compute features on the samples' device, equal to `ASTFeatureExtractor.input_values` of the fbanks.

        Args:
            samples: Shape (batch, num_samples), of one window each, zeros after their end.
            num_frames: That hold audio, of each; rows beyond are filling.

        Returns:
            Shape (batch, max_length, num_mel_bins), float32.
        """
        extractor = self.feature_extractor
        fbank = extractor.fbank(samples)  # (batch, max_length, num_mel_bins)
        for row, num_heard in enumerate(num_frames):
            if num_heard < extractor.max_length:
                fbank[row, num_heard:] = extractor.padding_value
        return extractor.normalized(fbank)


class StartedBatch:
    """A batch that is being computed."""

    def __init__(self, engine: TorchEngine, logits: Tensor) -> None:
        self._engine = engine
        self._host = torch.empty(logits.shape, pin_memory=logits.is_cuda)
        self._host.copy_(logits, non_blocking=True)
        self._done = torch.cuda.current_stream(logits.device).record_event() if logits.is_cuda else None

    def wait(self) -> None:
        """Wait until the device has computed it, and needs its inputs no more."""
        if self._done is not None:
            self._done.synchronize()

    def logits(self) -> NDArray[np.float32]:
        """Wait, and return the logits, shape (batch, num_labels).

        Raises:
            CheckpointError: They are not finite.
        """
        self.wait()
        return finite(self._host.numpy(), self._engine.dtype_name)


class _Slot:
    """Memory for the samples of one batch, page-locked on the host, and on the device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.batch: StartedBatch | None = None
        self.host = torch.empty(0)
        self.samples = torch.empty(0)

    def finish(self) -> None:
        """Wait until the batch that was here is computed."""
        if self.batch is not None:
            self.batch.wait()
            self.batch = None

    def reserve(self, num_windows: int, num_samples: int) -> None:
        """Have room for so many windows."""
        if len(self.host) < num_windows:
            self.host = torch.empty(num_windows, num_samples, pin_memory=self.device.type == "cuda")
            self.samples = torch.empty(num_windows, num_samples, device=self.device)
            if self.device.type == "cuda":  # the same memory may serve kernels that are queued, under another name
                torch.cuda.current_stream(self.device).synchronize()

    def release(self) -> None:
        """Give the memory back."""
        self.host, self.samples = torch.empty(0), torch.empty(0)

    def upload(
        self, waveforms: Sequence[NDArray[np.float32]], num_rows: int, copying: torch.cuda.Stream | None
    ) -> Tensor:
        """Copy waveforms to the device, zeros after their end; return so many rows, shape (num_rows, num_samples)."""
        host, samples = self.host[:num_rows], self.samples[:num_rows]
        rows = host.numpy()
        rows[len(waveforms) :] = 0
        for row, waveform in zip(rows, waveforms, strict=False):
            row[: waveform.size] = waveform
            row[waveform.size :] = 0
        if copying is None:
            return samples.copy_(host)
        with torch.cuda.stream(copying):  # beside the batch that is being computed
            samples.copy_(host, non_blocking=True)
        torch.cuda.current_stream(self.device).wait_stream(copying)
        return samples
