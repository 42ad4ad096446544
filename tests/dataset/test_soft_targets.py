from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ast_cli.dataset.examples import Example
from ast_cli.dataset.soft_targets import SoftTargets, read_soft_targets
from ast_cli.errors import ErrorCode, UsageError
from ast_cli.evaluation.evaluate import Evaluation, FailedExample
from ast_cli.evaluation.predictions import predictions_text
from ast_cli.report.comma_separated import CSVWriter
from ast_cli.report.json_lines import JSONLinesWriter, JSONWriter
from ast_cli.results import FileError, Tag, TaggingResult, Window

LABELS = ("Rain", "-Dog", "Waves, surf")
SCORES = np.array([[0.1, 0.7, 0.25], [0.9, 0.125, 0.0]], np.float32)
WRITERS = {".jsonl": JSONLinesWriter, ".json": JSONWriter, ".csv": CSVWriter}
Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(text: str, name: str) -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write_file


def tags(scores: Any, num_labels: int = 3) -> tuple[Tag, ...]:
    """Return tags as a run gives them: the best first."""
    best = sorted(range(3), key=lambda i: -scores[i])[:num_labels]
    return tuple(Tag(LABELS[i], i, None, float(scores[i])) for i in best)


def result(path: str, **fields: Any) -> TaggingResult:
    return TaggingResult(path, "folder/big-model", "sigmoid", 4.0, 16000, 1, **fields)


def written(file: Path, *results: TaggingResult) -> Path:
    """Write results as ``ast classify`` does."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = WRITERS[file.suffix](stream)
        for each in results:
            writer.write(each)
        writer.close()
    return file


@pytest.mark.parametrize("suffix", WRITERS)
def test_what_classify_writes_is_read_in_the_order_of_the_models_labels(tmp_path: Path, suffix: str) -> None:
    failed = TaggingResult("c.wav", "m", "sigmoid", error=FileError(ErrorCode.NOT_AUDIO, "c.wav: no audio"))
    results = [result("+a.wav", tags=tags(SCORES[0])), failed, result("b\udcff.wav", tags=tags(SCORES[1]))]
    found = read_soft_targets(written(tmp_path / f"t{suffix}", *results))
    assert found.labels == LABELS
    assert list(found.paths) == ["+a.wav", "b\udcff.wav"]
    np.testing.assert_allclose(found.scores, SCORES, atol=1e-6)
    assert (found.starts.tolist(), found.ends.tolist()) == ([0, 0], [np.inf, np.inf])
    assert {path: error.code for path, error in found.failures.items()} == {"c.wav": ErrorCode.NOT_AUDIO}
    assert found.teacher == ("" if suffix == ".csv" else "folder/big-model")


@pytest.mark.parametrize("suffix", WRITERS)
def test_windows_are_rows_of_their_own(tmp_path: Path, suffix: str) -> None:
    windows = (Window(0.0, 2.0, tags(SCORES[0])), Window(1.5, 3.5, tags(SCORES[1])))
    found = read_soft_targets(
        written(tmp_path / f"t{suffix}", result("a.wav", tags=tags(SCORES.mean(0)), windows=windows))
    )
    assert list(found.paths) == ["a.wav", "a.wav"]
    np.testing.assert_allclose(found.scores, SCORES, atol=1e-6)
    assert (found.starts.tolist(), found.ends.tolist()) == ([0, 1.5], [2, 3.5])


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_the_predictions_of_evaluate_are_read(write: Write, suffix: str) -> None:
    examples = (Example("a.wav", ("Rain",), start_s=2.0, end_s=4.0), Example("b.wav", ("-Dog",)))
    failures = (FailedExample(Example("c.wav", ("Rain",)), FileError(ErrorCode.EMPTY_FILE, "c.wav: is empty")),)
    metrics: Any = None
    evaluation = Evaluation("data", (), metrics, examples, failures, 0, LABELS, SCORES, np.array([0, 1]))
    found = read_soft_targets(write(predictions_text(evaluation, suffix), f"p{suffix}"))
    assert (found.labels, list(found.paths)) == (LABELS, ["a.wav", "b.wav"])
    np.testing.assert_allclose(found.scores, SCORES, atol=1e-6)
    assert (found.starts.tolist(), found.ends.tolist()) == ([2, 0], [4, np.inf])
    assert found.failures["c.wav"].code == ErrorCode.EMPTY_FILE


def test_a_column_for_each_label_or_with_a_prefix_beside_other_columns(write: Write) -> None:
    plain = "\ufefffile_name;split;Rain;/m/0bt9lr;Waves, surf\na.wav;train;0.1;0.7;0.25\n\nb.wav;test;0.9;0.125;0\n"
    for found in (
        read_soft_targets(write(plain, "plain.csv")),
        read_soft_targets(
            write(
                "path\tnote\tscores.Rain\tscores.Dog\tscores.Waves, surf\na.wav\tx\t.1\t.7\t.25\nb.wav\ty\t.9\t.125\t0",
                "prefix.tsv",
            )
        ),
    ):
        assert found.labels == ("Rain", "Dog", "Waves, surf")
        assert list(found.paths) == ["a.wav", "b.wav"]
        np.testing.assert_array_equal(found.scores, SCORES)


def test_json_objects_and_lists_of_scores_in_any_order(write: Write) -> None:
    first = {"path": "a.wav", "start": 1, "end": 2, "scores": {"Rain": 0.25, "Dog": 1}}
    second = {"audio": "b.wav", "scores": [{"label": "Dog", "score": 0}, {"label": "Rain", "score": 0.5}]}
    texts = {
        "lines.jsonl": f"{json.dumps(first)}\n\n{json.dumps(second)}\n",
        "list.json": json.dumps([first, second]),
        "pretty.json": json.dumps([first, second], indent=2),
    }
    for name, text in texts.items():
        found = read_soft_targets(write(text, name))
        assert found.labels == ("Rain", "Dog")
        np.testing.assert_array_equal(found.scores, [[0.25, 1], [0.5, 0]])
        assert (found.starts.tolist(), found.ends.tolist()) == ([1, 0], [2, np.inf])


def test_arrays_are_read_and_may_be_given_in_python(tmp_path: Path) -> None:
    arrays = {"paths": ["a.wav", "a.wav"], "labels": LABELS, "scores": SCORES.astype(np.float16)}
    np.savez(tmp_path / "t.npz", **arrays, start_s=[0, 2], end_s=[2, np.inf])
    found = read_soft_targets(tmp_path / "t.npz")
    assert (found.labels, list(found.paths), found.scores.dtype) == (LABELS, ["a.wav", "a.wav"], np.float32)
    np.testing.assert_allclose(found.scores, SCORES, atol=3e-4)
    assert (found.starts.tolist(), found.ends.tolist()) == ([0, 2], [2, np.inf])
    given = SoftTargets(LABELS, [Path("a.wav"), "b.wav"], SCORES)  # type: ignore[list-item]
    assert (list(given.paths), given.place(1)) == (["a.wav", "b.wav"], "soft targets, row 2")


def test_scores_of_a_softmax_are_recognized_by_their_sums() -> None:
    probabilities = SCORES / SCORES.sum(axis=1, keepdims=True)
    assert SoftTargets(LABELS, ("a", "b"), np.round(probabilities, 3)).are_probabilities
    assert not SoftTargets(LABELS, ("a", "b"), SCORES).are_probabilities


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_row_costs_little_more_than_its_numbers(tmp_path: Path, suffix: str) -> None:
    scores = np.random.default_rng(0).random((1500, 500)).astype(np.float32)
    labels = [f"Label {i}" for i in range(500)]
    text = io.StringIO()
    if suffix == ".csv":
        csv.writer(text).writerows([["path", *labels], *([f"{i}.wav", *row] for i, row in enumerate(scores.tolist()))])
    else:
        for i, row in enumerate(scores.tolist()):
            print(json.dumps({"path": f"{i}.wav", "scores": dict(zip(labels, row, strict=True))}), file=text)
    (tmp_path / f"t{suffix}").write_text(text.getvalue())
    tracemalloc.start()
    found = read_soft_targets(tmp_path / f"t{suffix}")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(found.scores, scores)
    assert peak < 2 * scores.nbytes  # a Python object for each score would need eight times as much


def line(**fields: Any) -> str:
    return json.dumps({"path": "a.wav", **fields}) + "\n"


FULL = line(scores={"Rain": 0.5, "Dog": 0.5})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.jsonl", FULL + line(scores={"Rain": 0.5, "Cat": 0.5}), "line 2: has a score for 'Cat', which the rows bef"),
        ("t.jsonl", FULL + line(scores={"Rain": 0.5}), r"line 2: has no score for 'Dog' \(1 of 2 labels have none\); "),
        (
            "t.jsonl",
            FULL + line(scores={"Rain": 1.5, "Dog": 0}),
            "line 2: the score of 'Rain' must be from 0 to 1, not 1",
        ),
        (
            "t.jsonl",
            FULL + line(scores={"Rain": 0, "Dog": -1}),
            "line 2: the score of 'Dog' must be from 0 to 1, not -1",
        ),
        ("t.jsonl", line(scores={"Rain": float("nan")}), "line 1: the score of 'Rain' must be from 0 to 1, not nan"),
        ("t.jsonl", line(scores={"Rain": "much"}), "line 1: the score of 'Rain' is 'much', not a number"),
        ("t.jsonl", line(scores={"Rain": True}), "line 1: the score of 'Rain' is True, not a number"),
        ("t.jsonl", line(scores={"Rain": None}), "line 1: the score of 'Rain' is None, not a number"),
        ("t.jsonl", line(scores={"/m/06mb1": 0, "Rain": 1}), "line 1: has two scores for the same label"),
        ("t.jsonl", line(scores={}), "line 1: has no 'scores', an object from labels to scores, and no 'tags'"),
        ("t.jsonl", line(scores=[0.5]), r"line 1: the tags must be objects with label and score, not \[0.5\]"),
        (
            "t.jsonl",
            FULL + line(tags=[{"label": ["Rain"], "score": 1}]),
            "line 2: the tags must be objects with label and",
        ),
        ("t.jsonl", line(windows=3), "line 1: the windows must be objects with start_s, end_s and tags, not 3"),
        ("t.jsonl", line(windows=["x"]), r"line 1: the windows must be objects with start_s, end_s and tags, not \["),
        ("t.jsonl", line(tags=[]), "line 1: has no tags; every row needs a score for each label"),
        ("t.jsonl", line(tags=[{"label": "Rain", "score": 1}], channel=2), "line 1: has the scores of one channel"),
        ("t.jsonl", line(type="window", tags=[{"label": "Rain"}]), "line 1: is a streamed record; run ast classify wi"),
        ("t.jsonl", line(tags=[{"label": "Rain"}], activation="none"), "line 1: contains the logits of a regression"),
        ("t.jsonl", line(start_s="x", scores={"Rain": 0}), "line 1: start_s must be seconds, not 'x'"),
        ("t.jsonl", line(start_s=2, end_s=1, scores={"Rain": 0}), "line 1: the part from 2 to 1 s is no part of a"),
        ("t.jsonl", '{"scores": {"Rain": 1}}', "line 1: has no path"),
        ("t.jsonl", "[1]", r"line 1: must be a JSON object, not \[1\]"),
        ("t.jsonl", "{", "line 1: not valid JSON"),
        ("t.jsonl", "", "contains no scores"),
        ("t.json", "[1]", "must be a list of JSON objects"),
        ("t.json", "{", "not valid JSON"),
        ("t.csv", "path,Rain,Dog\na.wav,0.5\n", "line 2: has 2 cells, but the header has 3"),
        ("t.csv", "path,Rain,Dog\na.wav,0.5,\n", "line 2: the score of 'Dog' is '', not a number"),
        ("t.csv", "path,Rain,Rain\na.wav,0.5,0.5\n", "line 2: has two scores for the same label"),
        ("t.csv", "path,label,score\na.wav,Rain,0.5\na.wav,Dog,0.1\nb.wav,Rain,1\n", "line 4: has no score for 'Dog'"),
        ("t.csv", "file,label\na.wav,Rain\n", "there is no column of scores, one for each label"),
        ("t.csv", "name,Rain\na.wav,0.5\n", "there is no column of paths"),
        ("t.csv", 'path,Rain\n"a.wav,0.5\n', "line 3: malformed|line 2: malformed"),
        ("t.csv", "path,Rain\n", "contains no scores"),
        ("t.npz", "path,Rain\n", "is no valid .npz file"),
        ("t.txt", "", r"soft targets are a file of scores \(\.jsonl, "),
    ],
)
def test_an_invalid_file_is_refused_with_its_row(write: Write, name: str, text: str, message: str) -> None:
    file = write(text, name)
    with pytest.raises(UsageError, match=rf"^{file}(, |: ){message}"):
        read_soft_targets(file)


def test_arrays_that_do_not_fit_or_are_pickled_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"scores of shape \(2, 3\) do not fit 1 paths and 3 labels"):
        SoftTargets(LABELS, ("a.wav",), SCORES)
    with pytest.raises(UsageError, match="has two scores for the label 'Rain'"):
        SoftTargets(("Rain", "Rain"), ("a.wav",), np.zeros((1, 2), np.float32))
    with pytest.raises(UsageError, match="row 2: the score of 'b' must be from 0 to 1, not nan"):
        SoftTargets(("a", "b"), ("a.wav", "b.wav"), np.array([[0, 1], [0, np.nan]], np.float32))
    np.savez(tmp_path / "less.npz", labels=["a"], scores=[[1.0]])
    with pytest.raises(UsageError, match="has no array 'paths'; it needs paths, labels and scores"):
        read_soft_targets(tmp_path / "less.npz")
    np.savez(tmp_path / "objects.npz", labels=np.array(["a", 1], object), paths=["a"], scores=[[1.0]])
    with pytest.raises(UsageError, match=r"is no valid \.npz file"):
        read_soft_targets(tmp_path / "objects.npz")
    with pytest.raises(UsageError, match="cannot be read"):
        read_soft_targets(tmp_path / "none.jsonl")
    (tmp_path / "utf16.csv").write_bytes("path,Rain\n".encode("utf-16"))
    with pytest.raises(UsageError, match="is not UTF-8 text"):
        read_soft_targets(tmp_path / "utf16.csv")
