from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ast_cli.dataset.examples import Example, ExampleSet
from ast_cli.errors import UsageError
from ast_cli.training.data.splits import assign_splits, data_digest
from ast_cli.training.options import TrainOptions


def examples_of(*rows: tuple[str, str, str | None, int | None]) -> ExampleSet:
    examples = tuple(Example(path, (label,), split, fold) for path, label, split, fold in rows)
    return ExampleSet("data.csv", examples, tuple(sorted({row[1] for row in rows})), is_multi_label=False)


def paths(examples: ExampleSet) -> list[str]:
    return [example.path for example in examples.examples]


SPLIT = examples_of(
    ("a", "x", "train", 1),
    ("b", "y", "train", 2),
    ("c", "x", "validation", 1),
    ("d", "y", "test", 2),
    ("e", "x", None, 2),
)
PLAIN = examples_of(*((f"{label}{i}", label, None, i % 5) for label in "xy" for i in range(20)))


def test_the_splits_of_the_data_are_used() -> None:
    splits = assign_splits(SPLIT, TrainOptions())
    assert (paths(splits.train), paths(splits.validation), paths(splits.test)) == (["a", "b", "e"], ["c"], ["d"])
    assert splits.how == "the data's own validation split"


def test_a_fold_is_held_out_and_the_test_split_stays_untouched() -> None:
    splits = assign_splits(SPLIT, TrainOptions(fold=2))
    assert (paths(splits.train), paths(splits.validation), paths(splits.test)) == (["a", "c"], ["b", "e"], ["d"])


def test_without_splits_a_fraction_of_each_label_is_held_out() -> None:
    splits = assign_splits(PLAIN, TrainOptions(validation_fraction=0.2))
    assert [len(each) for each in (splits.train, splits.validation, splits.test)] == [32, 8, 0]
    assert {path[0] for path in paths(splits.validation)} == {"x", "y"}
    assert not set(paths(splits.train)) & set(paths(splits.validation))
    assert paths(assign_splits(PLAIN, TrainOptions(validation_fraction=0.2)).validation) == paths(splits.validation)
    assert paths(assign_splits(PLAIN, TrainOptions(validation_fraction=0.2, seed=1)).validation) != paths(
        splits.validation
    )
    everything = assign_splits(PLAIN, TrainOptions(validation_fraction=0.0))
    assert [len(each) for each in (everything.train, everything.validation)] == [40, 0]


def test_splits_without_training_examples_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="has no examples of fold 9"):
        assign_splits(PLAIN, TrainOptions(fold=9))
    with pytest.raises(UsageError, match="no training example is left"):
        assign_splits(examples_of(("a", "x", "test", 1), ("b", "y", "validation", 1)), TrainOptions())
    with pytest.raises(
        UsageError, match=r"too few recordings per label.*--validation-fraction 0 trains without validation"
    ):
        assign_splits(examples_of(("a", "x", None, None), ("b", "y", None, None)), TrainOptions())
    unlabeled = replace(SPLIT, examples=tuple(replace(example, labels=()) for example in SPLIT.examples))
    with pytest.raises(UsageError, match="no training example has a label"):
        assign_splits(unlabeled, TrainOptions())


def test_the_digest_depends_on_labels_order_and_files(tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(b"1")
    data = examples_of((str(file), "x", None, None), ("b", "y", None, None))
    first = data_digest(data)
    assert data_digest(data) == first
    assert data_digest(replace(data, examples=data.examples[::-1])) != first
    assert data_digest(examples_of((str(file), "y", None, None), ("b", "y", None, None))) != first
    os.utime(file, ns=(1, 1))
    second = data_digest(data)
    assert second != first
    file.unlink()
    assert data_digest(data) not in (first, second)
