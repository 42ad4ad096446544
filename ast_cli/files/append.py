"""An append-only file that can be cut back to its last confirmed position. Standard library only."""

from __future__ import annotations

import contextlib
import os
import stat
import zlib
from pathlib import Path

from ast_cli.files.atomic import writing


class AppendFile:
    """An append-only file, written without a buffer, that can be cut back to its last confirmed position."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = -1
        self.is_regular = False
        self.confirmed_end = self.end = 0  # in bytes
        self.crc32 = 0  # checksum of the bytes that are not confirmed yet
        self.remedy = ""  # end of the message about a failed write: what the user can do

    def open(self, num_bytes: int) -> None:
        """Create the file, or open an existing one and keep only its first ``num_bytes`` bytes."""
        self._open(self.path)
        self.confirmed_end = num_bytes
        self.cut_back()

    def reopen(self, path: Path) -> None:
        """Reopen the file after it was closed and renamed, and continue at the same position."""
        self.path = path
        self._open(path)

    def _open(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        with writing(path, self.remedy):
            self.descriptor = os.open(path, flags, 0o666)
            self.is_regular = stat.S_ISREG(os.fstat(self.descriptor).st_mode)

    def append(self, data: bytes) -> None:
        """Append all of the data and add it to the checksum."""
        self.crc32 = zlib.crc32(data, self.crc32)
        rest = memoryview(data)
        with writing(self.path, self.remedy):
            while rest:
                rest = rest[os.write(self.descriptor, rest) :]
        self.end += len(data)

    def confirm(self) -> None:
        """Mark everything written so far as confirmed."""
        self.confirmed_end, self.crc32 = self.end, 0

    def cut_back(self) -> None:
        """Truncate the file to its confirmed part."""
        self.end, self.crc32 = self.confirmed_end, 0
        if self.is_regular and self.descriptor >= 0:
            with writing(self.path, self.remedy):
                os.ftruncate(self.descriptor, self.confirmed_end)

    def sync(self) -> None:
        """Wait until everything written is on the disk (fsync)."""
        if self.is_regular and self.descriptor >= 0:
            with writing(self.path, self.remedy):
                os.fsync(self.descriptor)

    def close(self) -> None:
        """Close the file if it is open; there is no buffer to flush."""
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to the disk (fsync), on systems that can open folders."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
