"""Read the description of a model written by ``ast export``: labels, sizes, data type and front end.

A model in a folder is described by the JSON files beside it. A model written as a single file contains them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ast_cli.audio.fbank.filter_bank import FbankBackend
from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.audio.front_ends.unstated import FrontEndName, warn_of_unused_front_end
from ast_cli.engine.graph.onnx_file import read_metadata
from ast_cli.engine.options import EngineOptions
from ast_cli.errors import CheckpointError
from ast_cli.files.json_object import parse_json_object
from ast_cli.hub.folders import describing_folder
from ast_cli.hub.names import CONFIG_NAME, PREPROCESSOR_NAME
from ast_cli.model.config import ASTConfig, config_from, read_config


def read_exported(file: Path, options: EngineOptions) -> tuple[ASTConfig, str]:
    """Read the configuration of an exported model and the data type that it computes in.

    Raises:
        CheckpointError: If the configuration is missing or invalid, or the file of weights is missing.
    """
    refuse_without_weights(file)
    folder, forget = describing_folder(file), options.unnamed_labels
    if folder is not None:
        config = read_config(folder, forget_bad_labels=forget)
    else:
        config = config_from(text_inside(file, CONFIG_NAME), str(file), forget_bad_labels=forget)
    return config, str(config.extra.get("dtype", "float32"))


def extractor_inside(file: Path, fbank_backend: FbankBackend, front_end: FrontEndName | None) -> FeatureExtractor:
    """Return the feature extractor described inside an exported model.

    Args:
        file: File of the model.
        fbank_backend: Implementation of the filter bank.
        front_end: Front end chosen for checkpoints without one. It is ignored with a warning, as the model has its own.

    Raises:
        CheckpointError: If the description is missing or invalid, or the file of weights is missing.
    """
    refuse_without_weights(file)
    values = text_inside(file, PREPROCESSOR_NAME)
    warn_of_unused_front_end(front_end, file)
    return FeatureExtractor.from_dict(values, f"{file}: {PREPROCESSOR_NAME}", fbank_backend=fbank_backend)


def refuse_without_weights(file: Path) -> None:
    """Check that an OpenVINO model, which consists of two files, is complete.

    Raises:
        CheckpointError: If the file of weights is missing.
    """
    weights = file.with_suffix(".bin")
    if file.suffix == ".xml" and not weights.is_file():
        raise CheckpointError(f"{file}: its file of weights, {weights.name}, is missing beside it: copy both files")


def text_inside(file: Path, name: str) -> dict[str, Any]:
    """Return one of the two JSON objects that describe a model and that ``ast export`` writes into a model.

    Args:
        file: File of the model.
        name: ``config.json`` or ``preprocessor_config.json``.

    Raises:
        CheckpointError: If the file is damaged, has another format, or does not contain the object.
    """
    values = optional_text_inside(file, name)
    if values is None:
        raise CheckpointError(
            f"{file}: contains no {name}, which `ast export` writes into a model; export it again, or put it beside "
            f"its {CONFIG_NAME} and {PREPROCESSOR_NAME} under the name model{file.suffix}"
        )
    return values


def optional_text_inside(file: Path, name: str) -> dict[str, Any] | None:
    """Return a JSON object that ``ast export`` may have written into a model; None if it did not.

    Raises:
        CheckpointError: If the file is damaged or has another format.
    """
    try:
        text = _text_of(file, name)
    except (OSError, ValueError, RuntimeError) as error:
        raise refused(file, error) from error
    return None if text is None else parse_json_object(text.encode(), f"{file}: {name}")


def _text_of(file: Path, name: str) -> str | None:
    """Return the text stored in a model under a name, or None if there is none."""
    if file.suffix == ".onnx":
        return read_metadata(file).get(name)
    from ast_cli.engine.graph.openvino_core import read_rt_info

    return read_rt_info(file, name)


def refused(file: Path, error: Exception) -> CheckpointError:
    """Return the error for a file that a runtime cannot load."""
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    return CheckpointError(f"{file}: cannot be loaded ({reason[:200]}); export it again")
