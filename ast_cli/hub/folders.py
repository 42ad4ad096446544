"""Local folders of checkpoints (built-in, folder, alias or hub id), and the files of exported models."""

from __future__ import annotations

import contextlib
import hashlib
import os
from importlib import resources
from pathlib import Path

from ast_cli.errors import HubError, UsageError
from ast_cli.files.cache import file_digest
from ast_cli.hub.cached import cached_folder, holds_weights
from ast_cli.hub.download import download
from ast_cli.hub.names import (
    BUILTIN,
    CONFIG_NAME,
    DEFAULT_ALIAS,
    EXPORTED_NAMES,
    EXPORTED_SUFFIXES,
    MODEL_VARIABLE,
    ONNX_NAME,
    OPENVINO_NAME,
    PICKLE_NAME,
    PREPROCESSOR_NAME,
    THRESHOLDS_NAME,
    known_aliases,
    repo_id_of,
)


def builtin_folder() -> Path:
    """Return the folder of the model that ships with the package."""
    return Path(str(resources.files("ast_cli").joinpath("assets", "builtin")))


def default_model() -> str:
    """Return the default model: ``AST_MODEL``, else the AudioSet checkpoint if it was downloaded, else ``builtin``."""
    if chosen := os.environ.get(MODEL_VARIABLE):
        return chosen
    return DEFAULT_ALIAS if cached_folder(known_aliases()[DEFAULT_ALIAS]) else BUILTIN


def checkpoint_folder(model: str | Path) -> Path:
    """Return the folder of a checkpoint; a hub id that is not in the cache is downloaded.

    ``builtin`` and the aliases always mean the checkpoint: a folder of recordings called ``audioset`` must not hide the
    default model. Use ``./audioset`` for such a folder.

    Args:
        model: ``builtin``, a folder, an alias, or a hub id such as ``MIT/ast-finetuned-audioset-10-10-0.4593``.

    Raises:
        UsageError: If there is no folder or checkpoint of that name; the message lists similar aliases.
        HubError: If the checkpoint is known but not on this machine; the message says how to get it.
    """
    name = os.fspath(model)
    if name == BUILTIN:
        return builtin_folder()
    if name in known_aliases():
        if folder := cached_folder(repo_id_of(name)):
            return folder
        elsewhere = f" (or use ./{name} for the folder)" if Path(name).is_dir() else ""
        raise HubError(f"{name!r} is not on this machine: fetch it with `ast download {name}`{elsewhere}")
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        return path.parent
    return cached_folder(repo_id_of(name)) or download(name)


def is_here(model: str) -> bool:
    """Return whether `checkpoint_folder` finds a model on this machine, without the network."""
    if model == BUILTIN:
        return True
    if model not in known_aliases() and Path(model).expanduser().exists():
        return True
    with contextlib.suppress(UsageError):
        return cached_folder(repo_id_of(model)) is not None
    return False


def exported_file(model: str | Path) -> Path | None:
    """Return the file of an exported model that a runtime loads; None for a checkpoint.

    Args:
        model: Folder that ``ast export`` wrote, or the file itself. A folder with a checkpoint's weights counts as a
            checkpoint.
    """
    name = os.fspath(model)
    if name == BUILTIN or name in known_aliases():
        return None
    path = Path(name).expanduser()
    if path.is_file():
        return path if path.suffix in EXPORTED_SUFFIXES else None
    if not path.is_dir() or holds_weights(path):
        return None
    return next((path / file for file in (ONNX_NAME, OPENVINO_NAME) if (path / file).is_file()), None)


def describing_folder(exported: Path) -> Path | None:
    """Return the folder whose files describe the inputs and outputs of an exported model; None if the file itself does.

    Neighboring files count only if the file has the name that ``ast export`` uses and lies in such a folder.
    """
    folder = exported.parent
    is_the_folders = exported.name in EXPORTED_NAMES and (folder / CONFIG_NAME).is_file() and not holds_weights(folder)
    return folder if is_the_folders else None


def thresholds_file(model: str | Path) -> Path | None:
    """Return the absolute path of the file with a model's thresholds, as `optional_file` does."""
    return optional_file(model, THRESHOLDS_NAME)


def optional_file(model: str | Path, file_name: str) -> Path | None:
    """Return the absolute path of a file that a model may have beside its configuration; None if there is none.

    It is in the folder that describes the model: for a file of weights, the folder with the ``config.json`` beside it.
    An exported file that describes itself may contain such files and is returned.
    """
    name = os.fspath(model)
    path, exported = Path(name).expanduser(), exported_file(name)
    folder: Path | None
    if exported is not None:
        folder = describing_folder(exported)
        if folder is None:
            return exported.absolute()
    elif name != BUILTIN and name not in known_aliases() and path.is_file():
        folder = path.parent if (path.parent / CONFIG_NAME).is_file() else None
    else:
        folder = checkpoint_folder(name)
    file = None if folder is None else folder / file_name
    return file.absolute() if file is not None and file.is_file() else None


def checkpoint_digest(name: str) -> str:
    """Return one SHA-256 for all files of a checkpoint that affect its scores, independent of their location."""
    whole = hashlib.sha256()
    for file in _files_of(name):
        whole.update(file_digest(file))
    return whole.hexdigest()


def checkpoint_bytes(name: str) -> int:
    """Return the size of all files of a checkpoint that its scores depend on."""
    return sum(file.stat().st_size for file in _files_of(name))


def _files_of(name: str) -> list[Path]:
    """Return all files of a checkpoint that affect its scores."""
    exported = exported_file(name)
    if exported is not None and describing_folder(exported) is None:
        weights = exported.with_suffix(".bin")
        return [exported, weights] if exported.suffix == ".xml" and weights.is_file() else [exported]
    path = Path(name).expanduser()
    files = [path] if path.is_file() and exported is None and name != BUILTIN else []
    folder = checkpoint_folder(name)
    fixed = (CONFIG_NAME, PREPROCESSOR_NAME, PICKLE_NAME, *EXPORTED_NAMES)
    files += [folder / file for file in fixed if (folder / file).is_file()]
    return files + sorted(folder.glob("model*.safetensors"))
