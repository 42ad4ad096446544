"""What a model that ``ast export`` wrote says of itself: labels and sizes, the type it computes in, its front end.

In a folder of its own that lies beside it; a file that was named alone holds it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ast_cli.audio.feature_extractor import ASTFeatureExtractor
from ast_cli.audio.front_end import FbankBackend, FrontEndName, warn_of_unused_front_end
from ast_cli.engine.graph.onnx_file import read_metadata
from ast_cli.engine.options import EngineOptions
from ast_cli.errors import CheckpointError
from ast_cli.files.json_object import parse_json_object
from ast_cli.hub.folders import describing_folder
from ast_cli.hub.names import CONFIG_NAME, PREPROCESSOR_NAME
from ast_cli.model.config import ASTConfig, config_from, read_config


def read_exported(file: Path, options: EngineOptions) -> tuple[ASTConfig, str]:
    """Read the configuration of an exported model, and in which type it computes.

    Raises:
        CheckpointError: There is none, it holds what cannot be, or the model's weights are missing.
    """
    refuse_without_weights(file)
    folder, forget = describing_folder(file), options.unnamed_labels
    if folder is not None:
        config = read_config(folder, forget_bad_labels=forget)
    else:
        config = config_from(text_inside(file, CONFIG_NAME), str(file), forget_bad_labels=forget)
    return config, str(config.extra.get("dtype", "float32"))


def extractor_inside(file: Path, fbank_backend: FbankBackend, front_end: FrontEndName | None) -> ASTFeatureExtractor:
    """Return the feature extractor that an exported model holds.

    Args:
        file: The model.
        fbank_backend: Which filter bank.
        front_end: Of checkpoints that bring none; with this one it is not used, as a warning says.

    Raises:
        CheckpointError: There is none, or it holds what cannot be.
    """
    refuse_without_weights(file)
    values = text_inside(file, PREPROCESSOR_NAME)
    warn_of_unused_front_end(front_end, file)
    return ASTFeatureExtractor.from_dict(values, f"{file}: {PREPROCESSOR_NAME}", fbank_backend=fbank_backend)


def refuse_without_weights(file: Path) -> None:
    """Refuse half of an OpenVINO model, which is two files.

    Raises:
        CheckpointError: The other half is not beside it.
    """
    weights = file.with_suffix(".bin")
    if file.suffix == ".xml" and not weights.is_file():
        raise CheckpointError(f"{file}: {weights.name} is missing beside it, which holds the weights: copy both files")


def text_inside(file: Path, name: str) -> dict[str, Any]:
    """Return one of the two JSON objects that ``ast export`` writes into a model.

    Raises:
        CheckpointError: The file is damaged, foreign, or does not hold it.
    """
    try:
        text = _text_of(file, name)
    except (OSError, ValueError, RuntimeError) as error:
        raise refused(file, error) from error
    if text is None:
        raise CheckpointError(
            f"{file}: holds no {name}, which `ast export` writes into a model; export it again, or put it beside its "
            f"{CONFIG_NAME} and {PREPROCESSOR_NAME} under the name model{file.suffix}"
        )
    return parse_json_object(text.encode(), f"{file}: {name}")


def _text_of(file: Path, name: str) -> str | None:
    """Return a text inside a model as its format keeps it; None where there is none of that name."""
    if file.suffix == ".onnx":
        return read_metadata(file).get(name)
    from ast_cli.engine.graph.openvino_core import read_rt_info

    return read_rt_info(file, name)


def refused(file: Path, error: Exception) -> CheckpointError:
    """Say that a runtime does not take a file."""
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    return CheckpointError(f"{file}: cannot be loaded ({reason[:200]}); export it again")
