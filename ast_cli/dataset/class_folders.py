"""Reading folders of labeled recordings: a folder per class, or per split and class. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ast_cli.dataset.manifest import LabeledRow, read_manifest, split_named
from ast_cli.errors import UsageError
from ast_cli.tagging.inputs import AUDIO_EXTENSIONS, Exclusion, is_hidden, list_inputs

METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.tsv", "meta.csv")
# Speech Commands lists the recordings of two splits; all others are for training (Warden, 2018).
SPLIT_LISTS = {"validation_list.txt": "validation", "testing_list.txt": "test"}
NOT_A_CLASS = "_background_noise_"  # in Speech Commands: minutes of noise to mix in, no examples


def read_folder(folder: str, *, needs_labels: bool = True, exclude: Sequence[str] = ()) -> list[LabeledRow]:
    """Read a folder in one of the known layouts.

    These are tried in this order: a table of metadata in the folder; a folder for each split, which in turn has one of
    these layouts; a folder for each class, with the lists of Speech Commands if there are any. Hidden files and folders
    are left out.

    Args:
        folder: Folder of the data.
        needs_labels: Whether recordings outside the folders of classes are an error.
        exclude: Patterns of files and folders that are left out, see `ast_cli.tagging.inputs.Exclusion`.

    Raises:
        UsageError: If the folder cannot be read, contains no audio, or audio outside the folders of classes.
    """
    names = _names(folder, Exclusion(exclude))
    for name in METADATA_NAMES:
        if name in names:
            rows = read_manifest(os.path.join(folder, name), needs_labels=needs_labels)
            return _with_split_folders(folder, rows)
    rows = _rows_of_subfolders(folder, names, needs_labels=needs_labels, exclude=exclude)
    loose = list(_loose_rows(folder, names))
    if loose and needs_labels:
        raise UsageError(
            f"{folder}: contains audio outside the folders of classes, such as {os.path.basename(loose[0].path)!r}; "
            "a folder per class is needed, or a metadata.csv with the columns file_name and label"
        )
    if not (rows or loose):
        raise UsageError(f"{folder}: contains no audio")
    return _with_split_lists(folder, names, [*rows, *loose])


def _names(folder: str, excluded: Exclusion) -> list[str]:
    """Return the names of a folder's visible entries that are not excluded."""
    try:
        names = sorted(os.listdir(folder))
        return [name for name in names if not is_hidden(name) and not excluded(os.path.join(folder, name))]
    except OSError as error:
        raise UsageError(f"{folder}: the folder cannot be read ({error.strerror})") from error


def _may_be_class(folder: str, name: str) -> bool:
    return name != NOT_A_CLASS and os.path.isdir(os.path.join(folder, name))


def _with_split_folders(folder: str, rows: list[LabeledRow]) -> list[LabeledRow]:
    """Take the splits from the folders of the files, if a table has no splits but all its files are in such folders."""
    splits = [split_named(_below(folder, row).partition("/")[0]) for row in rows]
    if not all(splits) or any(row.split for row in rows):
        return rows
    return [replace(row, split=split) for row, split in zip(rows, splits, strict=True)]


def _rows_of_subfolders(
    folder: str, names: list[str], *, needs_labels: bool, exclude: Sequence[str]
) -> list[LabeledRow]:
    """Return the recordings in the folders of classes or splits.

    ``Train`` is also a class of AudioSet: it is a split only if no other folder contains audio.
    """
    names = [name for name in names if _may_be_class(folder, name)]
    splits = [name for name in names if split_named(name)]
    others = [row for name in names if name not in splits for row in _rows_of_class(folder, name, exclude)]
    if not others:
        return [
            row for name in splits for row in _rows_of_split(folder, name, needs_labels=needs_labels, exclude=exclude)
        ]
    if len(splits) > 1:
        raise UsageError(
            f"{folder}: contains split folders ({', '.join(splits)}) beside other folders with audio "
            f"({others[0].labels[0]}); move the class folders into the split folders"
        )
    return [row for name in names for row in _rows_of_class(folder, name, exclude)] if splits else others


def _rows_of_split(folder: str, name: str, *, needs_labels: bool, exclude: Sequence[str]) -> list[LabeledRow]:
    """Return the recordings in the folder of one split."""
    rows = read_folder(os.path.join(folder, name), needs_labels=needs_labels, exclude=exclude)
    return [replace(row, split=split_named(name)) for row in rows]


def _rows_of_class(folder: str, name: str, exclude: Sequence[str]) -> Iterator[LabeledRow]:
    """Yield the recordings at any depth below the folder of a class."""
    for item in list_inputs([os.path.join(folder, name)], exclude=exclude):
        if item.error is not None:
            raise UsageError(item.error.message)
        yield LabeledRow(item.path, (name,), item.path)


def _loose_rows(folder: str, names: list[str]) -> Iterator[LabeledRow]:
    """Yield the recordings in the folder itself."""
    for name in names:
        path = os.path.join(folder, name)
        if os.path.splitext(name)[1].lower() in AUDIO_EXTENSIONS and not os.path.isdir(path):
            yield LabeledRow(path, (), path)


def _with_split_lists(folder: str, names: list[str], rows: list[LabeledRow]) -> list[LabeledRow]:
    """Assign the splits of the lists of Speech Commands to recordings."""
    splits: dict[str, str] = {}
    for name, split in SPLIT_LISTS.items():
        if name in names:
            splits |= dict.fromkeys(_read_split_list(os.path.join(folder, name)), split)
    if not splits:
        return rows
    known = {_below(folder, row) for row in rows}
    if known.isdisjoint(splits):
        raise UsageError(
            f"{folder}: {' and '.join(SPLIT_LISTS)} list none of its recordings; remove them if they are of other data"
        )
    return [replace(row, split=splits.get(_below(folder, row), "train")) for row in rows]


def _below(folder: str, row: LabeledRow) -> str:
    """Return the path of a recording as in the lists, relative to the folder."""
    return os.path.relpath(row.path, folder).replace(os.sep, "/")


def _read_split_list(file: str) -> list[str]:
    try:
        with open(file, encoding="utf-8-sig") as stream:
            return [line.strip() for line in stream if line.strip()]
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: is not UTF-8 text") from error
