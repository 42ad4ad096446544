"""The cache of digests returns a digest only for the same state of the same file."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

from ast_cli.files import cache
from ast_cli.files.cache import cache_folder, file_digest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="digests are not cached on Windows")


@pytest.fixture(autouse=True)
def memos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "SMALLEST_REMEMBERED", 4)
    monkeypatch.setattr(cache, "SETTLED_NS", 0)
    return tmp_path / "cache" / "digests"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which the number of bytes of each file read is appended."""
    counted: list[int] = []
    read = cache._digest

    def digest(stream: Any, num_bytes: int) -> bytes:
        counted.append(num_bytes)
        return read(stream, num_bytes)

    monkeypatch.setattr(cache, "_digest", digest)
    return counted


def sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def test_an_unchanged_file_is_read_once(tmp_path: Path, reads: list[int]) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"content")
    assert [file_digest(file) for _ in range(3)] == [sha256(b"content")] * 3
    assert reads == [7]
    assert file_digest(file, leave_out=3) == sha256(b"cont")  # another digest of the same file
    assert file_digest(file) == sha256(b"content")
    link = tmp_path / "link"
    link.symlink_to(file)
    assert file_digest(link) == sha256(b"content")
    assert reads == [7, 4, 7]


@pytest.mark.parametrize("how", ["in place", "replaced", "longer"])
def test_changed_content_is_noticed_although_size_and_time_are_restored(tmp_path: Path, how: str) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"content")
    assert file_digest(file) == sha256(b"content")
    status = file.stat()
    time.sleep(0.05)  # longer than a tick of the file system's clock, as SETTLED_NS is nothing here
    content = b"CONTENT+" if how == "longer" else b"CONTENT"
    if how == "replaced":
        (tmp_path / "other").write_bytes(content)
        os.replace(tmp_path / "other", file)
    else:
        file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file_digest(file) == sha256(content)


def test_changed_content_is_noticed_although_the_metadata_is_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some disk images give all files the same times, and successive files the same inode number."""
    file = tmp_path / "weights"
    file.write_bytes(b"content")
    status = file.stat()
    monkeypatch.setattr(cache.os, "fstat", lambda _number: status)
    assert file_digest(file) == sha256(b"content")
    file.write_bytes(b"CONTENT")
    assert file_digest(file) == sha256(b"CONTENT")


def test_digests_of_small_and_recently_changed_files_are_not_cached(
    tmp_path: Path, memos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"con")
    assert file_digest(file) == sha256(b"con")
    monkeypatch.setattr(cache, "SETTLED_NS", 2_000_000_000)
    file.write_bytes(b"content")
    assert file_digest(file) == sha256(b"content")
    assert not memos.exists()


@pytest.mark.parametrize("memo", [b"", b"[]", b"[[1], 2]", b'{"a": 1}', b"\xff", b'[[], "00"]', b'["x", "y", "z"]'])
def test_a_damaged_cache_file_is_replaced(tmp_path: Path, memos: Path, memo: bytes, reads: list[int]) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"content")
    file_digest(file)
    (written,) = memos.iterdir()
    kept = written.read_bytes()
    written.write_bytes(memo)
    assert file_digest(file) == sha256(b"content")
    assert written.read_bytes() == kept
    assert reads == [7, 7]


def test_without_a_cache_folder_files_are_read_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[int]
) -> None:
    monkeypatch.setenv("AST_CACHE", os.devnull)
    file = tmp_path / "weights"
    file.write_bytes(b"content")
    assert file_digest(file) == file_digest(file) == sha256(b"content")
    assert reads == [7, 7]
    with pytest.raises(FileNotFoundError):
        file_digest(tmp_path / "missing")


def test_the_cache_folder_follows_environment_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("AST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "ast"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "ast"
