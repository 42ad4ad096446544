"""Open the inputs of a run: worker processes decode them ahead, or with 0 workers this process does."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from functools import partial
from typing import TypeAlias

from ast_cli.audio.sample_stream import SampleStream
from ast_cli.errors import AudioError
from ast_cli.tagging.decode.pool import DecodePool, Decoding, default_num_workers
from ast_cli.tagging.decode.worker import Request
from ast_cli.tagging.inputs import STDIN, Input
from ast_cli.tagging.options import DecodeOptions, WindowOptions

MIN_WORKERS_AS_READY = 2  # while one is in a long recording, the other decodes short ones
INPUTS_AHEAD_PER_WORKER = 8  # enough small files to decode while the model is busy with one batch

OpenStream: TypeAlias = Callable[[], SampleStream]
Watching: TypeAlias = Callable[[str, OpenStream], OpenStream]
# A pool that was started before, or the options to start one; with 0 workers this process decodes.
Workers: TypeAlias = DecodeOptions | DecodePool


class Turn:
    """An input that can be read now, with the function that opens it.

    Args:
        item: Input to read.
        open_stream: Function that returns the samples; raises an AudioError if the input cannot be decoded.
        decoding: State of the input in the pool; None if this process decodes it.

    Attributes:
        is_over: Whether the reader is finished with the input. `open_as_ready` yields the input again until the reader
            sets this.
    """

    def __init__(self, item: Input, open_stream: OpenStream, decoding: Decoding | None = None) -> None:
        self.item = item
        self.open_stream = open_stream
        self.decoding = decoding
        self.is_over = False

    @property
    def is_whole(self) -> bool:
        """Whether the input can be read to its end without waiting for a worker."""
        return self.decoding is None or self.decoding.is_complete


def unwatched(_path: str, open_stream: OpenStream) -> OpenStream:
    """Return ``open_stream`` unchanged; the default for ``watching``."""
    return open_stream


@contextlib.contextmanager
def open_inputs(
    inputs: Iterable[Input],
    sampling_rate: int,
    part: WindowOptions | None = None,
    workers: Workers | None = None,
    watching: Watching = unwatched,
) -> Iterator[Iterator[Turn]]:
    """Open inputs in order; a file that crashes or hangs its decoder fails alone.

    Each input is yielded once. What the reader has not read of it when it takes the next input is discarded.

    Args:
        inputs: Inputs to open; taken lazily, some of them ahead of the reader.
        sampling_rate: Sampling rate of the decoded samples in Hz.
        part: Part and channels to read of each input that has none of its own; None for the whole input, mixed to mono.
        workers: Workers that `start_decoding` started, or the options to start them; None for the default options.
        watching: Wrapper of the function that opens an input: called with the path and that function, it returns
            the function for the reader.

    Yields:
        An iterator over the inputs.
    """
    with (
        _look_ahead(inputs, sampling_rate, part, workers, watching, in_order=True) as ahead,
        contextlib.closing(ahead.turns()) as turns,
    ):
        yield turns


@contextlib.contextmanager
def open_as_ready(
    inputs: Iterable[Input],
    sampling_rate: int,
    part: WindowOptions | None = None,
    workers: Workers | None = None,
    watching: Watching = unwatched,
) -> Iterator[Iterator[Turn | None]]:
    """Open inputs as soon as they can be read without waiting, in any order.

    An input is yielded again until its reader sets ``is_over``. Inputs whose decoding has ended come first, so that a
    long recording does not hold back short ones behind it. While there are none, the first of the others is read
    further, so that the model is not idle. The arguments are those of `open_inputs`. With 0 workers inputs come in
    order.

    Yields:
        An iterator over the inputs; it yields None when there has been nothing to read for a while.
    """
    with (
        _look_ahead(inputs, sampling_rate, part, workers, watching, in_order=False) as ahead,
        contextlib.closing(ahead.due()) as turns,
    ):
        yield turns


@contextlib.contextmanager
def start_decoding(
    decode: DecodeOptions, num_inputs: int | None = None, *, in_order: bool = True, start_now: bool = True
) -> Iterator[Workers]:
    """Start the workers, at most one for each input; with 0 workers start none.

    Workers that start before torch is imported and the model is loaded are ready when the model is.

    Args:
        decode: Number of workers and their timeout.
        num_inputs: Number of inputs; None if it is unknown.
        in_order: Whether inputs are opened in order. If not, the default number of workers is at least two.
        start_now: Whether the workers start at once, or with the first input.

    Yields:
        The pool; with 0 workers ``decode`` itself.
    """
    if decode.num_workers == 0:
        yield decode
        return
    num_workers = decode.num_workers or max(1 if in_order else MIN_WORKERS_AS_READY, default_num_workers())
    if num_inputs is not None:
        num_workers = max(1, min(num_workers, num_inputs))
    with DecodePool(num_workers, decode.timeout_s, start_now=start_now) as pool:
        yield pool


@contextlib.contextmanager
def _look_ahead(
    inputs: Iterable[Input],
    sampling_rate: int,
    part: WindowOptions | None,
    workers: Workers | None,
    watching: Watching,
    *,
    in_order: bool,
) -> Iterator[_Here | _Ahead]:
    """Yield the inputs as workers decode them, or with 0 workers this process; start the workers if none run yet."""
    request = partial(_request, sampling_rate=sampling_rate, part=part or WindowOptions())
    with contextlib.ExitStack() as stack:
        if not isinstance(workers, DecodePool):
            num_inputs = len(inputs) if isinstance(inputs, Sized) else None
            started = start_decoding(workers or DecodeOptions(), num_inputs, in_order=in_order, start_now=False)
            workers = stack.enter_context(started)
        if isinstance(workers, DecodePool):
            yield _Ahead(workers, inputs, request, watching)
        else:
            yield _Here(inputs, request, watching)


def _request(item: Input, sampling_rate: int, part: WindowOptions) -> Request:
    own_part = item.part_in(part)
    channels = item.channels or part.channels
    return Request(item.path, sampling_rate, own_part.start_s, own_part.duration_s, channels, None)


def _turn_here(item: Input, request: Request, watching: Watching) -> Turn:
    """Return the turn of an input that this process opens; standard input is read to its end, as one file."""

    def open_stream() -> SampleStream:
        if item.error is not None:
            raise AudioError(item.error.code, item.error.message)
        from ast_cli.audio.decode import open_audio  # imports the decoders, which this process seldom needs

        source = sys.stdin.buffer.read() if item.path == STDIN else item.path
        return open_audio(source, request.sampling_rate, request.start_s, request.duration_s, request.channels)

    return Turn(item, watching(item.path, open_stream))


class _Here:
    """Inputs that this process decodes, one after another."""

    def __init__(self, inputs: Iterable[Input], request: Callable[[Input], Request], watching: Watching) -> None:
        self._inputs = inputs
        self._request = request
        self._watching = watching

    def turns(self) -> Generator[Turn, None, None]:
        """Yield each input once, in order."""
        for item in self._inputs:
            yield _turn_here(item, self._request(item), self._watching)

    due = turns


class _Ahead:
    """Inputs that workers decode, some of them ahead of the reader."""

    def __init__(
        self, pool: DecodePool, inputs: Iterable[Input], request: Callable[[Input], Request], watching: Watching
    ) -> None:
        self._pool = pool
        self._remaining = iter(inputs)
        self._request = request
        self._watching = watching
        self._ahead: list[Turn] = []

    def turns(self) -> Generator[Turn, None, None]:
        """Yield each input once, in order."""
        with contextlib.closing(self):
            while self._fill():
                turn = self._ahead[0]
                if turn.decoding is not None:
                    self._pool.read_next(turn.decoding)
                yield turn
                self._drop(turn)

    def due(self) -> Generator[Turn | None, None, None]:
        """Yield inputs that can be read without waiting, each of them again until its reader sets ``is_over``."""
        with contextlib.closing(self):
            while self._fill():
                turn = self._first_due()
                yield turn
                if turn is not None and turn.is_over:
                    self._drop(turn)

    def close(self) -> None:
        """Discard all inputs."""
        for turn in list(self._ahead):
            self._drop(turn)

    def _fill(self) -> bool:
        """Take inputs until enough are ahead, and queue those that workers can decode; return whether any are left."""
        while len(self._ahead) <= self._pool.num_workers * INPUTS_AHEAD_PER_WORKER:
            item = next(self._remaining, None)
            self._pool.expect_more(item is not None)
            if item is None:
                break
            self._ahead.append(self._queued(item))
        return bool(self._ahead)

    def _queued(self, item: Input) -> Turn:
        request = self._request(item)
        if item.error is not None:
            return _turn_here(item, request, self._watching)
        if item.path == STDIN:  # a worker has a standard input of its own
            request = request._replace(content_file=_kept_stdin())
        decoding = self._pool.decode(request)
        return Turn(item, self._watching(item.path, partial(self._pool.open, decoding)), decoding)

    def _first_due(self) -> Turn | None:
        """Return an input that can be read without waiting; None if there is none after a short wait."""
        turns = {turn.decoding: turn for turn in self._ahead}
        if None in turns:
            return turns[None]
        decoding = self._pool.wait_for_due([decoding for decoding in turns if decoding is not None])
        return None if decoding is None else turns[decoding]

    def _drop(self, turn: Turn) -> None:
        self._ahead.remove(turn)
        if turn.decoding is not None:
            self._pool.abandon(turn.decoding)
            if (file := turn.decoding.request.content_file) is not None:
                with contextlib.suppress(OSError):  # fails on Windows while the worker still reads the file
                    os.unlink(file)


def _kept_stdin() -> str:
    """Copy standard input into a temporary file, and return its path."""
    with tempfile.NamedTemporaryFile(prefix="ast-stdin-", delete=False) as file:
        try:
            shutil.copyfileobj(sys.stdin.buffer, file)
        except BaseException:
            os.unlink(file.name)
            raise
    return file.name
