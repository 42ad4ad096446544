"""Decoding in processes that may die: the samples of many inputs, in input order, decoded some inputs ahead.

Decoders are old C code fed with whatever lies on a disk; a crash there must cost one file. Each worker is a plain
Python process without torch that reads paths from its standard input and answers on its standard output; a thread of
the main process feeds it and waits for it, one file at a time, so that a worker that dies names its file. What a worker
sends is numbers and JSON, never pickle: a hijacked decoder gains nothing over the main process.

Not `multiprocessing`: its workers run the caller's main module again, which may import torch, or lack the
``if __name__ == "__main__"`` that this needs.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import math
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ast_cli.audio.decode import open_audio
from ast_cli.errors import AstError, AudioError, ErrorCode, WarningCode
from ast_cli.tagging.inputs import STDIN, Input
from ast_cli.tagging.options import PartOptions

if TYPE_CHECKING:
    from ast_cli.tagging.recording import SampleStream  # which imports torch: workers must not

MAX_WORKERS = 16  # about seven decode FLAC as fast as a large GPU tags it
NUM_ATTEMPTS = 2  # a worker may have died of something else than its file
NUM_START_ATTEMPTS = 3
START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 0.5  # between a closed pipe and the end of its process
INPUTS_AHEAD_PER_WORKER = 8  # enough small files to go on with while the model is busy with one batch
INPUT_BUFFER_BYTES = 32 << 20  # 8.7 minutes at 16 kHz
POOL_BUFFER_BYTES = 256 << 20
MESSAGE_SAMPLES = 65_536  # small blocks are joined: every message wakes two threads
MESSAGE_LENGTH = 500  # of an exception's own words

# A message: its kind, the seconds decoded so far, the bytes that follow.
HEADER = struct.Struct("<cdI")
READY, OPENING, BLOCK, CLOSING, FAILURE = b"R", b"O", b"B", b"C", b"F"
# The main process's own sys.path and no other: the current folder may hold a numpy.py.
WORKER_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from ast_cli.tagging.decode_pool import work; work()"
NICENESS = 10
PR_SET_PDEATHSIG = 1  # linux/prctl.h

OpenFunction = Callable[[str, int, float, float | None], "SampleStream"]


def default_num_workers() -> int:
    """Return how many workers suit this machine."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows; counts what this process may use
        return num_workers_for(len(os.sched_getaffinity(0)))
    return num_workers_for(os.cpu_count() or 1)


def num_workers_for(num_cpus: int) -> int:
    """Return how many workers suit a number of cores: half of them, since the model wants cores too."""
    return max(1, min(MAX_WORKERS, num_cpus // 2))


# ── In the worker ────────────────────────────────────────────────────────────────────────────────────────────────────


def work() -> None:
    """Decode the files named on standard input, a JSON string a line; a worker's whole life.

    The first line holds the settings. ``null`` means: leave off the current file.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # both reach the whole process group; the main process decides
        signal.signal(number, signal.SIG_IGN)
    _die_with_parent()
    _give_way()
    send = partial(_send, _take_stdout())
    *part, open_function = json.loads(sys.stdin.buffer.readline())
    module, _, name = open_function.partition(":")
    open_stream: OpenFunction = getattr(importlib.import_module(module), name)
    requests: SimpleQueue[str | None] = SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    send(READY)
    while True:
        path = requests.get()
        if path is not None:
            _decode(path, lambda path: open_stream(path, *part), requests, send)


def _die_with_parent() -> None:
    """Have the kernel kill this process with its parent, even inside a decoder that lets no thread run (Linux)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # without prctl the closed pipe is noticed all the same
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _give_way() -> None:
    """Let the model's threads go first: one that waits for a core stops all of them, while decoding is ahead anyway."""
    if hasattr(os, "nice"):  # not on Windows
        with contextlib.suppress(OSError):
            os.nice(NICENESS)


def _take_stdout() -> BinaryIO:
    """Keep standard output for messages; what C libraries print goes nowhere."""
    messages = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return messages


def _read_requests(requests: SimpleQueue[str | None]) -> None:
    """Pass requests on; when the main process is gone, so is this one, whatever it is doing."""
    for line in sys.stdin.buffer:
        requests.put(json.loads(line))
    os._exit(0)


def _send(messages: BinaryIO, kind: bytes, duration_s: float = 0.0, content: bytes | memoryview = b"") -> None:
    try:
        messages.write(HEADER.pack(kind, duration_s, len(content)))
        messages.write(content)
        messages.flush()
    except OSError:  # nobody listens any more
        os._exit(0)


def _decode(
    path: str, open_stream: Callable[[str], SampleStream], requests: SimpleQueue[str | None], send: Callable[..., None]
) -> None:
    """Send one file: an opening, blocks, and either a closing or a failure."""
    try:
        with contextlib.closing(open_stream(path)) as stream:
            send(OPENING, content=_packed(stream.sampling_rate, stream.num_channels))
            for samples in _joined(stream):
                send(BLOCK, stream.duration_s, samples.data.cast("B"))
                if not requests.empty():
                    break
        send(CLOSING, stream.duration_s, _packed(*sorted(stream.warnings)))
    except AudioError as error:
        send(FAILURE, content=_packed(error.code, str(error)))
    except MemoryError:
        send(FAILURE, content=_packed(ErrorCode.OUT_OF_MEMORY, f"{path}: not enough memory to decode it"))
    except Exception as error:  # a bug of ours, or of a decoder's Python side: it costs one file, not the run
        reason = f"{type(error).__name__}: {error}"[:MESSAGE_LENGTH]
        send(FAILURE, content=_packed(ErrorCode.DECODE_ERROR, f"{path}: cannot be decoded ({reason})"))


def _joined(stream: SampleStream) -> Iterator[NDArray[np.float32]]:
    """Join blocks to at least ``MESSAGE_SAMPLES`` each, but for the last."""
    parts: list[NDArray[np.float32]] = []
    num_samples = 0
    for block in stream:
        parts.append(block)
        num_samples += block.size
        if num_samples >= MESSAGE_SAMPLES:
            yield np.concatenate(parts, dtype=np.float32)
            parts.clear()
            num_samples = 0
    if num_samples:
        yield np.concatenate(parts, dtype=np.float32)


def _packed(*values: Any) -> bytes:
    """Return JSON in ASCII, in which names that are not UTF-8 survive as escaped surrogates."""
    return json.dumps(values).encode("ascii")


# ── In the main process ──────────────────────────────────────────────────────────────────────────────────────────────


class Message(NamedTuple):
    """What a worker sent: the content's type depends on the kind."""

    kind: bytes
    duration_s: float
    content: Any


class WorkerDied(Exception):  # noqa: N818
    """A worker ended, or was killed, before it had said all."""


class Worker:
    """One worker process. A single thread talks to it; any thread may kill it."""

    def __init__(self, settings: bytes) -> None:
        self.timed_out = False
        self._deadline = math.inf
        self._lock = threading.Lock()
        # Samples are only mixed and resampled there: without this, OpenBLAS starts a thread and a buffer a core.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        flags = [f"-Xutf8={sys.flags.utf8_mode}"]  # so that both sides spell file names alike
        self._process = subprocess.Popen(
            [sys.executable, *flags, "-c", WORKER_PROGRAM, *(path for path in sys.path if isinstance(path, str))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests = self._process.stdin
        self._messages = self._process.stdout
        self._settings = settings

    def wait_until_ready(self) -> None:
        """Wait until the process has imported what it needs.

        Raises:
            WorkerDied: It could not.
        """
        self._write(self._settings)
        self._read_message(START_TIMEOUT_S)

    def decode(self, path: str, timeout_s: float) -> Iterator[Message]:
        """Yield what the worker says about a file, in order; ends with its closing or its failure.

        Raises:
            WorkerDied: It crashed, or sent nothing for ``timeout_s`` while it was waited for.
        """
        self._write(json.dumps(path).encode("ascii"))
        while True:
            message = self._read_message(timeout_s)
            yield message
            if message.kind in (CLOSING, FAILURE):
                return

    def leave_off(self) -> None:
        """Ask for an early end of the current file."""
        self._write(b"null")

    def kill_if_overdue(self) -> None:
        """Kill the process if it has been waited for too long; its thread then sees it die."""
        with self._lock:
            if time.monotonic() > self._deadline:
                self.timed_out = True
                self._process.kill()

    def kill(self) -> None:
        """End the process at once; there is nothing in it to lose."""
        self._process.kill()

    def close(self) -> str:
        """Wait for the process to end, not long, and release the pipes; return how it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_TIMEOUT_S)
        self._process.kill()
        code = self._process.wait()
        with contextlib.suppress(OSError):  # a request that it did not read
            self._requests.close()
        self._messages.close()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def _write(self, line: bytes) -> None:
        try:
            self._requests.write(line + b"\n")
            self._requests.flush()
        except OSError as error:
            raise WorkerDied from error

    def _read_message(self, timeout_s: float) -> Message:
        with self._lock:
            self._deadline = time.monotonic() + timeout_s
        header = self._messages.read(HEADER.size)
        kind, duration_s, num_bytes = HEADER.unpack(header) if len(header) == HEADER.size else (b"", 0.0, 0)
        content = np.empty(num_bytes, np.uint8)
        num_read = self._messages.readinto(content.data) if num_bytes else 0  # type: ignore[attr-defined]
        with self._lock:
            self._deadline = math.inf
        if not kind or num_read < num_bytes or self.timed_out:
            raise WorkerDied
        if kind == BLOCK:
            return Message(kind, duration_s, content.view(np.float32))
        return Message(kind, duration_s, json.loads(content.tobytes() or b"null"))


class Decoding:
    """One input on its way through the pool: what its worker has sent and nobody has taken yet.

    Attributes:
        opening: The file's own sampling rate in Hz and number of channels, once it is open.
        blocks: Seconds decoded up to the block's end, and its samples of shape (num_samples,).
        num_bytes: Of ``blocks``.
        num_taken: Blocks handed out.
        closing: Duration in seconds and warnings, once all is decoded.
        error: Why there is no more.
        is_abandoned: Whether nobody wants the rest.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.opening: tuple[int, int] | None = None
        self.blocks: deque[tuple[float, NDArray[np.float32]]] = deque()
        self.num_bytes = 0
        self.num_taken = 0
        self.closing: tuple[float, set[WarningCode]] | None = None
        self.error: AudioError | None = None
        self.is_abandoned = False

    @property
    def is_complete(self) -> bool:
        """Whether nothing more will come."""
        return self.closing is not None or self.error is not None


class PooledStream:
    """A file that a worker decodes; behaves as `ast_cli.audio.decode.AudioStream`."""

    def __init__(self, pool: DecodePool, decoding: Decoding, opening: tuple[int, int], start_s: float) -> None:
        self.sampling_rate, self.num_channels = opening
        self.start_s = start_s
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
    """Decodes inputs in worker processes that may die; hands their samples out in input order, some inputs ahead.

    Buffers are bounded in bytes: a worker whose buffer is full is not listened to, and its pipe stops it. Workers start
    when there is something to decode.

    Args:
        num_workers: Processes; see `default_num_workers`.
        sampling_rate: To resample to, in Hz.
        options: Which part of each input.
        timeout_s: A worker that sends nothing for so long, while it is waited for, is killed.
        open_function: What opens a file in a worker, as ``module:function``; another one than `open_audio` in tests.
    """

    def __init__(
        self,
        num_workers: int,
        sampling_rate: int,
        options: PartOptions,
        timeout_s: float = 60.0,
        open_function: str = "ast_cli.audio.decode:open_audio",
    ) -> None:
        self.num_inputs_ahead = num_workers * INPUTS_AHEAD_PER_WORKER
        self.num_buffered_bytes = 0
        self._sampling_rate = sampling_rate
        self._options = options
        self._timeout_s = timeout_s
        self._settings = _packed(sampling_rate, options.start_s, options.duration_s, open_function)
        self._waiting: deque[Decoding] = deque()
        self._head: Decoding | None = None  # what is being read, or will be next
        self._workers: set[Worker] = set()
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

    def open_streams(self, inputs: Iterable[Input]) -> Iterator[tuple[Input, Callable[[], SampleStream]]]:
        """Yield every input once, in order, with what opens it.

        An input's stream is to be read before the next input is asked for; then what is left of it is given up.

        Args:
            inputs: Taken from lazily, at most ``num_inputs_ahead`` beyond the one yielded.

        Yields:
            An input and a function that returns its samples, or raises the AudioError that says why there are none.
        """
        remaining = iter(inputs)
        ahead: deque[tuple[Input, Decoding]] = deque()
        try:
            while True:
                self._look_ahead(remaining, ahead)
                if not ahead:
                    return
                item, decoding = ahead[0]
                self._put_first(decoding)
                yield item, partial(self._open, item, decoding)
                self.abandon(decoding)
                ahead.popleft()
        finally:
            for _, decoding in ahead:
                self.abandon(decoding)

    def _look_ahead(self, remaining: Iterator[Input], ahead: deque[tuple[Input, Decoding]]) -> None:
        """Take inputs until there are enough, and queue those that a worker can decode."""
        while len(ahead) <= self.num_inputs_ahead:
            item = next(remaining, None)
            if item is None:
                return
            decoding = Decoding(item.path)
            ahead.append((item, decoding))
            if item.error is None and item.path != STDIN:
                with self._lock:
                    self._waiting.append(decoding)
                    self._queued.notify()

    def _put_first(self, decoding: Decoding) -> None:
        with self._lock:
            self._head = decoding
            self._room.notify_all()

    def _open(self, item: Input, decoding: Decoding) -> SampleStream:
        """Return an input's stream, as soon as it is known that it can be opened."""
        if item.error is not None:
            raise AudioError(item.error.code, item.error.message)
        start_s = self._options.start_s
        if item.path == STDIN:
            return open_audio(sys.stdin.buffer.read(), self._sampling_rate, start_s, self._options.duration_s)
        with self._lock:
            self._wait_for(decoding, lambda: decoding.opening is not None or decoding.is_complete)
            if decoding.opening is not None:
                return PooledStream(self, decoding, decoding.opening, start_s)
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
        if self._failure is not None:
            raise self._failure
        if decoding.is_abandoned or self._closing.is_set():
            raise ValueError(given_up)

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
        """Decode one input after another in a worker of this thread's own, until the pool closes."""
        worker: Worker | None = None
        try:
            while (decoding := self._next_decoding()) is not None:
                worker = self._decode(decoding, worker)
        except BaseException as error:  # raised again where samples are waited for, instead of waiting for ever
            with self._lock:
                self._failure = error
                self._arrived.notify_all()
        finally:
            if worker is not None:
                worker.kill()
                self._end_worker(worker)

    def _next_decoding(self) -> Decoding | None:
        """Wait for an input to decode; None when the pool closes."""
        with self._lock:
            while True:
                self._queued.wait_for(lambda: self._waiting or self._closing.is_set())
                if self._closing.is_set():
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
                for message in worker.decode(decoding.path, self._timeout_s):
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
            return AudioError(ErrorCode.TIMEOUT, f"{decoding.path}: {reason}")
        return AudioError(ErrorCode.WORKER_CRASHED, f"{decoding.path}: the decoder crashed on it ({ending})")

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
        raise AstError(f"the process that decodes audio does not start ({ending}); try fewer workers")

    def _end_worker(self, worker: Worker) -> str:
        with self._lock:
            self._workers.discard(worker)
        return worker.close()

    def _deliver(self, decoding: Decoding, message: Message) -> bool:
        """Hand a message on, once there is room for it; return whether more is wanted."""
        with self._lock:
            if message.kind == BLOCK:
                size = message.content.nbytes
                self._room.wait_for(lambda: self._is_unwanted(decoding) or self._has_room(decoding, size))
            if self._is_unwanted(decoding):
                return False
            if message.kind == BLOCK:
                decoding.blocks.append((message.duration_s, message.content))
                self._count_bytes(decoding, message.content.nbytes)
            elif message.kind == OPENING:
                decoding.opening = (message.content[0], message.content[1])
            elif message.kind == CLOSING:
                decoding.closing = (message.duration_s, {WarningCode(code) for code in message.content})
            else:
                decoding.error = AudioError(ErrorCode(message.content[0]), message.content[1])
            self._arrived.notify_all()
            return True

    def _is_unwanted(self, decoding: Decoding) -> bool:
        return decoding.is_abandoned or self._closing.is_set()

    def _has_room(self, decoding: Decoding, num_bytes: int) -> bool:
        """Tell whether a block may be kept: within both bounds, or it is the one that is waited for."""
        if decoding is self._head and not decoding.blocks:
            return True
        in_input = decoding.num_bytes + num_bytes <= INPUT_BUFFER_BYTES
        return in_input and self.num_buffered_bytes + num_bytes <= POOL_BUFFER_BYTES
