"""The front ends of the families of checkpoints, one file each.

A file ``preprocessor_config.json`` names its feature extractor; one that names none is AST's. Only the module of that
front end is imported.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ast_cli.errors import CheckpointError
from ast_cli.files.json_object import shown
from ast_cli.hub.names import AST_EXTRACTOR, FEATURE_EXTRACTORS

if TYPE_CHECKING:
    from ast_cli.audio.feature_extractor import FeatureExtractor


def extractor_type(values: Mapping[str, Any], where: str) -> str:
    """Return the feature extractor that the content of a ``preprocessor_config.json`` names.

    A model of the same type and shape may need another one, so this is the only sign that its scores would be wrong.

    Raises:
        CheckpointError: If it is none of ours; the message names it.
    """
    kind = values.get("feature_extractor_type")
    if kind is None:
        return AST_EXTRACTOR
    if not isinstance(kind, str) or kind not in FEATURE_EXTRACTORS:
        raise CheckpointError(f"{where}: needs another front end, {shown(kind)}: its scores would be wrong here")
    return kind


def extractor_class(kind: str) -> type[FeatureExtractor]:
    """Return the class of one of `FEATURE_EXTRACTORS`."""
    module = importlib.import_module(f"{__name__}.{FEATURE_EXTRACTORS[kind]}")
    found: type[FeatureExtractor] = getattr(module, kind)
    return found
