"""``--specific``: a label gives way to one below it in AudioSet's hierarchy that is nearly as sure."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import small_config
from tiny_tagger import tiny_tagger

from ast_cli import ASTFeatureExtractor, Tagger, tag_files
from ast_cli.errors import UsageError
from ast_cli.model.checkpoint import save_checkpoint
from ast_cli.model.config import ASTConfig
from ast_cli.tagging.options import ClassifyOptions
from ast_cli.tagging.score.events import EventMerger
from ast_cli.tagging.score.scoring import TagChooser

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Write = Callable[..., Path]
LABELS = ["Animal", "Domestic animals, pets", "Dog", "Bark", "Rain", "Speech", "my own"]


def chosen(scores: list[float], names: list[str] = LABELS, **options: Any) -> list[str]:
    config = small_config(id2label=dict(enumerate(names)), problem_type="multi_label_classification")
    chooser = TagChooser(config, ClassifyOptions(**{"specific": True, "top_k": 99, **options}))
    return [tag.label for tag in chooser.choose(np.array(scores, np.float32))]


def test_the_most_specific_label_remains_of_those_that_are_nearly_as_sure() -> None:
    scores = [0.95, 0.94, 0.9, 0.3, 0.2, 0.1, 0.05]
    assert chosen(scores) == ["Dog", "Bark", "Rain", "Speech", "my own"]
    assert chosen(scores, specific=False) == LABELS


def test_a_label_remains_where_those_below_have_less_than_four_fifths_of_its_score() -> None:
    assert chosen([0.5, 0.0, 0.41, 0.0, 0.0, 0.0, 0.0])[0] == "Dog"
    assert chosen([0.5, 0.0, 0.39, 0.0, 0.0, 0.0, 0.0])[:2] == ["Animal", "Dog"]
    assert chosen([0.9, 0.1, 0.1, 0.85, 0.0, 0.0, 0.0])[0] == "Bark"  # however many classes are between


def test_a_more_specific_label_may_have_the_higher_score() -> None:
    assert chosen([0.5, 0.6, 0.7, 0.8, 0.0, 0.0, 0.0])[:2] == ["Bark", "Rain"]


def test_top_k_counts_the_labels_that_remain() -> None:
    scores = [0.95, 0.94, 0.9, 0.3, 0.6, 0.5, 0.4]
    assert chosen(scores, top_k=3) == ["Dog", "Rain", "Speech"]
    assert chosen(scores, top_k=None) == ["Dog", "Rain", "Speech", "my own", "Bark"]


def test_no_label_gives_way_to_one_that_is_not_reported() -> None:
    scores = [0.95, 0.94, 0.9, 0.3, 0.6, 0.5, 0.4]
    assert chosen(scores, threshold=0.92) == ["Domestic animals, pets"]
    assert chosen(scores, thresholds={"Dog": 0.95}, threshold=0.1)[:2] == ["Domestic animals, pets", "Rain"]
    assert chosen(scores, labels=("Animal", "Rain")) == ["Animal", "Rain"]
    assert chosen(scores, labels=("Animal/*",), exclude_labels=("Dog",)) == ["Domestic animals, pets", "Bark"]


def test_a_label_below_several_takes_the_place_of_each() -> None:
    labels = ["Dog", "Cat", "Roaring cats (lions, tigers)", "Growling", "Bark"]
    assert chosen([0.8, 0.7, 0.4, 0.65, 0.1], labels) == ["Growling", "Bark"]


def test_labels_outside_the_hierarchy_and_of_other_spelling_all_remain() -> None:
    assert chosen([0.9, 0.8, 0.7], ["animal", "dog", "bark"]) == ["animal", "dog", "bark"]


def test_logits_cannot_be_compared_as_fractions() -> None:
    message = "^--specific compares scores from 0 to 1, and without an activation they have no bounds$"
    with pytest.raises(UsageError, match=message):
        ClassifyOptions(specific=True, activation="none")
    regression = ASTConfig(id2label={0: "loudness"}, problem_type="regression")
    with pytest.raises(UsageError, match=message):
        TagChooser(regression, ClassifyOptions(specific=True))


def test_an_event_lasts_as_long_as_no_label_below_is_nearly_as_sure() -> None:
    config = small_config(id2label=dict(enumerate(LABELS)), problem_type="multi_label_classification")
    chooser = TagChooser(config, ClassifyOptions(specific=True, events=True))
    merger = EventMerger(chooser.id2label, chooser.label_ids, 0.5, chooser.specific)
    windows = [[0.9, 0.0, 0.3], [0.9, 0.0, 0.8], [0.9, 0.0, 0.8], [0.6, 0.0, 0.49]]  # the last: Dog is no event
    events = [
        event
        for i, scores in enumerate(windows)
        for event in merger.add(float(i), float(i + 1), np.array([*scores, 0, 0, 0, 0], np.float32))
    ]
    events += merger.finish()
    assert [(event.label, event.start_s, event.end_s) for event in events] == [
        ("Animal", 0.0, 1.0), ("Dog", 1.0, 3.0), ("Animal", 3.0, 4.0),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def dogs() -> Tagger:
    """Return a tagger that hears a dog in everything."""
    tagger = tiny_tagger(labels=LABELS)
    scores = torch.tensor([0.95, 0.94, 0.9, 0.3, 0.2, 0.1, 0.05])
    with torch.no_grad():
        head = tagger.engine.model.head.fc  # type: ignore[attr-defined]
        head.weight.zero_()
        head.bias.copy_(torch.logit(scores))
    return tagger


def test_windows_events_and_the_recording_leave_general_labels_out(dogs: Tagger, write_wav: Write) -> None:
    path = write_wav("dog.wav", 1.5)
    result = dogs.classify(path, specific=True, top_k=2, timestamps=True, events=True)
    assert [tag.label for tag in result.tags] == ["Dog", "Bark"]
    assert result.windows
    assert {tuple(tag.label for tag in window.tags) for window in result.windows} == {("Dog", "Bark")}
    assert [event.label for event in result.events or ()] == ["Dog"]
    assert [tag.label for tag in dogs.classify(path, top_k=2).tags] == ["Animal", "Domestic animals, pets"]


def test_every_format_of_the_command_and_its_runs_know_it(
    dogs: Tagger, run_ast: Run, write_wav: Write, tmp_path: Path
) -> None:
    folder, path = tmp_path / "model", write_wav("in/dog.wav")
    save_checkpoint(dogs.engine.model, folder)  # type: ignore[attr-defined]
    ASTFeatureExtractor(num_mel_bins=32, max_length=64).save_pretrained(folder)
    command = ("classify", str(path), "--model", str(folder), "--specific", "--top-k", "2", "--quiet")
    table = run_ast(*command)
    assert [line.split()[-1] for line in table.stdout.splitlines()[1:]] == ["Dog", "Bark"], table.stderr
    (record,) = json.loads(run_ast(*command, "--json").stdout)
    assert [tag["label"] for tag in record["tags"]] == ["Dog", "Bark"]
    rows = csv.DictReader(io.StringIO(run_ast(*command, "--format", "csv").stdout))
    assert [(row["rank"], row["label"]) for row in rows] == [("1", "Dog"), ("2", "Bark")]
    output = tmp_path / "tags.jsonl"
    assert run_ast(*command, "--output", str(output)).returncode == 0
    assert [tag["label"] for tag in json.loads(output.read_text())["tags"]] == ["Dog", "Bark"]
    without = [word for word in command if word != "--specific"]
    refused = run_ast(*without, "--output", str(output), "--resume")
    assert refused.returncode == 2
    assert "--specific was given and is now not given" in refused.stderr


def test_a_run_from_python_can_be_continued_only_with_the_same_choice(
    dogs: Tagger, write_wav: Write, tmp_path: Path
) -> None:
    folder, output = tmp_path / "model", tmp_path / "tags.jsonl"
    save_checkpoint(dogs.engine.model, folder)  # type: ignore[attr-defined]
    ASTFeatureExtractor(num_mel_bins=32, max_length=64).save_pretrained(folder)
    tagger = Tagger.from_pretrained(folder)
    paths = [write_wav("in/dog.wav")]
    tag_files(paths, tagger, output)
    with pytest.raises(UsageError, match="--specific was not given and is now given"):
        tag_files(paths, tagger, output, options=ClassifyOptions(specific=True), resume=True)
    tag_files(paths, tagger, output, options=ClassifyOptions(specific=True), force=True)
    assert json.loads(output.read_text())["tags"][0]["label"] == "Dog"
