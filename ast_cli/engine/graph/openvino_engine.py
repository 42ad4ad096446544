"""The OpenVINO engine: a CPU, no torch, kernels for every vector width from AVX2 to AMX."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ast_cli.engine.graph.builder import INPUT, OUTPUT, GraphBuilder
from ast_cli.engine.graph.exported import read_exported, refused
from ast_cli.engine.graph.model_cache import content_of, keep_model
from ast_cli.engine.graph.onnx_file import Graph
from ast_cli.engine.graph.openvino_core import has_bfloat16, openvino, the_core
from ast_cli.engine.graph.prepared import Prepared, as_bytes, converted, prepare, refuse_device
from ast_cli.engine.interface import cpu_batch_size, cpu_name, finite
from ast_cli.engine.options import EngineOptions
from ast_cli.errors import DeviceError
from ast_cli.hub.folders import exported_file
from ast_cli.model.config import ASTConfig

DTYPES = {"auto": "f32", "float32": "f32", "fp32": "f32", "bfloat16": "bf16", "bf16": "bf16"}
DTYPE_NAMES = {"f32": "float32", "bf16": "bfloat16"}
SUFFIX = ".openvino"


class Float32Builder(GraphBuilder):
    """Has OpenVINO multiply by oneDNN where it would choose MLAS, which is slower there.

    In float32 it takes MLAS for every product that no operation follows but the addition of a bias. Of base size's
    largest, the second of the MLP, that takes 28.4 ms, and oneDNN 25.8 (docs/performance.md). So an operation follows
    which leaves each number as it is, as OpenVINO does not notice.
    """

    def linear(self, x: str, name: str, part: int | None = None) -> str:
        """Map (..., in_features) to (..., out_features); of ``qkv`` the part 0, 1 or 2."""
        x = super().linear(x, name, part)
        return self.add("LeakyRelu", x, alpha=1.0) if name.endswith(".mlp.fc2") else x


class OpenVinoEngine:
    """A loaded classifier in OpenVINO.

    Args:
        compiled: The compiled model.
        config: The model's configuration.
        dtype_name: In which it computes.
    """

    name = "openvino"
    device_name = "cpu"
    out_of_memory: tuple[type[Exception], ...] = (MemoryError,)

    def __init__(self, compiled: Any, config: ASTConfig, dtype_name: str = "float32") -> None:
        self.config = config
        self.dtype_name = dtype_name
        self.num_threads = int(compiled.get_property("INFERENCE_NUM_THREADS"))
        self._compiled = compiled  # which holds the memory that its weights may lie in
        self._request = compiled.create_infer_request()
        self._output = compiled.output(OUTPUT)

    @staticmethod
    def builder_for(dtype: str) -> type[GraphBuilder]:
        """Return what describes a model that is to be run in a data type."""
        return Float32Builder if DTYPES.get(dtype) == "f32" else GraphBuilder

    @classmethod
    def load(cls, model: str | Path, options: EngineOptions, report_progress: Callable[[str], None]) -> OpenVinoEngine:
        """Compile a checkpoint, or find it compiled, and load it; see `ast_cli.engine.choice.load_engine`."""
        refuse_device(cls.name, options, tuple(DTYPES))
        precision = DTYPES[options.dtype]
        if file := exported_file(model):
            return cls._exported(file, options)
        properties = properties_for(precision, options.num_threads)
        facts = {"openvino": openvino.__version__, "cpu": cpu_name(), **properties}
        prepared = prepare(model, options, cls.name, facts, SUFFIX)
        core = the_core()
        compiled = imported(core, prepared, properties)
        if compiled is None:
            report_progress(f"compiling {model} for OpenVINO; done once")
            graph, prepared = converted(prepared, options, cls.builder_for(options.dtype))
            compiled = compiled_graph(graph, properties)
            exported = io.BytesIO()
            compiled.export_model(exported)
            keep_model(prepared.depends_on, SUFFIX, [exported.getbuffer()], prepared.facts())
        assert prepared.config is not None
        refuse_other_precision(compiled, precision)
        return cls(compiled, prepared.config, DTYPE_NAMES[precision])

    @classmethod
    def from_graph(cls, graph: Graph, config: ASTConfig, options: EngineOptions) -> OpenVinoEngine:
        """Compile a graph from memory; nothing of it is kept.

        Raises:
            DeviceError: A device or data type that the engine, or this processor, does not offer.
        """
        refuse_device(cls.name, options, tuple(DTYPES))
        precision = DTYPES[options.dtype]
        compiled = compiled_graph(graph, properties_for(precision, options.num_threads))
        refuse_other_precision(compiled, precision)
        return cls(compiled, config, DTYPE_NAMES[precision])

    @classmethod
    def _exported(cls, file: Path, options: EngineOptions) -> OpenVinoEngine:
        """Load what `ast export` wrote.

        What is not in integers in an int8 model is in bfloat16 where the processor has that: 0.77 of the time, with a
        difference far below that of the integers. ``--dtype float32`` leaves it in float32.

        Raises:
            CheckpointError: The file is damaged or foreign.
            DeviceError: This processor has no bfloat16, and it was asked for.
        """
        config, dtype_name = read_exported(file, options)
        core = the_core()
        precision = DTYPES[options.dtype]
        if dtype_name == "int8" and options.dtype == "auto" and has_bfloat16(core):
            precision = "bf16"
        try:
            compiled = core.compile_model(file, "CPU", properties_for(precision, options.num_threads))
        except RuntimeError as error:
            raise refused(file, error) from error
        refuse_other_precision(compiled, precision)
        if precision != "f32":
            dtype_name = f"int8+{DTYPE_NAMES[precision]}" if dtype_name == "int8" else DTYPE_NAMES[precision]
        return cls(compiled, config, dtype_name)

    @property
    def facts(self) -> dict[str, str]:
        """What its speed depends on; see `Engine`."""
        return {"threads": str(self.num_threads), "openvino": openvino.__version__}

    @property
    def default_batch_size(self) -> int:
        """Windows to run at once when nobody says."""
        return cpu_batch_size(self.config)

    def logits(self, input_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute logits; see `Engine`."""
        values = np.ascontiguousarray(input_values, np.float32)
        return finite(self._request.infer({INPUT: values})[self._output].copy(), self.dtype_name)


def properties_for(precision: str, num_threads: int | None) -> dict[str, str]:
    """Return how OpenVINO is to run: one window after another, each as fast as it can be."""
    return {
        "PERFORMANCE_HINT": "LATENCY",  # one stream of all threads
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": str(num_threads or os.cpu_count() or 1),
    }


def compiled_graph(graph: Graph, properties: dict[str, str]) -> Any:
    """Compile a graph."""
    core = the_core()
    return core.compile_model(core.read_model(as_bytes(graph)), "CPU", properties)


def imported(core: Any, prepared: Prepared, properties: dict[str, str]) -> Any | None:
    """Return the model that was compiled before; None if there is none, or OpenVINO refuses it."""
    if prepared.file is None:
        return None
    try:
        content = np.frombuffer(content_of(prepared.file), np.uint8)
        compiled = core.import_model(openvino.Tensor(content, shared_memory=True), "CPU", properties)
        compiled.content = content  # in which weights may lie as long as the model lives
        return compiled
    except (RuntimeError, OSError, ValueError, TypeError):
        return None


def refuse_other_precision(compiled: Any, precision: str) -> None:
    """Make sure that the processor computes as asked: OpenVINO itself goes back to float32 in silence.

    Raises:
        DeviceError: It does not.
    """
    found = compiled.get_property("INFERENCE_PRECISION_HINT")
    is_emulated = precision == "bf16" and not has_bfloat16(the_core())  # AVX-512 alone: slower than float32
    if found.to_string() != precision or is_emulated:
        raise DeviceError(f"this processor does not compute in {DTYPE_NAMES[precision]}; use --dtype float32")
