"""Thresholds that come with a model: ``thresholds.json`` in its folder, which events use where none are given."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tagging.tiny_tagger import tiny_tagger

from ast_cli import CheckpointError, Tagger, tag_files
from ast_cli.errors import UsageError
from ast_cli.hub.folders import builtin_folder, is_here, thresholds_file
from ast_cli.tagging.options import ClassifyOptions
from ast_cli.tagging.run.tag_files import fingerprint
from ast_cli.tagging.score.classify import own_thresholds, tag_chooser

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Write = Callable[..., Path]
LOW, HIGH = 0.0, 1.0  # thresholds that every score reaches, and none


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the built-in model, without thresholds."""
    copy = tmp_path / "model"
    shutil.copytree(builtin_folder(), copy)
    (copy / "thresholds.json").unlink(missing_ok=True)
    return copy


def write(folder: Path, *, others: float | None = None, **values: float) -> Path:
    """Write the thresholds of some labels of a model, and one for all others."""
    labels = json.loads((folder / "config.json").read_text())["id2label"].values()
    every = {} if others is None else dict.fromkeys(labels, others)
    file = folder / "thresholds.json"
    file.write_text(json.dumps({"labels": every | values}))
    return file


def loaded(folder: Path) -> Tagger:
    return Tagger.from_pretrained(folder, engine="torch", device="cpu")  # no conversion


def labels_of(events: Any) -> list[str]:
    return [event.label for event in events]


def test_events_use_the_models_thresholds_and_one_half_for_other_labels(folder: Path, write_wav: Write) -> None:
    plain, path = loaded(folder), write_wav("a.wav", 6.0)
    write(folder, Rain=LOW, Bark=HIGH)
    tagger = loaded(folder)
    assert (tagger.thresholds, plain.thresholds) == ({"Rain": LOW, "Bark": HIGH}, {})
    scores = {tag.label: tag.score for tag in plain.classify(path, top_k=1000, aggregate="max").tags}
    reached = {label for label, score in scores.items() if score >= 0.5}
    found = tagger.classify(path, events=True)
    assert set(labels_of(found.events)) == (reached | {"Rain"}) - {"Bark"}
    assert found.tags == plain.classify(path).tags  # the tags of the recording are not affected
    assert set(labels_of(plain.classify(path, events=True).events)) == reached


@pytest.mark.parametrize(
    "changes",
    [{"threshold": 0.5}, {"thresholds": {"Speech": 0.5}}, {"activation": "softmax"}, {"events": False}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_threshold_of_the_caller_or_other_scores_replace_the_models(folder: Path, changes: dict[str, Any]) -> None:
    write(folder, others=LOW)
    tagger = loaded(folder)
    assert own_thresholds(tagger, ClassifyOptions(events=True)) == tagger.thresholds
    assert own_thresholds(tagger, ClassifyOptions(events=True, activation="sigmoid")) == tagger.thresholds
    options = ClassifyOptions(**{"events": True, **changes})
    assert own_thresholds(tagger, options) == {}
    assert tag_chooser(tagger, options).event_thresholds.min() == 0.5


def test_only_chosen_labels_have_events_and_the_number_of_thresholds_is_theirs(folder: Path) -> None:
    write(folder, Rain=0.25, Bark=0.75)
    chooser = tag_chooser(loaded(folder), ClassifyOptions(events=True, labels=("Chainsaw", "Rain")))
    assert chooser.event_thresholds.tolist() == [0.5, 0.25]
    assert (chooser.num_model_thresholds, len(chooser.label_ids)) == (1, 2)


def test_labels_may_be_named_by_identifier_and_values_have_metrics(folder: Path) -> None:
    file = folder / "thresholds.json"
    file.write_text('{"schema_version": 1, "labels": {"/m/06mb1": {"threshold": 0.3, "f1": 0.9, "support": 20}}}')
    assert loaded(folder).thresholds == {"Rain": 0.3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[0.5]", "must contain a JSON object"),
        ('{"labels": []}', "contains no thresholds"),
        ('{"schema_version": 2, "labels": {"Rain": 0.5}}', "schema version 2"),
        ('{"labels": {"Rain": "high"}}', "the threshold of 'Rain' must be a number from 0 to 1, not 'high'"),
        ('{"labels": {"Rain": 1.5}}', "must be a number from 0 to 1, not 1.5"),
        ('{"labels": {"Rian": 0.5}}', r"no label 'Rian'; similar labels: 'Rain'.* \(the file may belong to another"),
        ('{"labels": {"Rain": 0.5, "rain": 0.4}}', "two thresholds are given for the label 'Rain'"),
        (json.dumps({"labels": {"x" * 1000: [1] * 1000}}), r"^.{0,500}$"),  # not the whole value
    ],
)
def test_a_broken_file_is_an_error_only_where_it_is_needed(folder: Path, content: str, message: str) -> None:
    file = folder / "thresholds.json"
    file.write_text(content)
    tagger, silence = loaded(folder), np.zeros(16_000, np.float32)
    for options in ({}, {"events": True, "threshold": 0.5}):
        assert tagger.classify(silence, sampling_rate=16_000, **options).error is None
    with pytest.raises(CheckpointError, match=message) as caught:
        tagger.classify(silence, sampling_rate=16_000, events=True)
    assert str(caught.value).startswith(f"{file}: ")
    assert str(caught.value).endswith("; with --threshold this file is not used")
    assert "\n" not in str(caught.value)


def test_a_folder_of_that_name_and_a_file_alone_are_no_thresholds(folder: Path, tmp_path: Path) -> None:
    (folder / "thresholds.json").mkdir()
    assert thresholds_file(folder) is None
    (folder / "thresholds.json").rmdir()
    write(folder, Rain=0.3)
    assert thresholds_file(folder) == thresholds_file(folder / "model.safetensors") == folder / "thresholds.json"
    alone = tmp_path / "downloads" / "model.pth"
    alone.parent.mkdir()
    alone.write_bytes(b"")
    shutil.copy(folder / "thresholds.json", alone.parent)  # a neighbor that says nothing of it
    assert thresholds_file(alone) is None
    assert tiny_tagger().thresholds == {}  # made without a name that could be looked up


def test_the_folder_is_found_after_the_current_one_has_changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, Rain=0.3)
    monkeypatch.chdir(folder.parent)
    tagger = Tagger.from_pretrained("model", device="cpu")
    monkeypatch.chdir("/")
    assert tagger.thresholds == {"Rain": 0.3}


def test_a_changed_file_is_a_change_of_settings_for_events_alone(
    folder: Path, write_wav: Write, tmp_path: Path
) -> None:
    events = ClassifyOptions(events=True)

    def settings(tagger: Tagger) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        others = (ClassifyOptions(), ClassifyOptions(events=True, threshold=0.5))
        return fingerprint(tagger, events), [fingerprint(tagger, options) for options in others]

    without = settings(loaded(folder))
    file = write(folder, Rain=0.3, Bark=0.4)
    tagger, clips = loaded(folder), write_wav("clips/a.wav", 0.5).parent
    before = settings(tagger)
    assert before[0] != without[0]
    assert before[1] == without[1]
    tag_files([clips], tagger, tmp_path / "events.jsonl", options=events)
    tag_files([clips], tagger, tmp_path / "tags.jsonl")
    file.write_text('{"labels": {"Bark": {"threshold": 0.4}, "Rain": 0.3}}')  # the same, in another form
    assert settings(loaded(folder)) == before
    write(folder, Rain=0.3, Bark=0.5)
    changed = loaded(folder)
    assert settings(changed)[0] != before[0]
    assert settings(changed)[1] == before[1]
    tag_files([clips], changed, tmp_path / "tags.jsonl", resume=True)
    with pytest.raises(UsageError, match=r"other settings: the model's thresholds\.json was another; --resume needs"):
        tag_files([clips], changed, tmp_path / "events.jsonl", options=events, resume=True)


def test_what_is_here_is_known_without_the_network(folder: Path) -> None:
    assert is_here("builtin")
    assert is_here(str(folder))
    assert not is_here(str(folder / "missing"))
    assert not is_here("org/never-fetched")


# The command


def test_classify_says_once_that_events_use_the_models_thresholds(run_ast: Run, folder: Path, write_wav: Write) -> None:
    clips = write_wav("clips/a.wav", 0.5).parent
    write_wav("clips/b.wav", 0.5)
    num_labels = len(json.loads((folder / "config.json").read_text())["id2label"])
    write(folder, Rain=LOW, Bark=HIGH)
    command = ("classify", str(clips), "--model", str(folder), "--events", "--format", "jsonl")
    done = run_ast(*command)
    assert done.returncode == 0
    assert done.stderr.count("own thresholds") == 1
    assert done.stderr.startswith(
        f"note: events use the model's own thresholds (2 of {num_labels} labels, 0.5 for the others); "
        "--threshold sets one for all labels\n"
    )
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert ["Rain" in {event["label"] for event in record["events"]} for record in records] == [True, True]
    assert run_ast(*command, "--quiet").stderr == ""
    for others in (("--threshold", "0.5"), ("--labels", "Chainsaw"), ("--activation", "softmax")):
        assert "own thresholds" not in run_ast(*command, *others).stderr
    every = run_ast(*command, "--labels", "Rain,Bark").stderr
    assert every.startswith("note: events use the model's own thresholds; --threshold sets one for all labels\n")


def test_live_events_use_the_models_thresholds(run_ast: Run, folder: Path, tmp_path: Path) -> None:
    write(folder, others=HIGH, Rain=LOW)
    samples = np.random.default_rng(0).integers(-3000, 3000, 16_000).astype("<i2")
    arguments = ("--raw-rate", "16000", "--events", "--format", "jsonl", "--model", str(folder))
    done = run_ast("classify", "-", *arguments, stdin=samples.tobytes())
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["label"] for record in records if record["type"] == "event"] == ["Rain"]


def test_a_broken_file_ends_the_run_before_it_begins(run_ast: Run, folder: Path, write_wav: Write) -> None:
    file = folder / "thresholds.json"
    file.write_text("{")
    clip = write_wav("a.wav", 0.5)
    command = ("classify", str(clip), "--model", str(folder), "--output", str(clip.with_suffix(".jsonl")))
    done = run_ast(*command, "--events")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.startswith(f"error: {file}: not valid JSON")
    assert not clip.with_suffix(".jsonl").exists()
    assert run_ast(*command, "--events", "--threshold", "0.5").returncode == 0


def test_a_dry_run_names_the_file_of_the_thresholds(run_ast: Run, folder: Path, write_wav: Write) -> None:
    file = write(folder, Rain=0.3)
    command = ("classify", str(write_wav("a.wav", 0.5)), "--dry-run", "--model")
    text = f"events would use the thresholds in {file}, and 0.5 for other labels\n"
    assert run_ast(*command, str(folder), "--events").stderr.endswith(text)
    for others in ((str(folder),), (str(folder), "--events", "--threshold", "0.4"), ("audioset", "--events")):
        done = run_ast(*command, *others)
        assert (done.returncode, text in done.stderr) == (0, False)
    assert run_ast(*command, str(folder), "--events", "--quiet").stderr == ""
