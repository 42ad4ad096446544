"""Many inputs through one model: windows of neighbouring files share batches, results come in input order.

A file that cannot be scored is a result with an error; it never stops the others, nor changes their scores.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from ast_cli.audio.feature_extractor import ASTFeatureExtractor
from ast_cli.engine.torch_engine import TorchEngine
from ast_cli.errors import AudioError, ErrorCode
from ast_cli.results import FileError, TaggingResult, Window
from ast_cli.tagging.inputs import Input
from ast_cli.tagging.options import ClassifyOptions
from ast_cli.tagging.recording import Recording, RecordingWindow
from ast_cli.tagging.scoring import TagChooser

OpenRecording = Callable[[Input], Recording]


class PendingResult:
    """One input whose windows are being scored: a running mean or maximum, never all windows at once."""

    def __init__(self, path: str | None, chooser: TagChooser, options: ClassifyOptions) -> None:
        self.path = path
        self.chooser = chooser
        self.options = options
        self.recording: Recording | None = None
        self.error: FileError | None = None
        self.num_windows_waiting = 0
        self.all_windows_read = False
        self.num_windows = 0
        self.total: Tensor | None = None  # (num_labels,), the sum or the maximum so far
        self.windows: list[Window] = []

    @property
    def is_complete(self) -> bool:
        """Whether every window of the input has been scored."""
        return self.all_windows_read and self.num_windows_waiting == 0

    def add(self, window: RecordingWindow, scores: Tensor) -> None:
        """Take the scores (num_labels,) of the next window."""
        self.num_windows_waiting -= 1
        self.num_windows += 1
        if self.total is None:
            self.total = scores.clone()
        elif self.options.aggregate == "max":
            self.total = torch.maximum(self.total, scores)
        else:
            self.total += scores
        if self.options.timestamps:
            self.windows.append(Window(window.start_s, window.end_s, self.chooser.choose(scores)))

    def result(self, model: str) -> TaggingResult:
        """Return the finished result."""
        stream = self.recording.stream if self.recording else None
        facts = (stream.sampling_rate, stream.num_channels) if stream else (None, None)
        if self.error is not None or self.total is None or self.recording is None or stream is None:
            return TaggingResult(
                self.path,
                model,
                self.chooser.activation,
                sampling_rate=facts[0],
                num_channels=facts[1],
                windows=() if self.options.timestamps else None,
                error=self.error or FileError(ErrorCode.NO_SAMPLES, f"{self.path}: holds no audio"),
            )
        scores = self.total if self.options.aggregate == "max" else self.total / self.num_windows
        return TaggingResult(
            self.path,
            model,
            self.chooser.activation,
            duration_s=stream.duration_s,
            sampling_rate=facts[0],
            num_channels=facts[1],
            tags=self.chooser.choose(scores),
            windows=tuple(self.windows) if self.options.timestamps else None,
            warnings=self.recording.warnings,
        )


class Batcher:
    """Collects windows until a batch is full, runs it, and hands the scores back to their inputs."""

    def __init__(
        self, engine: TorchEngine, feature_extractor: ASTFeatureExtractor, chooser: TagChooser, batch_size: int
    ) -> None:
        self.engine = engine
        self.feature_extractor = feature_extractor
        self.chooser = chooser
        self.batch_size = batch_size
        self.waiting: list[tuple[PendingResult, RecordingWindow]] = []

    def put(self, pending: PendingResult, window: RecordingWindow) -> None:
        """Add a window; runs the model when the batch is full."""
        pending.num_windows_waiting += 1
        self.waiting.append((pending, window))
        if len(self.waiting) >= self.batch_size:
            self.flush()

    def flush(self) -> None:
        """Run the model on the windows that wait, if any."""
        if not self.waiting:
            return
        fbanks = [torch.from_numpy(window.fbank) for _, window in self.waiting]
        logits = self.engine.logits(self.feature_extractor.input_values(fbanks))
        for (pending, window), scores in zip(self.waiting, self.chooser.scores(logits), strict=True):
            pending.add(window, scores)
        self.waiting.clear()


def classify_inputs(
    inputs: Iterable[Input],
    open_recording: OpenRecording,
    batcher: Batcher,
    options: ClassifyOptions,
    model: str,
) -> Iterator[TaggingResult]:
    """Tag inputs one after another, yielding each result as soon as it and all before it are complete."""
    unfinished: deque[PendingResult] = deque()
    for item in inputs:
        pending = PendingResult(item.path, batcher.chooser, options)
        unfinished.append(pending)
        _read_windows(item, pending, open_recording, batcher)
        pending.all_windows_read = True
        while unfinished and unfinished[0].is_complete:
            yield unfinished.popleft().result(model)
    batcher.flush()
    for pending in unfinished:
        yield pending.result(model)


def _read_windows(item: Input, pending: PendingResult, open_recording: OpenRecording, batcher: Batcher) -> None:
    """Send an input's windows to the batcher; what goes wrong becomes its error."""
    if item.error is not None:
        pending.error = item.error
        return
    try:
        pending.recording = open_recording(item)
        for window in pending.recording.windows():
            batcher.put(pending, window)
    except AudioError as error:
        pending.error = file_error(item, error)


def file_error(item: Input, error: AudioError) -> FileError:
    """Return an input's error as data; a file that was listed and is gone has vanished."""
    vanished = item.listed and error.code == ErrorCode.NOT_FOUND
    return FileError(ErrorCode.VANISHED if vanished else error.code, str(error))
