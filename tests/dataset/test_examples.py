from __future__ import annotations

import subprocess
import sys

import pytest

from ast_cli.dataset.examples import Example, ExampleSet
from ast_cli.errors import UsageError


def example_set(*examples: Example, is_multi_label: bool = False) -> ExampleSet:
    labels = tuple(sorted({label for example in examples for label in example.labels}))
    return ExampleSet("data.csv", examples, labels, is_multi_label)


def many(num_recordings: dict[str, int]) -> ExampleSet:
    """Return examples with a number of recordings of each label, in two parts each."""
    return example_set(
        *(
            Example(f"{label}{i}.wav", (label,), start_s=start_s, end_s=start_s + 1)
            for label, count in num_recordings.items()
            for i in range(count)
            for start_s in (0.0, 1.0)
        )
    )


def test_subsets_by_split_or_fold_keep_all_labels() -> None:
    data = example_set(
        Example("a", ("Dog",), "train", 1),
        Example("b", ("Cat",), "test", 2),
        Example("c", ("Cat",), "train", 3),
        Example("d", ("Cat",)),
    )
    assert (data.splits, data.folds) == (("train", "test"), (1, 2, 3))
    assert [e.path for e in data.of_split("train").examples] == ["a", "c"]
    assert data.of_split("test").labels == ("Cat", "Dog")
    assert [e.path for e in data.of_folds([1, 3]).examples] == ["a", "c"]
    assert [e.path for e in data.outside_folds([1, 3]).examples] == ["b", "d"]
    assert data.of_split("test").class_counts() == {"Cat": 1, "Dog": 0}


def test_a_missing_split_or_fold_is_a_usage_error() -> None:
    data = example_set(Example("a", ("Dog",), "train", 1), Example("b", ("Cat",), "test", 2))
    with pytest.raises(UsageError, match="no examples of the split 'validation'; its splits are train, test"):
        data.of_split("validation")
    with pytest.raises(UsageError, match="no examples of fold 5; its folds are 1, 2"):
        data.of_folds([1, 5])
    with pytest.raises(UsageError, match="no examples of fold 0"):
        data.outside_folds([0])
    with pytest.raises(UsageError, match="it has no fold column"):
        many({"Dog": 2}).of_folds([1])


def test_a_split_by_fraction_is_stratified_and_keeps_parts_together() -> None:
    data = many({"Dog": 20, "Cat": 40, "Rain": 10})
    rest, held_out = data.split_by_fraction(0.2, seed=1)
    assert held_out.class_counts() == {"Cat": 16, "Dog": 8, "Rain": 4}  # two parts a recording
    assert {e.path for e in rest.examples}.isdisjoint(e.path for e in held_out.examples)
    assert sorted(rest.examples + held_out.examples, key=str) == sorted(data.examples, key=str)


def test_a_fraction_of_small_classes_is_right_in_sum() -> None:
    data = many({f"class {i:02}": 5 for i in range(40)})
    _, held_out = data.split_by_fraction(0.1, seed=0)
    assert len(held_out) == 2 * 20  # half a recording a class
    assert max(held_out.class_counts().values()) == 2


def test_single_recordings_stay_in_training_without_changing_the_fraction_of_other_labels() -> None:
    data = many({**{f"class {i}": 1 for i in range(50)}, "many": 10})
    rest, held_out = data.split_by_fraction(0.2, seed=0)
    assert min(rest.class_counts().values()) == 2
    assert len(held_out) in (2 * 2, 2 * 3)


def test_a_split_by_fraction_depends_on_the_seed_not_on_the_order() -> None:
    data = many({"Dog": 20, "Cat": 20})
    backwards = ExampleSet(data.source, data.examples[::-1], data.labels, data.is_multi_label)

    def paths(data: ExampleSet, seed: int) -> set[str]:
        return {example.path for example in data.split_by_fraction(0.3, seed)[1].examples}

    assert paths(data, 1) == paths(backwards, 1)
    assert paths(data, 1) != paths(data, 2)


def test_multi_label_examples_count_for_their_rarest_label() -> None:
    examples = [Example(f"{i}.wav", ("Speech", "Rare") if i < 10 else ("Speech",)) for i in range(100)]
    examples += [Example(f"none{i}.wav", ()) for i in range(10)]
    _, held_out = example_set(*examples, is_multi_label=True).split_by_fraction(0.2, seed=0)
    assert held_out.class_counts() == {"Rare": 2, "Speech": 20}
    assert sum(not e.labels for e in held_out.examples) == 2


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_an_invalid_fraction_is_a_usage_error(fraction: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        many({"Dog": 4}).split_by_fraction(fraction, 0)


def test_too_few_recordings_for_a_fraction_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="too few recordings per label"):
        many({"Dog": 1, "Cat": 1}).split_by_fraction(0.5, 0)


def test_reading_examples_imports_nothing_heavy() -> None:
    program = (
        "import sys, ast_cli.dataset.examples; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'av', 'soundfile', 'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
