"""The list of inputs of a run, from the arguments of its user: files, folders, patterns, lists, standard input.

Each input appears once, by its real path; an argument that matches no file is listed with an error. Standard library
only.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ast_cli.audio.channels import Channels
from ast_cli.errors import ErrorCode, UsageError
from ast_cli.results import FileError
from ast_cli.tagging.options import WindowOptions

STDIN = "-"
# Files that the search of a folder takes for audio, video included; a file named explicitly may have any name.
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
        path: Path as the user named it, or as the search of a folder found it; ``-`` for standard input.
        error: Reason why the input could not even be listed; else None.
        listed: Whether the file existed when the inputs were listed; if it is missing later, it has vanished.
        is_pattern: Whether this is a pattern that matches nothing.
        part: Part of this input to read, by ``start_s`` and ``duration_s``; None for the part in the run's options.
        channels: Channels of this input to read; None for those in the run's options.
        is_link: Whether the path is a symbolic link; None if that is unknown.
    """

    path: str
    error: FileError | None = None
    listed: bool = False
    is_pattern: bool = False
    part: WindowOptions | None = None
    channels: Channels | None = None
    is_link: bool | None = field(default=None, compare=False)

    def part_in(self, run: WindowOptions) -> WindowOptions:
        """Return the part of this input that a run with these options reads."""
        return run if self.part is None else self.part


class RealPaths:
    """Function from inputs to their real paths, which identify them; caches folders, since there are few of them."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}  # real paths, with a separator at the end

    def __call__(self, item: Input) -> str:
        """Return the real path of an input; ``-`` for standard input."""
        folder, name = os.path.split(item.path)
        if item.path == STDIN:
            return STDIN
        is_link = os.path.islink(item.path) if item.is_link is None else item.is_link
        if is_link or name in ("", ".", ".."):
            return os.path.realpath(item.path)
        if folder not in self._folders:
            self._folders[folder] = os.path.join(os.path.realpath(folder), "")
        return self._folders[folder] + name


class Exclusion:
    """Decides what the search of folders and patterns leaves out.

    Args:
        patterns: Glob patterns. One without a slash is compared with the names of files and folders, one with a slash
            with the end of their paths. A folder that matches is not searched.

    Raises:
        UsageError: If a pattern is empty.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._names: list[str] = []
        self._paths: list[str] = []
        for pattern in patterns:
            pattern = with_slashes(pattern).rstrip("/") if os.sep == "\\" else pattern.rstrip("/")
            if not pattern:
                raise UsageError("--exclude is empty: give a pattern such as '*.flac' or 'drafts'")
            (self._paths if "/" in pattern else self._names).append(pattern)

    def __call__(self, path: str) -> bool:
        """Return whether a file or folder is left out."""
        name = os.path.basename(path)
        return any(fnmatch.fnmatch(name, pattern) for pattern in self._names) or any(
            fnmatch.fnmatch(path, pattern) or fnmatch.fnmatch(path, f"*/{pattern}") for pattern in self._paths
        )


def list_inputs(paths: Iterable[str], *, literal: bool = False, exclude: Iterable[str] = ()) -> Iterator[Input]:
    """List the inputs that paths name: folders are searched, patterns expanded, repeated files merged.

    The search of a folder takes files with the suffix of an audio or video format. It leaves out hidden files and
    folders, whose names begin with a dot; macOS writes such a ``._x.wav`` beside each file on foreign disks. A file
    that is named explicitly is always taken.

    Args:
        paths: Files, folders, glob patterns, or ``-``.
        literal: Whether names with ``*?[`` are names, not patterns, as in a list of files; a name with backslashes
            that does not exist is then tried with slashes, since it may have been written on Windows.
        exclude: Patterns of files and folders that are left out, see `Exclusion`.

    Yields:
        Inputs in the order of the paths; those of a folder are sorted by name.

    Raises:
        UsageError: If a pattern to exclude is empty.
    """
    excluded = Exclusion(exclude)
    yield from merged(found for path in paths for found in _expand(path, excluded, literal=literal))


def merged(inputs: Iterable[Input]) -> Iterator[Input]:
    """Leave out repeated inputs, by real path: two symbolic links to a file are one input, two hard links are two.

    Different parts of one file are different inputs.
    """
    seen: set[tuple[str, WindowOptions | None]] = set()
    real_path = RealPaths()
    for item in inputs:
        identity = (real_path(item), item.part)
        if identity not in seen:
            seen.add(identity)
            yield item


def _expand(path: str, excluded: Exclusion, *, literal: bool) -> Iterator[Input]:
    """List the inputs of one argument."""
    if path == STDIN:
        yield Input(STDIN)
    elif os.path.isdir(path):
        yield from _walk(path, excluded)
    elif os.path.lexists(path):
        yield Input(path, listed=True)
    elif glob.has_magic(path) and not literal:
        matches = sorted(_matches(path, excluded), key=lambda item: item.path)
        for match in matches:
            is_folder = match.error is None and os.path.isdir(match.path)
            yield from _walk(match.path, excluded) if is_folder else iter([match])
        if not matches:
            yield Input(path, FileError(ErrorCode.NOT_FOUND, f"{path}: nothing matches"), is_pattern=True)
    elif literal and os.path.lexists(with_slashes(path)):
        yield from _expand(with_slashes(path), excluded, literal=True)
    else:
        yield Input(path)


def with_slashes(path: str) -> str:
    """Return a path with slashes in place of backslashes."""
    return path.replace("\\", "/")


def _matches(pattern: str, excluded: Exclusion) -> Iterator[Input]:
    """List the matches of a pattern as `glob.glob` does, except that a folder that cannot be read is an error.

    ``**`` enters each real folder once, even if links lead to it.
    """
    drive, path = os.path.splitdrive(pattern)
    parts = re.split(r"[\\/]+" if os.sep == "\\" else "/+", path)
    root = drive if parts[0] else drive + os.sep
    yield from _matches_below(root, parts if parts[0] else parts[1:], excluded)


def _matches_below(folder: str, parts: list[str], excluded: Exclusion) -> Iterator[Input]:
    """List the matches of the remaining parts of a pattern in a folder."""
    if not parts:
        if not excluded(folder):
            yield Input(folder, listed=True)
        return
    part, *rest = parts
    if not glob.has_magic(part):
        path = os.path.join(folder, part)
        if os.path.lexists(path):
            yield from _matches_below(path, rest, excluded)
    elif not os.path.isdir(folder or os.curdir):
        return
    elif part == "**":
        for found in _folders(folder, excluded):
            yield from [found] if isinstance(found, Input) else _matches_below(found, rest or ["*"], excluded)
    else:
        for entry in _entries(folder or os.curdir, set()):
            if isinstance(entry, Input):
                yield entry
            elif fnmatch.fnmatch(entry.name, part) and (part.startswith(".") or not is_hidden(entry.name)):
                path = os.path.join(folder, entry.name)
                if not excluded(path):
                    yield from _matches_below(path, rest, excluded)


def _folders(start: str, excluded: Exclusion) -> Iterator[str | Input]:
    """Yield a folder and all folders below it, each real one once; hidden ones are left out, as by `glob.glob`."""
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
            below = [os.path.join(folder, name) for name in reversed(names) if not is_hidden(name)]
            pending += [path for path in below if not excluded(path)]


def no_audio_found(named: Iterable[str]) -> str:
    """Return the error message for folders and patterns that contain no audio file."""
    return f"no audio file found in {', '.join(named)}; folders are searched by suffix"


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden by its name."""
    return name.startswith(".")


def _walk(folder: str, excluded: Exclusion) -> Iterator[Input]:
    """List the audio files below a folder in the order of their names; a folder with several links is searched once."""
    walked: set[tuple[int, int]] = set()
    levels: list[Iterator[os.DirEntry[str] | Input]] = [iter(_entries(folder, walked))]
    while levels:  # no recursion: folders may be nested deeper than Python's calls
        entry = next(levels[-1], None)
        if entry is None:
            levels.pop()
        elif isinstance(entry, Input):
            yield entry
        elif is_hidden(entry.name) or excluded(entry.path):
            continue
        elif _is_folder(entry):
            levels.append(iter(_entries(entry.path, walked)))
        elif os.path.splitext(entry.name)[1].lower() in AUDIO_EXTENSIONS:
            yield Input(entry.path, listed=True, is_link=entry.is_symlink())


def _entries(folder: str, walked: set[tuple[int, int]]) -> list[os.DirEntry[str]] | list[Input]:
    """Return the entries of a folder, sorted by name; none if it was visited before, an error if it cannot be read."""
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
    except OSError:  # a link to itself, or into a folder without read permission
        return False


def read_file_list(content: bytes, *, nul_separated: bool = False) -> list[str]:
    """Return the paths of a list, one on each line, or separated by NUL so that names may contain newlines.

    Raises:
        UsageError: If a list of lines contains a NUL.
    """
    if not nul_separated and b"\0" in content:
        raise UsageError("the list of files contains NUL characters: if they separate its paths, add -0")
    parts = content.split(b"\0") if nul_separated else content.splitlines()
    return [os.fsdecode(part) for part in parts if part]
