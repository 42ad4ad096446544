"""Wide CSV and Parquet: a column for each label, and typed rows; read back by pandas, pyarrow and DuckDB."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import io
from pathlib import Path
from typing import Any

import pytest

from ast_cli.errors import AstError, ErrorCode, UsageError
from ast_cli.report import open_writer, parquet, rendered
from ast_cli.report.comma_separated import CHANNEL_COLUMN, COLUMNS
from ast_cli.results import Event, FileError, Tag, TaggingResult, Window

RAIN = Tag("Rain", 1, "/m/06mb1", 0.71304321)
WAVES = Tag("Waves, surf", 2, "/m/034srq", 0.14831)
LABELS = ["Speech", "Rain", "Waves, surf"]
WHOLE = TaggingResult("a/rain.ogg", "builtin", "softmax", 6.0, 44100, 2, (RAIN, WAVES))
WINDOWS = dataclasses.replace(WHOLE, windows=(Window(0.0, 5.12, (WAVES, RAIN)), Window(2.9, 6.0, ())))
EVENTS = dataclasses.replace(WHOLE, events=(Event("Rain", 1, None, 0.0, 5.12, 0.6, 0.9),))
FAILED = TaggingResult("bad.wav", "m", "softmax", error=FileError(ErrorCode.EMPTY_FILE, "bad.wav: the file is empty"))
APART = TaggingResult.from_channels(
    [dataclasses.replace(WHOLE, tags=(RAIN,), channel=1), dataclasses.replace(WHOLE, tags=(WAVES,), channel=2)]
)
HOSTILE = '=a\tb\nc\r\u2028d\x1b[2J"\x00'
ODD = dataclasses.replace(WHOLE, path=f"caf\udce9{HOSTILE}.wav", tags=(Tag(HOSTILE, 3, None, 0.5),))

needs_pyarrow = pytest.mark.skipif(not importlib.util.find_spec("pyarrow"), reason="needs pyarrow")


def wide(*results: TaggingResult, labels: list[str] | None = LABELS, has_channels: bool = False) -> str:
    stream = io.StringIO()
    writer = open_writer("wide", stream, labels=labels, has_channels=has_channels)
    for result in results:
        writer.write(result)
    writer.close()
    return stream.getvalue()


def test_wide_has_a_row_a_recording_and_a_column_a_label() -> None:
    assert wide(WHOLE, FAILED, EVENTS) == (
        'path,start_s,end_s,status,error_code,path_b64,Speech,Rain,"Waves, surf"\n'
        "a/rain.ogg,0.000,6.000,ok,,,,0.713043,0.148310\n"
        "bad.wav,,,error,empty_file,,,,\n"
        "a/rain.ogg,0.000,6.000,ok,,,,0.713043,0.148310\n"
    )


def test_wide_has_a_row_a_window_where_there_are_windows() -> None:
    assert wide(WINDOWS).splitlines()[1:] == [
        "a/rain.ogg,0.000,5.120,ok,,,,0.713043,0.148310",
        "a/rain.ogg,2.900,6.000,ok,,,,,",
    ]


def test_wide_has_a_row_a_channel_and_its_column_before_the_labels() -> None:
    assert wide(APART, FAILED, has_channels=True).splitlines() == [
        'path,start_s,end_s,status,error_code,path_b64,channel,Speech,Rain,"Waves, surf"',
        "a/rain.ogg,0.000,6.000,ok,,,1,,0.713043,",
        "a/rain.ogg,0.000,6.000,ok,,,2,,,0.148310",
        "bad.wav,,,error,empty_file,,,,,",
    ]


def test_wide_without_labels_has_those_of_the_results_in_the_order_of_the_model() -> None:
    first = dataclasses.replace(WHOLE, tags=(WAVES,))
    assert wide(FAILED, first, WHOLE, labels=None) == wide(FAILED, first, WHOLE, labels=["Rain", "Waves, surf"])
    assert wide(labels=None) == "path,start_s,end_s,status,error_code,path_b64\n"


def test_wide_names_a_label_without_a_column() -> None:
    with pytest.raises(AstError, match="the label Waves, surf has no column"):
        wide(WHOLE, labels=["Rain"])


def test_wide_is_safe_in_a_spreadsheet_and_its_columns_are_distinct() -> None:
    text = wide(ODD, labels=[HOSTILE, "path", "=x"])
    header, row = csv.reader(io.StringIO(text, newline=""))
    assert header[-3:] == ["'=a\\tb\\nc\\r\\u2028d\\x1b[2J\"\\x00", "scores.path", "'=x"]
    assert row[-3:] == ["0.500000", "", ""]
    assert len(text.splitlines()) == 2


def test_pandas_and_soft_targets_read_wide(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    file = tmp_path / "tags.wide.csv"
    complete = dataclasses.replace(WHOLE, tags=(RAIN, WAVES, Tag("Speech", 0, None, 0.01)))
    file.write_text(wide(complete, FAILED), encoding="utf-8")
    table = pandas.read_csv(file).set_index("path")
    assert table.loc["a/rain.ogg", LABELS].tolist() == [0.01, 0.713043, 0.14831]
    assert table.loc["bad.wav", LABELS].isna().all()
    from ast_cli.dataset.soft_targets import read_soft_targets

    targets = read_soft_targets(file)
    assert list(targets.labels) == LABELS
    assert targets.scores[0].tolist() == pytest.approx([0.01, 0.713043, 0.14831])


@pytest.fixture
def table(tmp_path: Path) -> Any:
    """Return what pyarrow reads of the results of every kind."""
    pq = pytest.importorskip("pyarrow.parquet")
    return pq.read_table(write_parquet(tmp_path))


def write_parquet(folder: Path) -> Path:
    file = folder / "tags.parquet"
    with file.open("wb") as stream:
        parquet.write_parquet((WHOLE, FAILED, WINDOWS, EVENTS, APART, ODD), stream)
    return file


@needs_pyarrow
def test_parquet_has_the_rows_and_columns_of_csv(table: Any) -> None:
    stream = io.StringIO()
    writer = open_writer("csv", stream, has_channels=True)
    for result in (WHOLE, FAILED, WINDOWS, EVENTS, APART):
        writer.write(result)
    rows = list(csv.DictReader(io.StringIO(stream.getvalue())))
    assert table.column_names == [*COLUMNS, CHANNEL_COLUMN]
    found = table.to_pylist()[:-1]
    assert len(found) == len(rows)
    for typed, row in zip(found, rows, strict=True):
        shown = {
            name: f"{value:.3f}" if name in ("start_s", "end_s") else f"{value:.6f}" if name == "score" else str(value)
            for name, value in typed.items()
            if value is not None
        }
        assert shown == {name: cell for name, cell in row.items() if cell}


@needs_pyarrow
def test_parquet_keeps_names_and_labels_as_they_are(table: Any) -> None:
    assert [str(field.type) for field in table.schema] == [
        "string", "double", "double", "int32", "string", "int32", "string", "double", "string", "string", "string",
        "string", "int32",
    ]  # fmt: skip
    odd = table.to_pylist()[-1]
    assert odd["path"] == f"caf\ufffd{HOSTILE}.wav"
    assert odd["path_b64"] is not None
    assert odd["label"] == HOSTILE


@needs_pyarrow
def test_duckdb_and_pandas_read_parquet(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    pandas = pytest.importorskip("pandas")
    file = write_parquet(tmp_path)
    query = f"SELECT label, max(score) FROM '{file}' WHERE status = 'ok' AND label LIKE 'Rain%' GROUP BY label"
    assert duckdb.sql(query).fetchall() == [("Rain", 0.713043)]
    assert duckdb.sql(f"SELECT path FROM '{file}' WHERE status = 'error'").fetchall() == [("bad.wav",)]
    assert pandas.read_parquet(file)["channel"].dropna().tolist() == [1, 2]


@needs_pyarrow
def test_parquet_is_written_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    monkeypatch.setattr(parquet, "ROWS_PER_GROUP", 4)
    with (tmp_path / "tags.parquet").open("wb") as stream:
        parquet.write_parquet([WHOLE] * 5, stream)
    file = pq.ParquetFile(tmp_path / "tags.parquet")
    assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [4, 4, 2]


@needs_pyarrow
def test_parquet_is_rendered_to_bytes_and_never_to_text(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    assert pq.read_table(io.BytesIO(rendered(WHOLE, "parquet"))).num_rows == 2
    assert pq.read_table(io.BytesIO(rendered(dataclasses.replace(WHOLE, events=()), "parquet"))).num_rows == 1
    with pytest.raises(UsageError, match="parquet is binary"):
        open_writer("parquet", io.StringIO())


def test_parquet_without_pyarrow_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r"parquet needs pyarrow, which is not installed: pip install 'ast-cli\[pa"):
        open_writer("parquet", io.StringIO())
