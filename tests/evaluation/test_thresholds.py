from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score
from tagging.tiny_tagger import LABELS, tiny_tagger

from ast_cli import Tagger
from ast_cli.errors import UsageError
from ast_cli.evaluation.thresholds import best_thresholds, read_thresholds, write_thresholds
from ast_cli.tagging.options import ClassifyOptions
from ast_cli.tagging.run.tag_files import fingerprint


def test_no_other_threshold_gives_a_larger_f1(rng: np.random.Generator) -> None:
    targets = rng.random((80, 3)) < 0.3
    scores = (0.7 * rng.random((80, 3)) + 0.3 * targets * rng.random((80, 3))).astype(np.float32)
    for column, found in enumerate(best_thresholds(scores, targets, LABELS[:3])):
        candidates = [*scores[:, column].tolist(), found.threshold]
        by_hand = {value: f1_score(targets[:, column], scores[:, column] >= value) for value in candidates}
        assert found.f1 == pytest.approx(max(by_hand.values()))
        assert by_hand[found.threshold] == pytest.approx(found.f1)  # what is written, not only what was meant
        assert found.support == targets[:, column].sum()


def test_a_threshold_is_between_the_scores_it_separates() -> None:
    (found,) = best_thresholds(np.array([[0.1], [0.3], [0.8], [0.9]]), np.array([[0], [0], [1], [1]]) > 0, ["Rain"])
    assert (found.threshold, found.f1, found.precision, found.recall) == (0.55, 1.0, 1.0, 1.0)


def test_very_close_scores_are_separated() -> None:
    low = np.float32(0.5)
    high = np.nextafter(low, np.float32(1))
    (found,) = best_thresholds(np.array([[low], [high]]), np.array([[False], [True]]), ["Rain"])
    assert float(low) < found.threshold <= float(high)


def test_equal_scores_and_absent_classes(rng: np.random.Generator) -> None:
    targets = np.array([[True, False], [True, False], [False, False]])
    (found,) = best_thresholds(np.full((3, 2), 0.4), targets, ["Rain", "Speech"])
    assert (found.label, found.f1, found.recall) == ("Rain", pytest.approx(0.8), 1.0)
    assert 0 < found.threshold <= 0.4


def test_labels_with_too_few_examples_are_left_out(rng: np.random.Generator) -> None:
    targets = np.zeros((60, 3), bool)
    for column, support in enumerate((19, 20, 40)):
        targets[:support, column] = True
    scores = rng.random((60, 3))
    found = best_thresholds(scores, targets, LABELS[:3], min_support=20)
    assert [(each.label, each.support) for each in found] == [("Speech", 20), ("Music", 40)]
    assert found == best_thresholds(scores, targets, LABELS[:3])[1:]
    assert best_thresholds(scores, np.zeros((60, 3), bool), LABELS[:3], min_support=0) == ()


def test_a_written_file_can_be_read(tmp_path: Path) -> None:
    targets = np.array([[True, False], [False, True], [False, False]])
    thresholds = best_thresholds(np.array([[0.9, 0.1], [0.2, 0.7], [0.1, 0.6]]), targets, ["Rain", "Waves, surf"])
    file = tmp_path / "thresholds.json"
    write_thresholds(file, thresholds, ["a", "b"], "clips")
    content = json.loads(file.read_text())
    assert (content["schema_version"], content["model"], content["data"]) == (1, ["a", "b"], "clips")
    assert content["labels"]["Rain"] == {"threshold": 0.55, "f1": 1.0, "precision": 1.0, "recall": 1.0, "support": 1}
    assert read_thresholds(file) == (("Rain", 0.55), ("Waves, surf", 0.65))
    assert [path.name for path in tmp_path.iterdir()] == ["thresholds.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "must contain a JSON object"),
        ('{"labels": {}}', "contains no thresholds"),
        ('{"schema_version": 2, "labels": {"Rain": 0.5}}', "schema version 2"),
        ('{"labels": {"Rain": NaN}}', "'Rain' must be a number from 0 to 1, not nan"),
        ('{"labels": {"Rain": 1.01}}', "must be a number from 0 to 1, not 1.01"),
        ('{"labels": {"Rain": {"threshold": true}}}', "not True"),
        ('{"labels": {"Rain": {"f1": 0.5}}}', "not None"),
    ],
)
def test_an_invalid_file_is_an_error_of_one_sentence(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "thresholds.json"
    file.write_text(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_thresholds(file)
    assert str(file) in str(caught.value)


def scores_of(tagger: Tagger, waveform: np.ndarray) -> dict[str, float]:
    result = tagger.classify(waveform, sampling_rate=16000, top_k=4)
    return {tag.label: tag.score for tag in result.tags}


def test_classify_keeps_labels_that_reach_their_own_threshold(rng: np.random.Generator) -> None:
    tagger, waveform = tiny_tagger(), 0.1 * rng.standard_normal(8000)
    scores = scores_of(tagger, waveform)
    best, second, *others = scores
    exactly = {best: min(1.0, scores[best] + 1e-6), second: scores[second]} | dict.fromkeys(others, 0.0)
    kept = tagger.classify(waveform, sampling_rate=16000, thresholds=exactly).tags
    assert [tag.label for tag in kept] == [second, *others]
    # A label with a threshold is not crowded out by better ones that stay under theirs.
    kept = tagger.classify(waveform, sampling_rate=16000, thresholds=exactly, top_k=1).tags
    assert [tag.label for tag in kept] == [second]


def test_other_labels_use_the_common_threshold_or_one_half(rng: np.random.Generator) -> None:
    tagger, waveform = tiny_tagger(), 0.1 * rng.standard_normal(8000)
    scores = scores_of(tagger, waveform)
    last = list(scores)[-1]
    kept = tagger.classify(waveform, sampling_rate=16000, thresholds={last: 0.0}).tags
    assert {tag.label for tag in kept} == {label for label in scores if scores[label] >= 0.5} | {last}
    kept = tagger.classify(waveform, sampling_rate=16000, thresholds={last: 1.0}, threshold=0.0).tags
    assert {tag.label for tag in kept} == set(scores) - {last}


def test_events_use_the_threshold_of_each_label(rng: np.random.Generator) -> None:
    tagger, waveform = tiny_tagger(), 0.1 * rng.standard_normal(32000)
    zero_for = LABELS[2]
    thresholds = dict.fromkeys(LABELS, 1.0) | {zero_for: 0.0}
    result = tagger.classify(waveform, sampling_rate=16000, events=True, thresholds=thresholds)
    assert result.events is not None
    assert [(event.label, event.start_s) for event in result.events] == [(zero_for, 0.0)]


def test_the_fingerprint_depends_on_the_values_not_on_their_order() -> None:
    tagger = tiny_tagger()
    tagger.name = "builtin"

    def options(**thresholds: float) -> dict[str, object]:
        return fingerprint(tagger, ClassifyOptions(thresholds=thresholds))  # type: ignore[arg-type]

    assert options(Rain=0.4, Music=0.3) == options(Music=0.3, Rain=0.4) != options(Rain=0.4, Music=0.31)


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ({"Rian": 0.5}, "thresholds: the model has no label 'Rian'; similar labels: 'Rain'"),
        ({"Rain": 0.5, "rain": 0.4}, "two thresholds are given for the label 'Rain'"),
        ({"Rain": -0.1}, "the threshold of 'Rain' must be a number from 0 to 1, not -0.1"),
        ({"Rain": "high"}, "not 'high'"),
    ],
)
def test_invalid_thresholds_are_usage_errors(thresholds: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tiny_tagger().classify(np.zeros(8000), sampling_rate=16000, thresholds=thresholds)


def test_audioset_identifiers_name_labels(rng: np.random.Generator) -> None:
    waveform = 0.1 * rng.standard_normal(8000)
    kept = tiny_tagger().classify(waveform, sampling_rate=16000, thresholds={"/m/06mb1": 0.0}, labels=("Rain",)).tags
    assert [tag.label for tag in kept] == ["Rain"]
