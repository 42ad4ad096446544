"""The ONNX Runtime engine: a CPU, no torch, a start in a fraction of a second."""

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
from ast_cli.engine.interface import cpu_batch_size, finite
from ast_cli.engine.options import EngineOptions
from ast_cli.hub.folders import exported_file
from ast_cli.model.config import ASTConfig

onnxruntime: Any = importlib.import_module("onnxruntime")  # which exports nothing explicitly, as mypy sees it
DTYPES = ("float32", "fp32")
SUFFIX, WEIGHTS_SUFFIX = ".onnx", ".weights"
FORM = "2"  # of what is kept: another order or place of weights must raise it


class FusedAttentionBuilder(GraphBuilder):
    """Attends by ONNX Runtime's own operator, which goes block by block and need not hold all scores.

    Exported models do without, for other runtimes' sake. What it gains stands in docs/performance.md.
    """

    def attend(self, q: str, k: str, v: str, name: str) -> str:
        """Attend head by head: queries, keys and values (B, N, C) to (B, N, C)."""
        num_heads = self.config.num_attention_heads
        return self.add("com.microsoft.MultiHeadAttention", q, k, v, num_heads=num_heads)


class OnnxRuntimeEngine:
    """A loaded classifier in ONNX Runtime.

    Args:
        model: An ONNX file, or its bytes.
        config: The model's configuration.
        num_threads: On the CPU; None for as many as there are cores.
        dtype_name: In which it computes.
    """

    name = "onnxruntime"
    device_name = "cpu"
    out_of_memory: tuple[type[Exception], ...] = (MemoryError,)

    def __init__(
        self, model: Path | bytes, config: ASTConfig, num_threads: int | None = None, dtype_name: str = "float32"
    ) -> None:
        self.config = config
        self.dtype_name = dtype_name
        self.num_threads = num_threads or os.cpu_count() or 1
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.num_threads
        options.enable_mem_pattern = False  # one block of memory planned for all takes more (docs/performance.md)
        options.log_severity_level = 3  # errors, which are raised as well
        source = model if isinstance(model, bytes) else os.fspath(model)
        self.session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])

    @staticmethod
    def builder_for(_dtype: str) -> type[GraphBuilder]:
        """Return what describes a model that is to be run in a data type."""
        return FusedAttentionBuilder

    @classmethod
    def load(
        cls, model: str | Path, options: EngineOptions, report_progress: Callable[[str], None]
    ) -> OnnxRuntimeEngine:
        """Convert a checkpoint, or find it converted, and load it; see `ast_cli.engine.choice.load_engine`."""
        refuse_device(cls.name, options, DTYPES)
        if named := exported_file(model):
            return cls._exported(named, options)
        prepared = prepare(model, options, cls.name, {"form": FORM}, SUFFIX)
        if (
            prepared.file is not None
            and prepared.config is not None
            and cached_model(prepared.depends_on, WEIGHTS_SUFFIX) is not None
        ):
            with contextlib.suppress(Exception):  # ONNX Runtime's own exceptions: a file of another make
                return cls(prepared.file, prepared.config, options.num_threads)
        report_progress(f"converting {model} for ONNX Runtime; done once")
        graph, prepared = converted(prepared, options, cls.builder_for(options.dtype))
        assert prepared.config is not None
        file = _kept(graph, prepared)
        if file is not None:
            with contextlib.suppress(Exception):  # it may be gone already, or lie where nothing can be mapped
                return cls(file, prepared.config, options.num_threads)
        return cls(as_bytes(graph), prepared.config, options.num_threads)

    @classmethod
    def from_graph(cls, graph: Graph, config: ASTConfig, options: EngineOptions) -> OnnxRuntimeEngine:
        """Load a graph from memory; nothing of it is kept.

        Raises:
            DeviceError: A device or data type that the engine does not offer.
        """
        refuse_device(cls.name, options, DTYPES)
        return cls(as_bytes(graph), config, options.num_threads)

    @classmethod
    def _exported(cls, file: Path, options: EngineOptions) -> OnnxRuntimeEngine:
        """Load what `ast export` wrote.

        Raises:
            CheckpointError: The file is damaged or foreign.
        """
        config, dtype_name = read_exported(file, options)
        try:
            return cls(file, config, options.num_threads, dtype_name)
        except Exception as error:  # ONNX Runtime's own exceptions
            raise refused(file, error) from error

    @property
    def facts(self) -> dict[str, str]:
        """What its speed depends on; see `Engine`."""
        return {"threads": str(self.num_threads), "onnxruntime": onnxruntime.__version__}

    @property
    def default_batch_size(self) -> int:
        """Windows to run at once when nobody says; on one thread single ones are 5 % faster (benchmarks)."""
        return 1 if self.num_threads == 1 else cpu_batch_size(self.config)

    def logits(self, input_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute logits; see `Engine`."""
        (logits,) = self.session.run([OUTPUT], {INPUT: np.ascontiguousarray(input_values, np.float32)})
        return finite(logits, self.dtype_name)


def _kept(graph: Graph, prepared: Prepared) -> Path | None:
    """Keep a model for later runs, its weights in a file beside it, which is mapped: half the time to load it."""
    weights = keep_model(prepared.depends_on, WEIGHTS_SUFFIX, weight_chunks(graph), {})
    if weights is None:
        return None
    chunks = onnx_chunks(graph, PRODUCER, weights.name)
    file = keep_model(prepared.depends_on, SUFFIX, chunks, prepared.facts())
    if file is None:
        with contextlib.suppress(OSError):
            weights.unlink()
    return file
