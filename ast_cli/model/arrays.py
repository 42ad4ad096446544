"""Load the weights of a checkpoint as NumPy arrays, for the engines that run without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ast_cli.hub.folders import checkpoint_folder
from ast_cli.model.config import ASTConfig, read_config
from ast_cli.model.layout import (
    check_front_end,
    compare,
    expected_shapes,
    has_config,
    infer_config,
    name_labels,
    own_names,
    refuse_non_finite,
    rename,
)
from ast_cli.model.weight_files import read_weights, read_weights_folder

Weights = dict[str, NDArray[np.float32]]


def load_arrays(model: str | Path, *, unnamed_labels: bool = False) -> tuple[Weights, ASTConfig]:
    """Load a checkpoint without torch, with the same checks as ``ASTForAudioClassification.from_pretrained``.

    Args:
        model: Name, folder or file of the checkpoint, as in ``from_pretrained``.
        unnamed_labels: Use the labels ``LABEL_n`` where the checkpoint does not name its labels.

    Returns:
        The tensors of the classifier in float32, keyed by the names of our state dictionary, and its configuration.

    Raises:
        CheckpointError: If the checkpoint is damaged, belongs to another model, or contradicts its configuration.
        HubError: If the checkpoint is not on this machine and cannot be downloaded.
    """
    where = str(model)
    tensors, config = _read(Path(model).expanduser(), model, forget_bad_labels=unnamed_labels)
    config = name_labels(config, tensors, where, allow_unnamed=unnamed_labels)
    state = own_names(tensors, with_head=True)
    compare(state, expected_shapes(config), where)
    weights = {name: np.asarray(tensor, np.float32) for name, tensor in state.items()}
    refuse_non_finite(weights, where)
    return weights, config


def load_config(model: str | Path, *, unnamed_labels: bool = False) -> ASTConfig:
    """Return the configuration of a checkpoint with one label for each output of its head; the weights are not kept.

    Arguments and errors are those of `load_arrays`, but of the weights only the number of outputs is checked.
    """
    tensors, config = _read(Path(model).expanduser(), model, forget_bad_labels=unnamed_labels)
    return name_labels(config, tensors, str(model), allow_unnamed=unnamed_labels)


def _read(path: Path, model: str | Path, *, forget_bad_labels: bool) -> tuple[dict[str, NDArray[Any]], ASTConfig]:
    """Read the tensors, under our names, and the configuration of a checkpoint folder or a single file of weights."""
    if path.is_file():
        tensors = read_weights(path, "numpy")
        if has_config(path.parent):
            config = read_config(path.parent, forget_bad_labels=forget_bad_labels)
            return rename(tensors, config.form), config
        tensors = rename(tensors)
        return tensors, infer_config(tensors, str(path))
    folder = checkpoint_folder(model)
    check_front_end(folder)
    config = read_config(folder, forget_bad_labels=forget_bad_labels)
    return rename(read_weights_folder(folder, "numpy"), config.form), config
