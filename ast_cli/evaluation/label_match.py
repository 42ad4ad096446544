"""Matching the labels of data and models: by name or AudioSet identifier, never by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ast_cli.dataset.examples import Example, ExampleSet
from ast_cli.errors import UsageError
from ast_cli.evaluation.options import EvaluationOptions
from ast_cli.labels import label_ids_by_name, mid_of

MAX_LISTED = 20  # labels listed in a message


@dataclass(frozen=True, slots=True, eq=False)
class LabelMatch:
    """Examples and labels to evaluate, by the labels that data and models share.

    Attributes:
        examples: Examples to score.
        num_left_out: Number of examples left out because no label of theirs is known.
        labels: Labels that can be predicted, in the spelling of the first model: the columns of scores and targets.
        label_ids: Class index of each of ``labels``, per model.
        targets: Index of each example's label, int64, shape (num_examples,); for multi-label data whether an example
            has a label, bool, shape (num_examples, num_labels).
    """

    examples: tuple[Example, ...]
    num_left_out: int
    labels: tuple[str, ...]
    label_ids: tuple[tuple[int, ...], ...]
    targets: NDArray[Any]


def match_labels(
    data: ExampleSet, models: Sequence[tuple[str, Mapping[int, str]]], options: EvaluationOptions
) -> LabelMatch:
    """Find the labels that data and models share, and the targets of the examples among them.

    The labels that can be predicted are those that all models know, in the order of the first model, or with
    ``options.only_data_labels`` those of them that also occur in the source of the data.

    Args:
        data: Labeled examples.
        models: Name and labels (``id2label``) of each model.
        options: Options with ``only_data_labels`` and ``ignore_unknown_labels``.

    Raises:
        UsageError: If there is no model or no example, or a model does not know a label.
    """
    if not models:
        raise UsageError("name at least one model to evaluate")
    known = [label_ids_by_name(id2label) for _, id2label in models]
    first = models[0][1]
    shared = {label: ids for label in first.values() if (ids := _ids_in_all(label, known)) is not None}
    used = dict.fromkeys(label for example in data.examples for label in example.labels)
    named = {label: ids for label in (*used, *data.labels) if (ids := _ids_in_all(label, known)) is not None}
    if not options.ignore_unknown_labels:
        _check_known(data, [label for label in used if label not in named], models, known)
    names = {label: first[ids[0]] for label, ids in named.items()}
    allowed = set(names.values()) if options.only_data_labels else set(shared)
    labels = tuple(label for label in shared if label in allowed)
    columns = {label: column for column, label in enumerate(labels)}
    examples = tuple(example for example in data.examples if _is_known(example, names))
    if not examples:
        raise UsageError(f"{data.source}: no example with a known label is left to evaluate on")
    rows = [[columns[names[label]] for label in example.labels if label in names] for example in examples]
    return LabelMatch(
        examples,
        num_left_out=len(data.examples) - len(examples),
        labels=labels,
        label_ids=tuple(tuple(shared[label][model] for label in labels) for model in range(len(models))),
        targets=_targets(rows, len(labels)) if data.is_multi_label else np.array(rows, np.int64)[:, 0],
    )


def _ids_in_all(label: str, known: Sequence[Mapping[str, int]]) -> tuple[int, ...] | None:
    """Return the class index of a label in every model; None if a model does not know it."""
    ids = [_id_in(label, model) for model in known]
    return None if None in ids else tuple(index for index in ids if index is not None)


def _id_in(label: str, known: Mapping[str, int]) -> int | None:
    """Return the class index of a label by its name, else by its AudioSet identifier; None if unknown."""
    found = known.get(label.casefold())
    return known.get((mid_of(label) or "").casefold()) if found is None else found


def _is_known(example: Example, names: Mapping[str, str]) -> bool:
    """Return whether an example can be evaluated: it has a known label, or no label at all."""
    return not example.labels or any(label in names for label in example.labels)


def _targets(rows: Sequence[Sequence[int]], num_labels: int) -> NDArray[np.bool_]:
    targets = np.zeros((len(rows), num_labels), np.bool_)
    for row, columns in enumerate(rows):
        targets[row, list(columns)] = True
    return targets


def _check_known(
    data: ExampleSet,
    unknown: Sequence[str],
    models: Sequence[tuple[str, Mapping[int, str]]],
    known: Sequence[Mapping[str, int]],
) -> None:
    """Check that every model knows the labels of the data.

    Raises:
        UsageError: If a model does not know a label; the message names both.
    """
    for (name, _), ids in zip(models, known, strict=True):
        missing = [repr(label) for label in unknown if _id_in(label, ids) is None]
        if missing:
            more = f" and {len(missing) - MAX_LISTED} more" if len(missing) > MAX_LISTED else ""
            raise UsageError(
                f"{name} does not know {len(missing)} of the {len(data.labels)} labels of {data.source}: "
                f"{', '.join(missing[:MAX_LISTED])}{more}; name another model, or leave them out with "
                "--ignore-unknown-labels"
            )
