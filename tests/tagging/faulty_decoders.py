"""Decoders that fail as the name of the file says. Workers import this module, so it must not import torch."""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ast_cli.audio.channels import Channels
from ast_cli.audio.decode import AudioStream, open_audio
from ast_cli.errors import AudioError, ErrorCode, WarningCode
from ast_cli.tagging.decode.pool import DecodePool
from ast_cli.tagging.decode.worker import MESSAGE_SAMPLES

RATE = 16000  # Hz
FAULTY = "faulty_decoders:open_faulty"


def faulty_pool(num_workers: int = 2, timeout_s: float = 60.0) -> DecodePool:
    return DecodePool(num_workers, timeout_s, FAULTY)


class FaultyPool(DecodePool):
    """A pool with these decoders, to replace `DecodePool` anywhere."""

    def __init__(self, num_workers: int, timeout_s: float = 60.0, *, start_now: bool = False) -> None:
        super().__init__(num_workers, timeout_s, FAULTY, start_now=start_now)


class FaultyStream:
    """A stream of blocks from a generator, as if from a stereo file at 44.1 kHz."""

    def __init__(self, blocks: Iterator[np.ndarray[Any, Any]]) -> None:
        self.sampling_rate, self.num_channels, self.start_s, self.duration_s = 44100, 2, 0.0, 0.0
        self.header_duration_s = None
        self.warnings: set[WarningCode] = set()
        self.blocks = blocks

    def __iter__(self) -> Iterator[np.ndarray[Any, Any]]:
        for block in self.blocks:
            self.duration_s += block.size / RATE
            yield block

    def close(self) -> None:
        pass


def crash_after(num_blocks: int) -> Iterator[np.ndarray[Any, Any]]:
    yield from itertools.repeat(np.ones(MESSAGE_SAMPLES, np.float32), num_blocks)
    os._exit(9)


def open_faulty(
    path: str | bytes, rate: int, start_s: float, duration_s: float | None, channels: Channels
) -> AudioStream | FaultyStream:
    """Fail as the name of the file says; decode files with other names normally."""
    if isinstance(path, bytes):  # the content of standard input
        if path.startswith(b"crash"):
            os.kill(os.getpid(), signal.SIGSEGV)
        return open_audio(path, rate, start_s, duration_s, channels)
    fault = Path(path).stem.partition("_")[0]
    if fault == "exit":
        os._exit(7)
    if fault == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if fault == "exit-once" and not Path(path + ".tried").exists():
        Path(path + ".tried").touch()
        os._exit(7)
    if fault == "exit-late":
        return FaultyStream(crash_after(3))
    if fault == "hang":
        time.sleep(1000)
    if fault == "report-and-hang":
        Path(path).write_text(f"{os.getpid()}\n")  # a FIFO: the test waits at its other end
        time.sleep(1000)
    if fault == "report-and-hold":
        Path(path).write_text(f"{os.getpid()}\n")
        ctypes.PyDLL(None).sleep(1000)  # with the interpreter's lock held: no other thread of the worker runs
    if fault == "memory":
        raise MemoryError
    if fault == "bug":
        raise KeyError("x" * 2000)
    if fault == "endless":
        return FaultyStream(itertools.repeat(np.zeros(1000, np.float32)))
    if fault == "long":  # two hours
        return FaultyStream(itertools.repeat(np.zeros(MESSAGE_SAMPLES, np.float32), 2000))
    if fault == "noisy":
        os.write(1, b"printed by a C library")
        os.write(2, b"complained by a C library")
    if fault == "modules":
        raise AudioError(ErrorCode.DECODE_ERROR, " ".join(sorted(sys.modules)))
    return open_audio(path, rate, start_s, duration_s, channels)
