"""Checkpoints in the hub client's cache. Never uses the network."""

from __future__ import annotations

from pathlib import Path

from ast_cli.files.json_object import read_json_object
from ast_cli.hub.names import CONFIG_NAME, DEFAULT_REVISION, INDEX_NAME, PICKLE_NAME, WEIGHTS_NAME


def cached_folder(repo_id: str, revision: str = DEFAULT_REVISION) -> Path | None:
    """Return the folder of a checkpoint in the hub client's cache, or None if it is missing or incomplete."""
    config = cached_file(repo_id, CONFIG_NAME, revision)
    return config.parent if config and holds_weights(config.parent) else None


def cached_file(repo_id: str, name: str, revision: str) -> Path | None:
    """Return the path of a checkpoint's file in the cache, or None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    try:
        file = try_to_load_from_cache(repo_id, name, revision=revision)
    except OSError:  # an unreadable cache counts as empty
        return None
    return Path(file) if isinstance(file, str) else None


def holds_weights(folder: Path) -> bool:
    """Return whether a folder contains a file of weights or every shard that its index lists."""
    if any((folder / name).is_file() for name in (WEIGHTS_NAME, PICKLE_NAME)):
        return True
    if not (folder / INDEX_NAME).is_file():
        return False
    weight_map = read_json_object(folder / INDEX_NAME).get("weight_map")
    return isinstance(weight_map, dict) and all((folder / str(name)).is_file() for name in weight_map.values())
