"""Which label of the data is which label of the models: by name or AudioSet identifier, never by position."""

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

MAX_LISTED = 20  # labels in a message


@dataclass(frozen=True, slots=True, eq=False)
class LabelMatch:
    """What is judged, in terms that data and models share.

    Attributes:
        examples: To score.
        num_left_out: Examples of which no label is known.
        labels: That can be predicted, as the first model spells them: the columns of scores and targets.
        label_ids: Per model, the class index of each of ``labels``.
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
    """Find the labels that data and models share, and each example's among them.

    What can be predicted is every label that all models know, in the first model's order, or with
    ``options.only_data_labels`` those of them that the data's source has.

    Args:
        data: Whose labels are to be known.
        models: Name and labels of each.
        options: What may be predicted, and what happens to labels that a model does not know.

    Raises:
        UsageError: No model, no example, or labels that a model does not know.
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
        raise UsageError(f"{data.source}: no example is left to judge the models by")
    rows = [[columns[names[label]] for label in example.labels if label in names] for example in examples]
    return LabelMatch(
        examples,
        num_left_out=len(data.examples) - len(examples),
        labels=labels,
        label_ids=tuple(tuple(shared[label][model] for label in labels) for model in range(len(models))),
        targets=_targets(rows, len(labels)) if data.is_multi_label else np.array(rows, np.int64)[:, 0],
    )


def _ids_in_all(label: str, known: Sequence[Mapping[str, int]]) -> tuple[int, ...] | None:
    """Return a label's class index in every model, or None if one does not know it."""
    ids = [_id_in(label, model) for model in known]
    return None if None in ids else tuple(index for index in ids if index is not None)


def _id_in(label: str, known: Mapping[str, int]) -> int | None:
    """Look a label up by its name, else by its AudioSet identifier."""
    found = known.get(label.casefold())
    return known.get((mid_of(label) or "").casefold()) if found is None else found


def _is_known(example: Example, names: Mapping[str, str]) -> bool:
    """Tell whether an example can be judged: one that has no label at all counts as an example of none."""
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
    """Refuse labels of the data that a model does not know, naming the model."""
    for (name, _), ids in zip(models, known, strict=True):
        missing = [repr(label) for label in unknown if _id_in(label, ids) is None]
        if missing:
            more = f" and {len(missing) - MAX_LISTED} more" if len(missing) > MAX_LISTED else ""
            raise UsageError(
                f"{name} does not know {len(missing)} of the {len(data.labels)} labels of {data.source}: "
                f"{', '.join(missing[:MAX_LISTED])}{more}; name another model, or leave them out with "
                "--ignore-unknown-labels"
            )
