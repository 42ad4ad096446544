"""From what a person names to a list of inputs: files, folders, globs, lists of files, standard input.

Standard library only. Every input appears once, by real path; nothing that was named disappears without a word.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ast_cli.errors import ErrorCode, UsageError
from ast_cli.results import FileError

STDIN = "-"
# What a folder walk takes for audio, video with a sound track included; files named one by one may have any name.
AUDIO_EXTENSIONS = frozenset(
    ".aac .ac3 .aif .aifc .aiff .amr .ape .au .avi .caf .dts .eac3 .flac .flv .gsm .m4a .m4b .m4v .mka .mkv .mov .mp1 "
    ".mp2 .mp3 .mp4 .mpc .mpeg .mpg .oga .ogg .ogv .opus .ra .rf64 .rm .snd .spx .tta .voc .w64 .wav .wave .webm .wma "
    ".wmv .wv".split()
)


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a run.

    Attributes:
        path: As it was named, or as the walk found it below a folder that was named; ``-`` for standard input.
        error: Set where listing it already failed.
        listed: Whether it was there when the inputs were listed; a file gone since then has vanished.
        is_pattern: Whether it is a pattern that matches nothing.
    """

    path: str
    error: FileError | None = None
    listed: bool = False
    is_pattern: bool = False


def list_inputs(paths: Iterable[str], *, literal: bool = False) -> Iterator[Input]:
    """List what was named: folders are walked, patterns expanded, repeated and overlapping arguments merged.

    Args:
        paths: Files, folders, glob patterns, or ``-``.
        literal: Take names with ``*?[`` as they are, as from a list of files.

    Yields:
        Inputs in the order named, those of a folder sorted by name.
    """
    yield from merged(found for path in paths for found in _expand(path, literal=literal))


def merged(inputs: Iterable[Input]) -> Iterator[Input]:
    """Leave out inputs that were named before, by real path: links to one file are one input, hard links two."""
    seen: set[str] = set()
    for item in inputs:
        identity = STDIN if item.path == STDIN else os.path.realpath(item.path)
        if identity not in seen:
            seen.add(identity)
            yield item


def _expand(path: str, *, literal: bool) -> Iterator[Input]:
    """List what one argument stands for."""
    if path == STDIN:
        yield Input(STDIN)
    elif os.path.isdir(path):
        yield from _walk(path, ())
    elif os.path.lexists(path):
        yield Input(path, listed=True)
    elif glob.has_magic(path) and not literal:
        matches = sorted(glob.glob(path, recursive=True))
        for match in matches:
            yield from _walk(match, ()) if os.path.isdir(match) else iter([Input(match, listed=True)])
        if not matches:
            yield Input(path, FileError(ErrorCode.NOT_FOUND, f"{path}: nothing matches"), is_pattern=True)
    else:
        yield Input(path)


def _walk(folder: str, above: tuple[tuple[int, int], ...]) -> Iterator[Input]:
    """List the audio files below a folder, in order of name; a link back to a folder above ends there."""
    try:
        status = os.stat(folder)
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            return
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        code = ErrorCode.PERMISSION if isinstance(error, PermissionError) else ErrorCode.NOT_FOUND
        yield Input(folder, FileError(code, f"{folder}: the folder cannot be read ({error.strerror})"))
        return
    for entry in entries:
        if entry.is_dir():
            yield from _walk(entry.path, (*above, identity))
        elif os.path.splitext(entry.name)[1].lower() in AUDIO_EXTENSIONS:
            yield Input(entry.path, listed=True)


def read_file_list(content: bytes, *, nul_separated: bool = False) -> list[str]:
    """Return the paths of a list: one a line, or separated by NUL, which alone allows newlines in names.

    Raises:
        UsageError: A NUL in a list of lines.
    """
    if not nul_separated and b"\0" in content:
        raise UsageError("the list of files holds NUL characters: is it NUL-separated? then add -0")
    parts = content.split(b"\0") if nul_separated else content.splitlines()
    return [os.fsdecode(part) for part in parts if part]
