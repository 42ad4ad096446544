"""The program of a worker process: it reads requests, and sends the samples of one file after another.

A worker stays light: it never imports torch. Requests are lines of JSON on its standard input; answers are numbers and
JSON on its standard output. Nothing is pickled, so that a hijacked decoder gains no control of the main process.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import logging
import os
import signal
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ast_cli.errors import DEBUG_VARIABLE, AudioError, ErrorCode, internal_error

if TYPE_CHECKING:
    from ast_cli.audio.channels import Channels
    from ast_cli.audio.sample_stream import SampleStream

MESSAGE_SAMPLES = 65_536  # per channel; small blocks are joined, because every message wakes two threads
NICENESS = 10
PR_SET_PDEATHSIG = 1  # linux/prctl.h

logger = logging.getLogger(__name__)

# A message begins with its kind, the seconds decoded so far, and the number of bytes that follow.
HEADER = struct.Struct("<cdI")
READY, OPENING, BLOCK, CLOSING, FAILURE = b"R", b"O", b"B", b"C", b"F"

OpenFunction = Callable[[str | bytes, int, float, float | None, "Channels"], "SampleStream"]


class Request(NamedTuple):
    """A request to decode a file.

    Attributes:
        path: Path of the file.
        sampling_rate: Sampling rate of the decoded samples in Hz.
        start_s: Start of the part to decode, in seconds.
        duration_s: Length of the part in seconds; None for the rest of the file.
        channels: Channels to decode. With ``each`` a block contains the samples of every channel, one after another.
        content_file: Path of the file with the content of standard input; None for other inputs.
    """

    path: str
    sampling_rate: int
    start_s: float
    duration_s: float | None
    channels: Channels
    content_file: str | None


def work() -> None:
    """Run a worker: decode the files of the requests on standard input, each a `Request` as one line of JSON.

    The first line names the function that opens a file. A line ``null`` ends the current file early.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # both reach the whole process group; the main process decides
        signal.signal(number, signal.SIG_IGN)
    _die_with_parent()
    _lower_priority()
    if os.environ.get(DEBUG_VARIABLE):
        logging.basicConfig(level=logging.DEBUG)
    send = partial(_send, _take_stdout())
    (open_function,) = json.loads(sys.stdin.buffer.readline())
    module, _, name = open_function.partition(":")
    open_stream: OpenFunction = getattr(importlib.import_module(module), name)
    requests: SimpleQueue[Request | None] = SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    send(READY)
    while True:
        request = requests.get()
        if request is not None:
            _decode(request.path, partial(_open, open_stream, request), requests, send)


def _open(open_stream: OpenFunction, request: Request) -> SampleStream:
    path, sampling_rate, start_s, duration_s, channels, content_file = request
    source = path if content_file is None else Path(content_file).read_bytes()
    return open_stream(source, sampling_rate, start_s, duration_s, channels)


def _die_with_parent() -> None:
    """Make the kernel kill this process with its parent, even inside a decoder that lets no thread run (Linux)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # without prctl, the closed pipe still ends the worker
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _lower_priority() -> None:
    """Let the model's threads run first: one that waits for a core delays all of them, while workers decode ahead."""
    if hasattr(os, "nice"):  # not on Windows
        with contextlib.suppress(OSError):
            os.nice(NICENESS)


def _take_stdout() -> BinaryIO:
    """Return standard output for messages, and discard what C libraries print there."""
    messages = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
    return messages


def _read_requests(requests: SimpleQueue[Request | None]) -> None:
    """Pass requests on; exit when the main process has ended, even in the middle of a file."""
    for line in sys.stdin.buffer:
        fields = json.loads(line)
        requests.put(None if fields is None else Request(*fields))
    os._exit(0)


def _send(messages: BinaryIO, kind: bytes, duration_s: float = 0.0, content: bytes | memoryview = b"") -> None:
    try:
        messages.write(HEADER.pack(kind, duration_s, len(content)))
        messages.write(content)
        messages.flush()
    except OSError:  # the main process has closed the pipe
        os._exit(0)


def _decode(
    path: str, open_stream: Callable[[], SampleStream], requests: SimpleQueue[Request | None], send: Callable[..., None]
) -> None:
    """Decode and send one file: an opening, blocks, and either a closing or a failure."""
    try:
        with contextlib.closing(open_stream()) as stream:
            send(OPENING, content=packed(stream.sampling_rate, stream.num_channels, stream.header_duration_s))
            for samples in _joined(stream):
                send(BLOCK, stream.duration_s, samples.data.cast("B"))
                if not requests.empty():
                    break
        send(CLOSING, stream.duration_s, packed(*sorted(stream.warnings)))
    except AudioError as error:
        send(FAILURE, content=packed(error.code, str(error)))
    except MemoryError:
        send(FAILURE, content=packed(ErrorCode.OUT_OF_MEMORY, f"{path}: not enough memory to decode it"))
    except Exception as error:  # a bug costs only this file, not the run
        logger.debug("%s: internal error", path, exc_info=error)
        bug = internal_error(path, error)
        send(FAILURE, content=packed(bug.code, str(bug)))


def _joined(stream: SampleStream) -> Iterator[NDArray[np.float32]]:
    """Yield the samples in blocks of at least ``MESSAGE_SAMPLES`` each, except for the last."""
    parts: list[NDArray[np.float32]] = []
    num_samples = 0
    for block in stream:
        parts.append(block)
        num_samples += block.shape[-1]
        if num_samples >= MESSAGE_SAMPLES:
            yield _concatenated(parts)
            parts.clear()
            num_samples = 0
    if num_samples:
        yield _concatenated(parts)


def _concatenated(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Join blocks along their samples, one channel after another in memory."""
    return np.ascontiguousarray(np.concatenate(parts, axis=-1, dtype=np.float32))


def packed(*values: Any) -> bytes:
    """Return values as JSON in ASCII; file names that are not UTF-8 survive as escaped surrogates."""
    return json.dumps(values).encode("ascii")
