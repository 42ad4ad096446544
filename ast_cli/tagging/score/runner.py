"""Run a model on batches of windows, with the filter bank on the CPU or on the GPU of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.audio.windows import AudioWindow
from ast_cli.engine.interface import Engine
from ast_cli.tagging.score.recording import Recording

if TYPE_CHECKING:
    from ast_cli.engine.torch.torch_engine import TorchEngine

Logits = NDArray[np.float32]


class Runner(Protocol):
    """The way in which the batches of a run are computed.

    Attributes:
        runs_ahead: Whether `start` returns before the logits are computed.
    """

    runs_ahead: bool

    def windows(self, recording: Recording) -> Iterator[AudioWindow]:
        """Yield the windows of a recording in the form that `start` takes."""

    def start(self, contents: Sequence[NDArray[np.float32]]) -> Callable[[], Logits]:
        """Start the model on windows; return a function that waits for their logits, shape (batch, num_labels)."""


def runner_for(engine: Engine, feature_extractor: FeatureExtractor) -> Runner:
    """Return the runner for an engine: on an NVIDIA GPU one that computes the filter bank there too."""
    if not engine.device_name.startswith("cuda") or feature_extractor.fbank_backend != "native":
        return HostRunner(engine, feature_extractor)
    from ast_cli.engine.torch.torch_engine import TorchEngine

    assert isinstance(engine, TorchEngine)
    return DeviceRunner(engine, feature_extractor)


class HostRunner:
    """Computes the filter bank on the CPU, block by block while the audio is read, and waits for the model."""

    runs_ahead = False

    def __init__(self, engine: Engine, feature_extractor: FeatureExtractor) -> None:
        self.engine = engine
        self.feature_extractor = feature_extractor

    def windows(self, recording: Recording) -> Iterator[AudioWindow]:
        """Yield the windows of a recording as fbanks, each of shape (num_frames, num_mel_bins)."""
        return recording.windows()

    def start(self, contents: Sequence[NDArray[np.float32]]) -> Callable[[], Logits]:
        """Compute the logits of fbanks; the returned function does not wait."""
        logits = self.engine.logits(self.feature_extractor.input_values(contents))
        return lambda: logits


class DeviceRunner:
    """Computes the filter bank and the model on a GPU, while the CPU fills the next batch with samples."""

    runs_ahead = True

    def __init__(self, engine: TorchEngine, feature_extractor: FeatureExtractor) -> None:
        from ast_cli.engine.torch.waveforms import WaveformEngine

        self.waveform_engine = WaveformEngine(engine, feature_extractor)

    def windows(self, recording: Recording) -> Iterator[AudioWindow]:
        """Yield the windows of a recording as samples, each of shape (num_samples,)."""
        return recording.waveform_windows()

    def start(self, contents: Sequence[NDArray[np.float32]]) -> Callable[[], Logits]:
        """Queue the copy of the samples, the filter bank and the model on the GPU."""
        return self.waveform_engine.start(contents).logits
