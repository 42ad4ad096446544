"""The models that the program knows by name, with their quality and cost: the library behind ``ast models``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ast_cli.hub.cached import cached_folder
from ast_cli.hub.folders import checkpoint_bytes
from ast_cli.hub.names import (
    AST_FRAME_S,
    BUILT_IN,
    BUILTIN,
    CHECKPOINTS,
    SHORT_ALIASES,
    SOUNDS,
    Family,
    PublishedCheckpoint,
)
from ast_cli.model.config import ASTConfig
from ast_cli.model.eat_config import PUBLISHED_SIZES
from ast_cli.model.operations import flop_per_window, num_weights
from ast_cli.results import SCHEMA_VERSION

BYTES_PER_WEIGHT = 4  # published files are in float32


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model that is known by name.

    Attributes:
        name: Shortest alias.
        repo_id: Hub id; None for the built-in model.
        labels: Kind of the labels.
        num_labels: Number of labels.
        window_s: Length of the audio of a window, in seconds.
        metric: Kind of the quality: ``mAP``, ``accuracy`` or ``cmAP``; None where no number is known.
        quality: Value that the authors report; None where no number is known.
        family: Short name of the authors' system.
        source: Where the authors report the quality.
        gmac_per_minute: Multiply-adds for a minute of audio in windows side by side, in units of 1e9.
        size_bytes: Size to download, counted from the weights; of the built-in model that of its files.
        license: SPDX identifier of the license of the weights; None if their authors state none.
        is_here: Whether the model is on this machine.
    """

    name: str
    repo_id: str | None
    labels: str
    num_labels: int
    window_s: float
    metric: str | None
    quality: float | None
    family: str
    source: str
    gmac_per_minute: float
    size_bytes: int
    license: str | None
    is_here: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**dataclasses.asdict(self), "gmac_per_minute": round(self.gmac_per_minute, 1)}


@dataclass(frozen=True, slots=True)
class ModelList:
    """The models that are known by name, in the order of tables, and the families that they belong to."""

    models: tuple[ListedModel, ...]
    families: tuple[Family, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        models = [each.to_dict() for each in self.models]
        return {"schema_version": SCHEMA_VERSION, "type": "models", "models": models}


def list_models() -> ModelList:
    """Return the built-in model and the published checkpoints, without the network and without loading one."""
    shortest = {name: alias for alias, name in SHORT_ALIASES.items()}
    published = [_listed(shortest.get(name, name), checkpoint) for name, checkpoint in CHECKPOINTS.items()]
    families = dict.fromkeys([BUILT_IN, *(checkpoint.family for checkpoint in CHECKPOINTS.values())])
    return ModelList((_built_in(), *published), tuple(families))


def _listed(name: str, checkpoint: PublishedCheckpoint) -> ListedModel:
    config = config_of(checkpoint)
    return ListedModel(
        name=name,
        repo_id=checkpoint.repo_id,
        labels=checkpoint.labels,
        num_labels=checkpoint.num_labels,
        window_s=checkpoint.window_s,
        metric=checkpoint.metric,
        quality=checkpoint.quality,
        family=checkpoint.family.name,
        source=checkpoint.family.paper,
        gmac_per_minute=_gmac_per_minute(config, checkpoint.window_s),
        size_bytes=BYTES_PER_WEIGHT * num_weights(config),
        license=checkpoint.family.license_id,
        is_here=cached_folder(checkpoint.repo_id) is not None,
    )


def _built_in() -> ListedModel:
    config = ASTConfig.from_pretrained(BUILTIN)
    window_s = config.max_length * AST_FRAME_S
    return ListedModel(
        name=BUILTIN,
        repo_id=None,
        labels=SOUNDS,
        num_labels=config.num_labels,
        window_s=window_s,
        metric=None,
        quality=None,
        family=BUILT_IN.name,
        source=BUILT_IN.paper,
        gmac_per_minute=_gmac_per_minute(config, window_s),
        size_bytes=checkpoint_bytes(BUILTIN),
        license=BUILT_IN.license_id,
        is_here=True,
    )


def config_of(checkpoint: PublishedCheckpoint) -> ASTConfig:
    """Return the architecture of a published checkpoint, of base size."""
    return ASTConfig(
        model_type=checkpoint.family.model_type,
        frequency_stride=checkpoint.stride,
        time_stride=checkpoint.stride,
        max_length=checkpoint.max_length,
        num_mel_bins=checkpoint.num_mel_bins,
        num_labels=checkpoint.num_labels,
        position_rows=PUBLISHED_SIZES["max_length"],  # of EAT's forms; the others have none
    )


def _gmac_per_minute(config: ASTConfig, window_s: float) -> float:
    """Return the multiply-adds of the whole model, as papers count them: without the shorter last block."""
    return flop_per_window(config, trimmed=False) / 2 / 1e9 * 60 / window_s
