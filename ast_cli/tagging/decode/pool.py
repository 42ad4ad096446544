"""Decoding in processes that may die: what they have sent and nobody has taken yet, within bounds.

Decoders are old C code fed with whatever lies on a disk; a crash there must cost one file. Each worker
(`ast_cli.tagging.decode.worker`) is a plain Python process without torch; a thread of the main process feeds it and
waits for it, one file at a time, so that a worker that dies names its file.

Not `multiprocessing`: its workers run the caller's main module again, which may import torch, or lack the
``if __name__ == "__main__"`` that this needs.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ast_cli.errors import AstError, AudioError, ErrorCode, WarningCode
from ast_cli.tagging.decode.worker import BLOCK, CLOSING, OPENING, Request, packed
from ast_cli.tagging.decode.worker_process import Message, Worker, WorkerDied

MOST_BY_DEFAULT = 16  # about seven decode FLAC as fast as a large GPU tags it
NUM_ATTEMPTS = 2  # a worker may have died of something else than its file
NUM_START_ATTEMPTS = 3
INPUT_BUFFER_BYTES = 32 << 20  # 8.7 minutes at 16 kHz
POOL_BUFFER_BYTES = 256 << 20
TURN_BYTES = 1 << 20  # 16 s at 16 kHz, more than a window: who reads one window of so much seldom waits
IDLE_AFTER_S = 0.5  # without anything to read, when results are wanted as they come


def default_num_workers() -> int:
    """Return how many workers suit this machine."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows; counts what this process may use
        return num_workers_for(len(os.sched_getaffinity(0)))
    return num_workers_for(os.cpu_count() or 1)


def num_workers_for(num_cpus: int) -> int:
    """Return how many workers suit a number of cores: half of them, since the model wants cores too."""
    return max(1, min(MOST_BY_DEFAULT, num_cpus // 2))


class Opening(NamedTuple):
    """What a worker says of a file that it has opened: its own rate in Hz and channels, the seconds it claims."""

    sampling_rate: int
    num_channels: int
    header_duration_s: float | None


class Decoding:
    """One input on its way through the pool: what its worker has sent and nobody has taken yet.

    Attributes:
        request: What is decoded.
        opening: What is known of the file once it is open.
        blocks: Seconds decoded up to the block's end, and its samples of shape (num_samples,).
        num_bytes: Of ``blocks``.
        num_taken: Blocks handed out.
        is_held_up: Whether its worker waits for room in the buffers.
        closing: Duration in seconds and warnings, once all is decoded.
        error: Why there is no more.
        is_abandoned: Whether nobody wants the rest.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.opening: Opening | None = None
        self.blocks: deque[tuple[float, NDArray[np.float32]]] = deque()
        self.num_bytes = 0
        self.num_taken = 0
        self.is_held_up = False
        self.closing: tuple[float, set[WarningCode]] | None = None
        self.error: AudioError | None = None
        self.is_abandoned = False

    @property
    def is_complete(self) -> bool:
        """Whether nothing more will come: reading it to its end waits for nobody."""
        return self.closing is not None or self.error is not None

    @property
    def is_due(self) -> bool:
        """Whether it is worth reading now: complete, a window of it there, or its worker waiting for room."""
        return self.is_complete or self.is_held_up or self.num_bytes >= TURN_BYTES


class PooledStream:
    """A file that a worker decodes; behaves as `ast_cli.audio.decode.AudioStream`."""

    def __init__(self, pool: DecodePool, decoding: Decoding, opening: Opening) -> None:
        self.sampling_rate, self.num_channels, self.header_duration_s = opening
        self.start_s = decoding.request.start_s
        self.duration_s = 0.0
        self.warnings: set[WarningCode] = set()
        self._pool = pool
        self._decoding = decoding

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield samples in [-1, 1], each block of shape (num_samples,).

        Raises:
            AudioError: The file cannot be decoded, its worker died or fell silent.
        """
        while (block := self._pool.take(self._decoding)) is not None:
            self.duration_s, samples = block
            yield samples
        assert self._decoding.closing is not None
        self.duration_s, self.warnings = self._decoding.closing

    def close(self) -> None:
        """Give up what has not been read."""
        self._pool.abandon(self._decoding)


class DecodePool:
    """Decodes files in worker processes that may die, ahead of who reads them.

    Buffers are bounded in bytes: a worker whose buffer is full is not listened to, and its pipe stops it. Workers start
    when there is something to decode, or at once, to be ready when it is.

    Args:
        num_workers: Processes; see `default_num_workers`.
        timeout_s: A worker that sends nothing for so long, while it is waited for, is killed.
        open_function: What opens a file in a worker, as ``module:function``; another one than `open_audio` in tests.
        start_now: Whether to start the workers at once.

    Attributes:
        num_workers: As above.
        num_buffered_bytes: Of all samples that wait to be read.
    """

    def __init__(
        self,
        num_workers: int,
        timeout_s: float = 60.0,
        open_function: str = "ast_cli.audio.decode:open_audio",
        *,
        start_now: bool = False,
    ) -> None:
        self.num_workers = num_workers
        self.num_buffered_bytes = 0
        self._starts_now = start_now
        self._timeout_s = timeout_s
        self._settings = packed(open_function)
        self._waiting: deque[Decoding] = deque()
        self._head: Decoding | None = None  # what is being read, or will be next
        self._workers: set[Worker] = set()
        self._has_all = False  # of this list, no further input will come
        self._failure: BaseException | None = None
        self._lock = threading.Lock()  # guards all of the above, and every Decoding
        self._queued = threading.Condition(self._lock)  # threads wait for something to decode
        self._room = threading.Condition(self._lock)  # threads wait for room in the buffers
        self._arrived = threading.Condition(self._lock)  # the reader waits for samples
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(num_workers)]
        self._threads.append(threading.Thread(target=self._watch, daemon=True))
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> DecodePool:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """End all workers; streams that are open can be read no further."""
        with self._lock:
            self._closing.set()
            for condition in (self._queued, self._room, self._arrived):
                condition.notify_all()
            for worker in self._workers:
                worker.kill()
        for thread in self._threads:
            thread.join()

    @property
    def worker_pids(self) -> set[int]:
        """The processes that live."""
        with self._lock:
            return {worker.pid for worker in self._workers}

    def decode(self, request: Request) -> Decoding:
        """Queue a file, and return its way through the pool."""
        decoding = Decoding(request)
        with self._lock:
            self._waiting.append(decoding)
            self._queued.notify()
        return decoding

    def expect_more(self, is_expected: bool) -> None:
        """Say whether files will be queued later: workers that find none end when there are no more."""
        with self._lock:
            if self._has_all is is_expected:
                self._has_all = not is_expected
                self._queued.notify_all()

    def read_next(self, decoding: Decoding) -> None:
        """Say which file is read next: it may take room in the buffers beyond all bounds."""
        with self._lock:
            self._head = decoding
            self._room.notify_all()

    def wait_for_due(self, decodings: Sequence[Decoding]) -> Decoding | None:
        """Wait, not long, until one of several can be read without waiting; make it the next.

        Those whose decoding has ended come first, so that a long recording does not hold back short ones behind it.
        """
        with self._lock:
            self._head = None
            self._arrived.wait_for(lambda: self._has_ended or any(each.is_due for each in decodings), IDLE_AFTER_S)
            self._raise_failure()
            due = [decoding for decoding in decodings if decoding.is_due]
            if due:
                self._head = next((decoding for decoding in due if decoding.is_complete), due[0])
                self._room.notify_all()
            return self._head

    def open(self, decoding: Decoding) -> PooledStream:
        """Return a file's stream, as soon as it is known that it can be opened.

        Raises:
            AudioError: It cannot, or its worker died.
        """
        with self._lock:
            self._wait_for(decoding, lambda: decoding.opening is not None or decoding.is_complete)
            if decoding.opening is not None:
                return PooledStream(self, decoding, decoding.opening)
            assert decoding.error is not None
            raise decoding.error

    def take(self, decoding: Decoding) -> tuple[float, NDArray[np.float32]] | None:
        """Wait for the next block of an input: seconds up to its end, and samples; None when all is read."""
        with self._lock:
            self._wait_for(decoding, lambda: bool(decoding.blocks) or decoding.is_complete)
            if decoding.blocks:
                duration_s, samples = decoding.blocks.popleft()
                decoding.num_taken += 1
                self._count_bytes(decoding, -samples.nbytes)
                self._room.notify_all()
                return duration_s, samples
            if decoding.error is not None:
                raise decoding.error
            return None

    def abandon(self, decoding: Decoding) -> None:
        """Give up what is left of an input."""
        with self._lock:
            decoding.is_abandoned = True
            self._drop_blocks(decoding)
            self._room.notify_all()

    def _wait_for(self, decoding: Decoding, is_there: Callable[[], bool]) -> None:
        """Wait for something from a worker; the lock is held."""
        given_up = "the stream is closed: read it before the next input is asked for"
        self._arrived.wait_for(lambda: is_there() or decoding.is_abandoned or self._has_ended)
        self._raise_failure()
        if decoding.is_abandoned or self._closing.is_set():
            raise ValueError(given_up)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    @property
    def _has_ended(self) -> bool:
        return self._closing.is_set() or self._failure is not None

    def _count_bytes(self, decoding: Decoding, num_bytes: int) -> None:
        decoding.num_bytes += num_bytes
        self.num_buffered_bytes += num_bytes

    def _drop_blocks(self, decoding: Decoding) -> None:
        decoding.blocks.clear()
        self._count_bytes(decoding, -decoding.num_bytes)

    # The threads: one a worker, and one that watches the clock.

    def _watch(self) -> None:
        """Kill workers that are overdue, until the pool closes."""
        while not self._closing.wait(min(1.0, self._timeout_s / 10)):
            with self._lock:
                workers = list(self._workers)
            for worker in workers:
                worker.kill_if_overdue()

    def _serve(self) -> None:
        """Decode one input after another in a worker of this thread's own, until the pool closes.

        A worker ends when all inputs are decoded: the model may be at the last windows for long, and needs its memory.
        """
        worker: Worker | None = None
        try:
            if self._starts_now:
                worker = self._start_worker()
            while not self._closing.is_set():
                decoding = self._next_decoding(has_worker=worker is not None)
                if decoding is not None:
                    worker = self._decode(decoding, worker)
                elif worker is not None:
                    self._dismiss(worker)
                    worker = None
        except BaseException as error:  # raised again where samples are waited for, instead of waiting for ever
            with self._lock:
                self._failure = error
                self._arrived.notify_all()
        finally:
            if worker is not None:
                self._dismiss(worker)

    def _next_decoding(self, *, has_worker: bool) -> Decoding | None:
        """Wait for an input to decode; None when the pool closes, or a worker is kept for nothing."""
        with self._lock:
            while True:
                self._queued.wait_for(lambda: self._waiting or self._closing.is_set() or (has_worker and self._has_all))
                if self._closing.is_set() or not self._waiting:
                    return None
                decoding = self._waiting.popleft()
                if not decoding.is_abandoned:
                    return decoding

    def _decode(self, decoding: Decoding, worker: Worker | None) -> Worker | None:
        """Decode one input, if need be twice; return the worker if it is still alive."""
        error: AudioError | None = None
        for _ in range(NUM_ATTEMPTS):
            worker = worker or self._start_worker()
            try:
                for message in worker.decode(decoding.request, self._timeout_s):
                    if not self._deliver(decoding, message):
                        worker.leave_off()
                return worker
            except WorkerDied:
                error = self._death(decoding, worker)
                worker = None
                if error.code == ErrorCode.TIMEOUT or not self._can_start_over(decoding):
                    break
        with self._lock:
            decoding.error = error
            self._arrived.notify_all()
        return None

    def _death(self, decoding: Decoding, worker: Worker) -> AudioError:
        """Bury a worker and say what became of its input."""
        ending = self._end_worker(worker)
        if worker.timed_out:
            reason = f"the decoder did nothing for {self._timeout_s:g} s and was stopped"
            return AudioError(ErrorCode.TIMEOUT, f"{decoding.request.path}: {reason}")
        return AudioError(ErrorCode.WORKER_CRASHED, f"{decoding.request.path}: the decoder crashed on it ({ending})")

    def _can_start_over(self, decoding: Decoding) -> bool:
        """Forget what a dead worker sent of an input, unless part of it has been read."""
        with self._lock:
            if decoding.num_taken or decoding.is_abandoned or self._closing.is_set():
                return False
            decoding.opening = None
            self._drop_blocks(decoding)
            return True

    def _start_worker(self) -> Worker:
        """Start a worker and wait until it can decode.

        Raises:
            AstError: None can be started: the fault is not in an input.
        """
        ending = ""
        for _ in range(NUM_START_ATTEMPTS):
            try:
                worker = Worker(self._settings)
            except OSError as error:
                raise AstError(f"cannot start a process to decode audio: {error}; try fewer workers") from error
            with self._lock:
                self._workers.add(worker)
                if self._closing.is_set():
                    worker.kill()
            try:
                worker.wait_until_ready()
                return worker
            except WorkerDied:
                ending = self._end_worker(worker)
            if self._closing.is_set():
                break
        raise AstError(f"the process that decodes audio does not start ({ending}); try fewer workers")

    def _dismiss(self, worker: Worker) -> None:
        """End a worker that has nothing to do."""
        worker.kill()
        self._end_worker(worker)

    def _end_worker(self, worker: Worker) -> str:
        with self._lock:
            self._workers.discard(worker)
        return worker.close()

    def _deliver(self, decoding: Decoding, message: Message) -> bool:
        """Hand a message on, once there is room for it; return whether more is wanted."""
        with self._lock:
            if message.kind == BLOCK:
                self._wait_for_room(decoding, message.content.nbytes)
            if self._is_unwanted(decoding):
                return False
            if message.kind == BLOCK:
                decoding.blocks.append((message.duration_s, message.content))
                self._count_bytes(decoding, message.content.nbytes)
            elif message.kind == OPENING:
                decoding.opening = Opening(*message.content)
            elif message.kind == CLOSING:
                decoding.closing = (message.duration_s, {WarningCode(code) for code in message.content})
            else:
                decoding.error = AudioError(ErrorCode(message.content[0]), message.content[1])
            self._arrived.notify_all()
            return True

    def _wait_for_room(self, decoding: Decoding, num_bytes: int) -> None:
        """Wait until a block may be kept, or is not wanted any more; the lock is held."""
        if self._has_room(decoding, num_bytes):
            return
        decoding.is_held_up = True
        self._arrived.notify_all()
        self._room.wait_for(lambda: self._is_unwanted(decoding) or self._has_room(decoding, num_bytes))
        decoding.is_held_up = False

    def _is_unwanted(self, decoding: Decoding) -> bool:
        return decoding.is_abandoned or self._closing.is_set()

    def _has_room(self, decoding: Decoding, num_bytes: int) -> bool:
        """Tell whether a block may be kept: within both bounds, or it is the one that is waited for."""
        if decoding is self._head and not decoding.blocks:
            return True
        in_input = decoding.num_bytes + num_bytes <= INPUT_BUFFER_BYTES
        return in_input and self.num_buffered_bytes + num_bytes <= POOL_BUFFER_BYTES
