"""Formats whose rows are times with a label: their exact text, and what the programs read that they are made for."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import io
import re
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from ast_cli.errors import ErrorCode, UsageError
from ast_cli.report import BINARY, FORMATS, NUMBERED, ONE_RECORDING, SUFFIXES, format_for, open_writer, suffix_of
from ast_cli.report.rttm import encoded_path
from ast_cli.results import Event, FileError, Tag, TaggingResult, Window

TIMED = ("audacity", "raven", "srt", "vtt", "rttm", "dcase")
RAIN = Tag("Rain", 1, "/m/06mb1", 0.71304321)
WAVES = Tag("Waves, surf", 2, "/m/034srq", 0.14831)
WHOLE = TaggingResult("a/rain.ogg", "builtin", "softmax", 6.0, 44100, 2, (RAIN, WAVES))
WINDOWS = TaggingResult(
    "long.wav", "builtin", "softmax", 3725.5, 48000, 1, (WAVES,),
    windows=(Window(0.0, 10.24, (WAVES, RAIN)), Window(10.24, 20.48, ()), Window(3720.0, 3725.5, (RAIN,))),
)  # fmt: skip
EVENTS = dataclasses.replace(
    WINDOWS,
    events=(Event("Rain", 1, None, 10.24, 20.48, 0.61, 0.9), Event("Waves, surf", 2, None, 0.0, 3725.5, 0.7, 0.8)),
)
NO_EVENTS = dataclasses.replace(WINDOWS, events=())
FAILED = TaggingResult("bad.wav", "m", "softmax", error=FileError(ErrorCode.EMPTY_FILE, "bad.wav: the file is empty"))
APART = TaggingResult.from_channels(
    [dataclasses.replace(WHOLE, tags=(RAIN,), channel=1), dataclasses.replace(WHOLE, tags=(WAVES,), channel=2)]
)
HOSTILE = 'a\tb\nc\r\u2028d\x1b[2J\u202e --> <b>{\\an8}&"\x00'
ODD_TAG = Tag(f'"{HOSTILE}', 1, None, 0.5)
ODD = TaggingResult(
    f"/x/caf\udce9 %41{HOSTILE}.wav", "m", "sigmoid", 6.0, 16000, 1, (ODD_TAG,), (Window(0.0, 5.0, (ODD_TAG,)),),
    (Event(ODD_TAG.label, 1, None, 0.0, 5.0, 0.6, 0.9), Event("", 0, None, 5.0, 5.0, 0.7, 0.7)),
)  # fmt: skip


def written(format_name: str, *results: TaggingResult, has_channels: bool = False) -> str:
    stream = io.StringIO()
    writer = open_writer(format_name, stream, has_channels=has_channels)
    for result in results:
        writer.write(result)
    writer.close()
    return stream.getvalue()


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write_file(format_name: str, *results: TaggingResult) -> Path:
        file = tmp_path / f"written{suffix_of(format_name)}"
        file.write_text(written(format_name, *results), encoding="utf-8", newline="")
        return file

    return write_file


def test_tsv_has_the_columns_of_csv_with_tabs_between_them() -> None:
    for results, has_channels in (((WHOLE, EVENTS, FAILED), False), ((APART,), True)):
        rows = list(csv.reader(io.StringIO(written("csv", *results, has_channels=has_channels))))
        text = written("tsv", *results, has_channels=has_channels)
        assert [line.split("\t") for line in text.splitlines()] == rows
    assert written("tsv", WHOLE).splitlines()[2] == (
        "a/rain.ogg\t0.000\t6.000\t2\tWaves, surf\t2\t/m/034srq\t0.148310\tok\t\t\tfile"
    )
    hostile = list(csv.reader(io.StringIO(written("tsv", ODD), newline=""), delimiter="\t"))
    assert hostile == list(csv.reader(io.StringIO(written("csv", ODD), newline="")))


def test_audacity_has_a_label_an_event_in_the_order_of_time() -> None:
    assert written("audacity", EVENTS) == (
        "0.000000\t3725.500000\tWaves, surf 0.700\n"
        "10.240000\t20.480000\tRain 0.610\n"
    )  # fmt: skip


def test_audacity_has_a_label_a_window_and_one_for_a_whole_recording() -> None:
    assert written("audacity", WINDOWS) == (
        "0.000000\t10.240000\tWaves, surf 0.148; Rain 0.713\n"
        "3720.000000\t3725.500000\tRain 0.713\n"
    )  # fmt: skip
    assert written("audacity", WHOLE) == "0.000000\t6.000000\tRain 0.713; Waves, surf 0.148\n"


def test_raven_has_the_columns_of_a_selection_table_and_times_run_on_over_the_files() -> None:
    expected = (
        "Selection|View|Channel|Begin Time (s)|End Time (s)|Low Freq (Hz)|High Freq (Hz)|Begin Path|File Offset (s)|"
        "Label|Score\n"
        "1|Spectrogram 1|1|0.000000|6.000000|0.0|22050.0|a/rain.ogg|0.000000|Rain|0.713043\n"
        "2|Spectrogram 1|1|0.000000|6.000000|0.0|22050.0|a/rain.ogg|0.000000|Waves, surf|0.148310\n"
        "3|Spectrogram 1|1|6.000000|3731.500000|0.0|24000.0|long.wav|0.000000|Waves, surf|0.700000\n"
        "4|Spectrogram 1|1|16.240000|26.480000|0.0|24000.0|long.wav|10.240000|Rain|0.610000\n"
        "5|Spectrogram 1|1|3731.500000|3737.500000|0.0|22050.0|a/rain.ogg|0.000000|Rain|0.713043\n"
        "6|Spectrogram 1|2|3731.500000|3737.500000|0.0|22050.0|a/rain.ogg|0.000000|Waves, surf|0.148310\n"
    )
    assert written("raven", WHOLE, FAILED, EVENTS, APART) == expected.replace("|", "\t")


def test_srt_has_numbered_cues() -> None:
    assert written("srt", WINDOWS) == (
        "1\n00:00:00,000 --> 00:00:10,240\nWaves, surf 0.148\nRain 0.713\n\n"
        "2\n01:02:00,000 --> 01:02:05,500\nRain 0.713\n\n"
    )


def test_vtt_has_its_first_line_and_cues_without_numbers() -> None:
    assert written("vtt", EVENTS) == (
        "WEBVTT\n\n00:00:00.000 --> 01:02:05.500\nWaves, surf 0.700\n\n00:00:10.240 --> 00:00:20.480\nRain 0.610\n\n"
    )


def test_rttm_has_ten_fields_without_spaces() -> None:
    assert written("rttm", EVENTS, FAILED, APART, dataclasses.replace(WHOLE, path="my dog.wav", tags=(RAIN,))) == (
        "SPEAKER long.wav 1 0.000 3725.500 <NA> <NA> Waves,_surf 0.700000 <NA>\n"
        "SPEAKER long.wav 1 10.240 10.240 <NA> <NA> Rain 0.610000 <NA>\n"
        "SPEAKER a/rain.ogg 1 0.000 6.000 <NA> <NA> Rain 0.713043 <NA>\n"
        "SPEAKER a/rain.ogg 2 0.000 6.000 <NA> <NA> Waves,_surf 0.148310 <NA>\n"
        "SPEAKER my%20dog.wav 1 0.000 6.000 <NA> <NA> Rain 0.713043 <NA>\n"
    )


def test_dcase_has_four_columns() -> None:
    assert written("dcase", WHOLE, FAILED, EVENTS) == (
        "filename\tonset\toffset\tevent_label\n"
        "a/rain.ogg\t0.000\t6.000\tRain\n"
        "a/rain.ogg\t0.000\t6.000\tWaves, surf\n"
        "long.wav\t0.000\t3725.500\tWaves, surf\n"
        "long.wav\t10.240\t20.480\tRain\n"
    )


@pytest.mark.parametrize("format_name", TIMED)
def test_a_recording_without_an_event_has_no_row(format_name: str) -> None:
    assert written(format_name, NO_EVENTS) == written(format_name)
    assert written(format_name, dataclasses.replace(WHOLE, tags=())) == written(format_name)
    assert written(format_name, FAILED) == written(format_name)


@pytest.mark.parametrize("format_name", ["audacity", "srt", "vtt"])
def test_channels_are_named_in_the_text_where_there_is_no_other_place(format_name: str) -> None:
    text = written(format_name, APART)
    assert text.index("[channel 1] Rain 0.713") < text.index("[channel 2] Waves, surf 0.148")


@pytest.mark.parametrize("format_name", ONE_RECORDING)
def test_a_second_recording_in_a_file_without_names_is_an_error(format_name: str) -> None:
    left, right = APART.channels
    assert written(format_name, left, right) == written(format_name, APART)  # two records, one recording
    with pytest.raises(UsageError, match=rf"^{format_name} has no place .* not a/rain\.ogg and long\.wav: write"):
        written(format_name, WHOLE, WINDOWS)


@pytest.mark.parametrize("format_name", TIMED)
def test_hostile_names_and_labels_add_no_line_and_move_no_terminal(format_name: str) -> None:
    harmless_tag = Tag("Rain", 1, None, 0.5)
    harmless = dataclasses.replace(
        ODD, path="x.wav", tags=(harmless_tag,),
        events=(Event("Rain", 1, None, 0.0, 5.0, 0.6, 0.9), Event("Rain", 1, None, 5.0, 5.0, 0.7, 0.7)),
    )  # fmt: skip
    for events in ((ODD.events, harmless.events), (None, None)):
        odd = written(format_name, dataclasses.replace(ODD, events=events[0], windows=None))
        plain = written(format_name, dataclasses.replace(harmless, events=events[1], windows=None))
        assert len(odd.splitlines()) == len(plain.splitlines())
        assert [line.count("\t") for line in odd.splitlines()] == [line.count("\t") for line in plain.splitlines()]
        assert not {character for character in odd if not character.isprintable()} - {"\n", "\t"}
        odd.encode("utf-8")


def arrows(text: str) -> int:
    """Count the arrows within lines that are no times of a cue: harmless where no cues are."""
    return sum(line.count(" --> ") for line in text.splitlines() if not re.match(r"\d\d:\d\d:\d\d[.,]\d{3} --> ", line))


@pytest.mark.parametrize("format_name", ["srt", "vtt"])
def test_an_arrow_in_a_label_is_no_arrow_of_a_cue(format_name: str) -> None:
    assert arrows(written(format_name, ODD)) == 0
    assert written(format_name, ODD).count(" --> ") == 2


@pytest.mark.parametrize(
    "path", ["my dog.wav", "100%.wav", "caf\udce9.wav", "a\u00a0\u2028\n\t.wav", "h\xf6hle.wav", '"', "%41"]
)
def test_a_path_in_rttm_can_be_restored(path: str) -> None:
    encoded = encoded_path(path)
    assert not re.search(r"\s", encoded)
    assert urllib.parse.unquote_to_bytes(encoded) == path.encode("utf-8", "surrogateescape")


def test_every_suffix_has_its_format_and_the_longest_counts() -> None:
    assert set(SUFFIXES.values()) == set(FORMATS)
    for suffix, format_name in SUFFIXES.items():
        assert format_for(Path(f"tags{suffix}"), FORMATS) == format_name
        assert format_for(Path(f"TAGS.x{suffix.upper()}"), FORMATS) == format_name
    assert format_for(Path("tags.labels.txt"), ("json", "table")) == "table"
    with pytest.raises(UsageError, match=r"\.dcase\.tsv, .* or \.txt \(table\), or choose with --format"):
        format_for(Path("tags.xml"), FORMATS)


# What reads the formats


def audacity_labels(text: str) -> list[tuple[float, float, str]]:
    """Read labels by the rules of Audacity's import: a line that it cannot read makes the whole file invalid.

    A line is start, end and title between tabs, and a line that starts with a backslash has frequencies of the label
    before it (LabelTrack::Import and LabelStruct::Import of Audacity 3).
    """
    labels = []
    for line in text.splitlines():
        assert not line.startswith("\\")
        start, end, title = line.split("\t")
        assert re.fullmatch(r"\d+\.\d+", start)
        assert re.fullmatch(r"\d+\.\d+", end)
        assert float(start) <= float(end)
        labels.append((float(start), float(end), title))
    return labels


def test_audacity_reads_the_labels(write: Any) -> None:
    assert audacity_labels(write("audacity", EVENTS).read_text()) == [
        (0.0, 3725.5, "Waves, surf 0.700"), (10.24, 20.48, "Rain 0.610"),
    ]  # fmt: skip
    (_, _, title), _ = audacity_labels(write("audacity", ODD).read_text(encoding="utf-8"))
    assert title.startswith('"a\\tb\\nc\\r\\u2028d\\x1b[2J\\u202e --> <b>')


def test_pandas_reads_the_selection_table(write: Any) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(write("raven", WHOLE, EVENTS, ODD), sep="\t")
    assert table["Selection"].tolist() == [1, 2, 3, 4, 5, 6]
    assert table["Begin Time (s)"].tolist() == [0, 0, 6.0, 16.24, 3731.5, 3736.5]
    assert table["Label"].tolist()[:4] == ["Rain", "Waves, surf", "Waves, surf", "Rain"]
    assert table["Label"][4].startswith("'a\\tb\\nc")
    assert table["Begin Path"].nunique() == 3


@pytest.mark.skipif(not importlib.util.find_spec("crowsetta"), reason="needs crowsetta")
@pytest.mark.filterwarnings("default")  # its own, with the newest pandas
def test_crowsetta_reads_the_selection_table(write: Any) -> None:
    import crowsetta

    table = crowsetta.formats.bbox.Raven.from_file(write("raven", WHOLE, EVENTS), annot_col="Label")
    boxes = table.to_bbox()
    assert [(box.onset, box.offset, box.label) for box in boxes][2:] == [
        (6.0, 3731.5, "Waves, surf"), (16.24, 26.48, "Rain"),
    ]  # fmt: skip


def test_pysubs2_reads_the_subtitles(write: Any) -> None:
    pysubs2 = pytest.importorskip("pysubs2")
    for format_name in ("srt", "vtt"):
        cues = pysubs2.load(str(write(format_name, WINDOWS)), format_=format_name)
        assert [(cue.start, cue.end, cue.plaintext) for cue in cues] == [
            (0, 10_240, "Waves, surf 0.148\nRain 0.713"), (3_720_000, 3_725_500, "Rain 0.713"),
        ]  # fmt: skip
    odd = pysubs2.load(str(write("srt", ODD)), format_="srt")
    assert [(cue.start, cue.end) for cue in odd] == [(0, 5000), (5000, 5001)]
    assert "an8" in odd[0].plaintext


def test_webvtt_reads_the_captions(write: Any) -> None:
    webvtt = pytest.importorskip("webvtt")
    captions = webvtt.read(str(write("vtt", WINDOWS))).captions
    assert [(each.start, each.end, each.text) for each in captions] == [
        ("00:00:00.000", "00:00:10.240", "Waves, surf 0.148\nRain 0.713"),
        ("01:02:00.000", "01:02:05.500", "Rain 0.713"),
    ]
    odd = webvtt.read(str(write("vtt", ODD))).captions
    assert [(each.start, each.end) for each in odd] == [
        ("00:00:00.000", "00:00:05.000"), ("00:00:05.000", "00:00:05.001"),
    ]  # fmt: skip
    assert webvtt.from_srt(str(write("srt", WINDOWS))).captions[0].text == "Waves, surf 0.148\nRain 0.713"
    assert webvtt.read(str(write("vtt", NO_EVENTS))).captions == []


def test_pyannote_reads_the_rttm(write: Any) -> None:
    database = pytest.importorskip("pyannote.database.util")
    annotations = database.load_rttm(str(write("rttm", EVENTS, WHOLE)))
    assert sorted(annotations) == ["a/rain.ogg", "long.wav"]
    tracks = [(part.start, part.end, label) for part, _, label in annotations["long.wav"].itertracks(yield_label=True)]
    assert tracks == [(0.0, 3725.5, "Waves,_surf"), (10.24, 20.48, "Rain")]
    (odd,) = database.load_rttm(str(write("rttm", dataclasses.replace(ODD, events=None, windows=None))))
    assert urllib.parse.unquote_to_bytes(odd) == str(ODD.path).encode("utf-8", "surrogateescape")


@pytest.mark.skipif(not importlib.util.find_spec("sed_eval"), reason="needs sed_eval, which brings librosa")
def test_sed_eval_reads_the_list_of_events(write: Any) -> None:
    import sed_eval

    # It knows no .tsv, and guesses the delimiter from the first kilobyte unless it is told.
    file = str(write("dcase", WHOLE, EVENTS, ODD))
    events = sed_eval.io.load_event_list(file, file_format="CSV", delimiter="\t")
    assert [tuple(item[name] for name in ("filename", "onset", "offset", "event_label")) for item in events][:4] == [
        ("a/rain.ogg", 0.0, 6.0, "Rain"), ("a/rain.ogg", 0.0, 6.0, "Waves, surf"),
        ("long.wav", 0.0, 3725.5, "Waves, surf"), ("long.wav", 10.24, 20.48, "Rain"),
    ]  # fmt: skip


def test_numbered_formats_are_those_whose_text_depends_on_earlier_results() -> None:
    """The journal of a run brings their writers up to date before it continues; it does not for the others."""
    assert set(NUMBERED) == {
        name for name in FORMATS if name in ONE_RECORDING or (name not in BINARY and continues_differently(name))
    }


def continues_differently(format_name: str) -> bool:
    """Return whether a result has another text after two results than after one; a separator is before both."""
    one, two = written(format_name, WHOLE, EVENTS), written(format_name, WHOLE, WHOLE, EVENTS)
    again = written(format_name, WHOLE, WHOLE)
    return two[len(again.removesuffix("\n]\n")) :] != one[len(written(format_name, WHOLE).removesuffix("\n]\n")) :]
