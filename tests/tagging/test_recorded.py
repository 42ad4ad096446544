"""Results that exist, chosen again: what is kept, and what may be missing."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import small_config

from ast_cli.errors import AstError, ErrorCode, UsageError
from ast_cli.report.reading import read_results
from ast_cli.results import Event, FileError, Tag, TaggingResult, Window
from ast_cli.tagging.options import ClassifyOptions
from ast_cli.tagging.recorded.choosing import RecordedChooser
from ast_cli.tagging.recorded.convert import open_conversion
from ast_cli.tagging.recorded.options import ConvertOptions
from ast_cli.tagging.recorded.survey import Survey
from ast_cli.tagging.score.events import EventMerger
from ast_cli.tagging.score.scoring import TagChooser

LABELS = ["Rain", "Bark", "own label"]
MIDS = ["/m/06mb1", "/m/05tny_", None]


def tags(*scores: float) -> tuple[Tag, ...]:
    """Return tags of the labels with these scores, best first; a negative score leaves one out."""
    made = [Tag(LABELS[i], i, MIDS[i], score) for i, score in enumerate(scores) if score >= 0]
    return tuple(sorted(made, key=lambda tag: -tag.score))


def result(*windows: tuple[Tag, ...], path: str = "a.wav", **changes: Any) -> TaggingResult:
    of_windows = tuple(Window(float(i), float(i + 1), window) for i, window in enumerate(windows))
    made = TaggingResult(path, "m", "sigmoid", 10.0, 16000, 1, tags(0.7, 0.3, 0.1), of_windows if windows else None)
    return dataclasses.replace(made, **changes)


FAILED = TaggingResult("bad.wav", "m", "sigmoid", error=FileError(ErrorCode.NOT_AUDIO, "bad.wav: no audio"))
EVENTS = (
    Event("Rain", 0, "/m/06mb1", 0.0, 3.0, 0.6, 0.9),
    Event("Bark", 1, "/m/05tny_", 1.0, 2.0, 0.8, 0.8),
)


def converted(results: Iterable[TaggingResult], **options: Any) -> tuple[list[TaggingResult], RecordedChooser]:
    results, survey = list(results), Survey()
    for each in results:
        survey.add(each)
    chooser = RecordedChooser(ConvertOptions(**options), survey)
    kept = [chooser(each) for each in results]
    return [each for each in kept if each is not None], chooser


def one(recorded: TaggingResult, **options: Any) -> TaggingResult:
    ((kept), _) = converted([recorded], **options)
    return kept[0]


def test_without_options_everything_is_kept() -> None:
    recorded = [result(tags(0.7, 0.1, 0.3), events=EVENTS), FAILED, result(channel=2, events=())]
    assert converted(recorded)[0] == recorded


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"threshold": 0.3}, tags(0.7, 0.3)),
        ({"threshold": 0.30001}, tags(0.7)),
        ({"top_k": 1}, tags(0.7)),
        ({"labels": ("own LABEL,/m/05tny_",)}, tags(-1, 0.3, 0.1)),
        ({"labels": ("Animal/*",)}, tags(-1, 0.3)),
        ({"exclude_labels": ("Animal/*",)}, tags(0.7, -1, 0.1)),
        ({"labels": ("Trumpet",)}, ()),  # one of AudioSet's, which the model may have
        ({"thresholds": {"/m/06mb1": 0.71, "Own Label": 0.1, "of another model": 0.1}}, tags(-1, -1, 0.1)),
        ({"thresholds": {"Bark": 0.31}, "threshold": 0.1}, tags(0.7, -1, 0.1)),
    ],
)
def test_tags_of_recordings_and_windows_are_kept_by_score_label_and_number(
    options: dict[str, Any], kept: tuple[Tag, ...]
) -> None:
    chosen = one(result(tags(0.7, 0.3, 0.1), ()), **options)
    assert chosen.tags == kept
    assert chosen.windows == (Window(0.0, 1.0, kept), Window(1.0, 2.0, ()))


def test_events_without_windows_are_kept_by_their_mean_scores_with_their_times() -> None:
    assert one(result(events=EVENTS), threshold=0.6).events == EVENTS
    assert one(result(events=EVENTS), threshold=0.7).events == EVENTS[1:]
    assert one(result(events=EVENTS), labels=("Rain",)).events == EVENTS[:1]


def test_events_with_windows_are_made_again_as_tagging_makes_them(rng: np.random.Generator) -> None:
    scores = rng.random((40, len(LABELS))).round(6).astype(np.float32)
    merger, expected = EventMerger(dict(enumerate(LABELS)), np.arange(len(LABELS)), 0.4), []
    for i, row in enumerate(scores):
        expected += merger.add(float(i), float(i + 1), row)
    expected += merger.finish()
    recorded = result(*(tags(*row.tolist()) for row in scores), events=EVENTS)
    assert one(recorded, threshold=0.4).events == tuple(expected)
    assert one(recorded, threshold=0.4, top_k=1).events == tuple(expected)  # the number is one of tags
    assert one(recorded, labels=("Bark",), threshold=0.4).events == tuple(e for e in expected if e.label == "Bark")
    assert one(recorded).events == EVENTS  # as long as no threshold is given


def test_events_are_made_from_windows_over_one_half_where_none_were_recorded() -> None:
    recorded = result(tags(0.6, 0.2), tags(0.8, 0.5), tags(0.4, 0.7))
    chosen = one(recorded, events=True)
    assert chosen.windows is None
    assert chosen.events == (
        Event("Rain", 0, "/m/06mb1", 0.0, 2.0, pytest.approx(0.7), 0.8),
        Event("Bark", 1, "/m/05tny_", 1.0, 3.0, pytest.approx(0.6), 0.7),
    )
    assert one(recorded, events=True, timestamps=True).windows == recorded.windows


def test_windows_without_events_are_kept_on_request() -> None:
    recorded = result(tags(0.6), events=EVENTS)
    assert (one(recorded, timestamps=True).windows, one(recorded, timestamps=True).events) == (recorded.windows, None)
    assert (one(recorded, events=True).windows, one(recorded, events=True).events) == (None, EVENTS)


def test_only_matches_are_kept_and_failures() -> None:
    rain, bark = result(tags(0.9), (), path="rain.wav"), result(path="bark.wav", tags=tags(0.1, 0.9))
    kept, _ = converted([rain, FAILED, bark], threshold=0.5, labels=("Rain",), matches_only=True)
    assert [each.path for each in kept] == ["rain.wav", "bad.wav"]
    assert kept[0].windows == (Window(0.0, 1.0, tags(0.9)),)
    kept, _ = converted([result(events=EVENTS), result(events=())], matches_only=True)
    assert [each.events for each in kept] == [EVENTS]
    with pytest.raises(UsageError, match="--matches-only needs --threshold, --thresholds, --labels or --events"):
        converted([rain], matches_only=True)


@pytest.mark.parametrize(
    ("recorded", "threshold", "num_incomplete"),
    [
        ([tags(0.9, 0.8), tags(0.9, 0.1)], 0.5, 1),  # in the first a third label may reach 0.5 too
        ([tags(0.9, 0.3), tags(0.9, 0.1)], 0.5, 0),
        ([tags(0.9), (), tags(0.9, 0.8, 0.5)], 0.6, 0),  # cut off at 0.5 at the highest
        ([tags(0.9), ()], 0.5, 2),  # cut off at 0.9 or below: nobody knows
        ([(), ()], 0.5, 2),
    ],
)
def test_results_that_may_lack_labels_are_counted(
    recorded: list[tuple[Tag, ...]], threshold: float, num_incomplete: int
) -> None:
    results = [result(tags=of_recording) for of_recording in recorded]
    assert converted(results, threshold=threshold)[1].num_incomplete == num_incomplete
    assert converted(results)[1].num_incomplete == 0


def test_a_result_with_all_chosen_labels_lacks_none() -> None:
    results = [result(tags=tags(0.9, 0.8))]
    assert converted(results, threshold=0.85)[1].num_incomplete == 0
    assert converted(results, threshold=0.8)[1].num_incomplete == 1
    assert converted(results, threshold=0.8, labels=("Rain,Bark",))[1].num_incomplete == 0


@pytest.mark.parametrize(
    ("recorded", "options", "message"),
    [
        (result(), {"labels": ("Rian",)}, r"the model has no label 'Rian'; similar labels: 'Rain'.* \(known: "),
        (result(), {"labels": ("Rain",), "exclude_labels": ("Rain",)}, "no label is left"),
        (result(), {"threshold": 1.5}, "--threshold must be from 0 to 1"),
        (result(), {"thresholds": {"Rain": 0.5, "/m/06mb1": 0.5}}, "--thresholds: two thresholds are given"),
        (result(), {"timestamps": True}, "a.wav: its result contains no windows; classify it with --timestamps"),
        (result(), {"events": True}, "a.wav: its result contains neither windows nor events"),
    ],
)
def test_what_cannot_be_kept_is_refused(recorded: TaggingResult, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        converted([recorded], **options)


def test_logits_have_any_threshold() -> None:
    recorded = dataclasses.replace(result(), activation="none", tags=tags(7.0, 3.0))
    assert one(recorded, threshold=5.0).tags == tags(7.0)


def test_words_of_speech_commands_are_known() -> None:
    recorded = result(tags=(Tag("yes", 1, None, 0.9),))
    assert one(recorded, labels=("no",)).tags == ()
    with pytest.raises(UsageError, match="has no label 'Rain'"):
        one(recorded, labels=("Rain",))


def written(file: Path, *results: TaggingResult) -> Path:
    file.write_text("".join(f"{json.dumps(each.to_dict())}\n" for each in results))
    return file


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    first, pipe = written(tmp_path / "1.jsonl", result()), tmp_path / "pipe"
    os.mkfifo(pipe)
    content = f"{json.dumps(result(path='b.wav', channel=2).to_dict())}\n"
    writing = threading.Thread(target=pipe.write_text, args=[content])
    writing.start()
    with open_conversion([str(first), str(pipe)], ConvertOptions(labels=("Bark",))) as conversion:
        kept = list(conversion)
    writing.join()
    assert [each.path for each in kept] == ["a.wav", "b.wav"]
    assert conversion.survey.has_channels
    assert kept == [dataclasses.replace(each, tags=tags(-1, 0.3)) for each in (result(), kept[1])]


def test_damage_anywhere_is_found_before_anything_is_yielded(tmp_path: Path) -> None:
    file = written(tmp_path / "tags.jsonl", result())
    file.write_text(file.read_text() + '{"cut')
    opening = open_conversion([str(file)], ConvertOptions())
    with pytest.raises(AstError, match=r"tags\.jsonl: line 2: not JSON, or cut off"):
        opening.__enter__()
    assert list(read_results(written(file, result()))) == [result()]


def test_standard_input_is_named_once() -> None:
    opening = open_conversion(["-", "-"], ConvertOptions())
    with pytest.raises(UsageError, match="standard input can be read once"):
        opening.__enter__()


# Specific labels

DOGS = ["Animal", "Domestic animals, pets", "Dog", "Bark", "Rain", "Speech", "my own"]


def dogs(scores: Iterable[float], *, num_listed: int = len(DOGS), over: float = 0.0) -> tuple[Tag, ...]:
    """Return the best tags of `DOGS` with these scores, as a run would record them."""
    made = [
        Tag(label, i, None, score) for i, (label, score) in enumerate(zip(DOGS, scores, strict=True)) if score >= over
    ]
    return tuple(sorted(made, key=lambda tag: -tag.score)[:num_listed])


@pytest.mark.parametrize("threshold", [None, 0.3])
@pytest.mark.parametrize("top_k", [None, 3])
def test_specific_leaves_out_the_labels_that_classify_leaves_out(top_k: int | None, threshold: float | None) -> None:
    random = np.random.default_rng(7)
    config = small_config(id2label=dict(enumerate(DOGS)), problem_type="multi_label_classification")
    options: dict[str, Any] = {"top_k": top_k, "threshold": threshold, "labels": ("Animal/*,Animal,Rain",)}
    chooser = TagChooser(config, ClassifyOptions(specific=True, **options))
    num_left_out = 0
    for _ in range(200):
        scores = random.uniform(0.0, 1.0, len(DOGS)).round(3).astype(np.float32)
        recorded = result(dogs(scores.tolist()), tags=dogs(scores.tolist()))
        kept = one(recorded, specific=True, **options)
        expected = [tag.label for tag in chooser.choose(scores)]
        assert [tag.label for tag in kept.tags] == expected
        assert kept.windows is not None
        assert [tag.label for tag in kept.windows[0].tags] == expected
        num_left_out += len(one(recorded, **options).tags) - len(expected)
    assert num_left_out > 50


def test_specific_makes_events_of_the_labels_that_remain_in_each_window() -> None:
    both, animal = dogs([0.9, 0, 0.8, 0, 0, 0, 0]), dogs([0.9, 0, 0.6, 0, 0, 0, 0])
    recorded = result(both, animal, both)
    events = one(recorded, specific=True, events=True).events
    assert events is not None
    assert [(event.label, event.start_s, event.end_s) for event in events] == [("Animal", 1.0, 2.0), ("Dog", 0.0, 3.0)]


def test_specific_is_refused_where_it_could_not_choose_as_classify_does() -> None:
    with pytest.raises(
        UsageError, match=r"^a\.wav: its result contains events without windows, and --specific chooses"
    ):
        one(result(events=EVENTS), specific=True)
    with pytest.raises(UsageError, match="--specific makes events again from the windows: add --threshold"):
        one(result(tags(0.7), events=EVENTS), specific=True)
    assert one(result(tags(0.7), events=EVENTS), specific=True, timestamps=True).events is None
    with pytest.raises(UsageError, match="--specific compares scores from 0 to 1"):
        one(result(activation="none"), specific=True)


@pytest.mark.parametrize(
    ("scores", "num_listed", "options", "num_general"),
    [
        ([0.5, 0.45, 0, 0, 0, 0, 0], 2, {}, 1),  # a Dog of 0.45 would have replaced the animals
        ([0.5, 0.45, 0, 0, 0, 0, 0], 2, {"threshold": 0.46}, 0),  # and would not have reached this threshold
        ([0.5, 0.45, 0, 0, 0, 0, 0], 2, {"labels": ("Animal", "Domestic animals, pets")}, 0),
        ([0.5, 0, 0, 0, 0, 0, 0.3], 2, {}, 0),  # what is missing has at most 0.3
        ([0.3, 0, 0, 0, 0.5, 0.4, 0], 3, {}, 1),
        ([0, 0, 0, 0.5, 0, 0, 0.45], 2, {}, 0),  # nothing is below Bark
    ],
)
def test_general_labels_of_lists_that_were_cut_off_are_counted(
    scores: list[float], num_listed: int, options: dict[str, Any], num_general: int
) -> None:
    recorded = result(tags=dogs(scores, num_listed=num_listed))
    assert converted([recorded, FAILED], specific=True, **options)[1].num_general == num_general
