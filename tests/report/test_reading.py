"""Results that are read back from the files of a run."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest

from ast_cli.errors import AstError, ErrorCode, UsageError
from ast_cli.report import open_writer
from ast_cli.report.reading import read_results
from ast_cli.results import Event, FileError, StreamedPart, Tag, TaggingResult, Window

TAG = Tag("Rain", 289, "/m/06mb1", 0.75)
EVENT = Event("Rain", 289, "/m/06mb1", 0.0, 10.24, 0.5, 0.75)
RESULTS = [
    TaggingResult("a/rain.wav", "m", "sigmoid", 12.5, 16000, 1, (TAG,), (Window(0.0, 5.12, (TAG,)),), (EVENT,)),
    TaggingResult("b\udcff\n.wav", "m", "sigmoid", 1.0, 8000, 2, channel=2, warnings=("clipped",)),
    TaggingResult("c.wav", "m", "sigmoid", error=FileError(ErrorCode.NO_SAMPLES, "no samples")),
]


def written(tmp_path: Path, format_name: str) -> Path:
    stream = io.StringIO()
    writer = open_writer(format_name, stream)
    for result in RESULTS:
        writer.write(result)
    writer.close()
    file = tmp_path / f"tags.{format_name}"
    file.write_text(stream.getvalue())
    return file


@pytest.mark.parametrize("format_name", ["jsonl", "json"])
def test_results_are_read_back(tmp_path: Path, format_name: str) -> None:
    assert list(read_results(written(tmp_path, format_name))) == RESULTS


def test_results_come_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(written(tmp_path, "jsonl").read_text()))
    assert list(read_results("-")) == RESULTS


def test_empty_lines_and_parts_that_the_record_contains_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "tags.jsonl"
    part = json.dumps(StreamedPart("a/rain.wav", EVENT).to_dict())
    file.write_text(f"\n{part}\n\n{json.dumps(RESULTS[0].to_dict())}\n")
    assert list(read_results(file)) == RESULTS[:1]


@pytest.mark.parametrize("channels", [(None,), (1, 2)])
def test_streamed_parts_belong_to_the_record_after_them(tmp_path: Path, channels: tuple[int | None, ...]) -> None:
    file = tmp_path / "tags.jsonl"
    windows = [Window(float(start), start + 5.0, (TAG,)) for start in (0, 5)]
    records: list[StreamedPart | TaggingResult] = [StreamedPart("never finished.wav", windows[0])]
    for part in (*windows, EVENT):
        records += [StreamedPart("b\udcff.wav", part, channel) for channel in channels]
    whole = [TaggingResult("b\udcff.wav", "m", "sigmoid", 10.0, 8000, 2, channel=channel) for channel in channels]
    last = TaggingResult("c.wav", "m", "sigmoid", 1.0, 8000, 1)
    file.write_text("".join(f"{json.dumps(record.to_dict())}\n" for record in [*records, *whole, last]))
    joined = [dataclasses.replace(result, windows=tuple(windows), events=(EVENT,)) for result in whole]
    assert list(read_results(file)) == [*joined, last]


def test_an_empty_file_has_no_results(tmp_path: Path) -> None:
    (tmp_path / "tags.jsonl").write_text("")
    assert list(read_results(tmp_path / "tags.jsonl")) == []


def test_the_first_results_do_not_wait_for_the_last(tmp_path: Path) -> None:
    file = written(tmp_path, "jsonl")
    file.write_text(file.read_text() + '{"cut')
    reading = read_results(file)
    assert [next(reading) for _ in RESULTS] == RESULTS
    with pytest.raises(AstError, match=r"tags\.jsonl: line 4: not JSON, or cut off"):
        next(reading)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\n", "line 1: not JSON, or cut off; name an output of ast classify"),
        ('[{"a": 1},\n', "line 2: not JSON, or cut off"),
        ("3\n", "line 1: not a record"),
        ('[{"a": 1}]', "line 1: not a record"),
        ('{"type": "file", "schema_version": 1}\n', "line 1: not a record"),
        ('{"schema_version": 7}\n', "schema_version 7 is of a newer version of ast"),
        ("[" * 200_000, "line 1: not JSON"),
    ],
)
def test_what_is_no_result_is_named_by_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "tags.jsonl").write_text(text)
    with pytest.raises(AstError, match=message):
        list(read_results(tmp_path / "tags.jsonl"))


def test_bytes_that_are_not_text_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "tags.jsonl").write_bytes(b"RIFF\xff\xfe")
    with pytest.raises(AstError, match="not UTF-8"):
        list(read_results(tmp_path / "tags.jsonl"))


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        list(read_results(tmp_path / "tags.jsonl"))
    with pytest.raises(AstError, match="cannot be read"):
        list(read_results(tmp_path))
