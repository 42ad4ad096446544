"""Runs of the command that need not import the libraries behind it, each in a process of its own.

Importing torch takes seconds, and most of these tests wait for little else. A server imports it once and forks a
process for each run. There is a server for commands without torch too, as to fork and end a process with torch takes
longer than the imports that are left, and one with all that training and evaluation import. What tests of start-up,
imports and signals need is a cold start: `subprocess` gives that.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CAN_FORK = sys.platform == "linux"
MAX_REQUEST_BYTES = 1 << 17
LIBRARIES = ("numpy", "safetensors.numpy", "soundfile", "soxr", "typer", "typer._adapters")  # the last: newer typers
WITH_TORCH = (*LIBRARIES, "safetensors.torch")
TO_TRAIN = (*WITH_TORCH, "torch._dynamo", "sklearn.metrics", "scipy.stats", "matplotlib.figure")
# The first of these words in a command tells what it imports; a wrong guess costs seconds and changes no result.
LIBRARIES_OF_WORDS = dict.fromkeys(("finetune", "evaluate"), TO_TRAIN) | dict.fromkeys(
    ("benchmark", "doctor", "extract", "stats", "torch", "--device", "--dtype"), WITH_TORCH
)


def libraries_for(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the libraries that a command is likely to import."""
    return next((LIBRARIES_OF_WORDS[word] for word in arguments if word in LIBRARIES_OF_WORDS), LIBRARIES)


class WarmPython:
    """A server that has libraries imported; use as a context manager."""

    def __init__(self, libraries: Sequence[str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, str(Path(__file__)), str(theirs.fileno()), *libraries]
            # Pipes, as the runs will have: Python finds out at its start whether its streams can be sought.
            pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
            self._server = subprocess.Popen(command, pass_fds=[theirs.fileno()], **pipes)
        self._turn = threading.Lock()

    def __enter__(self) -> WarmPython:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._server.communicate()

    def run(
        self, arguments: Sequence[str], *, stdin: bytes, cwd: str, env: Mapping[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[bytes]:
        """Run ``python -m ast_cli`` with arguments, as `subprocess.run` does with captured output."""
        request = json.dumps([list(arguments), cwd, dict(env)]).encode()
        pipes = [os.pipe() for _ in range(3)]
        theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
        with self._turn, ThreadPoolExecutor(3) as threads:
            try:
                socket.send_fds(self._socket, [request], theirs)
                pid = int(self._socket.recv(32))
            finally:
                for fd in theirs:
                    os.close(fd)
            killer = threading.Timer(timeout_s, os.kill, (pid, signal.SIGKILL))
            killer.start()
            threads.submit(_write, pipes[0][1], stdin)
            outputs = [threads.submit(_read, pipe[0]) for pipe in pipes[1:]]
            status = int(self._socket.recv(32))
            killer.cancel()
            stdout, stderr = (output.result(timeout=10) for output in outputs)
        return subprocess.CompletedProcess(list(arguments), status, stdout, stderr)


def _write(fd: int, content: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), open(fd, "wb") as stream:
        stream.write(content)


def _read(fd: int) -> bytes:
    with open(fd, "rb") as stream:
        return stream.read()


def _serve(connection: socket.socket) -> None:
    """Fork one process after another, and send the process id and exit status of each."""
    for name in sys.argv[2:]:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    while True:
        request, fds, _, _ = socket.recv_fds(connection, MAX_REQUEST_BYTES, 3)
        if not request:
            return
        pid = os.fork()
        if pid == 0:
            connection.close()
            _become(fds, *json.loads(request))
        for fd in fds:
            os.close(fd)
        connection.send(b"%d" % pid)
        connection.send(b"%d" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _become(fds: Sequence[int], arguments: list[str], cwd: str, env: dict[str, str]) -> None:
    """Be ``python -m ast_cli`` from here on."""
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[0] = cwd  # as with -m
    sys.argv[1:] = arguments
    runpy.run_module("ast_cli", run_name="__main__", alter_sys=True)
    sys.exit(0)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
