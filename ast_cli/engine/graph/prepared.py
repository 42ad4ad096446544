"""Convert checkpoints for the engines without torch, and find converted models in the cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ast_cli import __version__
from ast_cli.engine.graph.builder import GRAPH_FORM, GraphBuilder
from ast_cli.engine.graph.model_cache import cached_model
from ast_cli.engine.graph.onnx_file import Graph, onnx_chunks
from ast_cli.engine.options import EngineOptions
from ast_cli.errors import CheckpointError, DeviceError
from ast_cli.hub.folders import checkpoint_digest
from ast_cli.model.arrays import load_arrays
from ast_cli.model.config import ASTConfig

PRODUCER = f"ast {__version__}"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checkpoint for an engine, which may have been converted before.

    Attributes:
        model: Name, folder or file of the checkpoint.
        depends_on: Everything that the converted model depends on.
        file: Converted model in the cache, or None.
        config: Configuration of the model, or None until the checkpoint is read.
    """

    model: str | Path
    depends_on: dict[str, str]
    file: Path | None = None
    config: ASTConfig | None = None

    def facts(self) -> dict[str, Any]:
        """Return the facts to store with the converted model."""
        assert self.config is not None
        return self.config.to_dict()


def prepare(model: str | Path, options: EngineOptions, engine: str, facts: Mapping[str, str], suffix: str) -> Prepared:
    """Look in the cache for the model that an engine has converted from a checkpoint.

    Args:
        model: Checkpoint, as in ``ASTForAudioClassification.from_pretrained``.
        options: Options to load it with.
        engine: Name of the engine.
        facts: Versions, processor and options that the converted model depends on.
        suffix: Suffix of the file in the cache.
    """
    depends_on = {
        "engine": engine,
        "checkpoint": checkpoint_digest(str(model)),
        "ast": __version__,
        "graph": GRAPH_FORM,
        "unnamed_labels": str(options.unnamed_labels),
        **facts,
    }
    found = cached_model(depends_on, suffix)
    if found is not None:
        try:
            return Prepared(model, depends_on, found[0], ASTConfig.from_dict(found[1]))
        except CheckpointError:  # written by another version: convert it again
            pass
    return Prepared(model, depends_on)


def converted(prepared: Prepared, options: EngineOptions, builder: type[GraphBuilder]) -> tuple[Graph, Prepared]:
    """Load the checkpoint, and return its graph and the `Prepared` with its configuration."""
    weights, config = load_arrays(prepared.model, unnamed_labels=options.unnamed_labels)
    return builder(config, weights).build(), dataclasses.replace(prepared, config=config)


def as_bytes(graph: Graph) -> bytes:
    """Return the content of an ONNX file."""
    return b"".join(onnx_chunks(graph, PRODUCER))


def refuse_device(engine: str, options: EngineOptions, dtypes: tuple[str, ...]) -> None:
    """Check that an engine for the CPU supports the requested device and data type.

    Raises:
        DeviceError: If it does not; the message names the alternative.
    """
    if options.device not in ("auto", "cpu"):
        raise DeviceError(f"the {engine} engine runs on the CPU, not on {options.device}; use --engine torch there")
    if options.dtype not in ("auto", *dtypes):
        offered = " and ".join(dtype for dtype in dtypes if dtype.endswith(("float32", "float16")))
        raise DeviceError(f"the {engine} engine computes in {offered}, not in {options.dtype}; use --engine torch")
