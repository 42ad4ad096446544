"""Parquet: the rows of CSV with their types, for pandas, DuckDB, Spark and the like. It needs pyarrow.

Names are as they are, without escapes; as in JSON, ``path_b64`` has the exact bytes of a path that is not UTF-8.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterable
from typing import Any, BinaryIO, TextIO

from ast_cli.errors import UsageError
from ast_cli.report.rows import Row, rows_of
from ast_cli.results import SCORE_DECIMALS, SECONDS_DECIMALS, TaggingResult, path_fields

COLUMNS = {
    "path": "string",
    "start_s": "float64",
    "end_s": "float64",
    "rank": "int32",
    "label": "string",
    "label_id": "int32",
    "mid": "string",
    "score": "float64",
    "status": "string",
    "error_code": "string",
    "path_b64": "string",
    "type": "string",
    "channel": "int32",
}
ROWS_PER_GROUP = 1 << 14  # which bounds the memory of a writer: some 30 MB of rows


def check_can_write_parquet() -> None:
    """Check that pyarrow is installed, without importing it.

    Raises:
        UsageError: If it is not; the message says how to install it.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise UsageError("parquet needs pyarrow, which is not installed: pip install 'ast-cli[parquet]'")


class ParquetWriter:
    """Writes a row for each tag, as `ast_cli.report.comma_separated.CSVWriter` does; null where CSV has an empty cell.

    The file is complete, and can be read, after `close` only.

    Args:
        stream: Binary stream to write to, or a text stream over one.

    Raises:
        UsageError: If pyarrow is not installed, or the stream takes text alone.
    """

    def __init__(self, stream: TextIO | BinaryIO) -> None:
        check_can_write_parquet()
        import pyarrow as pa
        import pyarrow.parquet as pq

        binary: Any = getattr(stream, "buffer", stream)
        if hasattr(binary, "encoding"):
            raise UsageError("parquet is binary and cannot be written as text: write it to a file")
        self._schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in COLUMNS.items()])
        self._to_table = pa.Table.from_pylist
        self._file = pq.ParquetWriter(binary, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def write(self, result: TaggingResult) -> None:
        """Add the rows of one result; they are written in groups."""
        self._rows += (_fields(row) for row in rows_of(result))
        if len(self._rows) >= ROWS_PER_GROUP:
            self._write_group()

    def close(self) -> None:
        """Write the last rows and the end of the file; the stream stays open."""
        if self._rows:
            self._write_group()
        try:
            self._file.close()
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Leave the file unfinished, after an error: pyarrow would try to end it later, when its stream is closed."""
        with contextlib.suppress(Exception):
            self._file.close()
        self._file.is_open = False

    def _write_group(self) -> None:
        try:
            self._file.write_table(self._to_table(self._rows, schema=self._schema))
        except BaseException:
            self.abandon()
            raise
        self._rows.clear()


def _fields(row: Row) -> dict[str, Any]:
    """Return the cells of a row by column; those that it lacks are null. Numbers are rounded as in JSON."""
    record, tag = row.record, row.tag
    fields: dict[str, Any] = {**path_fields(record.path), "status": record.status, "type": row.kind}
    fields["channel"] = record.channel
    if row.times_s is not None:
        fields["start_s"], fields["end_s"] = (round(time_s, SECONDS_DECIMALS) for time_s in row.times_s)
    if tag is not None:
        fields |= {"rank": row.rank, "label": _storable(tag.label), "label_id": tag.label_id, "mid": tag.mid}
        fields["score"] = round(tag.score, SCORE_DECIMALS)
    if record.error is not None:
        fields["error_code"] = str(record.error.code)
    return fields


def _storable(text: str) -> str:
    """Return text without what UTF-8 cannot represent."""
    return text.encode("utf-8", "replace").decode("utf-8")


def write_parquet(results: Iterable[TaggingResult], stream: BinaryIO) -> None:
    """Write a whole file of results, in constant memory."""
    writer = ParquetWriter(stream)
    try:
        for result in results:
            writer.write(result)
    except BaseException:
        writer.abandon()
        raise
    writer.close()
