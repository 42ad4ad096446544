"""Score many inputs with one model: windows of several inputs share batches, and results come in order or as ready.

An input that cannot be scored becomes a result with an error; it neither stops the others nor changes their scores.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.channels import EACH
from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.audio.windows import AudioWindow
from ast_cli.engine.batch_size import BatchSize
from ast_cli.engine.interface import Engine
from ast_cli.errors import AstWarning, AudioError, DeviceError, ErrorCode
from ast_cli.results import Event, FileError, StreamedPart, TaggingResult, Window
from ast_cli.tagging.decode.opening import Turn
from ast_cli.tagging.inputs import Input
from ast_cli.tagging.options import ClassifyOptions
from ast_cli.tagging.score.events import EventMerger
from ast_cli.tagging.score.recording import Recording, recordings_of
from ast_cli.tagging.score.runner import runner_for
from ast_cli.tagging.score.scoring import TagChooser
from ast_cli.tagging.score.window_cache import DistinctWindow, WindowCache

MAX_BATCHES_WAITING = 8  # windows that may wait for scores, in batches: repeated ones do not hold back the results


class ModelName(NamedTuple):
    """What results say about the model: the name of the checkpoint, and its license, None if it is not known."""

    name: str
    license: str | None


class PendingResult:
    """An input, or one of its channels, that is being scored; it keeps a running sum or maximum, never all windows."""

    def __init__(
        self, path: str | None, chooser: TagChooser, options: ClassifyOptions, recording: Recording | None = None
    ) -> None:
        self.path = path
        self.chooser = chooser
        self.options = options
        self.recording = recording
        self.error: FileError | None = None
        self.num_windows_waiting = 0
        self.all_windows_read = False
        self.num_windows = 0
        self.aggregated: NDArray[np.float32] | None = None  # (num_labels,), the sum or the maximum so far
        self.scored_windows: list[tuple[float, float]] = []
        self.windows: list[Window] = []
        self.events: list[Event] = []
        self.merger: EventMerger | None = None
        if options.events:
            self.merger = EventMerger(chooser.id2label, chooser.label_ids, chooser.event_thresholds, chooser.specific)

    @property
    def channel(self) -> int | None:
        """Number of the channel; None for a mix, and if an input could not be opened to read each of its channels."""
        if self.recording is not None:
            return self.recording.channel
        return self.options.channels if isinstance(self.options.channels, int) else None

    @property
    def is_complete(self) -> bool:
        """Whether every window of the input has been scored."""
        return self.all_windows_read and self.num_windows_waiting == 0

    def add(self, start_s: float, end_s: float, scores: NDArray[np.float32]) -> None:
        """Add the next window: its start and end in the recording, and its scores of shape (num_labels,)."""
        self.num_windows_waiting -= 1
        self.num_windows += 1
        if self.aggregated is None:
            self.aggregated = scores.copy()
        elif self.options.aggregate == "max":
            self.aggregated = np.maximum(self.aggregated, scores)
        else:
            self.aggregated += scores
        if self.options.num_windows is not None:
            self.scored_windows.append((start_s, end_s))
        if self.options.timestamps:
            self.windows.append(Window(start_s, end_s, self.chooser.choose(scores)))
        if self.merger is not None:
            self.events += self.merger.add(start_s, end_s, scores)

    def take_parts(self) -> Iterator[StreamedPart]:
        """Yield the windows and events that were completed since the last call."""
        if self.merger is not None and self.is_complete:
            self.events += self.merger.finish()
        parts: list[Window | Event] = [*self.windows, *self.events]
        self.windows.clear()
        self.events.clear()
        for part in parts:
            yield StreamedPart(self.path, part, self.channel)

    def result(self, model: ModelName) -> TaggingResult:
        """Return the result; for a streamed input it does not contain the windows and events yielded before."""
        if self.merger is not None:
            self.events += self.merger.finish()
        if self.error is None and self.aggregated is None:
            self.error = FileError(ErrorCode.NO_SAMPLES, f"{self.path}: contains no audio")
        stream = self.recording.stream if self.recording else None
        result = TaggingResult(
            self.path,
            model.name,
            self.chooser.activation,
            sampling_rate=stream.sampling_rate if stream else None,
            num_channels=stream.num_channels if stream else None,
            windows=() if self.options.timestamps and not self.options.stream else None,
            events=() if self.options.events and not self.options.stream else None,
            error=self.error,
            channel=self.channel,
            scales_windows=self.recording is not None and self.recording.feature_extractor.filter_bank.scales_windows,
            license=model.license,
        )
        if self.error is not None or self.aggregated is None or self.recording is None:
            return result
        return dataclasses.replace(
            result,
            duration_s=self.recording.stream.duration_s,
            tags=self.chooser.choose(
                self.aggregated if self.options.aggregate == "max" else self.aggregated / np.float32(self.num_windows)
            ),
            scored_windows=None if self.options.num_windows is None else tuple(self.scored_windows),
            windows=None if result.windows is None else tuple(self.windows),
            events=None if result.events is None else tuple(self.events),
            warnings=self.recording.warnings,
        )


@dataclass(slots=True)
class _Delivery:
    """A window whose scores an input waits for."""

    pending: PendingResult
    start_s: float
    end_s: float
    window: DistinctWindow


class Batcher:
    """Collects windows until a batch is full, runs the model on it, and passes the scores to their inputs.

    A window that equals an earlier one gets the scores of that one. On a GPU the next batch is collected while the
    model runs.
    """

    def __init__(
        self, engine: Engine, feature_extractor: FeatureExtractor, chooser: TagChooser, batch_size: BatchSize
    ) -> None:
        self.engine = engine
        self.feature_extractor = feature_extractor
        self.chooser = chooser
        self.batch_size = batch_size
        self.cache = WindowCache()
        self.runner = runner_for(engine, feature_extractor)
        self._to_run: list[DistinctWindow] = []
        self._running: _Running | None = None
        self._deliveries: deque[_Delivery] = deque()  # in the order of the windows
        self._has_run_out = False  # whether the device has run out of memory

    def put(self, pending: PendingResult, window: AudioWindow, place_s: tuple[float, float]) -> None:
        """Add a window with its start and end in seconds, and run the model when the batch is full."""
        distinct, is_new = self.cache.find(window.content)
        pending.num_windows_waiting += 1
        self._deliveries.append(_Delivery(pending, *place_s, distinct))
        if is_new:
            self._to_run.append(distinct)
        if len(self._to_run) >= self.batch_size.num_windows:
            self._start_batch()
        elif len(self._deliveries) >= MAX_BATCHES_WAITING * self.batch_size.num_windows:
            self.flush()
        else:
            self._deliver()

    def flush(self) -> None:
        """Run the model on the windows that wait, if there are any, and deliver all scores."""
        self._start_batch()
        self._finish_batch()

    def _start_batch(self) -> None:
        """Start the model on the windows that wait; deliver the previous batch, and this one unless it runs ahead."""
        if not self._to_run:
            return
        logits = self._logits([window.content for window in self._to_run])
        before, self._running = self._running, _Running(self._to_run, logits)
        self._to_run = []
        self._take(before)
        if not self.runner.runs_ahead or self.batch_size.num_windows == 1:  # live input has batch size 1
            self._finish_batch()

    def _finish_batch(self) -> None:
        running, self._running = self._running, None
        self._take(running)
        self._deliver()

    def _take(self, running: _Running | None) -> None:
        """Wait for a batch and deliver its scores."""
        if running is not None:
            for window, scores in zip(running.windows, self.chooser.scores(running.logits()), strict=True):
                window.scores = scores
            self._deliver()

    def _deliver(self) -> None:
        """Pass on the scores that are known, in the order of the windows."""
        while self._deliveries and self._deliveries[0].window.scores is not None:
            delivery = self._deliveries.popleft()
            delivery.pending.add(delivery.start_s, delivery.end_s, delivery.window.scores)

    def _logits(self, contents: list[NDArray[np.float32]]) -> Callable[[], NDArray[np.float32]]:
        """Start the model; if the device runs out of memory, in halves, and with smaller batches from then on.

        Raises:
            DeviceError: If the memory of the device is too small for one window.
        """
        try:
            return self.runner.start(contents)
        except self.engine.out_of_memory as error:
            if len(contents) == 1:
                raise DeviceError(
                    f"{self.engine.device_name}: its memory is too small for one window; "
                    "try --dtype fp16 or --device cpu"
                ) from error
        half = len(contents) // 2
        if not self._has_run_out:
            warnings.warn(
                f"{self.engine.device_name}: out of memory; continuing with smaller batches", AstWarning, stacklevel=2
            )
        self._has_run_out = True
        self.batch_size.lower(half)
        halves = [self._logits(part)() for part in (contents[:half], contents[half:])]
        return lambda: np.concatenate(halves)


class _Running(NamedTuple):
    """A batch on which the model runs, with the function that waits for its logits."""

    windows: list[DistinctWindow]
    logits: Callable[[], NDArray[np.float32]]


class _Unfinished:
    """An input that is being read, or whose scores are not complete.

    Args:
        turn: Turn of the input.
        batcher: Batcher that scores the windows.
        options: Options of the tagging.
    """

    def __init__(self, turn: Turn, batcher: Batcher, options: ClassifyOptions) -> None:
        self.pendings = [PendingResult(turn.item.path, batcher.chooser, options)]  # one per channel for "each"
        self._turn = turn
        self._batcher = batcher
        self._options = options
        self._windows = self._read()

    @property
    def is_complete(self) -> bool:
        """Whether every window of the input has been scored."""
        return all(pending.is_complete for pending in self.pendings)

    def take_turn(self, *, in_order: bool) -> Iterator[None]:
        """Pass windows to the batcher and yield after each: all windows, or out of order those that need no waiting."""
        for pending, window in self._windows:
            assert pending.recording is not None
            self._batcher.put(pending, window, pending.recording.place_s(window))
            yield
            if not (in_order or self._turn.is_whole):
                return
        for pending in self.pendings:
            pending.all_windows_read = True
        self._turn.is_over = True

    def take_parts(self) -> Iterator[StreamedPart]:
        """Yield the windows and events that were completed since the last call."""
        for pending in self.pendings:
            yield from pending.take_parts()

    def result(self, model: ModelName) -> TaggingResult:
        """Return the result of the input; an error belongs to the whole input, never to one channel."""
        results = [pending.result(model) for pending in self.pendings]
        if self._options.channels != EACH:
            return results[0]
        if results[0].error is not None:
            return dataclasses.replace(results[0], channel=None)
        return TaggingResult.from_channels(results)

    def _read(self) -> Iterator[tuple[PendingResult, AudioWindow]]:
        """Yield the windows of the input, one of each channel in turn; an `AudioError` becomes its error."""
        item, chooser, options = self._turn.item, self._batcher.chooser, self._options
        error = item.error
        if error is None:
            try:
                recordings = recordings_of(self._turn.open_stream(), self._batcher.feature_extractor, options)
                self.pendings = [PendingResult(item.path, chooser, options, recording) for recording in recordings]
                for windows in zip(*map(self._batcher.runner.windows, recordings), strict=True):
                    yield from zip(self.pendings, windows, strict=True)
            except AudioError as raised:
                error = file_error(item, raised)
        for pending in self.pendings:
            pending.error = error


def classify_turns(
    turns: Iterable[Turn | None],
    batcher: Batcher,
    options: ClassifyOptions,
    model: ModelName,
    *,
    in_order: bool = True,
) -> Iterator[TaggingResult | StreamedPart]:
    """Tag inputs in the turns in which they are opened, and yield each result as soon as it is complete.

    With ``in_order`` a result also waits for all results before it. With ``options.stream`` the windows and events of
    an input come before its result: with ``in_order`` each as soon as it is complete, otherwise all together just
    before the result. The records of an input are thus consecutive, and the journal can confirm them, or cut them off,
    as a whole.
    """
    unfinished: dict[Turn, _Unfinished] = {}
    for turn in turns:
        if turn is None:  # nothing to read for a while: do not let windows wait for a full batch
            batcher.flush()
        else:
            if turn not in unfinished:
                unfinished[turn] = _Unfinished(turn, batcher, options)
            for _ in unfinished[turn].take_turn(in_order=in_order):
                yield from _complete(unfinished, options, model, in_order=in_order)
        yield from _complete(unfinished, options, model, in_order=in_order)
    batcher.flush()
    yield from _complete(unfinished, options, model, in_order=in_order)


def _complete(
    unfinished: dict[Turn, _Unfinished], options: ClassifyOptions, model: ModelName, *, in_order: bool
) -> Iterator[TaggingResult | StreamedPart]:
    """Yield complete results; in order only those before the first incomplete input, and the parts of that input."""
    choose = takewhile if in_order else filter  # in order, do not check all inputs behind the first after each window
    for turn in list(choose(lambda turn: unfinished[turn].is_complete, unfinished)):
        complete = unfinished.pop(turn)
        if options.stream:
            yield from complete.take_parts()
        yield complete.result(model)
    if options.stream and in_order and unfinished:
        yield from next(iter(unfinished.values())).take_parts()


def file_error(item: Input, error: AudioError) -> FileError:
    """Return the error of an input as data; a file that was listed and is missing now has vanished."""
    vanished = item.listed and error.code == ErrorCode.NOT_FOUND
    return FileError(ErrorCode.VANISHED if vanished else error.code, str(error))
