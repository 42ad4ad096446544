from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from sklearn import metrics as sk
from tagging.tiny_tagger import LABELS, tiny_tagger

from ast_cli.dataset.examples import Example, ExampleSet
from ast_cli.errors import AstError, AstWarning, UsageError
from ast_cli.evaluation.calibration import reliability
from ast_cli.evaluation.evaluate import evaluate
from ast_cli.evaluation.options import EvaluationOptions
from ast_cli.evaluation.predictions import predictions_text
from ast_cli.results import exact_path

HERE = EvaluationOptions(num_workers=0)
NUM_CLIPS = 6


@pytest.fixture
def clips(tmp_path: Path, rng: np.random.Generator) -> list[str]:
    """Noise of different colors, so that the scores of a random model differ."""
    paths = []
    for number in range(NUM_CLIPS):
        samples = np.convolve(rng.standard_normal(8000 + 3000 * number), rng.standard_normal(4 * number + 1), "same")
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, 0.02 * samples, 16000, subtype="FLOAT")
        paths.append(str(path))
    return paths


def single(clips: list[str], *labels: str) -> ExampleSet:
    examples = tuple(Example(path, (label,)) for path, label in zip(clips, labels, strict=True))
    return ExampleSet("clips", examples, tuple(sorted(set(labels))), is_multi_label=False)


def multi(clips: list[str], *labels: tuple[str, ...]) -> ExampleSet:
    examples = tuple(Example(path, own) for path, own in zip(clips, labels, strict=True))
    return ExampleSet("clips", examples, tuple(sorted({label for own in labels for label in own})), is_multi_label=True)


def by_label(tagger: object, path: str, **options: object) -> dict[str, float]:
    result = tagger.classify(path, top_k=4, **options)  # type: ignore[attr-defined]
    return {tag.label: tag.score for tag in result.tags}


def test_scores_equal_those_of_classify_and_metrics_those_of_scikit_learn(clips: list[str]) -> None:
    tagger = tiny_tagger("single_label_classification")
    named = ["Rain", "Music", "Rain", "Speech", "Waves, surf", "Music"]
    found = evaluate(single(clips, *named), [tagger], HERE)
    expected = [[by_label(tagger, path)[label] for label in LABELS] for path in clips]
    assert found.labels == tuple(LABELS)
    np.testing.assert_allclose(found.scores, expected, atol=1e-5)
    predicted = [LABELS[index] for index in np.argmax(expected, axis=1)]
    assert found.metrics.problem == "single_label"
    assert found.metrics.accuracy == pytest.approx(sk.accuracy_score(named, predicted))
    assert [LABELS[index] for index in found.targets] == named


def test_multi_label_data_gives_multi_label_metrics(clips: list[str]) -> None:
    named = [("Rain", "Speech"), (), ("Speech",), ("Music",), (), ("Music", "Rain")]
    found = evaluate(multi(clips, *named), [tiny_tagger()], HERE)
    assert found.targets.tolist() == [[label in own for label in LABELS] for own in named]
    kept = [LABELS.index(label) for label in ("Rain", "Speech", "Music")]
    expected = sk.average_precision_score(found.targets[:, kept], found.scores[:, kept])
    assert found.metrics.problem == "multi_label"
    assert found.metrics.mean_average_precision == pytest.approx(expected)
    assert found.metrics.labels_without_examples == ("Waves, surf",)


def test_an_ensemble_averages_scores_by_label_name_not_by_position(clips: list[str]) -> None:
    one, other = tiny_tagger(), tiny_tagger(labels=["Music", "Waves, surf", "extra", "Rain", "Speech"])
    with torch.no_grad():
        for parameter in other.engine.model.parameters():
            parameter.neg_()
    one.name, other.name = "one", "other"
    named = ["Rain", "Music", "Rain", "Speech", "Waves, surf", "Music"]
    found = evaluate(single(clips, *named), [one, other], HERE)
    assert found.labels == tuple(LABELS)  # what both know, in the first's order
    first = by_label(one, clips[0])
    second = {tag.label: tag.score for tag in other.classify(clips[0], top_k=5).tags}
    expected = [(first[label] + second[label]) / 2 for label in LABELS]
    np.testing.assert_allclose(found.scores[0], expected, atol=1e-5)
    assert [model.name for model in found.models] == ["one", "other"]
    alone = evaluate(single(clips, *named), [one], HERE)
    assert found.models[0].metrics == alone.metrics


def test_data_labels_are_found_by_identifier_and_other_case(clips: list[str]) -> None:
    found = evaluate(single(clips[:3], "/m/06mb1", "WAVES, SURF", "Music"), [tiny_tagger()], HERE)
    assert found.targets.tolist() == [0, 3, 2]


def test_an_unknown_label_is_an_error_that_names_it(clips: list[str]) -> None:
    with pytest.raises(UsageError, match=r"tiny does not know 1 of the 2 labels of clips: 'Thunder'") as caught:
        evaluate(single(clips[:2], "Rain", "Thunder"), [tiny_tagger()], HERE)
    assert "--ignore-unknown-labels" in str(caught.value)


def test_the_model_of_an_ensemble_that_does_not_know_a_label_is_named(clips: list[str]) -> None:
    other = tiny_tagger(labels=["Music", "Speech"])
    other.name = "other"
    with pytest.raises(UsageError, match="other does not know 1 of the 2 labels of clips: 'Rain'"):
        evaluate(single(clips[:2], "Rain", "Speech"), [tiny_tagger(), other], HERE)


def test_unknown_labels_can_be_ignored(clips: list[str]) -> None:
    options = EvaluationOptions(num_workers=0, ignore_unknown_labels=True)
    found = evaluate(single(clips[:3], "Rain", "Thunder", "Music"), [tiny_tagger()], options)
    assert (len(found.examples), found.num_left_out) == (2, 1)
    found = evaluate(multi(clips[:4], ("Rain", "Thunder"), ("Thunder",), ("Music",), ()), [tiny_tagger()], options)
    assert [example.path for example in found.examples] == [clips[0], clips[2], clips[3]]
    assert found.num_left_out == 1
    with pytest.raises(UsageError, match="no example with a known label is left"):
        evaluate(single(clips[:2], "Thunder", "Hail"), [tiny_tagger()], options)


def test_predictions_can_be_restricted_to_the_labels_of_the_data(clips: list[str]) -> None:
    tagger = tiny_tagger()
    scores = by_label(tagger, clips[0])
    worst, second_worst = sorted(scores, key=lambda label: scores[label])[:2]
    data = single(clips[:2], worst, second_worst)
    assert len(evaluate(data, [tagger], HERE).labels) == 4
    found = evaluate(data, [tagger], EvaluationOptions(num_workers=0, only_data_labels=True))
    assert set(found.labels) == {worst, second_worst}
    assert set(found.metrics.confusion_matrix.labels) <= {worst, second_worst}  # type: ignore[union-attr]


def test_parts_of_a_recording_are_separate_examples(clips: list[str]) -> None:
    parts = (Example(clips[5], ("Rain",), start_s=0.5, end_s=1.1), Example(clips[5], ("Music",), end_s=0.3))
    tagger = tiny_tagger()
    found = evaluate(ExampleSet("clips", parts, ("Music", "Rain"), is_multi_label=False), [tagger], HERE)
    for row, where in enumerate([{"start_s": 0.5, "duration_s": 0.6}, {"duration_s": 0.3}]):
        expected = by_label(tagger, clips[5], **where)
        np.testing.assert_allclose(found.scores[row], [expected[label] for label in LABELS], atol=1e-5)


def test_windows_are_aggregated_by_the_option(clips: list[str]) -> None:
    tagger = tiny_tagger()
    options = EvaluationOptions(num_workers=0, aggregate="max", hop_s=0.2)
    found = evaluate(single(clips[4:], "Rain", "Music"), [tagger], options)
    expected = by_label(tagger, clips[5], aggregate="max", hop_s=0.2)
    np.testing.assert_allclose(found.scores[1], [expected[label] for label in LABELS], atol=1e-5)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bad_clip_is_left_out_and_counted(clips: list[str], tmp_path: Path, num_workers: int) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"")
    named = ["Rain", "Music", "Rain"]
    watched: list[tuple[int, str, int]] = []

    def watch(results: Callable[..., object], num_examples: int, model: str) -> object:
        for number, result in enumerate(results):  # type: ignore[arg-type, var-annotated]
            watched.append((num_examples, model, number))
            yield result

    data = single([clips[0], str(bad), clips[1]], *named)
    found = evaluate(data, [tiny_tagger(), tiny_tagger()], EvaluationOptions(num_workers=num_workers), watch)  # type: ignore[arg-type]
    assert [(failure.example.path, failure.error.code) for failure in found.failures] == [(str(bad), "empty_file")]
    assert found.targets.tolist() == [0, 0]
    np.testing.assert_allclose(found.scores, evaluate(single([clips[0], clips[1]], "Rain", "Rain"), [tiny_tagger()],
                                                      HERE).scores, atol=1e-5)  # fmt: skip
    assert watched == [(3, "tiny", 0), (3, "tiny", 1), (3, "tiny", 2), (2, "tiny", 0), (2, "tiny", 1)]
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (record["num_examples"], record["num_failed"]) == (2, 1)
    assert record["failures"][0] | {"message": ""} == {"path": str(bad), "code": "empty_file", "message": ""}


def test_calibration_is_of_the_predicted_labels_or_of_all_labels(clips: list[str]) -> None:
    found = evaluate(single(clips[:3], "Rain", "Music", "Rain"), [tiny_tagger()], HERE)
    best = found.scores.max(axis=1)
    assert found.reliability() == reliability(best, found.scores.argmax(axis=1) == found.targets)
    record = found.to_dict()["calibration"]
    assert record == found.reliability().to_dict()
    found = evaluate(multi(clips[:2], ("Rain", "Music"), ()), [tiny_tagger()], HERE)
    assert found.reliability() == reliability(found.scores, found.targets)
    assert sum(each.num_scores for each in found.reliability().bins) == found.scores.size


def test_data_without_readable_clips_is_an_error(tmp_path: Path) -> None:
    missing = [str(tmp_path / "a.wav"), str(tmp_path / "b.wav")]
    with pytest.raises(AstError, match=r"none of 2 examples could be scored.*a\.wav"):
        evaluate(single(missing, "Rain", "Music"), [tiny_tagger()], HERE)


def test_no_model_or_a_regression_model_is_a_usage_error(clips: list[str]) -> None:
    with pytest.raises(UsageError, match="at least one model"):
        evaluate(single(clips[:2], "Rain", "Music"), [], HERE)
    with pytest.raises(UsageError, match=r"a regression"):
        evaluate(multi(clips[:2], ("Rain",), ()), [tiny_tagger(None, ["Rain"])], HERE)


def test_an_ensemble_of_sigmoid_and_softmax_gives_a_warning(clips: list[str]) -> None:
    softmax = tiny_tagger("single_label_classification")
    softmax.name = "other"
    with pytest.warns(AstWarning, match=r"different kinds of scores \(tiny: sigmoid, other: softmax\)"):
        evaluate(single(clips[:2], "Rain", "Music"), [tiny_tagger(), softmax], HERE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_workers": -1}, "workers must be from 0"),
        ({"timeout_s": 0.0}, "timeout must be above 0"),
        ({"timeout_s": float("nan")}, "timeout must be above 0"),
        ({"aggregate": "median"}, "aggregate must be one of"),
        ({"hop_s": -1.0}, "hop must be above 0"),
        ({"batch_size": 0}, "--batch-size must be"),
    ],
)
def test_invalid_options_are_usage_errors(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EvaluationOptions(**change)  # type: ignore[arg-type]


def test_predictions_contain_every_example_once(clips: list[str], tmp_path: Path) -> None:
    missing = str(tmp_path / "=gone.wav")
    found = evaluate(single([clips[0], missing], "Rain", "Waves, surf"), [tiny_tagger()], HERE)
    good, bad = map(json.loads, predictions_text(found, ".jsonl").splitlines())
    assert (good["path"], good["labels"], good["error"]) == (clips[0], ["Rain"], None)
    assert list(good["scores"]) == LABELS
    assert good["predicted"] == [max(good["scores"], key=good["scores"].get)]
    assert (bad["path"], bad["scores"], bad["error"]["code"]) == (missing, {}, "not_found")
    header, first, second = predictions_text(found, ".csv").splitlines()
    assert header == 'path,start_s,end_s,labels,predicted,error_code,path_b64,Rain,Speech,Music,"Waves, surf"'
    assert first.startswith(f"{clips[0]},0,,Rain,")
    assert second == f'{missing},0,,"Waves, surf",,not_found,'


def test_predictions_as_csv_contain_no_control_characters(clips: list[str]) -> None:
    found = evaluate(single(clips[:1], "Rain"), [tiny_tagger()], HERE)
    found = dataclasses.replace(found, labels=("Rain\x1b[2J", "\x9b1A", "\u202eMusic", "=1"))
    header, row = predictions_text(found, ".csv").splitlines()
    assert header.endswith(",path_b64,Rain\\x1b[2J,\\x9b1A,\\u202eMusic,'=1")
    assert row.isprintable()


@pytest.mark.skipif(os.name != "posix", reason="names of bytes")
def test_predictions_keep_names_that_are_not_utf_8(clips: list[str], tmp_path: Path) -> None:
    missing = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    found = evaluate(single([clips[0], missing], "Rain", "Music"), [tiny_tagger()], HERE)
    good, row = csv.DictReader(predictions_text(found, ".csv").splitlines())
    record = json.loads(predictions_text(found, ".jsonl").splitlines()[1])
    assert (good["path"], good["path_b64"]) == (clips[0], "")
    assert (row["path"], row["path_b64"]) == (record["path"], record["path_b64"])
    assert exact_path(row) == missing


def test_multi_label_predictions_are_labels_with_scores_of_at_least_one_half(clips: list[str]) -> None:
    found = evaluate(multi(clips[:2], ("Rain",), ()), [tiny_tagger()], HERE)
    record = json.loads(predictions_text(found, ".jsonl").splitlines()[0])
    assert record["predicted"] == [label for label, score in record["scores"].items() if score >= 0.5]


def test_thresholds_of_single_label_data_are_one_against_the_rest(clips: list[str]) -> None:
    named = ["Rain", "Music", "Rain", "Speech", "Rain", "Music"]
    found = evaluate(single(clips, *named), [tiny_tagger()], HERE)
    thresholds = {result.label: result for result in found.thresholds()}
    assert list(thresholds) == ["Rain", "Speech", "Music"]
    reached = found.scores[:, 0].astype(np.float64) >= thresholds["Rain"].threshold
    assert thresholds["Rain"].f1 == pytest.approx(sk.f1_score([label == "Rain" for label in named], reached))
