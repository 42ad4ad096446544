"""Thresholds of single labels: the format that ``ast evaluate`` writes, and the thresholds that come with a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ast_cli.errors import CheckpointError, UsageError
from ast_cli.files.json_object import read_json_object, shown
from ast_cli.hub.names import EXPORTED_SUFFIXES, THRESHOLDS_NAME
from ast_cli.labels import label_ids_by_name, no_such_label
from ast_cli.tagging.options import check_threshold

THRESHOLDS_VERSION = 1


def read_label_thresholds(file: Path) -> tuple[tuple[str, float], ...]:
    """Read a file of thresholds, written by ``ast evaluate`` or by hand: ``{"labels": {"Rain": 0.4}}``.

    Returns:
        Pairs of label and threshold, in the order of the file.

    Raises:
        CheckpointError: If the file cannot be read or its content is invalid.
    """
    return label_thresholds(read_json_object(file), str(file))


def label_thresholds(content: Mapping[str, Any], where: str) -> tuple[tuple[str, float], ...]:
    """Return the pairs of label and threshold in the content of a file of thresholds.

    Raises:
        CheckpointError: If the content is invalid; the message begins with ``where``.
    """
    labels = content.get("labels")
    if content.get("schema_version", THRESHOLDS_VERSION) != THRESHOLDS_VERSION:
        found = shown(content["schema_version"])
        raise CheckpointError(
            f"{where}: has schema version {found}, but this version of ast reads {THRESHOLDS_VERSION}; "
            "write it again with `ast evaluate --thresholds-output`"
        )
    if not isinstance(labels, dict) or not labels:
        raise CheckpointError(
            f'{where}: contains no thresholds under "labels"; `ast evaluate --thresholds-output` writes such a file'
        )
    return tuple((label, _threshold(where, label, value)) for label, value in labels.items())


def _threshold(where: str, label: str, value: object) -> float:
    """Return the threshold of one label, from a plain number or from an object with its metrics."""
    threshold = value.get("threshold") if isinstance(value, dict) else value
    try:
        check_threshold(label, threshold)
    except UsageError as error:
        raise CheckpointError(f"{where}: {error}") from error
    assert isinstance(threshold, int | float)
    return float(threshold)


def thresholds_by_id(pairs: tuple[tuple[str, float], ...], id2label: Mapping[int, str]) -> dict[int, float]:
    """Return thresholds by class index, from pairs of a label's name or AudioSet identifier and a threshold.

    Raises:
        UsageError: If the model does not have a label, or has two thresholds for it.
    """
    known, found = label_ids_by_name(id2label), dict[int, float]()
    for name, threshold in pairs:
        label_id = known.get(name.casefold())
        if label_id is None:
            raise UsageError(no_such_label(name, id2label))
        if label_id in found:
            raise UsageError(f"two thresholds are given for the label {id2label[label_id]!r}")
        found[label_id] = threshold
    return found


def thresholds_content(file: Path) -> tuple[dict[str, Any] | None, str]:
    """Return the JSON of a model's thresholds, and its place for messages.

    Args:
        file: ``thresholds.json``, or a file that ``ast export`` wrote, which may contain it: None if it does not.

    Raises:
        CheckpointError: If the file cannot be read or does not contain a JSON object.
    """
    if file.suffix not in EXPORTED_SUFFIXES:
        return read_json_object(file), str(file)
    from ast_cli.engine.graph.exported import optional_text_inside

    return optional_text_inside(file, THRESHOLDS_NAME), f"{file}: {THRESHOLDS_NAME}"


def model_thresholds(file: Path, id2label: Mapping[int, str]) -> dict[str, float]:
    """Return the thresholds that come with a model, by its own names of the labels; empty if it has none.

    Args:
        file: File of the thresholds, as in `thresholds_content`.
        id2label: Labels of the model.

    Raises:
        CheckpointError: If the file is damaged, or belongs to a model with other labels.
    """
    content, where = thresholds_content(file)
    if content is None:
        return {}
    try:
        by_id = thresholds_by_id(label_thresholds(content, where), id2label)
    except UsageError as error:
        raise CheckpointError(f"{where}: {error} (the file may belong to another model)") from error
    return {id2label[label_id]: threshold for label_id, threshold in by_id.items()}
