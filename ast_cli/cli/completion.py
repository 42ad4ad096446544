"""Completion of model names in the shell."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ast_cli.hub.names import BUILTIN, MODEL_VARIABLE, known_aliases


def complete_models(incomplete: str) -> list[str]:
    """Return the models that begin with the typed text: built-in, AST_MODEL, aliases and cached hub ids.

    Where nothing matches, the shell offers files and folders.
    """
    names = [BUILTIN, *filter(None, [os.environ.get(MODEL_VARIABLE)]), *known_aliases(), *_cached_hub_ids()]
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def _cached_hub_ids() -> Iterator[str]:
    """Yield the ids of the models in the hub client's cache, by the names of its folders.

    The hub client itself is not used: its import takes ten times as long as a completion may take.
    """
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    cache = Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()
    try:
        folders = sorted(cache.glob("models--*--*"))
    except OSError:
        return
    for folder in folders:
        yield folder.name.removeprefix("models--").replace("--", "/")
