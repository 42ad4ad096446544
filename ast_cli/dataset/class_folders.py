"""Folders of labeled recordings: a folder per class, with or without a folder per split. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from ast_cli.dataset.manifest import LabeledRow, read_manifest, split_named
from ast_cli.errors import UsageError
from ast_cli.tagging.inputs import AUDIO_EXTENSIONS, list_inputs

METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.tsv", "meta.csv")
# Speech Commands names the recordings of two splits in lists; all others are for training (Warden, 2018).
SPLIT_LISTS = {"validation_list.txt": "validation", "testing_list.txt": "test"}
NOT_A_CLASS = "_background_noise_"  # of Speech Commands: minutes of noise to mix in, no examples


def read_folder(folder: str, *, needs_labels: bool = True) -> list[LabeledRow]:
    """Read a folder in whichever of the known layouts it is.

    In this order: a table of metadata in it; a folder per split, each in turn one of these layouts; a folder per class,
    with the lists of Speech Commands where they are.

    Args:
        folder: The data.
        needs_labels: Whether recordings in no folder of a class are a fault.

    Raises:
        UsageError: The folder cannot be read, holds no audio, or audio outside the folders of classes.
    """
    names = _names(folder)
    for name in METADATA_NAMES:
        if name in names:
            rows = read_manifest(os.path.join(folder, name), needs_labels=needs_labels)
            return _with_split_folders(folder, rows)
    rows = _rows_of_subfolders(folder, names, needs_labels=needs_labels)
    loose = list(_loose_rows(folder, names))
    if loose and needs_labels:
        raise UsageError(
            f"{folder}: audio lies there in no folder of a class, such as {os.path.basename(loose[0].path)!r}; "
            "a folder per class is needed, or a metadata.csv with the columns file_name and label"
        )
    if not (rows or loose):
        raise UsageError(f"{folder}: holds no audio")
    return _with_split_lists(folder, names, [*rows, *loose])


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise UsageError(f"{folder}: the folder cannot be read ({error.strerror})") from error


def _may_be_class(folder: str, name: str) -> bool:
    return name != NOT_A_CLASS and not name.startswith(".") and os.path.isdir(os.path.join(folder, name))


def _with_split_folders(folder: str, rows: list[LabeledRow]) -> list[LabeledRow]:
    """Where a table names no splits but all its files lie in folders of splits, those are the splits."""
    splits = [split_named(_below(folder, row).partition("/")[0]) for row in rows]
    if not all(splits) or any(row.split for row in rows):
        return rows
    return [replace(row, split=split) for row, split in zip(rows, splits, strict=True)]


def _rows_of_subfolders(folder: str, names: list[str], *, needs_labels: bool) -> list[LabeledRow]:
    """Return what the folders of classes hold, or those of splits.

    ``Train`` is also a class of AudioSet: it is a split only where no other folder holds audio.
    """
    names = [name for name in names if _may_be_class(folder, name)]
    splits = [name for name in names if split_named(name)]
    others = [row for name in names if name not in splits for row in _rows_of_class(folder, name)]
    if not others:
        return [row for name in splits for row in _rows_of_split(folder, name, needs_labels=needs_labels)]
    if len(splits) > 1:
        raise UsageError(
            f"{folder}: folders of splits ({', '.join(splits)}) lie there beside others with audio "
            f"({others[0].labels[0]}); put the folders of classes into those of splits"
        )
    return [row for name in names for row in _rows_of_class(folder, name)] if splits else others


def _rows_of_split(folder: str, name: str, *, needs_labels: bool) -> list[LabeledRow]:
    """Return what a folder of one split holds."""
    rows = read_folder(os.path.join(folder, name), needs_labels=needs_labels)
    return [replace(row, split=split_named(name)) for row in rows]


def _rows_of_class(folder: str, name: str) -> Iterator[LabeledRow]:
    """Yield the recordings below a class's folder, however deep."""
    for item in list_inputs([os.path.join(folder, name)]):
        if item.error is not None:
            raise UsageError(item.error.message)
        yield LabeledRow(item.path, (name,), item.path)


def _loose_rows(folder: str, names: list[str]) -> Iterator[LabeledRow]:
    """Yield the recordings that lie in the folder itself."""
    for name in names:
        path = os.path.join(folder, name)
        if os.path.splitext(name)[1].lower() in AUDIO_EXTENSIONS and not os.path.isdir(path):
            yield LabeledRow(path, (), path)


def _with_split_lists(folder: str, names: list[str], rows: list[LabeledRow]) -> list[LabeledRow]:
    """Give recordings the splits that Speech Commands' lists say."""
    splits: dict[str, str] = {}
    for name, split in SPLIT_LISTS.items():
        if name in names:
            splits |= dict.fromkeys(_read_split_list(os.path.join(folder, name)), split)
    if not splits:
        return rows
    known = {_below(folder, row) for row in rows}
    if known.isdisjoint(splits):
        raise UsageError(f"{folder}: {' and '.join(SPLIT_LISTS)} name none of its recordings; are they of other data?")
    return [replace(row, split=splits.get(_below(folder, row), "train")) for row in rows]


def _below(folder: str, row: LabeledRow) -> str:
    """Return a recording's path as the lists write it."""
    return os.path.relpath(row.path, folder).replace(os.sep, "/")


def _read_split_list(file: str) -> list[str]:
    try:
        with open(file, encoding="utf-8-sig") as stream:
            return [line.strip() for line in stream if line.strip()]
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: is not UTF-8 text") from error
