from __future__ import annotations

import base64
import csv
import dataclasses
import io
import json
from typing import Any

import pytest

from ast_cli.errors import ErrorCode
from ast_cli.report import BINARY, FORMATS, open_writer
from ast_cli.report.text import clock, printable
from ast_cli.results import Event, FileError, StreamedPart, Tag, TaggingResult, Window, exact_path

TEXT_FORMATS = [name for name in FORMATS if name not in BINARY]
RAIN = Tag("Rain", 1, "/m/06mb1", 0.71304321)
WAVES = Tag("Waves, surf", 2, "/m/034srq", 0.14831)
OWN = Tag('=cmd|"x"', 0, None, 0.1)
PLAIN = TaggingResult("a/rain.ogg", "builtin", "softmax", 6.0, 44100, 2, (RAIN, WAVES))
TIMED = TaggingResult(
    "long.wav", "builtin", "softmax", 8.02133333333, 48000, 1, (WAVES,),
    windows=(Window(0.0, 5.12, (WAVES, RAIN)), Window(2.9, 8.02, ())), warnings=("truncated",),
)  # fmt: skip
BOTH = dataclasses.replace(TIMED, events=(Event("Rain", 1, "/m/06mb1", 0.0, 5.12, 0.6, 0.9),))
FAILED = TaggingResult(
    "bad.wav", "builtin", "softmax", error=FileError(ErrorCode.EMPTY_FILE, "bad.wav: the file is empty")
)


LEFT = dataclasses.replace(PLAIN, tags=(RAIN,), channel=1)
RIGHT = dataclasses.replace(PLAIN, tags=(WAVES,), channel=2)
APART = TaggingResult.from_channels([LEFT, RIGHT])


def written(format_name: str, *results: TaggingResult | StreamedPart, has_channels: bool = False) -> str:
    stream = io.StringIO()
    writer = open_writer(format_name, stream, has_channels=has_channels)
    for result in results:
        writer.write(result)
    writer.close()
    return stream.getvalue()


def test_json_lines_has_the_documented_keys_in_order() -> None:
    line = written("jsonl", PLAIN)
    assert line == (
        '{"schema_version": 1, "type": "file", "path": "a/rain.ogg", "status": "ok", "duration_s": 6.0, '
        '"sampling_rate": 44100, "num_channels": 2, "model": "builtin", "activation": "softmax", '
        '"tags": [{"label": "Rain", "label_id": 1, "mid": "/m/06mb1", "score": 0.713043}, '
        '{"label": "Waves, surf", "label_id": 2, "mid": "/m/034srq", "score": 0.14831}], '
        '"warnings": [], "error": null}\n'
    )


def test_json_holds_windows_between_tags_and_warnings_only_where_asked_for() -> None:
    (record,) = json.loads(written("json", TIMED))
    assert list(record)[-4:] == ["tags", "windows", "warnings", "error"]
    assert record["windows"][0]["start_s"] == 0.0
    assert record["windows"][1] == {"start_s": 2.9, "end_s": 8.02, "tags": []}
    assert record["warnings"] == ["truncated"]
    assert "windows" not in json.loads(written("jsonl", PLAIN))


def test_json_error_record() -> None:
    record = json.loads(written("jsonl", FAILED))
    assert record["status"] == "error"
    assert record["error"] == {"code": "empty_file", "message": "bad.wav: the file is empty"}
    assert record["tags"] == []
    assert record["duration_s"] is None


def test_json_document_is_a_valid_list_of_any_length() -> None:
    assert json.loads(written("json")) == []
    assert [record["path"] for record in json.loads(written("json", PLAIN, FAILED))] == ["a/rain.ogg", "bad.wav"]


@pytest.mark.parametrize(
    "name", ["new\nline.wav", "tab\t.wav", "\u2028.wav", "\x1b[31m.wav", "caf\udce9.wav", "\u202egpj.wav"]
)
@pytest.mark.parametrize("format_name", ["json", "jsonl"])
def test_hostile_names_stay_on_one_line_of_strict_ascii_json(format_name: str, name: str) -> None:
    text = written(format_name, TaggingResult(name, "m", "softmax", 1.0, 16000, 1, (RAIN,)))
    assert text.isascii()
    lines = [line for line in text.splitlines() if "schema_version" in line]
    assert len(lines) == 1
    loaded: Any = json.loads(text)
    record = loaded[0] if format_name == "json" else loaded
    if "\udce9" in name:
        assert record["path"] == "caf\ufffd.wav"
        assert record["path_b64"] == "Y2Fm6S53YXY="
    else:
        assert record["path"] == name
        assert "path_b64" not in record


def test_json_refuses_a_score_that_is_no_number() -> None:
    with pytest.raises(ValueError, match="JSON"):
        written("jsonl", TaggingResult("x", "m", "none", 1.0, 16000, 1, (Tag("Rain", 1, None, float("nan")),)))


def test_csv_has_one_row_a_tag() -> None:
    assert written("csv", PLAIN, FAILED) == (
        "path,start_s,end_s,rank,label,label_id,mid,score,status,error_code,path_b64,type\n"
        "a/rain.ogg,0.000,6.000,1,Rain,1,/m/06mb1,0.713043,ok,,,file\n"
        'a/rain.ogg,0.000,6.000,2,"Waves, surf",2,/m/034srq,0.148310,ok,,,file\n'
        "bad.wav,,,,,,,,error,empty_file,,file\n"
    )


def test_csv_with_timestamps_has_the_windows_rows() -> None:
    rows = list(csv.DictReader(io.StringIO(written("csv", TIMED))))
    assert [(row["start_s"], row["end_s"], row["rank"], row["label"], row["type"]) for row in rows] == [
        ("0.000", "5.120", "1", "Waves, surf", "window"),
        ("0.000", "5.120", "2", "Rain", "window"),
        ("2.900", "8.020", "", "", "window"),
    ]


def test_csv_has_the_windows_before_the_events() -> None:
    assert written("csv", BOTH).splitlines()[1:] == [
        'long.wav,0.000,5.120,1,"Waves, surf",2,/m/034srq,0.148310,ok,,,window',
        "long.wav,0.000,5.120,2,Rain,1,/m/06mb1,0.713043,ok,,,window",
        "long.wav,2.900,8.020,,,,,,ok,,,window",
        "long.wav,0.000,5.120,1,Rain,1,/m/06mb1,0.600000,ok,,,event",
    ]


def test_a_recording_without_an_event_is_in_every_format() -> None:
    none = dataclasses.replace(PLAIN, events=())
    assert written("csv", none).splitlines()[1:] == ["a/rain.ogg,0.000,6.000,,,,,,ok,,,file"]
    assert written("table", none) == "a/rain.ogg  00:06.00\n  no label above the threshold\n"
    assert [row[-6:] for row in written("csv", dataclasses.replace(TIMED, events=())).splitlines()[1:]] == [
        "window", "window", "window",
    ]  # fmt: skip


def test_csv_cells_never_start_formulas() -> None:
    text = written("csv", TaggingResult("-x\n.wav", "m", "softmax", 1.0, 16000, 1, (OWN,)))
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["path"] == "'-x\\n.wav"
    assert exact_path(row) == "-x\n.wav"
    assert row["label"] == '\'=cmd|"x"'


@pytest.mark.parametrize(
    ("path", "cell", "path_b64"),
    [
        ("caf\udce9.wav", "caf\ufffd.wav", "Y2Fm6S53YXY="),  # not UTF-8: as in JSON
        ("=x.wav", "'=x.wav", "PXgud2F2"),  # what the apostrophe was put before, or was there already
        ("'=x.wav", "'=x.wav", ""),
        ("\udcf8.wav", "\ufffd.wav", "'+C53YXY="),  # base64 may begin as a formula does
        ("h\xf6hle.wav", "h\xf6hle.wav", ""),
    ],
)
@pytest.mark.parametrize("kind", ["tags", "windows", "events", "error"])
def test_csv_keeps_every_path_to_the_byte(path: str, cell: str, path_b64: str, kind: str) -> None:
    changes: dict[str, Any] = {
        "tags": {},
        "windows": {"windows": (Window(0.0, 1.0, (RAIN,)), Window(1.0, 2.0, ()))},
        "events": {"events": (Event("Rain", 1, None, 0.0, 1.0, 0.6, 0.9),)},
        "error": {"error": FileError(ErrorCode.EMPTY_FILE, "the file is empty")},
    }[kind]
    text = written("csv", TaggingResult(path, "m", "sigmoid", 1.0, 16000, 1, (RAIN,), **changes))
    for row in csv.DictReader(io.StringIO(text, newline="")):
        assert (row["path"], row["path_b64"]) == (cell, path_b64)
        fields = {"path": cell} | ({"path_b64": path_b64} if path_b64 else {})
        assert exact_path(fields) == path


def test_table_shows_scores_bars_and_errors() -> None:
    assert written("table", PLAIN, FAILED) == (
        "a/rain.ogg  00:06.00\n"
        "    0.7130  ██████████████        Rain\n"
        "    0.1483  ███                   Waves, surf\n"
        "\n"
        "bad.wav  error: the file is empty\n"
    )


def test_a_result_has_a_short_repr() -> None:
    assert repr(RAIN) == "Tag('Rain', 0.7130)"
    assert repr(PLAIN) == "TaggingResult('a/rain.ogg', 6.00 s, 'Rain' 0.7130, 'Waves, surf' 0.1483)"
    assert repr(BOTH) == ("TaggingResult('long.wav', 8.02 s, 'Waves, surf' 0.1483, 2 windows, 1 event, 1 warning)")
    assert repr(TIMED.windows[0] if TIMED.windows else None) == (
        "Window(0.00-5.12 s, 'Waves, surf' 0.1483, 'Rain' 0.7130)"
    )
    assert repr(BOTH.events[0] if BOTH.events else None) == "Event('Rain', 0.00-5.12 s, mean 0.6000, max 0.9000)"
    assert repr(FAILED) == "TaggingResult('bad.wav', error empty_file: bad.wav: the file is empty)"
    many = dataclasses.replace(PLAIN, path=None, tags=(RAIN,) * 527)
    assert repr(many) == "TaggingResult(waveform, 6.00 s, 'Rain' 0.7130, 'Rain' 0.7130, 'Rain' 0.7130, 524 more)"
    assert repr(dataclasses.replace(PLAIN, tags=())) == "TaggingResult('a/rain.ogg', 6.00 s, no tags)"


def test_table_with_timestamps_has_a_line_a_window() -> None:
    assert written("table", TIMED) == (
        "long.wav  00:08.02  warning: truncated\n"
        "  00:00.00 - 00:05.12  0.148 Waves, surf   0.713 Rain\n"
        "  00:02.90 - 00:08.02  no label above the threshold\n"
    )


def test_table_separates_windows_from_events() -> None:
    assert written("table", BOTH) == (
        "long.wav  00:08.02  warning: truncated\n"
        "  windows\n"
        "    00:00.00 - 00:05.12  0.148 Waves, surf   0.713 Rain\n"
        "    00:02.90 - 00:08.02  no label above the threshold\n"
        "  events\n"
        "    00:00.00 - 00:05.12  0.600 (up to 0.900) Rain\n"
    )
    assert written("table", dataclasses.replace(BOTH, events=())).endswith(
        "  events\n    no label above the threshold\n"
    )


def test_table_of_logits_has_no_bars_and_keeps_signs() -> None:
    result = TaggingResult("x.wav", "m", "none", 1.0, 16000, 1, (Tag("Rain", 1, None, -3.25),))
    assert written("table", result) == "x.wav  00:01.00\n   -3.2500  Rain\n"


def test_table_escapes_control_characters_and_markup_in_names() -> None:
    result = TaggingResult("[red]\x1b[2J\u202e.wav", "m", "softmax", 1.0, 16000, 1, ())
    assert written("table", result).startswith("[red]\\x1b[2J\\u202e.wav  00:01.00\n")


def test_table_does_not_wrap_long_names() -> None:
    name = "x" * 300 + ".wav"
    assert written("table", TaggingResult(name, "m", "softmax", 1.0, 16000, 1, ())).splitlines()[0].startswith(name)


def test_every_format_takes_a_waveform_without_a_path() -> None:
    nameless = TaggingResult(None, "m", "softmax", 1.0, 16000, 1, (RAIN,))
    assert all("Rain" in written(format_name, nameless) for format_name in TEXT_FORMATS)


def test_events_have_rows_lines_and_records() -> None:
    result = TaggingResult(
        "a.wav", "m", "sigmoid", 9.0, 16000, 1, (), events=(Event("Rain", 1, "/m/06mb1", 1.0, 4.5, 0.6, 0.9),)
    )  # fmt: skip
    assert written("csv", result).splitlines()[1] == "a.wav,1.000,4.500,1,Rain,1,/m/06mb1,0.600000,ok,,,event"
    assert written("table", result) == "a.wav  00:09.00\n  00:01.00 - 00:04.50  0.600 (up to 0.900) Rain\n"
    assert json.loads(written("jsonl", result))["events"] == [
        {
            "label": "Rain", "label_id": 1, "mid": "/m/06mb1",
            "start_s": 1.0, "end_s": 4.5, "mean_score": 0.6, "max_score": 0.9,
        }
    ]  # fmt: skip


def test_streamed_part_is_a_line_with_its_kind_and_path() -> None:
    assert written("jsonl", StreamedPart("a.wav", Window(0.0, 5.12, ()))) == (
        '{"schema_version": 1, "type": "window", "path": "a.wav", "start_s": 0.0, "end_s": 5.12, "tags": []}\n'
    )


def test_each_channel_is_a_line_of_json_with_its_number_after_the_path() -> None:
    start = '{"schema_version": 1, "type": "file", "path": "a/rain.ogg", "channel": '
    middle = (
        ', "status": "ok", "duration_s": 6.0, "sampling_rate": 44100, "num_channels": 2, "model": "builtin", '
        '"activation": "softmax", "tags": ['
    )
    rain = '{"label": "Rain", "label_id": 1, "mid": "/m/06mb1", "score": 0.713043}'
    waves = '{"label": "Waves, surf", "label_id": 2, "mid": "/m/034srq", "score": 0.14831}'
    end = '], "warnings": [], "error": null}\n'
    assert written("jsonl", APART) == f"{start}1{middle}{rain}{end}{start}2{middle}{waves}{end}"
    assert written("jsonl", RIGHT) == f"{start}2{middle}{waves}{end}"
    records = json.loads(written("json", APART, FAILED, RIGHT))
    assert [record.get("channel") for record in records] == [1, 2, None, 2]
    assert "channel" not in records[2]


def test_csv_has_the_channel_in_a_last_column_only_where_channels_are_apart() -> None:
    assert written("csv", APART, FAILED, has_channels=True) == (
        "path,start_s,end_s,rank,label,label_id,mid,score,status,error_code,path_b64,type,channel\n"
        "a/rain.ogg,0.000,6.000,1,Rain,1,/m/06mb1,0.713043,ok,,,file,1\n"
        'a/rain.ogg,0.000,6.000,1,"Waves, surf",2,/m/034srq,0.148310,ok,,,file,2\n'
        "bad.wav,,,,,,,,error,empty_file,,file,\n"
    )
    timed = dataclasses.replace(BOTH, channel=3)
    assert [row[-2:] for row in csv.reader(written("csv", timed, has_channels=True).splitlines())] == [
        ["type", "channel"], ["window", "3"], ["window", "3"], ["window", "3"], ["event", "3"],
    ]  # fmt: skip


def test_table_has_a_heading_for_each_channel() -> None:
    assert written("table", APART, dataclasses.replace(FAILED, channel=2)) == (
        "a/rain.ogg [channel 1]  00:06.00\n"
        "    0.7130  ██████████████        Rain\n"
        "\n"
        "a/rain.ogg [channel 2]  00:06.00\n"
        "    0.1483  ███                   Waves, surf\n"
        "\n"
        "bad.wav [channel 2]  error: the file is empty\n"
    )


def test_streamed_part_of_a_channel_has_its_number_after_the_path() -> None:
    assert written("jsonl", StreamedPart("a.wav", Window(0.0, 5.12, ()), 2)) == (
        '{"schema_version": 1, "type": "window", "path": "a.wav", "channel": 2, '
        '"start_s": 0.0, "end_s": 5.12, "tags": []}\n'
    )


def test_clock_shows_hours_only_where_there_are_some() -> None:
    assert [clock(0), clock(65.1234), clock(3599.999), clock(36065.5)] == [
        "00:00.00", "01:05.12", "1:00:00.00", "10:01:05.50",
    ]  # fmt: skip


def test_printable_keeps_ordinary_letters_of_every_script() -> None:
    assert printable("Höhle 雨 мороз.wav") == "Höhle 雨 мороз.wav"
    assert printable("a\x00b\x7f") == "a\\x00b\\x7f"
    assert printable("می\u200cخواهم 👩\u200d🚒") == "می\u200cخواهم 👩\u200d🚒"  # joiners are spelling


HOSTILE = "\x1b[2J\x9b5A\r\u202egnp\u2066.\x07"
ESCAPED = "\\x1b[2J\\x9b5A\\r\\u202egnp\\u2066.\\x07"
ODD_TAG = Tag(f"Rain{HOSTILE}", 1, None, 0.5)
ODD = [
    TaggingResult(f"{HOSTILE}.wav", "m", "sigmoid", 6.0, 16000, 1, (ODD_TAG,)),
    TaggingResult(
        f"{HOSTILE}.wav", "m", "sigmoid", 6.0, 16000, 1, (ODD_TAG,), (Window(0.0, 5.0, (ODD_TAG,)),),
        (Event(ODD_TAG.label, 1, None, 0.0, 5.0, 0.6, 0.9),),
    ),
    TaggingResult(f"{HOSTILE}.wav", "m", "sigmoid", error=FileError(ErrorCode.EMPTY_FILE, f"{HOSTILE}.wav: is empty")),
]  # fmt: skip


@pytest.mark.parametrize("format_name", TEXT_FORMATS)
def test_hostile_names_and_labels_move_no_terminal(format_name: str) -> None:
    text = written(format_name, *ODD)
    assert not {character for character in text if not character.isprintable()} - {"\n", "\t"}
    if format_name in ("table", "csv", "tsv"):
        assert text.count(f"{ESCAPED}.wav") == {"table": 3, "csv": 4, "tsv": 4}[format_name]
        assert text.count(f"Rain{ESCAPED}") == 3
    elif format_name == "wide":
        assert (text.count(f"{ESCAPED}.wav"), text.count(f"Rain{ESCAPED}")) == (3, 1)
    elif format_name not in ("json", "jsonl"):
        assert text.count(f"Rain{ESCAPED}") == 2  # the events instead of the windows, and nothing of the failed input
    else:
        records = [json.loads(line) for line in text.splitlines()] if format_name == "jsonl" else json.loads(text)
        assert [record["path"] for record in records] == [f"{HOSTILE}.wav"] * 3
        assert records[0]["tags"][0]["label"] == f"Rain{HOSTILE}"


def test_the_exact_path_stands_beside_one_that_was_escaped_in_csv() -> None:
    (row,) = csv.DictReader(io.StringIO(written("csv", ODD[0])))
    assert (row["path"], row["label"]) == (f"{ESCAPED}.wav", f"Rain{ESCAPED}")
    assert base64.b64decode(row["path_b64"]).decode() == f"{HOSTILE}.wav"
    (row,) = csv.DictReader(io.StringIO(written("csv", dataclasses.replace(ODD[0], path="می\u200cخواهم.wav"))))
    assert (row["path"], row["path_b64"]) == ("می\u200cخواهم.wav", "")
