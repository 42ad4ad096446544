"""The main process's side of a worker process: start it, send requests, read messages, enforce the timeout, end it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ast_cli.errors import DEBUG_VARIABLE
from ast_cli.tagging.decode.worker import BLOCK, CLOSING, FAILURE, HEADER, Request, packed

START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 0.5  # between the end of the pipe and the end of the process
# Only the sys.path of the main process: the current folder may contain a numpy.py.
WORKER_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from ast_cli.tagging.decode.worker import work; work()"


class Message(NamedTuple):
    """A message from a worker.

    Attributes:
        kind: Kind of the message: ``READY``, ``OPENING``, ``BLOCK``, ``CLOSING`` or ``FAILURE``.
        duration_s: Seconds of the file that are decoded so far.
        content: Float32 samples of a block; parsed JSON of the other kinds.
    """

    kind: bytes
    duration_s: float
    content: Any


class WorkerDied(Exception):  # noqa: N818
    """A worker ended or was killed before its work was complete."""


class Worker:
    """A worker process; only one thread exchanges messages with it, but any thread may kill it."""

    def __init__(self, settings: bytes) -> None:
        self.timed_out = False
        self._deadline = math.inf
        self._lock = threading.Lock()
        # Workers only mix and resample: without this, OpenBLAS would start a thread and a buffer for each core.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        flags = [f"-Xutf8={sys.flags.utf8_mode}"]  # so that both processes encode file names in the same way
        self._process = subprocess.Popen(
            [sys.executable, *flags, "-c", WORKER_PROGRAM, *(path for path in sys.path if isinstance(path, str))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get(DEBUG_VARIABLE) else subprocess.DEVNULL,
            env=environment,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests = self._process.stdin
        self._messages = self._process.stdout
        self._settings = settings

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Wait until the process has imported what it needs.

        Raises:
            WorkerDied: If the process ended before that, or is not ready in time.
        """
        self._write(self._settings)
        self._read_message(START_TIMEOUT_S)

    def decode(self, request: Request, timeout_s: float) -> Iterator[Message]:
        """Yield the messages about a file in order; the last is a closing or a failure.

        Raises:
            WorkerDied: If the worker crashed, or was killed because it sent nothing for ``timeout_s``.
        """
        self._write(packed(*request))
        while True:
            message = self._read_message(timeout_s)
            yield message
            if message.kind in (CLOSING, FAILURE):
                return

    def skip_rest(self) -> None:
        """Make the worker stop decoding the current file."""
        self._write(b"null")

    def kill_if_overdue(self) -> None:
        """Kill the process if its next message is overdue; the thread that waits for it then raises `WorkerDied`."""
        with self._lock:
            if time.monotonic() > self._deadline:
                self.timed_out = True
                self._process.kill()

    def kill(self) -> None:
        """End the process at once; it holds no data that must be kept."""
        self._process.kill()

    def close(self) -> str:
        """Wait briefly for the process to end, else kill it, and release the pipes; return how it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_TIMEOUT_S)
        self._process.kill()
        code = self._process.wait()
        with contextlib.suppress(OSError):  # fails if the process did not read its last request
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
