"""Division of the data into training, validation and test examples. Standard library only."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import astuple, dataclass, replace

from ast_cli.dataset.examples import Example, ExampleSet
from ast_cli.errors import UsageError
from ast_cli.training.options import TrainOptions


@dataclass(frozen=True, slots=True)
class Splits:
    """The examples of a run, each in one split.

    Attributes:
        train: Training examples.
        validation: Examples held out for validation during training; may be empty.
        test: Test split of the data, evaluated once at the end; may be empty.
        how: Description of how the validation examples were chosen.
    """

    train: ExampleSet
    validation: ExampleSet
    test: ExampleSet
    how: str


def assign_splits(examples: ExampleSet, options: TrainOptions, *, needs_labels: bool = True) -> Splits:
    """Divide the data: by the fold to hold out, by its own splits, or by a random fraction.

    Args:
        examples: All examples.
        options: Options with the fold and the fraction to hold out.
        needs_labels: Whether training examples without any label are an error, as they are without soft targets.

    Raises:
        UsageError: If no training examples are left, the fold does not exist, or the fraction is too small.
    """
    splits = _divided(examples, options)
    source = splits.train.source
    if not splits.train.examples:
        raise UsageError(f"{source}: no training example is left")
    if needs_labels and not any(example.labels for example in splits.train.examples):
        raise UsageError(f"{source}: no training example has a label")
    return splits


def _divided(examples: ExampleSet, options: TrainOptions) -> Splits:
    nothing = replace(examples, examples=())
    test = examples.of_split("test") if "test" in examples.splits else nothing
    rest = replace(examples, examples=tuple(example for example in examples.examples if example.split != "test"))
    if options.fold is not None:
        held_out = rest.of_folds([options.fold])
        return Splits(rest.outside_folds([options.fold]), held_out, test, f"fold {options.fold} of the data")
    if "validation" in rest.splits:
        validation = rest.of_split("validation")
        train = replace(rest, examples=tuple(example for example in rest.examples if example.split != "validation"))
        return Splits(train, validation, test, "the data's own validation split")
    if not options.validation_fraction:
        return Splits(rest, nothing, test, "empty: no clips are held out")
    try:
        train, validation = rest.split_by_fraction(options.validation_fraction, options.seed)
    except UsageError as error:
        raise UsageError(f"{error}; --validation-fraction 0 trains without validation") from error
    how = f"a random {100 * options.validation_fraction:.0f} % of the clips"
    is_stratified = any(example.labels for example in rest.examples)
    return Splits(train, validation, test, f"{how}, stratified by label" if is_stratified else how)


def data_digest(examples: ExampleSet) -> str:
    """Return the SHA-256 of all fields of the examples, and of the sizes and modification times of their files."""
    whole = hashlib.sha256()
    for example in examples.examples:
        whole.update(json.dumps([*astuple(example), *_file_facts(example)]).encode())
    return whole.hexdigest()


def _file_facts(example: Example) -> tuple[int, int]:
    try:
        status = os.stat(example.path)
    except (OSError, ValueError):
        return -1, -1
    return status.st_size, status.st_mtime_ns
