"""Reading manifests, which are tables of labeled recordings: CSV, TSV and JSON Lines. Standard library only."""

from __future__ import annotations

import csv
import functools
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ast_cli.errors import UsageError
from ast_cli.files.json_object import shown
from ast_cli.labels import audioset_mids
from ast_cli.tagging.inputs import with_slashes

JSON_LINES_EXTENSIONS = (".jsonl", ".ndjson")
TABLE_EXTENSIONS = (".csv", ".tsv")
MANIFEST_EXTENSIONS = (*TABLE_EXTENSIONS, *JSON_LINES_EXTENSIONS)
AUDIO_FOLDER = "audio"  # folder beside the manifest, as in ESC-50
# A teacher's scores in a manifest: an object of JSON Lines, or a column "scores.Dog" for each label.
SCORES_FIELD = "scores"
SCORE_PREFIX = "scores."
# Accepted names of each column, in lower case and with underscores for spaces and hyphens; the first one present is
# used.
COLUMN_NAMES = {
    "path": ("path", "file_name", "filename", "file", "audio", "audio_path", "audio_filepath"),
    "mids": ("mids", "positive_labels"),
    "labels": ("labels",),
    "label": ("label", "category", "class", "audioset_label"),
    "split": ("split", "subset"),
    "fold": ("fold",),
    "start_s": ("start_s", "start", "start_seconds"),
    "end_s": ("end_s", "end", "end_seconds"),
}
LABEL_COLUMNS = ("mids", "labels", "label")  # by preference: the identifiers of FSD50K are cleaner than its names
# The split names of audio folders on the hub, in all their spellings.
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}


@dataclass(frozen=True, slots=True)
class LabeledRow:
    """One row of a source: a recording, or a part of one, with its labels.

    Attributes:
        path: Path of an existing file.
        labels: Label names; empty if the source has none.
        place: File and line of the row, for messages.
        split: ``train``, ``validation``, ``test`` or None.
        fold: Fold of cross-validation, or None.
        start_s: Start of the part, in seconds.
        end_s: End of the part, in seconds; None for the end of the recording.
        allows_several: Whether the source allows several labels per row.
    """

    path: str
    labels: tuple[str, ...]
    place: str
    split: str | None = None
    fold: int | None = None
    start_s: float = 0.0
    end_s: float | None = None
    allows_several: bool = False


def read_manifest(file: str, *, needs_labels: bool = True) -> list[LabeledRow]:
    """Read a manifest.

    Relative paths are relative to the folder of the manifest, or to its subfolder ``audio/``.

    Args:
        file: Path of the manifest; its extension determines the format.
        needs_labels: Whether a row without labels is an error.

    Raises:
        UsageError: If a line is invalid or names a missing file; the message states the line.
    """
    is_json = file.lower().endswith(JSON_LINES_EXTENSIONS)
    text = _read_text(file)
    records = _json_records(text, file) if is_json else _table_records(text, file)
    rows = [_labeled_row(record, place, needs_labels=needs_labels) for place, record in records]
    if not rows:
        raise UsageError(f"{file}: contains no recordings")
    return _located(rows, file)


def split_named(name: str) -> str | None:
    """Return ``train``, ``validation`` or ``test`` for a name of that split; None for any other name."""
    return SPLITS.get(name.strip().lower())


def has_scores(file: str) -> bool:
    """Return whether a manifest contains a teacher's scores beside its recordings; False if it cannot be read."""
    try:
        with open(file, encoding="utf-8-sig") as stream:
            if file.lower().endswith(TABLE_EXTENSIONS):
                header = next((line for line in stream if line.strip()), "")
                names = next(csv.reader([header], delimiter=_delimiter(header, file)), [])
                return any(name.strip().startswith(SCORE_PREFIX) for name in names)
            return any(f'"{SCORES_FIELD}"' in line and SCORES_FIELD in json.loads(line) for line in stream)
    except (OSError, ValueError, RecursionError, csv.Error):  # the reader of the manifest states what is wrong
        return False


def _read_text(file: str) -> str:
    """Return the text of a UTF-8 file, with or without a byte order mark."""
    try:
        with open(file, "rb") as stream:
            content = stream.read()
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror})") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UsageError(f"{file}: is UTF-16; save it as UTF-8")
    if (first := content.find(b"\0")) >= 0:
        line = content.count(b"\n", 0, first) + 1
        raise UsageError(f"{file}, line {line}: contains a NUL character; name a text file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{file}, line {line}: is not UTF-8 text; save the file as UTF-8") from error


def _json_records(text: str, file: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place of each non-blank line and its values by field."""
    for number, line in enumerate(io.StringIO(text), start=1):
        if not line.strip():
            continue
        place = f"{file}, line {number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{place}: not valid JSON ({error})") from error
        if not isinstance(values, dict):
            raise UsageError(f"{place}: must be a JSON object, not {shown(values)}")
        yield place, {field: values[name] for field, name in _columns(tuple(values), place).items()}


def _table_records(text: str, file: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the place of each row after the header and its values by field."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text, file), strict=True)
    positions: dict[str, int] | None = None
    header: list[str] = []
    try:
        for cells in reader:
            place = f"{file}, line {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if positions is None:
                header = cells
                positions = {field: header.index(name) for field, name in _columns(tuple(header), place).items()}
                continue
            if len(cells) != len(header):
                raise UsageError(
                    f"{place}: has {len(cells)} cells, but the header has {len(header)}; put names that contain the "
                    "separator in double quotes"
                )
            yield place, {field: cells[position] for field, position in positions.items()}
    except csv.Error as error:
        raise UsageError(f"{file}, line {reader.line_num}: malformed ({error})") from error


def _delimiter(text: str, file: str) -> str:
    """Return the separator of the cells; in some countries spreadsheets write ``.csv`` files with semicolons."""
    if file.lower().endswith(".tsv"):
        return "\t"
    header = text.lstrip("\r\n").partition("\n")[0]
    return next((mark for mark in ",;\t" if mark in header), ",")


def _columns(names: tuple[str, ...], place: str) -> Mapping[str, str]:
    """Return the name of the column of each field.

    Raises:
        UsageError: If there is no column of paths, or two columns have the same name.
    """
    plain: dict[str, str] = {}
    for name in names:
        key = name.strip().lower().replace(" ", "_").replace("-", "_")
        if key and key in plain:
            raise UsageError(f"{place}: there are two columns {name.strip()!r}")
        plain[key] = name
    columns = {
        field: plain[found]
        for field, choices in COLUMN_NAMES.items()
        if (found := next((choice for choice in choices if choice in plain), None))
    }
    if "path" not in columns:
        wanted = ", ".join(COLUMN_NAMES["path"])
        raise UsageError(f"{place}: there is no column of paths ({wanted}) among {_quoted(names)}")
    return columns


def _labeled_row(record: Mapping[str, Any], place: str, *, needs_labels: bool) -> LabeledRow:
    """Validate and convert the values of one row."""
    labels, allows_several = _labels(record, place, needs_labels=needs_labels)
    start_s = _seconds(record.get("start_s"), "start", place)
    end_s = _seconds(record.get("end_s"), "end", place)
    if end_s is not None and end_s <= (start_s or 0.0):
        raise UsageError(f"{place}: the end, {end_s:g} s, is not after the start, {start_s or 0:g} s")
    return LabeledRow(
        _path(record["path"], place),
        labels,
        place,
        _split(record.get("split"), place),
        _fold(record.get("fold"), place),
        start_s or 0.0,
        end_s,
        allows_several,
    )


def _path(value: Any, place: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{place}: has no path" if value in (None, "") else f"{place}: {shown(value)} is not a path")
    return value


def _labels(record: Mapping[str, Any], place: str, *, needs_labels: bool) -> tuple[tuple[str, ...], bool]:
    """Return the labels of a row, and whether its column allows several.

    A column ``labels`` contains several labels: a JSON list, or text separated by ``;`` or ``|``, but not by commas,
    since 75 of AudioSet's names contain commas. Identifiers contain none and are separated by them, as in the files of
    AudioSet.
    """
    field = next((field for field in LABEL_COLUMNS if field in record), None)
    if field is None:
        if not needs_labels:
            return (), False
        wanted = ", ".join(name for field in reversed(LABEL_COLUMNS) for name in COLUMN_NAMES[field])
        raise UsageError(f"{place}: there is no column of labels; name it {wanted}")
    value = record[field]
    if field != "label" and isinstance(value, str) and value.lstrip().startswith("["):
        value = _json_list(value, place)
    allows_several = field != "label" or isinstance(value, list)
    if value is None:
        parts: list[Any] = []
    elif isinstance(value, list):
        parts = value
    elif allows_several and isinstance(value, str):
        parts = _parts(value, ";|," if field == "mids" else ";|")
    else:
        parts = [value]
    labels = tuple(dict.fromkeys(label_named(part, place) for part in parts if part != ""))
    if not labels and not allows_several and needs_labels:
        raise UsageError(f"{place}: has no label")
    return labels, allows_several


def _json_list(text: str, place: str) -> list[Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{place}: the labels {shown(text)} are not a valid JSON list ({error})") from error
    assert isinstance(value, list)  # the text starts with a bracket
    return value


def _parts(text: str, separators: str) -> list[str]:
    for separator in separators[1:]:
        text = text.replace(separator, separators[0])
    return [part.strip() for part in text.split(separators[0]) if part.strip()]


def label_named(value: Any, place: str) -> str:
    """Return the name of a label; an AudioSet identifier is replaced by its name."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{place}: {shown(value)} is not a label")
    name = value.strip()
    return _audioset_names().get(name, name)


@functools.cache
def _audioset_names() -> dict[str, str]:
    """Return the display names of AudioSet by machine identifier."""
    return {mid: name for name, mid in audioset_mids().items()}


def _split(value: Any, place: str) -> str | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    split = split_named(value) if isinstance(value, str) else None
    if split is None:
        raise UsageError(f"{place}: the split must be train, validation or test, not {shown(value)}")
    return split


def _fold(value: Any, place: str) -> int | None:
    number = _number(value)
    if number is not None and not (number >= 0 and number.is_integer()):
        raise UsageError(f"{place}: the fold must be a whole number, not {shown(value)}")
    return None if number is None else int(number)


def _seconds(value: Any, name: str, place: str) -> float | None:
    number = _number(value)
    if number is not None and not 0 <= number < math.inf:
        raise UsageError(f"{place}: the {name} must be seconds, at least 0, not {shown(value)}")
    return number


def _number(value: Any) -> float | None:
    """Return the number in a cell, None if the cell is empty, or NaN if it contains no number."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _located(rows: Iterable[LabeledRow], file: str) -> list[LabeledRow]:
    """Find the files of the rows.

    Raises:
        UsageError: If files are missing; the message names the first one.
    """
    base = os.path.dirname(file)
    located, missing = [], []
    for row in rows:
        found = next((path for path in candidate_paths(base, row.path) if os.path.isfile(path)), None)
        if found is None:
            missing.append(row)
        else:
            located.append(replace(row, path=found))
    if missing:
        count = f"; {len(missing)} of {len(located) + len(missing)} are missing" if len(missing) > 1 else ""
        raise UsageError(
            f"{missing[0].place}: there is no file {missing[0].path!r}, neither beside the manifest nor in "
            f"its {AUDIO_FOLDER}/{count}"
        )
    return located


def candidate_paths(base: str, path: str) -> Iterator[str]:
    """Yield the paths at which a file of a manifest may be; the last ones are for manifests written on Windows."""
    for written in dict.fromkeys((path, with_slashes(path))):
        yield os.path.join(base, written)
        yield os.path.join(base, AUDIO_FOLDER, written)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
