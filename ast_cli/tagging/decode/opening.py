"""Inputs, opened one after another: decoded ahead in processes that may die, or with 0 workers in this one."""

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

MIN_WORKERS_AS_READY = 2  # while one waits in a long recording, the other decodes short ones
INPUTS_AHEAD_PER_WORKER = 8  # enough small files to go on with while the model is busy with one batch

OpenStream: TypeAlias = Callable[[], SampleStream]
Watching: TypeAlias = Callable[[str, OpenStream], OpenStream]
Workers: TypeAlias = (
    DecodeOptions | DecodePool
)  # that run already, or how to start them; with 0 workers this process decodes


class Turn:
    """An input that is to be read now.

    Args:
        item: The input.
        open_stream: Returns its samples, or raises the AudioError that says why there are none.
        decoding: Its way through the pool; None where it is read in this process.

    Attributes:
        is_over: To be set by the reader once nothing is left of the input, where inputs come out of order.
    """

    def __init__(self, item: Input, open_stream: OpenStream, decoding: Decoding | None = None) -> None:
        self.item = item
        self.open_stream = open_stream
        self.decoding = decoding
        self.is_over = False

    @property
    def is_whole(self) -> bool:
        """Whether reading it to its end waits for no worker."""
        return self.decoding is None or self.decoding.is_complete


def unwatched(_path: str, open_stream: OpenStream) -> OpenStream:
    """Watch nothing: return what opens an input as it is."""
    return open_stream


@contextlib.contextmanager
def open_inputs(
    inputs: Iterable[Input],
    sampling_rate: int,
    part: WindowOptions | None = None,
    workers: Workers | None = None,
    watching: Watching = unwatched,
) -> Iterator[Iterator[Turn]]:
    """Open inputs in order, decoded by workers that a broken file may kill or hang at the cost of that file.

    Each input has one turn: what is not read of it, when the next is asked for, is given up.

    Args:
        inputs: Taken from lazily, some inputs ahead.
        sampling_rate: To resample to, in Hz.
        part: Which part of each input that does not say so itself; None for all.
        workers: Started by `start_decoding`, or how to start them; None for the defaults.
        watching: Given an input's path and what opens it, returns what opens it for the reader.

    Yields:
        The turns.
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
    """Open whichever input can be read without waiting, the same one again until its reader sets ``is_over``.

    Inputs whose decoding has ended come first, so that a long recording does not hold back short ones behind it; while
    there are none, the first of the others is read on, so that the model is not idle. Args as in `open_inputs`; with 0
    workers inputs come in order.

    Yields:
        The turns; None where there has been nothing to read for a while.
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
    """Start the processes that decode, one an input at most; with 0 workers there are none to start.

    Started now, before torch is imported and a model read, they have found their libraries when it is ready.

    Args:
        decode: How many, and how long they may take.
        num_inputs: If known.
        in_order: Whether inputs are opened in order; else there are two, where the machine decides.
        start_now: Whether they start at once, or with the first input.
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
    """Start workers where that was not done, and look ahead as far as they are of use."""
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
    part = item.part_in(part)
    return Request(item.path, sampling_rate, part.start_s, part.duration_s, None)


def _turn_here(item: Input, request: Request, watching: Watching) -> Turn:
    """Return the turn of an input that this process opens; of standard input the bytes of one file, all at once."""

    def open_stream() -> SampleStream:
        if item.error is not None:
            raise AudioError(item.error.code, item.error.message)
        from ast_cli.audio.decode import open_audio  # decoders, which this process seldom needs

        source = sys.stdin.buffer.read() if item.path == STDIN else item.path
        return open_audio(source, request.sampling_rate, request.start_s, request.duration_s)

    return Turn(item, watching(item.path, open_stream))


class _Here:
    """Inputs that this process decodes, one after another."""

    def __init__(self, inputs: Iterable[Input], request: Callable[[Input], Request], watching: Watching) -> None:
        self._inputs = inputs
        self._request = request
        self._watching = watching

    def turns(self) -> Generator[Turn, None, None]:
        """Yield every input once, in order."""
        for item in self._inputs:
            yield _turn_here(item, self._request(item), self._watching)

    due = turns


class _Ahead:
    """Inputs that workers decode, some of them ahead of who reads them."""

    def __init__(
        self, pool: DecodePool, inputs: Iterable[Input], request: Callable[[Input], Request], watching: Watching
    ) -> None:
        self._pool = pool
        self._remaining = iter(inputs)
        self._request = request
        self._watching = watching
        self._ahead: list[Turn] = []

    def turns(self) -> Generator[Turn, None, None]:
        """Yield every input once, in order."""
        with contextlib.closing(self):
            while self._fill():
                turn = self._ahead[0]
                if turn.decoding is not None:
                    self._pool.read_next(turn.decoding)
                yield turn
                self._drop(turn)

    def due(self) -> Generator[Turn | None, None, None]:
        """Yield whichever input can be read without waiting, until its reader says that it is over."""
        with contextlib.closing(self):
            while self._fill():
                turn = self._first_due()
                yield turn
                if turn is not None and turn.is_over:
                    self._drop(turn)

    def close(self) -> None:
        """Give up all inputs."""
        for turn in list(self._ahead):
            self._drop(turn)

    def _fill(self) -> bool:
        """Take inputs until there are enough, and queue those that a worker can decode; return whether any are left."""
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
        if item.path == STDIN:  # of this process: workers have another
            request = request._replace(content_file=_kept_stdin())
        decoding = self._pool.decode(request)
        return Turn(item, self._watching(item.path, partial(self._pool.open, decoding)), decoding)

    def _first_due(self) -> Turn | None:
        """Return an input that can be read without waiting, after a short wait at most."""
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
                with contextlib.suppress(OSError):  # on Windows while its worker still reads it
                    os.unlink(file)


def _kept_stdin() -> str:
    """Put what comes on standard input into a temporary file, and return its name."""
    with tempfile.NamedTemporaryFile(prefix="ast-stdin-", delete=False) as file:
        try:
            shutil.copyfileobj(sys.stdin.buffer, file)
        except BaseException:
            os.unlink(file.name)
            raise
    return file.name
