"""A file that grows at its end and knows what of it is confirmed. Standard library only."""

from __future__ import annotations

import contextlib
import os
import stat
import zlib
from pathlib import Path

from ast_cli.files.atomic import writing


class AppendFile:
    """A file that grows at its end and knows what of it is confirmed; written through, without a buffer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = -1
        self.is_regular = False
        self.confirmed_end = self.end = 0  # in bytes
        self.crc32 = 0  # of what is not confirmed yet
        self.remedy = ""  # what can be done after a failed write, for the message

    def open(self, num_bytes: int) -> None:
        """Make the file, or keep the first bytes of it and cut off the rest."""
        self._open(self.path)
        self.confirmed_end = num_bytes
        self.cut_back()

    def reopen(self, path: Path) -> None:
        """Go on with a file that was closed and has another name now."""
        self.path = path
        self._open(path)

    def _open(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        with writing(path, self.remedy):
            self.descriptor = os.open(path, flags, 0o666)
            self.is_regular = stat.S_ISREG(os.fstat(self.descriptor).st_mode)

    def append(self, data: bytes) -> None:
        """Write all of the data."""
        self.crc32 = zlib.crc32(data, self.crc32)
        rest = memoryview(data)
        with writing(self.path, self.remedy):
            while rest:
                rest = rest[os.write(self.descriptor, rest) :]
        self.end += len(data)

    def confirm(self) -> None:
        """Keep what was written so far."""
        self.confirmed_end, self.crc32 = self.end, 0

    def cut_back(self) -> None:
        """Cut off what is not confirmed."""
        self.end, self.crc32 = self.confirmed_end, 0
        if self.is_regular and self.descriptor >= 0:
            with writing(self.path, self.remedy):
                os.ftruncate(self.descriptor, self.confirmed_end)

    def sync(self) -> None:
        """Wait until the disk has it."""
        if self.is_regular and self.descriptor >= 0:
            with writing(self.path, self.remedy):
                os.fsync(self.descriptor)

    def close(self) -> None:
        """Close the file; nothing waits to be written."""
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Bring new names to the disk, where the system lets folders be opened for it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
