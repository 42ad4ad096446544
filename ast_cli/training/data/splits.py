"""Which clips are trained on, which choose and judge the weights, which are left for the end. Standard library only."""

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
    """The examples of a run, each in one place.

    Attributes:
        train: Learned from.
        validation: Held out, and looked at while training; empty if nothing is.
        test: Looked at once, at the end; the data's own, or empty.
        how: In words, how validation was chosen.
    """

    train: ExampleSet
    validation: ExampleSet
    test: ExampleSet
    how: str


def assign_splits(examples: ExampleSet, options: TrainOptions) -> Splits:
    """Divide the data: by the fold held out, by its own splits, or by a random fraction.

    Raises:
        UsageError: Nothing is left to train on, the fold does not exist, or the fraction is too small.
    """
    nothing = replace(examples, examples=())
    test = examples.of_split("test") if "test" in examples.splits else nothing
    rest = replace(examples, examples=tuple(example for example in examples.examples if example.split != "test"))
    if options.fold is not None:
        held_out = rest.of_folds([options.fold])
        return _checked(Splits(rest.outside_folds([options.fold]), held_out, test, f"fold {options.fold} of the data"))
    if "validation" in rest.splits:
        validation = rest.of_split("validation")
        train = replace(rest, examples=tuple(example for example in rest.examples if example.split != "validation"))
        return _checked(Splits(train, validation, test, "the data's own validation split"))
    if not options.validation_fraction:
        return _checked(Splits(rest, nothing, test, "nothing is held out"))
    try:
        train, validation = rest.split_by_fraction(options.validation_fraction, options.seed)
    except UsageError as error:
        raise UsageError(f"{error}; --validation-fraction 0 holds nothing out") from error
    how = f"a random {100 * options.validation_fraction:.0f} % of the clips, stratified by label"
    return _checked(Splits(train, validation, test, how))


def _checked(splits: Splits) -> Splits:
    source = splits.train.source
    if not splits.train.examples:
        raise UsageError(f"{source}: no example is left to train on")
    if not any(example.labels for example in splits.train.examples):
        raise UsageError(f"{source}: no example to train on has a label")
    return splits


def data_digest(examples: ExampleSet) -> str:
    """Return the SHA-256 of all that is told of the examples, and of their files' sizes and times."""
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
