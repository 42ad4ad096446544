"""A pool of worker processes that decode files, with bounded buffers for what they have sent.

Decoders are old C code that reads whatever is on a disk; a crash there must cost only one file. Each worker
(`ast_cli.tagging.decode.worker`) is a plain Python process without torch. A thread of the main process feeds it and
waits for it, one file at a time, so that the file of a worker that dies is known.

The pool does not use `multiprocessing`, whose workers run the caller's main module again: that module may import torch,
or lack the ``if __name__ == "__main__"`` that `multiprocessing` needs.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.channels import EACH
from ast_cli.errors import AstError, AudioError, ErrorCode, WarningCode
from ast_cli.tagging.decode.worker import BLOCK, CLOSING, OPENING, Request, packed
from ast_cli.tagging.decode.worker_process import Message, Worker, WorkerDied

MOST_BY_DEFAULT = 16  # about seven workers decode FLAC as fast as a large GPU tags it
NUM_ATTEMPTS = 2  # a worker may have died for a reason other than its file
NUM_START_ATTEMPTS = 3
INPUT_BUFFER_BYTES = 32 << 20  # 8.7 minutes at 16 kHz, of one channel
POOL_BUFFER_BYTES = 256 << 20
TURN_BYTES = 1 << 20  # per channel; 16 s at 16 kHz, so that reading one window seldom waits
IDLE_AFTER_S = 0.5  # longest wait for something to read when inputs are read in any order


def default_num_workers() -> int:
    """Return the default number of workers on this machine."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows; counts the cores that this process may use
        return num_workers_for(len(os.sched_getaffinity(0)))
    return num_workers_for(os.cpu_count() or 1)


def num_workers_for(num_cpus: int) -> int:
    """Return the number of workers for a number of cores: half of it, since the model needs cores too."""
    return max(1, min(MOST_BY_DEFAULT, num_cpus // 2))


class Opening(NamedTuple):
    """Facts about a file that a worker has opened.

    Attributes:
        sampling_rate: Sampling rate of the file in Hz.
        num_channels: Number of channels of the file.
        header_duration_s: Duration in seconds that the header states; None if it states none.
    """

    sampling_rate: int
    num_channels: int
    header_duration_s: float | None


class Decoding:
    """State of one input in the pool: what its worker has sent and the reader has not taken yet.

    Attributes:
        request: File to decode, and how.
        opening: Facts about the file; None until it is open.
        blocks: Seconds decoded up to the block's end, and its samples of shape (num_samples,), or
            (num_channels, num_samples) if each channel is decoded by itself.
        num_bytes: Size of ``blocks``.
        num_taken: Number of blocks that the reader has taken.
        is_held_up: Whether the worker waits for room in the buffers.
        closing: Duration in seconds and warnings; None until everything is decoded.
        error: Error that ended the decoding; else None.
        is_abandoned: Whether the reader has given up the rest.
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
    def num_rows(self) -> int:
        """Number of waveforms in a block: one, or the number of channels if each channel is decoded by itself."""
        return self.opening.num_channels if self.opening is not None and self.request.channels == EACH else 1

    @property
    def is_complete(self) -> bool:
        """Whether nothing more will come from the worker, so that reading to the end does not wait."""
        return self.closing is not None or self.error is not None

    @property
    def is_due(self) -> bool:
        """Whether to read the input now: it is complete, a window has arrived, or its worker waits for room."""
        return self.is_complete or self.is_held_up or self.num_bytes >= TURN_BYTES * self.num_rows


class PooledStream:
    """Stream of a file that a worker decodes; behaves as `ast_cli.audio.decode.AudioStream`."""

    def __init__(self, pool: DecodePool, decoding: Decoding, opening: Opening) -> None:
        self.sampling_rate, self.num_channels, self.header_duration_s = opening
        self.start_s = decoding.request.start_s
        self.duration_s = 0.0
        self.warnings: set[WarningCode] = set()
        self._pool = pool
        self._decoding = decoding

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield samples in [-1, 1] as `ast_cli.audio.decode.AudioStream` does.

        Raises:
            AudioError: If the file cannot be decoded, or its worker died or hung.
        """
        while (block := self._pool.take(self._decoding)) is not None:
            self.duration_s, samples = block
            yield samples
        assert self._decoding.closing is not None
        self.duration_s, self.warnings = self._decoding.closing

    def close(self) -> None:
        """Discard the samples that have not been read."""
        self._pool.abandon(self._decoding)


class DecodePool:
    """Pool of worker processes that decode files ahead of the reader.

    Buffers are bounded in bytes: the pool stops reading from a worker whose buffer is full, and the full pipe stops the
    worker. Workers start when there is something to decode, or at once, to be ready by then.

    Args:
        num_workers: Number of worker processes; see `default_num_workers`.
        timeout_s: Seconds without a message after which a worker that the pool waits for is killed.
        open_function: Function that opens a file in a worker, as ``module:function``; tests replace it.
        start_now: Whether to start the workers at once.

    Attributes:
        num_workers: Number of worker processes.
        num_buffered_bytes: Size of all samples that wait to be read.
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
        self._head: Decoding | None = None  # the input that is read now or next
        self._workers: set[Worker] = set()
        self._has_all = False  # no further input will come from the current list
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
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers; open streams cannot be read any further."""
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
        """Process ids of the workers that are alive."""
        with self._lock:
            return {worker.pid for worker in self._workers}

    def decode(self, request: Request) -> Decoding:
        """Queue a file, and return its state in the pool."""
        decoding = Decoding(request)
        with self._lock:
            self._waiting.append(decoding)
            self._queued.notify()
        return decoding

    def expect_more(self, is_expected: bool) -> None:
        """Set whether more files will be queued; if not, workers that find none end."""
        with self._lock:
            if self._has_all is is_expected:
                self._has_all = not is_expected
                self._queued.notify_all()

    def read_next(self, decoding: Decoding) -> None:
        """Make a file the next to be read: the block that its reader waits for is accepted beyond all bounds."""
        with self._lock:
            self._head = decoding
            self._room.notify_all()

    def wait_for_due(self, decodings: Sequence[Decoding]) -> Decoding | None:
        """Return the input to read next, which can be read without waiting; None if none can after a short wait.

        Inputs whose decoding has ended come first, so that a long recording does not hold back short ones behind it.
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
        """Return the stream of a file as soon as a worker has opened the file.

        Raises:
            AudioError: If the file cannot be opened, or its worker died.
        """
        with self._lock:
            self._wait_for(decoding, lambda: decoding.opening is not None or decoding.is_complete)
            if decoding.opening is not None:
                return PooledStream(self, decoding, decoding.opening)
            assert decoding.error is not None
            raise decoding.error

    def take(self, decoding: Decoding) -> tuple[float, NDArray[np.float32]] | None:
        """Wait for the next block of an input; return the seconds up to its end and its samples, None at the end."""
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
        """Discard the rest of an input, and stop decoding it."""
        with self._lock:
            decoding.is_abandoned = True
            self._drop_blocks(decoding)
            self._room.notify_all()

    def _wait_for(self, decoding: Decoding, is_there: Callable[[], bool]) -> None:
        """Wait for something from a worker; the caller holds the lock."""
        self._arrived.wait_for(lambda: is_there() or decoding.is_abandoned or self._has_ended)
        self._raise_failure()
        if decoding.is_abandoned or self._closing.is_set():
            raise ValueError("the stream is closed; read it before taking the next input")

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

    # The threads: one for each worker, and one that checks for timeouts.

    def _watch(self) -> None:
        """Kill overdue workers until the pool closes."""
        while not self._closing.wait(min(1.0, self._timeout_s / 10)):
            with self._lock:
                workers = list(self._workers)
            for worker in workers:
                worker.kill_if_overdue()

    def _serve(self) -> None:
        """Decode one input after another in this thread's own worker, until the pool closes.

        A worker ends when all inputs are decoded: the model may need long for the last windows, and can use the memory.
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
        except BaseException as error:  # raised again in the reader, which would otherwise wait forever
            with self._lock:
                self._failure = error
                self._arrived.notify_all()
        finally:
            if worker is not None:
                self._dismiss(worker)

    def _next_decoding(self, *, has_worker: bool) -> Decoding | None:
        """Wait for an input to decode; return None when the pool closes or a worker is no longer needed."""
        with self._lock:
            while True:
                self._queued.wait_for(lambda: self._waiting or self._closing.is_set() or (has_worker and self._has_all))
                if self._closing.is_set() or not self._waiting:
                    return None
                decoding = self._waiting.popleft()
                if not decoding.is_abandoned:
                    return decoding

    def _decode(self, decoding: Decoding, worker: Worker | None) -> Worker | None:
        """Decode one input, again if its worker dies; return the worker if it is still alive."""
        error: AudioError | None = None
        for _ in range(NUM_ATTEMPTS):
            worker = worker or self._start_worker()
            try:
                for message in worker.decode(decoding.request, self._timeout_s):
                    if not self._deliver(decoding, message):
                        worker.skip_rest()
                return worker
            except WorkerDied:
                error = self._crash_error(decoding, worker)
                worker = None
                if error.code == ErrorCode.TIMEOUT or not self._reset(decoding):
                    break
        with self._lock:
            decoding.error = error
            self._arrived.notify_all()
        return None

    def _crash_error(self, decoding: Decoding, worker: Worker) -> AudioError:
        """Remove a worker that died, and return the error of its input."""
        ending = self._end_worker(worker)
        if worker.timed_out:
            reason = f"the decoder did nothing for {self._timeout_s:g} s and was stopped"
            return AudioError(ErrorCode.TIMEOUT, f"{decoding.request.path}: {reason}")
        return AudioError(ErrorCode.WORKER_CRASHED, f"{decoding.request.path}: the decoder crashed ({ending})")

    def _reset(self, decoding: Decoding) -> bool:
        """Discard what a dead worker sent, unless part of it was read; return whether the input can be tried again."""
        with self._lock:
            if decoding.num_taken or decoding.is_abandoned or self._closing.is_set():
                return False
            decoding.opening = None
            self._drop_blocks(decoding)
            return True

    def _start_worker(self) -> Worker:
        """Start a worker and wait until it can decode.

        Raises:
            AstError: If no worker can be started, which no input has caused.
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
        """Store a message once there is room for it; return whether more of the input is wanted."""
        with self._lock:
            if message.kind == BLOCK:
                self._wait_for_room(decoding, message.content.nbytes)
            if self._is_unwanted(decoding):
                return False
            if message.kind == BLOCK:
                by_channel = decoding.request.channels == EACH
                samples = message.content.reshape(decoding.num_rows, -1) if by_channel else message.content
                decoding.blocks.append((message.duration_s, samples))
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
        """Wait until there is room for a block or it is no longer wanted; the caller holds the lock."""
        if self._has_room(decoding, num_bytes):
            return
        decoding.is_held_up = True
        self._arrived.notify_all()
        self._room.wait_for(lambda: self._is_unwanted(decoding) or self._has_room(decoding, num_bytes))
        decoding.is_held_up = False

    def _is_unwanted(self, decoding: Decoding) -> bool:
        return decoding.is_abandoned or self._closing.is_set()

    def _has_room(self, decoding: Decoding, num_bytes: int) -> bool:
        """Return whether a block may be stored: within both bounds, or because the reader waits for it."""
        if decoding is self._head and not decoding.blocks:
            return True
        in_input = decoding.num_bytes + num_bytes <= INPUT_BUFFER_BYTES
        return in_input and self.num_buffered_bytes + num_bytes <= POOL_BUFFER_BYTES
