"""From windows to logits, on the processor or on a GPU: which form the windows have, and when the logits are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ast_cli.audio.feature_extractor import ASTFeatureExtractor
from ast_cli.engine.torch_engine import TorchEngine
from ast_cli.engine.waveforms import WaveformEngine
from ast_cli.tagging.recording import Recording, RecordingWindow


class Runner(Protocol):
    """How the batches of a run are computed.

    Attributes:
        device: Of the model.
        runs_ahead: Whether `start` returns before the logits are there.
    """

    device: torch.device
    runs_ahead: bool

    def windows(self, recording: Recording) -> Iterator[RecordingWindow]:
        """Yield a recording's windows in the form that `start` takes."""

    def start(self, contents: Sequence[NDArray[np.float32]]) -> Callable[[], Tensor]:
        """Start the model on windows; return what waits for the logits (batch, num_labels), float32 on the CPU."""


def runner_for(engine: TorchEngine, feature_extractor: ASTFeatureExtractor) -> Runner:
    """Return how to run a model: on a GPU the filter bank goes there too."""
    if engine.device.type == "cuda" and feature_extractor.fbank_backend == "native":
        return DeviceRunner(engine, feature_extractor)
    return HostRunner(engine, feature_extractor)


class HostRunner:
    """The filter bank on the processor, window after window as the audio comes; then the model, waited for."""

    runs_ahead = False

    def __init__(self, engine: TorchEngine, feature_extractor: ASTFeatureExtractor) -> None:
        self.engine = engine
        self.feature_extractor = feature_extractor
        self.device = engine.device

    def windows(self, recording: Recording) -> Iterator[RecordingWindow]:
        """Yield fbanks (num_frames, num_mel_bins)."""
        return recording.windows()

    def start(self, contents: Sequence[NDArray[np.float32]]) -> Callable[[], Tensor]:
        """Compute the logits of fbanks."""
        fbanks = [torch.from_numpy(fbank) for fbank in contents]
        logits = self.engine.logits(self.feature_extractor.input_values(fbanks))
        return lambda: logits


class DeviceRunner:
    """Samples to the device; filter bank and model there, while the processor fills the next batch."""

    runs_ahead = True

    def __init__(self, engine: TorchEngine, feature_extractor: ASTFeatureExtractor) -> None:
        self.device = engine.device
        self.waveform_engine = WaveformEngine(engine, feature_extractor)

    def windows(self, recording: Recording) -> Iterator[RecordingWindow]:
        """Yield samples (num_samples,)."""
        return recording.waveform_windows()

    def start(self, contents: Sequence[NDArray[np.float32]]) -> Callable[[], Tensor]:
        """Queue the copy, the filter bank and the model for waveforms."""
        return self.waveform_engine.start(contents).logits
