from __future__ import annotations

import dataclasses
import sys

import pytest

from ast_cli import results_to_dataframe
from ast_cli.errors import ErrorCode, UsageError
from ast_cli.report.data_frame import DTYPES
from ast_cli.results import Event, FileError, Tag, TaggingResult, Window

RAIN, OWN = Tag("Rain", 1, "/m/06mb1", 0.75), Tag("own", 0, None, 0.125)
PLAIN = TaggingResult("a.wav", "m", "sigmoid", 6.0, 16000, 2, (RAIN, OWN))
TIMED = dataclasses.replace(
    PLAIN,
    windows=(Window(0.0, 3.0, (RAIN,)), Window(3.0, 6.0, ())),
    events=(Event("Rain", 1, "/m/06mb1", 0.0, 3.0, 0.5, 0.75),),
)
FAILED = TaggingResult("caf\udce9.wav", "m", "sigmoid", error=FileError(ErrorCode.EMPTY_FILE, "empty"))


def test_a_frame_has_a_row_for_each_tag() -> None:
    pandas = pytest.importorskip("pandas")
    frame = results_to_dataframe(iter([PLAIN, FAILED]))
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == DTYPES
    assert frame["path"].tolist() == ["a.wav", "a.wav", "caf\ufffd.wav"]
    assert frame["label"].fillna("-").tolist() == ["Rain", "own", "-"]
    assert frame["rank"].tolist()[:2] == [1, 2]
    assert frame["score"].tolist()[:2] == [0.75, 0.125]
    assert frame["mid"].isna().tolist() == [False, True, True]
    assert frame["status"].tolist() == ["ok", "ok", "error"]
    assert frame["error_code"].tolist()[2] == "empty_file"
    assert frame["channel"].isna().all()
    assert pandas.isna(frame["end_s"][2])


def test_windows_and_events_have_the_rows_where_a_result_has_them() -> None:
    pytest.importorskip("pandas")
    frame = results_to_dataframe(TIMED)
    assert frame["type"].tolist() == ["window", "window", "event"]
    assert frame[["start_s", "end_s"]].to_numpy().tolist() == [[0.0, 3.0], [3.0, 6.0], [0.0, 3.0]]
    assert frame["label"].isna().tolist() == [False, True, False]
    assert frame["max_score"].tolist()[2] == 0.75
    assert frame["score"].tolist()[2] == 0.5


def test_each_channel_has_its_rows_and_no_results_give_an_empty_frame() -> None:
    pytest.importorskip("pandas")
    both = TaggingResult.from_channels([dataclasses.replace(PLAIN, channel=number) for number in (1, 2)])
    assert results_to_dataframe(both)["channel"].tolist() == [1, 1, 2, 2]
    empty = results_to_dataframe([])
    assert len(empty) == 0
    assert list(empty) == list(DTYPES)


def test_without_pandas_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="results_to_dataframe needs pandas: pip install pandas"):
        results_to_dataframe([PLAIN])
