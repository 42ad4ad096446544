"""The main process's side of one worker process: starting it, asking it, watching over it, burying it."""

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
END_TIMEOUT_S = 0.5  # between a closed pipe and the end of its process
# The main process's own sys.path and no other: the current folder may hold a numpy.py.
WORKER_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from ast_cli.tagging.decode.worker import work; work()"


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
        """The process's number."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Wait until the process has imported what it needs.

        Raises:
            WorkerDied: It could not.
        """
        self._write(self._settings)
        self._read_message(START_TIMEOUT_S)

    def decode(self, request: Request, timeout_s: float) -> Iterator[Message]:
        """Yield what the worker says about a file, in order; ends with its closing or its failure.

        Raises:
            WorkerDied: It crashed, or sent nothing for ``timeout_s`` while it was waited for.
        """
        self._write(packed(*request))
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
