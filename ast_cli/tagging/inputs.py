"""From what a person names to a list of inputs: files, folders, globs, lists of files, standard input.

Standard library only. Every input appears once, by real path; nothing that was named disappears without a word.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ast_cli.errors import ErrorCode, UsageError
from ast_cli.results import FileError
from ast_cli.tagging.options import WindowOptions

STDIN = "-"
# What a folder walk takes for audio, video with a sound track included; files named one by one may have any name.
AUDIO_EXTENSIONS = frozenset(
    ".3g2 .3gp .8svx .aa3 .aac .ac3 .adts .adx .aif .aifc .aiff .amr .ape .asf .au .avi .avr .awb .bwf .caf .dff .dsf "
    ".dts .dtshd .eac3 .ec3 .f4a .f4v .flac .flv .g722 .gsm .iff .ircam .m2ts .m4a .m4b .m4r .m4v .mka .mkv .mlp .mov "
    ".mp1 .mp2 .mp3 .mp4 .mpa .mpc .mpeg .mpg .mts .mxf .nist .nut .oga .ogg .ogm .ogv .ogx .oma .opus .paf .pvf .qcp "
    ".ra .rf64 .rm .rmvb .sd2 .sds .shn .sln .snd .sph .spx .svx .tak .thd .tta .voc .vob .vox .w64 .wav .wave .weba "
    ".webm .wma .wmv .wv .wve".split()
)


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a run.

    Attributes:
        path: As it was named, or as the walk found it below a folder that was named; ``-`` for standard input.
        error: Set where listing it already failed.
        listed: Whether it was there when the inputs were listed; a file gone since then has vanished.
        is_pattern: Whether it is a pattern that matches nothing.
        part: What to read of this input alone, its ``start_s`` and ``duration_s``; None for what the run's options say.
        is_link: Whether its name is a symbolic link; None where nobody has looked.
    """

    path: str
    error: FileError | None = None
    listed: bool = False
    is_pattern: bool = False
    part: WindowOptions | None = None
    is_link: bool | None = field(default=None, compare=False)

    def part_in(self, run: WindowOptions) -> WindowOptions:
        """Return the part to read in a run with these options."""
        return run if self.part is None else self.part


class RealPaths:
    """Finds what inputs are known by, however they were named; remembers folders, of which there are few."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}  # each with a separator at its end

    def __call__(self, item: Input) -> str:
        """Return an input's real path; ``-`` for standard input."""
        folder, name = os.path.split(item.path)
        if item.path == STDIN:
            return STDIN
        is_link = os.path.islink(item.path) if item.is_link is None else item.is_link
        if is_link or name in ("", ".", ".."):
            return os.path.realpath(item.path)
        if folder not in self._folders:
            self._folders[folder] = os.path.join(os.path.realpath(folder), "")
        return self._folders[folder] + name


def list_inputs(paths: Iterable[str], *, literal: bool = False) -> Iterator[Input]:
    """List what was named: folders are walked, patterns expanded, repeated and overlapping arguments merged.

    Args:
        paths: Files, folders, glob patterns, or ``-``.
        literal: Take names with ``*?[`` as they are, as from a list of files; one that is not there and holds
            backslashes may have been written on Windows.

    Yields:
        Inputs in the order named, those of a folder sorted by name.
    """
    yield from merged(found for path in paths for found in _expand(path, literal=literal))


def merged(inputs: Iterable[Input]) -> Iterator[Input]:
    """Leave out inputs that were named before, by real path: links to one file are one input, hard links two.

    Parts of one file are inputs of their own.
    """
    seen: set[tuple[str, WindowOptions | None]] = set()
    real_path = RealPaths()
    for item in inputs:
        identity = (real_path(item), item.part)
        if identity not in seen:
            seen.add(identity)
            yield item


def _expand(path: str, *, literal: bool) -> Iterator[Input]:
    """List what one argument stands for."""
    if path == STDIN:
        yield Input(STDIN)
    elif os.path.isdir(path):
        yield from _walk(path)
    elif os.path.lexists(path):
        yield Input(path, listed=True)
    elif glob.has_magic(path) and not literal:
        matches = sorted(_matches(path), key=lambda item: item.path)
        for match in matches:
            is_folder = match.error is None and os.path.isdir(match.path)
            yield from _walk(match.path) if is_folder else iter([match])
        if not matches:
            yield Input(path, FileError(ErrorCode.NOT_FOUND, f"{path}: nothing matches"), is_pattern=True)
    elif literal and os.path.lexists(with_slashes(path)):
        yield from _expand(with_slashes(path), literal=True)
    else:
        yield Input(path)


def with_slashes(path: str) -> str:
    """Return a path as if it had been written on Windows: what holds no backslash is the same."""
    return path.replace("\\", "/")


def _matches(pattern: str) -> Iterator[Input]:
    """List what a pattern matches, as `glob.glob` does, but that a folder which cannot be read is an error.

    ``**`` enters each real folder once, whatever links lead to it.
    """
    drive, path = os.path.splitdrive(pattern)
    parts = re.split(r"[\\/]+" if os.sep == "\\" else "/+", path)
    root = drive if parts[0] else drive + os.sep
    yield from _matches_below(root, parts if parts[0] else parts[1:])


def _matches_below(folder: str, parts: list[str]) -> Iterator[Input]:
    """List what the rest of a pattern, part by part, matches in a folder."""
    if not parts:
        yield Input(folder, listed=True)
        return
    part, *rest = parts
    if not glob.has_magic(part):
        path = os.path.join(folder, part)
        if os.path.lexists(path):
            yield from _matches_below(path, rest)
    elif not os.path.isdir(folder or os.curdir):
        return
    elif part == "**":
        for found in _folders(folder):
            yield from [found] if isinstance(found, Input) else _matches_below(found, rest or ["*"])
    else:
        for entry in _entries(folder or os.curdir, set()):
            if isinstance(entry, Input):
                yield entry
            elif fnmatch.fnmatch(entry.name, part) and (part.startswith(".") or not entry.name.startswith(".")):
                yield from _matches_below(os.path.join(folder, entry.name), rest)


def _folders(start: str) -> Iterator[str | Input]:
    """Yield a folder and all below it, each real one once; hidden ones are left out, as by `glob.glob`."""
    walked: set[tuple[int, int]] = set()
    pending = [start]
    while pending:
        folder = pending.pop()
        num_walked = len(walked)
        entries = _entries(folder or os.curdir, walked)
        if entries and isinstance(entries[0], Input):
            yield entries[0]
        elif len(walked) > num_walked:
            yield folder
            names = [entry.name for entry in entries if isinstance(entry, os.DirEntry) and _is_folder(entry)]
            pending += [os.path.join(folder, name) for name in reversed(names) if not name.startswith(".")]


def _walk(folder: str) -> Iterator[Input]:
    """List the audio files below a folder, in order of name; a folder that links lead to again is walked once."""
    walked: set[tuple[int, int]] = set()
    levels: list[Iterator[os.DirEntry[str] | Input]] = [iter(_entries(folder, walked))]
    while levels:  # not by recursion: folders may be nested deeper than Python's calls
        entry = next(levels[-1], None)
        if entry is None:
            levels.pop()
        elif isinstance(entry, Input):
            yield entry
        elif _is_folder(entry):
            levels.append(iter(_entries(entry.path, walked)))
        elif os.path.splitext(entry.name)[1].lower() in AUDIO_EXTENSIONS:
            yield Input(entry.path, listed=True, is_link=entry.is_symlink())


def _entries(folder: str, walked: set[tuple[int, int]]) -> list[os.DirEntry[str]] | list[Input]:
    """Return what a folder holds, by name; nothing if it was walked before, an error if it cannot be read."""
    try:
        status = os.stat(folder)
        identity = (status.st_dev, status.st_ino)
        if identity in walked:
            return []
        walked.add(identity)
        with os.scandir(folder) as scan:
            return sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        code = ErrorCode.PERMISSION if isinstance(error, PermissionError) else ErrorCode.NOT_FOUND
        return [Input(folder, FileError(code, f"{folder}: the folder cannot be read ({error.strerror})"))]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that may not be read
        return False


def read_file_list(content: bytes, *, nul_separated: bool = False) -> list[str]:
    """Return the paths of a list: one a line, or separated by NUL, which alone allows newlines in names.

    Raises:
        UsageError: A NUL in a list of lines.
    """
    if not nul_separated and b"\0" in content:
        raise UsageError("the list of files holds NUL characters: is it NUL-separated? then add -0")
    parts = content.split(b"\0") if nul_separated else content.splitlines()
    return [os.fsdecode(part) for part in parts if part]
