"""A checkpoint's weights as NumPy arrays: what engines that need no torch are built from."""

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
    """Load a checkpoint as strictly as ``ASTForAudioClassification.from_pretrained`` does, without torch.

    Args:
        model: As there.
        unnamed_labels: As there.

    Returns:
        The classifier's tensors in float32, by the names of our state dictionary, and its configuration.

    Raises:
        CheckpointError: The checkpoint is damaged, foreign, or at odds with its configuration.
        HubError: It is not on this machine and cannot be fetched.
    """
    where = str(model)
    tensors, config = _read(Path(model).expanduser(), model, forget_bad_labels=unnamed_labels)
    config = name_labels(config, tensors, where, allow_unnamed=unnamed_labels)
    state = own_names(tensors, with_head=True)
    compare(state, expected_shapes(config), where)
    weights = {name: np.asarray(tensor, np.float32) for name, tensor in state.items()}
    refuse_non_finite(weights, where)
    return weights, config


def _read(path: Path, model: str | Path, *, forget_bad_labels: bool) -> tuple[dict[str, NDArray[Any]], ASTConfig]:
    """Read renamed tensors and the configuration: from one file of weights, or from a folder."""
    if path.is_file():
        tensors = rename(read_weights(path, "numpy"))
        if has_config(path.parent):
            return tensors, read_config(path.parent, forget_bad_labels=forget_bad_labels)
        return tensors, infer_config(tensors, str(path))
    folder = checkpoint_folder(model)
    check_front_end(folder)
    config = read_config(folder, forget_bad_labels=forget_bad_labels)
    return rename(read_weights_folder(folder, "numpy")), config
