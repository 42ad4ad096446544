"""Merging of the outputs of shards: no record may be torn or repeated, no shard may be missing.

In JSON Lines, CSV, TSV and wide the text of an input stands for itself, so it is taken over. In the other formats it
depends on what is before it, or is no text, and the journals contain the results, which are written once more. The
journals beside the parts, if there are any, must agree with the parts and with each other. Standard library only.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

from ast_cli.errors import AstError, UsageError
from ast_cli.report import named_format, open_writer, suffixes_of
from ast_cli.report.json_lines import JSON_ENDS
from ast_cli.report.parquet import write_parquet
from ast_cli.report.text import either, printable
from ast_cli.results import TaggingResult
from ast_cli.tagging.run.journal_lines import (
    OK,
    Header,
    Sidecars,
    is_finished,
    read_journal,
    records_file,
    result_again,
    verified,
)
from ast_cli.tagging.run.shards import format_shard
from ast_cli.tagging.run.whole_output import as_text, check_whole_output, whole_output

TABLES = {"csv": ",", "tsv": "\t", "wide": ","}  # formats with a row of column names, and what separates their cells
SELF_CONTAINED = ("jsonl", *TABLES)  # formats in which the text of an input depends on nothing before it
JSON_END_BYTES = max(map(len, JSON_ENDS))


@dataclass(frozen=True, slots=True)
class MergeReport:
    """Counts of a merged output."""

    num_parts: int
    num_ok: int
    num_failed: int

    @property
    def num_files(self) -> int:
        """Number of inputs of the parts."""
        return self.num_ok + self.num_failed


@dataclass(frozen=True, slots=True)
class _Part:
    """An output to be merged.

    Attributes:
        output: The output.
        file: File with the text of the inputs: the output itself, or the records beside a Parquet file.
        format_name: Format of the output.
        header: Header of the journal of the file; None if it has no journal.
    """

    output: Path
    file: Path
    format_name: str
    header: Header | None

    @property
    def is_json_lines(self) -> bool:
        """Whether the text of the inputs is JSON Lines."""
        return self.format_name == "jsonl" or self.file != self.output


@dataclass(frozen=True, slots=True)
class _Record:
    """The text of one input in a part.

    Attributes:
        line: Number of the first line.
        names: Names that identify the input: the path in the record, the real path in the journal.
        is_ok: Whether the input was scored.
        text: Bytes of the part; empty if the run did not report the input.
        result: The result, in formats whose text is not taken over; None if the run did not report the input.
    """

    line: int
    names: list[str]
    is_ok: bool
    text: bytes
    result: TaggingResult | None = None


def merge_outputs(parts: Sequence[Path], output: Path, *, force: bool = False) -> MergeReport:
    """Merge outputs in the given order; the merged output appears whole or not at all.

    Args:
        parts: Outputs of finished runs, all in one format; only JSON Lines, CSV, TSV and wide need no journals.
        output: File to write.
        force: Whether to replace an existing file.

    Raises:
        UsageError: If there are no parts, or the output exists, is one of the parts, or has the suffix of another
            format, or the format has no place for the names of several recordings.
        AstError: If a part is torn, damaged or unfinished, an input is repeated, or shards are missing or do not belong
            together; the message names file and line.
    """
    _check_output(parts, output, force=force)
    opened = [_open_part(file) for file in parts]
    _check_parts(opened)
    _check_suffix(opened, output)
    outcomes: Counter[bool] = Counter()
    records = _checked_records(opened, outcomes)
    with whole_output(output) as stream:
        if opened[0].format_name in SELF_CONTAINED:
            _join(opened, records, stream)
        else:
            results = (record.result for record in records if record.result is not None)
            _write_again(results, opened[0].format_name, stream)
    return MergeReport(len(parts), num_ok=outcomes[True], num_failed=outcomes[False])


def _check_output(parts: Sequence[Path], output: Path, *, force: bool) -> None:
    """Check that no part is overwritten, and no other file without ``force``."""
    if not parts:
        raise UsageError("name the outputs to merge")
    check_whole_output(output, map(str, parts), "one of the parts", force=force)


def _open_part(file: Path) -> _Part:
    """Return a part with the header of its journal.

    Raises:
        AstError: If its run is not finished, or it has no journal, and its format needs one.
    """
    records = records_file(file)
    for of_text, format_name in ((file, None), (records, "parquet")):
        journal = Sidecars(of_text).journal
        if journal.exists():
            header, _ = read_journal(journal)
            if not is_finished(journal):
                raise AstError(f"{file}: the run is not finished: continue it with --resume")
            return _Part(file, of_text, format_name or header.format_name, header)
    named = named_format(file) or "jsonl"
    if named not in SELF_CONTAINED and not _starts_as_json_lines(file):
        needed = Sidecars(records if named == "parquet" else file).journal.name
        raise AstError(
            f"{file}: {named} cannot be merged without {needed} beside it: merge {either(SELF_CONTAINED)}, and write "
            f"{named} from JSON Lines with ast convert"
        )
    return _Part(file, file, named if named in SELF_CONTAINED else "jsonl", None)


def _starts_as_json_lines(file: Path) -> bool:
    """Return whether a file with the suffix of another format may be JSON Lines: any format may have any suffix."""
    with _reading(file), open(file, "rb") as stream:
        return stream.read(1) == b"{"


def _check_parts(parts: Sequence[_Part]) -> None:
    """Check that the parts have the same format and settings, and are all shards of one split."""
    for part in parts:
        if part.format_name != parts[0].format_name:
            raise AstError(f"{part.output} is {part.format_name} and {parts[0].output} is {parts[0].format_name}")
    journalled = [(part.output, part.header) for part in parts if part.header is not None]
    if not journalled:
        return
    first_file, first = journalled[0]
    for file, header in journalled[1:]:
        differences = first.differences(dataclasses.replace(header, shard=first.shard))
        if differences:
            changed = "; ".join(difference.side_by_side() for difference in differences)
            raise AstError(f"{file} was made with other settings than {first_file}: {changed}")
    _check_shards(journalled)


def _check_suffix(parts: Sequence[_Part], output: Path) -> None:
    """Check that the suffix of the output fits the format of the parts, or is the suffix of a part."""
    suffix, named, format_name = output.suffix.lower(), named_format(output), parts[0].format_name
    suffixes_of_parts = {(part.output.suffix.lower(), named_format(part.output)) for part in parts}
    if suffix and named != format_name and (suffix, named) not in suffixes_of_parts:
        raise UsageError(
            f"--output {output}: the parts are {format_name}; name a file that ends in {suffixes_of([format_name])}"
        )


def _check_shards(journalled: Sequence[tuple[Path, Header]]) -> None:
    """Check that the parts are all shards of one split, each once, or no shards."""
    files: dict[str | None, Path] = {}
    for file, header in journalled:
        name = format_shard(header.shard)
        if name is not None and name in files:
            raise AstError(f"{files[name]} and {file} are both shard {name}")
        files[name] = file
    first_file, first = journalled[0]
    num_shards = None if first.shard is None else first.shard[1]
    for file, header in journalled:
        if (None if header.shard is None else header.shard[1]) != num_shards:
            first_name, name = (format_shard(shard) or "no shard" for shard in (first.shard, header.shard))
            raise AstError(f"{first_file} is {first_name} and {file} is {name}: they are not parts of the same split")
    missing = [f"{index}/{num_shards}" for index in range(num_shards or 0) if f"{index}/{num_shards}" not in files]
    if missing:
        raise AstError(f"no part with a journal is shard {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}")


def _checked_records(parts: Sequence[_Part], outcomes: Counter[bool]) -> Iterator[_Record]:
    """Yield the records of all parts, count which were scored, and check that none occurs twice."""
    seen: dict[str, tuple[int, int]] = {}  # index of the part and line
    for number, part in enumerate(parts):
        for record in _records(part):
            for name in record.names:
                if name in seen:
                    other, line = parts[seen[name][0]].file, seen[name][1]
                    raise AstError(
                        f"{printable(name[1:])} occurs twice: {other} line {line}, {part.file} line {record.line}"
                    )
                seen[name] = (number, record.line)
            outcomes[record.is_ok] += 1
            yield record


def _join(parts: Sequence[_Part], records: Iterable[_Record], stream: BinaryIO) -> None:
    """Write the text of the records one after another, below one row of column names."""
    beginning = _beginning(parts[0])
    for part in parts[1:]:
        if _beginning(part) != beginning:
            raise AstError(
                f"{part.file}: line 1: not the columns of {parts[0].file}; run its own command with --resume to write "
                "the columns of this version"
            )
    stream.write(beginning)
    for record in records:
        stream.write(record.text)


def _write_again(results: Iterable[TaggingResult], format_name: str, stream: BinaryIO) -> None:
    """Write results as one output of a run."""
    if format_name == "parquet":
        write_parquet(results, stream)
        return
    with as_text(stream) as text:
        writer = open_writer(format_name, text)
        for result in results:
            writer.write(result)
        writer.close()


def _beginning(part: _Part) -> bytes:
    """Return the bytes before the first record of a part: the names of the columns of a table."""
    with _reading(part.file), open(part.file, "rb") as stream:
        return stream.readline() if part.format_name in TABLES else b""


def _records(part: _Part) -> Iterator[_Record]:
    """Return the checked records of a part."""
    if part.header is not None:
        return _journalled_records(part)
    return _table_records(part) if part.format_name in TABLES else _json_records(part.file)


def _journalled_records(part: _Part) -> Iterator[_Record]:
    """Yield the records that the journal confirms; the part may contain nothing more."""
    header, entries = read_journal(Sidecars(part.file).journal)
    end, line = header.offset_end, 1
    for entry, text, line in verified(part.file, header, entries):
        names = [f"={entry.key.path}"]
        if part.is_json_lines and text:  # an input that the run did not report has no text
            records = [
                _json_record(part.file, line + number, row) for number, row in enumerate(text.splitlines(keepends=True))
            ]
            names += _json_names(records[-1])
        is_written_again = part.format_name not in SELF_CONTAINED and (text or entry.record)
        result = result_again(entry, text) if is_written_again else None
        yield _Record(line, names, entry.outcome == OK, text, result)
        end = entry.offset_end
    with _reading(part.file), open(part.file, "rb") as stream:
        stream.seek(end)
        rest = stream.read(JSON_END_BYTES + 1).decode("utf-8", "replace")
    if rest not in (JSON_ENDS if part.format_name == "json" else ("",)):
        raise AstError(f"{part.file}: there is text after line {line} that is not in its journal")


def _json_records(file: Path) -> Iterator[_Record]:
    """Yield the records of JSON Lines: those of a file or its channels, with the windows and events before."""
    text, first_line, line = b"", 1, 0
    last: dict[str, Any] = {}  # record of the file that the text belongs to; empty while there are only its parts
    with _reading(file), open(file, "rb") as stream:
        for line, row in enumerate(stream, start=1):
            record = _json_record(file, line, row)
            if last and not _is_next_channel(record, last):
                yield _Record(first_line, _json_names(last), last.get("status") == OK, text)
                text, first_line, last = b"", line, {}
            text += row
            last = record if record["type"] == "file" else last
    if last:
        yield _Record(first_line, _json_names(last), last.get("status") == OK, text)
    elif text:
        raise AstError(f"{file}: line {line} is the last, and the record of its file is missing")


def _is_next_channel(record: dict[str, Any], last: dict[str, Any]) -> bool:
    """Return whether a record is of a later channel of the same file, since the numbers of channels ascend."""
    channels = last.get("channel"), record.get("channel")
    if record["type"] != "file" or _json_names(record) != _json_names(last):
        return False
    return isinstance(channels[0], int) and isinstance(channels[1], int) and channels[0] < channels[1]


def _json_record(file: Path, line: int, row: bytes) -> dict[str, Any]:
    """Return the record of one line.

    Raises:
        AstError: If the line is torn, or not a record.
    """
    if not row.endswith(b"\n"):
        raise AstError(f"{file}: line {line} is torn")
    try:
        record = json.loads(row)
        if record["type"] in ("file", "window", "event") and isinstance(record["path"], str):
            return dict(record)
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    raise AstError(f"{file}: line {line} is not a record of a tagged file")


def _json_names(record: dict[str, Any]) -> list[str]:
    """Return the path of a record as a name; a path that is not UTF-8 is unique only in its base64 form."""
    return [f":{record.get('path_b64') or record['path']}"]


def _table_records(part: _Part) -> Iterator[_Record]:
    """Yield the records of a table: the consecutive rows of one path."""
    file = part.file
    with _reading(file), open(file, "rb") as stream:
        rows = _table_rows(file, stream, TABLES[part.format_name])
        columns = next(rows, ([], b"", 1))[0]
        if not {"path", "status"} <= set(columns):
            raise AstError(f"{file}: line 1 does not contain the column names of a table of tags")
        status = columns.index("status")
        named = [columns.index(column) for column in ("path_b64", "path") if column in columns]

        def name_of(row: tuple[list[str], bytes, int]) -> str:
            return next((row[0][column] for column in named if row[0][column]), "")

        for name, group in groupby(_complete_rows(file, rows, len(columns)), key=name_of):
            cells, texts, lines = zip(*group, strict=True)
            yield _Record(lines[0], [f":{name}"], cells[0][status] == OK, b"".join(texts))


def _table_rows(file: Path, stream: BinaryIO, delimiter: str) -> Iterator[tuple[list[str], bytes, int]]:
    """Yield cells, bytes and number of the first line of each row; a quoted cell may contain line ends."""
    taken: list[bytes] = []

    def lines() -> Iterator[str]:
        for row in stream:
            taken.append(row)
            yield row.decode("utf-8", "replace")

    reader, first_line = csv.reader(lines(), delimiter=delimiter, strict=True), 1
    try:
        for cells in reader:
            if not taken[-1].endswith(b"\n"):
                raise AstError(f"{file}: line {reader.line_num} is torn")
            yield cells, b"".join(taken), first_line
            taken.clear()
            first_line = reader.line_num + 1
    except csv.Error as error:
        raise AstError(f"{file}: line {reader.line_num} is torn or damaged ({error})") from error


def _complete_rows(
    file: Path, rows: Iterator[tuple[list[str], bytes, int]], num_columns: int
) -> Iterator[tuple[list[str], bytes, int]]:
    for row in rows:
        if len(row[0]) != num_columns:
            raise AstError(f"{file}: line {row[2]} is torn or damaged: {len(row[0])} cells, not {num_columns}")
        yield row


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Turn an error of the file system into an `AstError`."""
    try:
        yield
    except OSError as error:
        raise AstError(f"{file}: cannot be read ({error.strerror or error})") from error
