"""Two runs compared: what only one contains, and what changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import pytest

from ast_cli.errors import AstError, ErrorCode
from ast_cli.results import Event, FileError, Tag, TaggingResult
from ast_cli.tagging.recorded.difference import Comparison, EventChange, LabelChange, RecordingDifference


def result(path: str, /, *, channel: int | None = None, **scores: float) -> TaggingResult:
    tags = tuple(Tag(label, 0, None, score) for label, score in scores.items())
    return TaggingResult(path, "m", "sigmoid", 10.0, 16000, 1, tags, channel=channel)


def failed(path: str, code: ErrorCode = ErrorCode.NOT_AUDIO) -> TaggingResult:
    return TaggingResult(path, "m", "sigmoid", error=FileError(code, f"{path}: failed"))


def compared(
    old: Iterable[TaggingResult], new: Iterable[TaggingResult], tolerance: float = 0.01
) -> tuple[list[RecordingDifference], Comparison]:
    comparison = Comparison(old, new, tolerance)
    return list(comparison), comparison


def test_equal_runs_do_not_differ() -> None:
    run = [result("a.wav", Rain=0.5), failed("b.wav"), result("c.wav", channel=1), result("c.wav", channel=2)]
    differences, comparison = compared(run, reversed(run))
    assert (differences, comparison.num_compared, comparison.counts.total()) == ([], 4, 0)


def test_labels_appear_disappear_and_change_by_more_than_the_tolerance() -> None:
    old = [result("a.wav", Rain=0.5, Bark=0.4, Music=0.3, Noise=0.005)]
    new = [result("a.wav", Bark=0.41, Music=0.2, Speech=0.9, Silence=0.01)]
    (difference,), comparison = compared(old, new)
    assert difference == RecordingDifference(
        "a.wav",
        None,
        "ok",
        "ok",
        (LabelChange("Speech", None, 0.9), LabelChange("Rain", 0.5, None), LabelChange("Music", 0.3, 0.2)),
    )
    assert [change.kind for change in difference.labels] == ["appeared", "disappeared", "changed"]
    assert dict(comparison.counts) == {"labels": 1}
    ((difference,), _) = compared(old, new, tolerance=0.009)
    assert [change.label for change in difference.labels] == ["Speech", "Rain", "Music", "Bark", "Silence"]


def test_logits_that_are_missing_always_count() -> None:
    old, new = (dataclasses.replace(result("a.wav", **{label: 0.0}), activation="none") for label in ("Rain", "Bark"))
    ((difference,), _) = compared([old], [new])
    assert difference.labels == (LabelChange("Rain", 0.0, None), LabelChange("Bark", None, 0.0))


def test_recordings_of_one_run_alone_come_last_with_their_status() -> None:
    old = [result("old.wav"), result("a.wav", Rain=0.9), failed("gone.wav")]
    new = [result("a.wav"), result("b.wav"), result("old.wav", channel=1)]
    differences, comparison = compared(old, new)
    assert [(each.path, each.channel, each.kind, each.old_status, each.new_status) for each in differences] == [
        ("a.wav", None, "labels", "ok", "ok"),
        ("old.wav", None, "only_in_old", "ok", None),
        ("gone.wav", None, "only_in_old", "not_audio", None),
        ("b.wav", None, "only_in_new", None, "ok"),
        ("old.wav", 1, "only_in_new", None, "ok"),
    ]
    assert comparison.num_compared == 1


def test_another_status_or_another_error_is_a_difference() -> None:
    old = [failed("a.wav"), failed("b.wav"), result("c.wav", Rain=0.5)]
    new = [result("a.wav", Rain=0.5), failed("b.wav", ErrorCode.TIMEOUT), failed("c.wav")]
    differences, _ = compared(old, new)
    assert [(each.old_status, each.new_status, each.labels) for each in differences] == [
        ("not_audio", "ok", ()),
        ("not_audio", "timeout", ()),
        ("ok", "not_audio", ()),
    ]
    assert {each.kind for each in differences} == {"status"}


def test_events_are_compared_by_time_where_both_runs_looked_for_them() -> None:
    def with_events(*spans: tuple[str, float, float]) -> TaggingResult:
        events = tuple(Event(label, 0, None, start_s, end_s, 0.6, 0.7) for label, start_s, end_s in spans)
        return dataclasses.replace(result("a.wav"), events=events)

    old = with_events(("Rain", 0.0, 5.0), ("Bark", 1.0, 2.0), ("Rain", 7.0, 8.0))
    new = with_events(("Bark", 1.0, 2.0), ("Rain", 0.0, 8.0))
    ((difference,), _) = compared([old], [new])
    assert difference.events == (EventChange("Rain", ((0.0, 5.0), (7.0, 8.0)), ((0.0, 8.0),)),)
    assert compared([old], [result("a.wav")])[0] == []


def test_a_recording_that_occurs_twice_is_refused() -> None:
    for old, new in (
        ([result("a.wav"), result("a.wav")], []),
        ([result("a.wav")], [result("a.wav"), result("a.wav")]),
    ):
        with pytest.raises(AstError, match=r"a\.wav occurs twice"):
            compared(old, new)


def test_runs_in_the_same_order_are_read_side_by_side() -> None:
    num_read = 0

    def reading() -> Iterator[TaggingResult]:
        nonlocal num_read
        for number in range(1000):
            num_read += 1
            yield result(f"{number}.wav", Rain=0.5)

    other = (result(f"{number}.wav", Rain=0.9) for number in range(1000))
    for number, _ in enumerate(Comparison(reading(), other, 0.01)):
        assert num_read == number + 1
