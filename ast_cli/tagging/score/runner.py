"""From windows to logits, on the processor or on a GPU: which form the windows have, and when the logits are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.feature_extractor import ASTFeatureExtractor
from ast_cli.audio.windows import AudioWindow
from ast_cli.engine.interface import Engine
from ast_cli.tagging.score.recording import Recording

if TYPE_CHECKING:
    from ast_cli.engine.torch.torch_engine import TorchEngine

Logits = NDArray[np.float32]


class Runner(Protocol):
    """How the batches of a run are computed.

    Attributes:
        runs_ahead: Whether `start` returns before the logits are there.
    """

    runs_ahead: bool

    def windows(self, recording: Recording) -> Iterator[AudioWindow]:
        """Yield a recording's windows in the form that `start` takes."""

    def start(self, contents: Sequence[NDArray[np.float32]]) -> Callable[[], Logits]:
        """Start the model on windows, and return what waits for their logits (batch, num_labels)."""


def runner_for(engine: Engine, feature_extractor: ASTFeatureExtractor) -> Runner:
    """Return how to run a model: on a GPU the filter bank goes there too."""
    if not engine.device_name.startswith("cuda") or feature_extractor.fbank_backend != "native":
        return HostRunner(engine, feature_extractor)
    from ast_cli.engine.torch.torch_engine import TorchEngine

    assert isinstance(engine, TorchEngine)
    return DeviceRunner(engine, feature_extractor)


class HostRunner:
    """The filter bank on the processor, block after block as the audio comes; then the model, waited for."""

    runs_ahead = False

    def __init__(self, engine: Engine, feature_extractor: ASTFeatureExtractor) -> None:
        self.engine = engine
        self.feature_extractor = feature_extractor

    def windows(self, recording: Recording) -> Iterator[AudioWindow]:
        """Yield fbanks (num_frames, num_mel_bins)."""
        return recording.windows()

    def start(self, contents: Sequence[NDArray[np.float32]]) -> Callable[[], Logits]:
        """Compute the logits of fbanks."""
        logits = self.engine.logits(self.feature_extractor.input_values(contents))
        return lambda: logits


class DeviceRunner:
    """Samples to the device; filter bank and model there, while the processor fills the next batch."""

    runs_ahead = True

    def __init__(self, engine: TorchEngine, feature_extractor: ASTFeatureExtractor) -> None:
        from ast_cli.engine.torch.waveforms import WaveformEngine

        self.waveform_engine = WaveformEngine(engine, feature_extractor)

    def windows(self, recording: Recording) -> Iterator[AudioWindow]:
        """Yield samples (num_samples,)."""
        return recording.waveform_windows()

    def start(self, contents: Sequence[NDArray[np.float32]]) -> Callable[[], Logits]:
        """Queue the copy, the filter bank and the model for waveforms."""
        return self.waveform_engine.start(contents).logits
