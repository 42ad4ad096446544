"""A table in Parquet, made from its rows in CSV block by block, in constant memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ast_cli.files.atomic import replacing, writing
from ast_cli.results import exact_path, path_fields
from ast_cli.tagging.extract.table_rows import CHANNEL_COLUMN, EXACT_PATH_COLUMN, TableColumns

if TYPE_CHECKING:
    import pyarrow

    from ast_cli.tagging.extract.extract_files import Extractor

BLOCK_BYTES = 1 << 22  # of CSV that are read at once
ROW_GROUP_BYTES = 1 << 26  # of numbers in one row group


def write_parquet(rows: Path, output: Path, columns: TableColumns, extractor: Extractor) -> None:
    """Write the table of some rows, atomically.

    The columns are ``path``, ``start_s``, ``end_s``, ``channel`` where channels are extracted by themselves,
    ``path_b64`` (null where ``path`` is the exact path), and the vector: a list of float32 of fixed size with the name
    of ``columns.what``. The metadata of the schema has ``ast``, JSON with the model and, for logits, the labels.

    Args:
        rows: The rows in CSV, as `TableColumns` makes them.
        output: File to create or replace.
        columns: The columns of the rows.
        extractor: The model that the numbers come from.

    Raises:
        AstError: If the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    facts: dict[str, Any] = {"what": columns.what, "model": extractor.model}
    if extractor.license is not None:
        facts["license"] = extractor.license
    if columns.what == "logits" and extractor.engine is not None:
        facts["id2label"] = extractor.engine.config.id2label
    vector = pa.list_(pa.float32(), len(columns.features))
    fields = [("path", pa.string()), ("start_s", pa.float64()), ("end_s", pa.float64())]
    fields += [(CHANNEL_COLUMN, pa.int32())] if columns.has_channels else []
    fields += [(EXACT_PATH_COLUMN, pa.string()), (columns.what, vector)]
    schema = pa.schema(fields, metadata={"ast": json.dumps(facts)})
    num_rows = max(1, ROW_GROUP_BYTES // (4 * len(columns.features)))
    with writing(output), replacing(output) as file, pq.ParquetWriter(file, schema) as writer:
        for batches in _grouped(_batches(rows, columns, schema), num_rows):
            writer.write_table(pa.Table.from_batches(batches, schema))


def _batches(rows: Path, columns: TableColumns, schema: pyarrow.Schema) -> Iterator[pyarrow.RecordBatch]:
    """Yield the rows as the table has them."""
    import pyarrow as pa
    from pyarrow import csv

    numbered = [str(number) for number in range(len(columns.features))]  # two labels may have the same name
    names = [*columns.places, *numbered]
    kinds = {name: schema.field(name).type for name in columns.places} | dict.fromkeys(numbered, pa.float32())
    reader = csv.open_csv(
        rows,
        read_options=csv.ReadOptions(column_names=names, skip_rows=1, block_size=BLOCK_BYTES, use_threads=False),
        convert_options=csv.ConvertOptions(column_types=kinds, strings_can_be_null=False),
    )
    for batch in reader:
        cells = {name: batch.column(name) for name in columns.places}
        paths = _paths(cells["path"].to_pylist(), cells[EXACT_PATH_COLUMN].to_pylist())
        cells["path"] = pa.array([path["path"] for path in paths], pa.string())
        cells[EXACT_PATH_COLUMN] = pa.array([path.get(EXACT_PATH_COLUMN) for path in paths], pa.string())
        numbers = [batch.column(name).to_numpy(zero_copy_only=False) for name in numbered]
        values = np.stack(numbers, axis=1)  # (num_rows, num_features)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), len(columns.features))
        yield pa.RecordBatch.from_arrays([*(cells[name] for name in columns.places), vectors], schema=schema)


def _paths(shown: list[str], exact: list[str]) -> list[dict[str, str | None]]:
    """Return the fields of the paths of rows from their cells, in which a path may be escaped."""
    known: dict[tuple[str, str], dict[str, str | None]] = {}
    for cells in zip(shown, exact, strict=True):
        if cells not in known:
            path, encoded = cells[0], cells[1].lstrip("'")  # the mark before what a spreadsheet takes for a formula
            known[cells] = path_fields(exact_path({"path": path, **({EXACT_PATH_COLUMN: encoded} if encoded else {})}))
    return [known[cells] for cells in zip(shown, exact, strict=True)]


def _grouped(batches: Iterator[pyarrow.RecordBatch], num_rows: int) -> Iterator[list[pyarrow.RecordBatch]]:
    """Yield batches together that have so many rows, the last ones fewer."""
    group: list[pyarrow.RecordBatch] = []
    for batch in batches:
        group.append(batch)
        if sum(each.num_rows for each in group) >= num_rows:
            yield group
            group = []
    if group:
        yield group
