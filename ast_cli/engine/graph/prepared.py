"""What the engines without torch share: a checkpoint on its way into a graph, kept in the cache."""

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
    """A checkpoint for an engine, found in the cache or not.

    Attributes:
        model: The checkpoint.
        depends_on: All that the engine's form of it depends on.
        file: That form, if it was kept.
        config: The model's configuration, if that is known.
    """

    model: str | Path
    depends_on: dict[str, str]
    file: Path | None = None
    config: ASTConfig | None = None

    def facts(self) -> dict[str, Any]:
        """Return what is to be written down with the kept form."""
        assert self.config is not None
        return self.config.to_dict()


def prepare(model: str | Path, options: EngineOptions, engine: str, facts: Mapping[str, str], suffix: str) -> Prepared:
    """Look for a checkpoint in the form that an engine made of it before.

    Args:
        model: As in ``ASTForAudioClassification.from_pretrained``.
        options: How it is loaded.
        engine: Name of the engine.
        facts: Versions, processor and options that its form depends on.
        suffix: Of the file in the cache.
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
        except CheckpointError:  # not written by this version: made anew
            pass
    return Prepared(model, depends_on)


def converted(prepared: Prepared, options: EngineOptions, builder: type[GraphBuilder]) -> tuple[Graph, Prepared]:
    """Load the checkpoint and describe it as a graph; return it, and what is known now."""
    weights, config = load_arrays(prepared.model, unnamed_labels=options.unnamed_labels)
    return builder(config, weights).build(), dataclasses.replace(prepared, config=config)


def as_bytes(graph: Graph) -> bytes:
    """Return an ONNX file in memory."""
    return b"".join(onnx_chunks(graph, PRODUCER))


def refuse_device(engine: str, options: EngineOptions, dtypes: tuple[str, ...]) -> None:
    """Refuse a device or a data type that an engine of the CPU does not offer.

    Raises:
        DeviceError: With what to do.
    """
    if options.device not in ("auto", "cpu"):
        raise DeviceError(f"the {engine} engine runs on the CPU, not on {options.device}; use --engine torch there")
    if options.dtype not in ("auto", *dtypes):
        offered = " and ".join(dtype for dtype in dtypes if dtype.endswith(("float32", "float16")))
        raise DeviceError(f"the {engine} engine computes in {offered}, not in {options.dtype}; use --engine torch")
