"""The ONNX Runtime engine: runs on a CPU without torch and starts in a fraction of a second."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ast_cli.engine.graph.builder import INPUT, OUTPUT, GraphBuilder
from ast_cli.engine.graph.exported import read_exported, refused
from ast_cli.engine.graph.model_cache import cached_model, keep_model
from ast_cli.engine.graph.onnx_file import Graph, onnx_chunks, weight_chunks
from ast_cli.engine.graph.prepared import PRODUCER, Prepared, as_bytes, converted, prepare, refuse_device
from ast_cli.engine.interface import cpu_batch_size, default_num_threads, finite
from ast_cli.engine.options import EngineOptions
from ast_cli.hub.folders import exported_file
from ast_cli.model.config import ASTConfig

onnxruntime: Any = importlib.import_module("onnxruntime")  # it has no explicit exports for mypy
DTYPES = ("float32", "fp32")
SUFFIX, WEIGHTS_SUFFIX = ".onnx", ".weights"
FORM = "2"  # version of the cached files; increase it when order or place of the weights change


class FusedAttentionBuilder(GraphBuilder):
    """Builds graphs with ONNX Runtime's attention operator, which works in blocks and does not store all scores.

    Exported models do not use it, so that other runtimes can load them. docs/performance.md has the gain.
    """

    def attend(self, q: str, k: str, v: str, name: str) -> str:
        """Compute attention head by head: queries, keys and values (B, N, C) to (B, N, C)."""
        num_heads = self.config.num_attention_heads
        return self.add("com.microsoft.MultiHeadAttention", q, k, v, num_heads=num_heads)


class OnnxRuntimeEngine:
    """An engine that runs the model in ONNX Runtime.

    Args:
        model: ONNX file or its content.
        config: Configuration of the model.
        num_threads: Number of CPU threads; None for `default_num_threads`.
        dtype_name: Data type of the computation.
    """

    name = "onnxruntime"
    device_name = "cpu"
    out_of_memory: tuple[type[Exception], ...] = (MemoryError,)

    def __init__(
        self, model: Path | bytes, config: ASTConfig, num_threads: int | None = None, dtype_name: str = "float32"
    ) -> None:
        self.config = config
        self.dtype_name = dtype_name
        self.num_threads = num_threads or default_num_threads()
        onnxruntime.disable_telemetry_events()  # of its builds for Windows
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.num_threads
        options.enable_mem_pattern = False  # planning one block for all tensors takes more memory (docs/performance.md)
        options.log_severity_level = 3  # errors only, which are also raised
        source = model if isinstance(model, bytes) else os.fspath(model)
        self.session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])

    @staticmethod
    def builder_for(_dtype: str) -> type[GraphBuilder]:
        """Return the class that builds the graph for a data type."""
        return FusedAttentionBuilder

    @classmethod
    def load(
        cls, model: str | Path, options: EngineOptions, report_progress: Callable[[str], None]
    ) -> OnnxRuntimeEngine:
        """Load a checkpoint, converting it unless the cache has it; see `ast_cli.engine.choice.load_engine`."""
        refuse_device(cls.name, options, DTYPES)
        if named := exported_file(model):
            return cls._exported(named, options)
        prepared = prepare(model, options, cls.name, {"form": FORM}, SUFFIX)
        if (
            prepared.file is not None
            and prepared.config is not None
            and cached_model(prepared.depends_on, WEIGHTS_SUFFIX) is not None
        ):
            with contextlib.suppress(Exception):  # exceptions of ONNX Runtime, for a file that it does not accept
                return cls(prepared.file, prepared.config, options.num_threads)
        report_progress(f"converting {model} for ONNX Runtime; this is done once")
        graph, prepared = converted(prepared, options, cls.builder_for(options.dtype))
        assert prepared.config is not None
        file = _kept(graph, prepared)
        if file is not None:
            with contextlib.suppress(Exception):  # the file may be gone, or on a file system without mapping
                return cls(file, prepared.config, options.num_threads)
        return cls(as_bytes(graph), prepared.config, options.num_threads)

    @classmethod
    def from_graph(cls, graph: Graph, config: ASTConfig, options: EngineOptions) -> OnnxRuntimeEngine:
        """Load a graph from memory without caching it.

        Raises:
            DeviceError: If the engine does not support the device or data type.
        """
        refuse_device(cls.name, options, DTYPES)
        return cls(as_bytes(graph), config, options.num_threads)

    @classmethod
    def _exported(cls, file: Path, options: EngineOptions) -> OnnxRuntimeEngine:
        """Load a model written by `ast export`.

        Raises:
            CheckpointError: If the file is damaged or has another format.
        """
        config, dtype_name = read_exported(file, options)
        try:
            return cls(file, config, options.num_threads, dtype_name)
        except Exception as error:  # exceptions of ONNX Runtime
            raise refused(file, error) from error

    @property
    def facts(self) -> dict[str, str]:
        """Facts that the speed depends on; see `Engine`."""
        return {"threads": str(self.num_threads), "onnxruntime": onnxruntime.__version__}

    @property
    def default_batch_size(self) -> int:
        """Number of windows per batch unless the user chooses one; on one thread, 1 is 5 % faster than more."""
        return 1 if self.num_threads == 1 else cpu_batch_size(self.config)

    def logits(self, input_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute logits; see `Engine`."""
        (logits,) = self.session.run([OUTPUT], {INPUT: np.ascontiguousarray(input_values, np.float32)})
        return finite(logits, self.dtype_name)


def _kept(graph: Graph, prepared: Prepared) -> Path | None:
    """Keep a model for later runs, with the weights in a second file; mapping that file halves the loading time."""
    weights = keep_model(prepared.depends_on, WEIGHTS_SUFFIX, weight_chunks(graph), {})
    if weights is None:
        return None
    chunks = onnx_chunks(graph, PRODUCER, weights.name)
    file = keep_model(prepared.depends_on, SUFFIX, chunks, prepared.facts())
    if file is None:
        with contextlib.suppress(OSError):
            weights.unlink()
    return file
