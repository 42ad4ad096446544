"""The labels of a model with their places in AudioSet's hierarchy: the library behind ``ast labels``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ast_cli.engine.graph.exported import optional_text_inside, read_exported
from ast_cli.engine.options import EngineOptions
from ast_cli.errors import CheckpointError, UsageError
from ast_cli.files.json_object import read_json_object, shown
from ast_cli.hierarchy import audioset_classes, chains_above
from ast_cli.hub.folders import default_model, exported_file, optional_file
from ast_cli.hub.names import LABELS_NAME
from ast_cli.labels import mid_of, similar_names
from ast_cli.model.arrays import load_config
from ast_cli.model.config import ASTConfig
from ast_cli.results import SCHEMA_VERSION
from ast_cli.styles import display_name

UNPROVEN_KEY = "unproven"  # of labels.json: labels that never had a score over `UNPROVEN_SCORE` in the training
UNPROVEN_SCORE = 0.3


@dataclass(frozen=True, slots=True)
class ListedLabel:
    """A label of a model.

    Attributes:
        label: Name of the label.
        label_id: Index of the class in the logits.
        mid: AudioSet's machine identifier; None if the label is not one of AudioSet's.
        ancestors: Names of the classes above the label in AudioSet's hierarchy, from the top down: one chain for each
            way to the label, as it may be below several classes. Empty for a label at the top or outside the hierarchy.
        unproven: Whether the label never had a score over 0.3 in the training of the model; None if the model does not
            say for which labels this is so.
    """

    label: str
    label_id: int
    mid: str | None
    ancestors: tuple[tuple[str, ...], ...]
    unproven: bool | None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class LabelList:
    """The labels of a model, or some of them, in the order of the class indices."""

    model: str
    labels: tuple[ListedLabel, ...]

    def containing(self, text: str) -> LabelList:
        """Return the labels whose name, as files or people have it, or machine identifier contains a text, in any case.

        Raises:
            UsageError: If there is none; the message names similar labels.
        """
        folded = text.casefold()
        found = tuple(
            each
            for each in self.labels
            if any(folded in name.casefold() for name in (each.label, display_name(each.label), each.mid or ""))
        )
        if not found:
            raise UsageError(nothing_contains(text, self.model, [each.label for each in self.labels]))
        return LabelList(self.model, found)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        labels = [each.to_dict() for each in self.labels]
        return {"schema_version": SCHEMA_VERSION, "type": "labels", "model": self.model, "labels": labels}


def nothing_contains(text: str, model: str, names: list[str]) -> str:
    """Return the error message for a text that none of the names contains."""
    by_fold = {name.casefold(): name for name in names}
    near = [repr(by_fold[fold]) for fold in similar_names(text, by_fold)]
    hint = f"; similar labels: {', '.join(near)}" if near else ""
    return f"no label of {model} contains {text!r}{hint}"


def list_labels(model: str | Path | None = None, *, unnamed_labels: bool = False) -> LabelList:
    """Return the labels of a model, without loading it.

    Args:
        model: Name, folder or file of a checkpoint or of an exported model; None for the default, as in
            ``Tagger.from_pretrained``.
        unnamed_labels: Use the labels ``LABEL_n`` where the checkpoint does not name its labels.

    Raises:
        CheckpointError: If the checkpoint, or its list of unproven labels, is damaged.
        HubError: If the checkpoint is not on this machine.
        UsageError: If there is no such model.
    """
    name = str(default_model() if model is None else model)
    config = _config(name, unnamed_labels=unnamed_labels)
    unproven = read_unproven(*labels_content(name), config.id2label)
    labels = (
        ListedLabel(
            label,
            label_id,
            mid_of(label),
            _ancestors(mid_of(label)),
            None if unproven is None else label in unproven,
        )
        for label_id, label in config.id2label.items()
    )
    return LabelList(name, tuple(labels))


def _config(name: str, *, unnamed_labels: bool) -> ASTConfig:
    exported = exported_file(name)
    if exported is None:
        return load_config(name, unnamed_labels=unnamed_labels)
    config, _dtype = read_exported(exported, EngineOptions(unnamed_labels=unnamed_labels))
    return config


def labels_content(model: str) -> tuple[dict[str, Any] | None, str]:
    """Return the JSON of a model's ``labels.json``, None if it has none; and its place for messages.

    The file is in the folder that describes the model. A file that ``ast export`` wrote may contain it.

    Raises:
        CheckpointError: If the file cannot be read or does not contain a JSON object.
    """
    file = optional_file(model, LABELS_NAME)
    if file is None:
        return None, model
    if file.name == LABELS_NAME:
        return read_json_object(file), str(file)
    return optional_text_inside(file, LABELS_NAME), f"{file}: {LABELS_NAME}"


def _ancestors(mid: str | None) -> tuple[tuple[str, ...], ...]:
    chains = chains_above(mid) if mid is not None else ()
    return tuple(tuple(audioset_classes()[each].name for each in chain) for chain in chains if chain)


def read_unproven(content: Mapping[str, Any] | None, where: str, id2label: Mapping[int, str]) -> frozenset[str] | None:
    """Return which labels of a model never had a score over 0.3 in training, from the content of ``labels.json``.

    Args:
        content: ``{"unproven": ["Battle cry", ...]}``; None if the model has no such file.
        where: Place of the content, for messages.
        id2label: Labels of the model.

    Returns:
        Names of the labels; None if there is no such file, or if it does not have the key.

    Raises:
        CheckpointError: If the value is not a list of names, or the model has no such label.
    """
    if content is None or UNPROVEN_KEY not in content:
        return None
    names = content[UNPROVEN_KEY]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f'{where}: "{UNPROVEN_KEY}" must be a list of labels, not {shown(names)}')
    known = set(id2label.values())
    for name in names:
        if name not in known:
            raise CheckpointError(
                f"{where}: {shown(name)} is no label of the model: the file belongs to another one, or the name is "
                "wrong"
            )
    return frozenset(names)
