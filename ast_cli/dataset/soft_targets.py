"""Soft targets: the scores of a teacher for recordings or parts of them, from a file or from arrays.

A file is what ``ast classify`` or ``ast evaluate --predictions`` writes, a table with a column for each label, or an
``.npz`` file of arrays. All scores are in one matrix: a row costs its numbers and little more.
"""

from __future__ import annotations

import csv
import json
import math
import os
import zipfile
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from ast_cli.dataset.manifest import (
    COLUMN_NAMES,
    JSON_LINES_EXTENSIONS,
    SCORE_PREFIX,
    SCORES_FIELD,
    TABLE_EXTENSIONS,
    label_named,
)
from ast_cli.errors import ErrorCode, UsageError
from ast_cli.files.json_object import shown
from ast_cli.report.text import FORMULA_STARTS
from ast_cli.results import FileError, exact_path

ARRAYS_EXTENSION = ".npz"
SOFT_TARGET_EXTENSIONS = (*JSON_LINES_EXTENSIONS, ".json", *TABLE_EXTENSIONS, ARRAYS_EXTENSION)
# Columns of a table that are no labels: those of manifests, of `ast classify` and of `ast evaluate --predictions`.
OTHER_COLUMNS = frozenset(
    [name for names in COLUMN_NAMES.values() for name in names]
    + "path_b64 predicted error_code status type channel duration_s model".split()
)
ROUNDING = 1e-6  # by which a score of float32 may exceed 1
SUM_TOLERANCE = 0.01  # scores of a row that add up to 1 within this are probabilities of one label each


@dataclass(frozen=True, eq=False)
class SoftTargets:
    """Scores of a teacher, a row for each recording or for each part of one.

    Attributes:
        labels: Labels, one for each column of the scores.
        paths: Recording of each row.
        scores: Scores from 0 to 1, float32, shape (num_rows, num_labels).
        start_s: Start of each row's part, in seconds, shape (num_rows,); None if all rows are of whole recordings.
        end_s: End of each row's part, infinite for the end of the recording.
        failures: Recordings that the teacher could not score, with the errors.
        source: File of the scores, for messages and model cards.
        teacher: Name of the model that the scores are from; empty if unknown.
        numbers: Line of the file that each row is from, for messages; None to count the rows from 1.

    Raises:
        UsageError: If shapes do not match, labels are repeated, or a score is not from 0 to 1; the message names the
            row.
    """

    labels: tuple[str, ...]
    paths: Sequence[str]
    scores: NDArray[np.float32]
    start_s: NDArray[np.float64] | None = None
    end_s: NDArray[np.float64] | None = None
    failures: Mapping[str, FileError] = field(default_factory=dict)
    source: str = "soft targets"
    teacher: str = ""
    numbers: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        """Convert the arrays and validate them."""
        set_field = object.__setattr__  # the class is frozen
        set_field(self, "labels", tuple(self.labels))
        set_field(self, "paths", tuple(os.fspath(path) for path in self.paths))
        set_field(self, "scores", np.asarray(self.scores, np.float32))
        num_rows = len(self.paths)
        for name, default in (("start_s", 0.0), ("end_s", np.inf)):
            given = getattr(self, name)
            set_field(self, name, np.full(num_rows, default) if given is None else np.asarray(given, np.float64))
        if self.scores.shape != (num_rows, len(self.labels)) or {self.starts.shape, self.ends.shape} != {(num_rows,)}:
            raise UsageError(
                f"{self.source}: scores of shape {self.scores.shape} do not fit {num_rows} paths and "
                f"{len(self.labels)} labels"
            )
        if not (num_rows and self.labels):
            raise UsageError(f"{self.source}: contains no scores")
        if repeated := [label for i, label in enumerate(self.labels) if label in self.labels[:i]]:
            raise UsageError(f"{self.source}: has two scores for the label {repeated[0]!r}")
        self._check_numbers()

    def _check_numbers(self) -> None:
        """Check the range of all scores and times."""
        wrong = ~((self.scores >= 0) & (self.scores <= 1 + ROUNDING))
        if wrong.any():
            row, column = divmod(int(wrong.argmax()), len(self.labels))
            score, label = float(self.scores[row, column]), self.labels[column]
            raise UsageError(
                f"{self.place(row)}: the score of {label!r} must be from 0 to 1, not {score:g}; scores are what a "
                "sigmoid or softmax gives"
            )
        wrong = ~((self.starts >= 0) & (self.starts < self.ends))
        if wrong.any():
            row = int(wrong.argmax())
            times = f"{self.starts[row]:g} to {self.ends[row]:g} s"
            raise UsageError(f"{self.place(row)}: the part from {times} is no part of a recording")

    @property
    def starts(self) -> NDArray[np.float64]:
        """Start of each row's part, in seconds."""
        assert self.start_s is not None
        return self.start_s

    @property
    def ends(self) -> NDArray[np.float64]:
        """End of each row's part, in seconds; infinite for the end of the recording."""
        assert self.end_s is not None
        return self.end_s

    @property
    def are_probabilities(self) -> bool:
        """Whether the scores of each row add up to 1, as those of a softmax do: each recording has one label."""
        return bool((np.abs(self.scores.sum(axis=1) - 1) <= SUM_TOLERANCE).all())

    def place(self, row: int) -> str:
        """Return where a row is from, for messages: the file with its line, or the number of the row."""
        unit, number = ("row", row + 1) if self.numbers is None else ("line", int(self.numbers[row]))
        return f"{self.source}, {unit} {number}"


def read_soft_targets(file: str | Path) -> SoftTargets:
    """Read the scores of a teacher.

    The suffix tells the format. ``.jsonl`` and ``.json``: the records of ``ast classify`` with all tags, of each window
    with ``--timestamps``; the predictions of ``ast evaluate``; or any records with ``path`` and ``scores``, an object
    from labels to scores. ``.csv`` and ``.tsv``: the tags of ``ast classify``, or a column for each label. ``.npz``:
    the arrays ``paths``, ``labels``, ``scores`` and, for parts, ``start_s`` and ``end_s``.

    Raises:
        UsageError: If the file cannot be read, a row is invalid or lacks a label; the message states the row.
    """
    source = os.fspath(file)
    suffix = os.path.splitext(source)[1].lower()
    if suffix not in SOFT_TARGET_EXTENSIONS:
        raise UsageError(f"{source}: soft targets are a file of scores ({', '.join(SOFT_TARGET_EXTENSIONS)})")
    try:
        if suffix == ARRAYS_EXTENSION:
            return _read_arrays(source)
        rows = _Rows(source)
        with open(source, encoding="utf-8-sig", newline="") as stream:
            if suffix in TABLE_EXTENSIONS:
                _add_table(rows, stream)
            else:
                for line, record in _records(stream, source, is_list=suffix == ".json"):
                    _add_record(rows, record, line)
        return rows.finished()
    except OSError as error:
        raise UsageError(f"{source}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{source}: is not UTF-8 text") from error


def _read_arrays(source: str) -> SoftTargets:
    """Read an ``.npz`` file; it cannot contain pickled objects."""
    try:
        with np.load(source, allow_pickle=False) as arrays:
            missing = [name for name in ("paths", "labels", "scores") if name not in arrays]
            if missing:
                raise UsageError(f"{source}: has no array {missing[0]!r}; it needs paths, labels and scores")
            texts = {name: [str(text) for text in arrays[name].ravel()] for name in ("paths", "labels")}
            labels = tuple(label_named(label, source) for label in texts["labels"])
            times = {name: arrays[name] for name in ("start_s", "end_s") if name in arrays}
            return SoftTargets(labels, texts["paths"], arrays["scores"], **times, source=source)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{source}: is no valid .npz file of arrays ({error})") from error


class _Rows:
    """Collects rows of scores in flat arrays; the first row determines labels and columns.

    Args:
        source: File that is read.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.teacher = ""
        self.failures: dict[str, FileError] = {}
        self._labels: tuple[str, ...] = ()
        self._names: tuple[str, ...] = ()  # names in the order of the labels, as rows spell them
        self._columns: dict[str, int] = {}
        self._paths: list[str] = []
        self._scores, self._starts, self._ends, self._lines = array("f"), array("d"), array("d"), array("q")

    def place(self, line: int) -> str:
        """Return a line of the file, for messages."""
        return f"{self.source}, line {line}"

    def add(
        self,
        line: int,
        path: str,
        names: tuple[str, ...],
        scores: Iterable[Any],
        start_s: float = 0.0,
        end_s: Any = None,
    ) -> None:
        """Add the scores of a recording, or of its part.

        Raises:
            UsageError: If the labels differ from those of the first row, or a score is no number.
        """
        row = self._numbers(names, list(scores), line)
        if not self._columns:
            self._labels = tuple(dict.fromkeys(label_named(name, self.place(line)) for name in names))
            self._columns = {label: column for column, label in enumerate(self._labels)}
        if names != self._names:
            columns = self._columns_of(names, line)
            if columns == list(range(len(columns))):
                self._names = names  # rows with these names need no look at their labels
            row = array("f", (number for _, number in sorted(zip(columns, row, strict=True))))
        self._scores += row
        self._paths.append(path)
        self._starts.append(start_s)
        self._ends.append(math.inf if end_s is None else end_s)
        self._lines.append(line)

    def _columns_of(self, names: Sequence[str], line: int) -> list[int]:
        """Return the columns of the labels of a row, which are all labels, in any order."""
        columns = [self._columns.get(name, -1) for name in names]
        if -1 in columns:
            columns = [self._columns.get(label_named(name, self.place(line)), -1) for name in names]
        if -1 in columns:
            raise UsageError(
                f"{self.place(line)}: has a score for {names[columns.index(-1)]!r}, which the rows before it lack; "
                f"every row needs the same labels{ALL_LABELS}"
            )
        if len(missing := self._columns.keys() - {self._labels[column] for column in columns}):
            example = min(missing, key=self._columns.__getitem__)
            raise UsageError(
                f"{self.place(line)}: has no score for {example!r} ({len(missing)} of {len(self._labels)} labels have "
                f"none); every row needs the same labels{ALL_LABELS}"
            )
        if len(columns) != len(self._labels):
            raise UsageError(f"{self.place(line)}: has two scores for the same label")
        return columns

    def _numbers(self, names: Sequence[str], scores: list[Any], line: int) -> array[float]:
        """Convert scores, which may be text."""
        try:
            if bool in map(type, scores):
                raise TypeError("true and false are no numbers")
            return array("f", map(float, scores))
        except (TypeError, ValueError, OverflowError) as error:
            name, score = next(pair for pair in zip(names, scores, strict=True) if not _is_number(pair[1]))
            raise UsageError(f"{self.place(line)}: the score of {name!r} is {shown(score)}, not a number") from error

    def finished(self) -> SoftTargets:
        """Return all rows."""
        if not self._paths:
            raise UsageError(f"{self.source}: contains no scores")
        return SoftTargets(
            self._labels,
            self._paths,
            np.frombuffer(self._scores, np.float32).reshape(len(self._paths), -1),
            np.frombuffer(self._starts),
            np.frombuffer(self._ends),
            self.failures,
            self.source,
            self.teacher,
            np.frombuffer(self._lines, np.int64),
        )


def _is_number(score: Any) -> bool:
    try:
        float(score)
    except (TypeError, ValueError, OverflowError):
        return False
    return not isinstance(score, bool)


# For messages: how `ast classify` writes the scores of all labels, not of the first five.
ALL_LABELS = " (ast classify --top-k 1000 writes all)"


def _records(stream: TextIO, source: str, *, is_list: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line and content of each record: JSON Lines, or a JSON list, which is read line by line as we write it."""
    for number, line in enumerate(stream, start=1):
        text = line.strip()
        if is_list:
            text = text.rstrip(",")
        if not text or (is_list and text in ("[", "]", "[]")):
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            if is_list and number <= 2:  # another layout
                yield from _listed_records(stream, source)
                return
            raise UsageError(f"{source}, line {number}: not valid JSON ({error})") from error
        if is_list and number == 1 and isinstance(record, list):
            yield from _listed_records(stream, source)
            return
        if not isinstance(record, dict):
            raise UsageError(f"{source}, line {number}: must be a JSON object, not {shown(record)}")
        yield number, record


def _listed_records(stream: TextIO, source: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the records of a JSON list in any layout, numbered from 1."""
    stream.seek(0)
    try:
        records = json.loads(stream.read())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{source}: not valid JSON ({error})") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise UsageError(f"{source}: must be a list of JSON objects, as ast classify --format json writes")
    yield from enumerate(records, start=1)


def _add_record(rows: _Rows, record: dict[str, Any], line: int) -> None:
    """Add the rows of a JSON record: of its windows if it has any, else of the recording."""
    place = rows.place(line)
    path = _path_of(record, place)
    _refuse_parts(record, place)
    if record.get("activation") == "none":
        raise UsageError(f"{place}: contains the logits of a regression, no scores")
    rows.teacher = rows.teacher or str(record.get("model") or "")
    error = record.get("error")
    if error:
        rows.failures[path] = _failure(path, error if isinstance(error, dict) else {})
    elif record.get("windows"):
        windows = record["windows"]
        if not isinstance(windows, list) or not all(isinstance(window, dict) for window in windows):
            raise UsageError(f"{place}: the windows must be objects with start_s, end_s and tags, not {shown(windows)}")
        for window in windows:
            rows.add(line, path, *_tags(window.get("tags"), place), *_times(window, place))
    elif "tags" in record:
        rows.add(line, path, *_tags(record["tags"], place))
    elif isinstance(scores := record.get(SCORES_FIELD), dict) and scores:
        rows.add(line, path, tuple(scores), scores.values(), *_times(record, place))
    elif scores:
        rows.add(line, path, *_tags(scores, place), *_times(record, place))
    else:
        raise UsageError(f"{place}: has no {SCORES_FIELD!r}, an object from labels to scores, and no 'tags'")


def _path_of(record: Mapping[str, Any], place: str) -> str:
    path = exact_path({"path_b64": record["path_b64"]}) if record.get("path_b64") else _value(record, "path")
    if not isinstance(path, str) or not path:
        raise UsageError(f"{place}: has no path")
    return path


def _value(record: Mapping[str, Any], field_name: str) -> Any:
    """Return the value of a field under any of its names in manifests."""
    return next((record[name] for name in COLUMN_NAMES[field_name] if name in record), None)


def _refuse_parts(record: Mapping[str, Any], place: str) -> None:
    """Refuse the scores of single channels, because training hears their mix, and streamed records."""
    if record.get("channel") not in (None, ""):
        raise UsageError(f"{place}: has the scores of one channel; run ast classify without --channels")
    if record.get("type") in ("window", "event") and "windows" not in record and "rank" not in record:
        raise UsageError(f"{place}: is a streamed record; run ast classify without --stream")


def _failure(path: str, error: Mapping[str, Any]) -> FileError:
    code = error.get("code")
    known = code if code in list(ErrorCode) else ErrorCode.DECODE_ERROR
    message = str(error.get("message") or f"{path}: the teacher could not score it ({code})")
    return FileError(ErrorCode(known), message)


def _tags(tags: Any, place: str) -> tuple[tuple[str, ...], list[Any]]:
    """Return labels and scores of a list of tags, in the order of the model's labels if the tags state it."""
    if not isinstance(tags, list) or not all(isinstance(tag, dict) and _is_label(tag.get("label")) for tag in tags):
        raise UsageError(f"{place}: the tags must be objects with label and score, not {shown(tags)}")
    if not tags:
        raise UsageError(f"{place}: has no tags; every row needs a score for each label{ALL_LABELS}")
    if all(isinstance(tag.get("label_id"), int) for tag in tags):
        tags = sorted(tags, key=lambda tag: tag["label_id"])
    return tuple(tag["label"] for tag in tags), [tag.get("score") for tag in tags]


def _is_label(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _times(record: Mapping[str, Any], place: str) -> tuple[float, float | None]:
    """Return start and end of a part, in seconds; an end of None is that of the recording."""
    times: list[float | None] = []
    for name in ("start_s", "end_s"):
        value = _value(record, name)
        try:
            times.append(None if value in (None, "") else float(value))
        except (TypeError, ValueError, OverflowError) as error:
            raise UsageError(f"{place}: {name} must be seconds, not {shown(value)}") from error
    return times[0] or 0.0, times[1]


def _add_table(rows: _Rows, stream: TextIO) -> None:
    """Add the rows of a table: one row for each tag, as ``ast classify`` writes, or one column for each label."""
    lines = iter(stream)
    header_line = next((line for line in lines if line.strip()), "")
    marks = [mark for mark in ",;\t" if _has_paths(_names(next(csv.reader([header_line], delimiter=mark), [])))]
    delimiter = marks[0] if marks else ","  # names of labels contain commas, so a header does not tell by itself
    reader = csv.reader(_from_header(header_line, lines), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        names = _names(header)
        if not _has_paths(names):
            raise UsageError(f"{rows.source}: there is no column of paths ({', '.join(COLUMN_NAMES['path'])})")
        add = _add_tag_rows if {"label", "score"} <= set(names) else _add_wide_rows
        add(rows, reader, header, names)
    except csv.Error as error:
        raise UsageError(f"{rows.place(reader.line_num)}: malformed ({error})") from error


def _names(header: Sequence[str]) -> list[str]:
    """Return the names of columns in the spelling of `COLUMN_NAMES`."""
    return [name.strip().lower().replace(" ", "_").replace("-", "_") for name in header]


def _has_paths(names: Sequence[str]) -> bool:
    return any(name in COLUMN_NAMES["path"] for name in names)


def _from_header(header_line: str, lines: Iterator[str]) -> Iterator[str]:
    yield header_line
    yield from lines


def _add_wide_rows(rows: _Rows, reader: Any, header: Sequence[str], names: Sequence[str]) -> None:
    """Add the rows of a table with a column for each label."""
    columns = [i for i, name in enumerate(header) if name.strip().startswith(SCORE_PREFIX)]
    labels = tuple(header[i].strip().removeprefix(SCORE_PREFIX) for i in columns)
    if not columns:
        columns = [i for i, name in enumerate(names) if name not in OTHER_COLUMNS]
        labels = tuple(_plain(header[i].strip()) for i in columns)
    if not columns:
        raise UsageError(f"{rows.source}: there is no column of scores, one for each label")
    others = [(i, name) for i, name in enumerate(names) if i not in set(columns)]
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        line = reader.line_num
        record = {name: cells[i] for i, name in others if i < len(cells)}
        path = _path_of(record, rows.place(line))
        _refuse_parts(record, rows.place(line))
        if record.get("error_code"):
            rows.failures[path] = _failure(path, {"code": record["error_code"]})
            continue
        if len(cells) != len(header):
            raise UsageError(f"{rows.place(line)}: has {len(cells)} cells, but the header has {len(header)}")
        rows.add(line, path, labels, [cells[i] for i in columns], *_times(record, rows.place(line)))


def _add_tag_rows(rows: _Rows, reader: Any, header: Sequence[str], names: Sequence[str]) -> None:
    """Add the rows of a table of tags: consecutive rows of the same recording and window belong together."""
    tags: list[dict[str, Any]] = []
    current: tuple[str, float, float | None] | None = None
    first_line = 0

    def flush() -> None:
        if current is not None:
            path, start_s, end_s = current
            rows.add(first_line, path, *_tags(tags, rows.place(first_line)), start_s, end_s)

    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        line = reader.line_num
        if len(cells) != len(header):
            raise UsageError(f"{rows.place(line)}: has {len(cells)} cells, but the header has {len(header)}")
        record = dict(zip(names, cells, strict=True))
        path = _path_of(record, rows.place(line))
        _refuse_parts(record, rows.place(line))
        if record.get("error_code"):
            rows.failures[path] = _failure(path, {"code": record["error_code"]})
            continue
        kind = record.get("type")
        if kind == "event":
            continue
        # The row of a whole recording states its length, which the data does not know.
        part = (0.0, None) if kind == "file" else _times(record, rows.place(line))
        if (path, *part) != current:
            flush()
            current, tags, first_line = (path, *part), [], line
        tag = {"label": _plain(record["label"]), "score": record["score"]}
        if record.get("label_id", "").isdecimal():
            tag["label_id"] = int(record["label_id"])
        if tag["label"]:
            tags.append(tag)
    flush()


def _plain(cell: str) -> str:
    """Return the text of a cell without the apostrophe that keeps a spreadsheet from reading it as a formula."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA_STARTS) else cell
