"""The OpenVINO engine: runs on a CPU without torch, with kernels for every vector width from AVX2 to AMX."""

from __future__ import annotations

import io
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
from ast_cli.engine.interface import cpu_batch_size, cpu_name, default_num_threads, finite
from ast_cli.engine.options import EngineOptions
from ast_cli.errors import DeviceError
from ast_cli.hub.folders import exported_file
from ast_cli.model.config import ASTConfig

DTYPES = {"auto": "f32", "float32": "f32", "fp32": "f32", "bfloat16": "bf16", "bf16": "bf16"}
DTYPE_NAMES = {"f32": "float32", "bf16": "bfloat16"}
SUFFIX = ".openvino"


class Float32Builder(GraphBuilder):
    """Builds float32 graphs in which OpenVINO uses oneDNN for a product where it would choose the slower MLAS.

    In float32, OpenVINO uses MLAS for every product that is followed only by the addition of a bias. The largest such
    product at base size, the second of the MLP, takes 28.4 ms in MLAS and 25.8 ms in oneDNN (docs/performance.md). The
    builder therefore adds an operation that changes no number, which OpenVINO does not recognize as such.
    """

    def linear(self, x: str, name: str, part: int | None = None) -> str:
        """Apply a linear layer, or part 0, 1 or 2 of ``qkv``: (..., in_features) to (..., out_features)."""
        x = super().linear(x, name, part)
        return self.add("LeakyRelu", x, alpha=1.0) if name.endswith(".mlp.fc2") else x


class OpenVinoEngine:
    """An engine that runs the model in OpenVINO.

    Args:
        compiled: Compiled model of OpenVINO.
        config: Configuration of the model.
        dtype_name: Data type of the computation.
    """

    name = "openvino"
    device_name = "cpu"
    out_of_memory: tuple[type[Exception], ...] = (MemoryError,)

    def __init__(self, compiled: Any, config: ASTConfig, dtype_name: str = "float32") -> None:
        self.config = config
        self.dtype_name = dtype_name
        self.num_threads = int(compiled.get_property("INFERENCE_NUM_THREADS"))
        self._compiled = compiled  # keeps the memory of its weights alive
        self._request = compiled.create_infer_request()
        self._output = compiled.output(OUTPUT)

    @staticmethod
    def builder_for(dtype: str) -> type[GraphBuilder]:
        """Return the class that builds the graph for a data type."""
        return Float32Builder if DTYPES.get(dtype) == "f32" else GraphBuilder

    @classmethod
    def load(cls, model: str | Path, options: EngineOptions, report_progress: Callable[[str], None]) -> OpenVinoEngine:
        """Load a checkpoint, compiling it unless the cache has it; see `ast_cli.engine.choice.load_engine`."""
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
            report_progress(f"compiling {model} for OpenVINO; this is done once")
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
        """Compile a graph from memory without caching it.

        Raises:
            DeviceError: If the engine or this processor does not support the device or data type.
        """
        refuse_device(cls.name, options, tuple(DTYPES))
        precision = DTYPES[options.dtype]
        compiled = compiled_graph(graph, properties_for(precision, options.num_threads))
        refuse_other_precision(compiled, precision)
        return cls(compiled, config, DTYPE_NAMES[precision])

    @classmethod
    def _exported(cls, file: Path, options: EngineOptions) -> OpenVinoEngine:
        """Load a model written by `ast export`.

        The parts of an int8 model that are not in integers run in bfloat16 if the processor supports it. That takes
        0.77 of the time, and changes the results far less than the integers do. ``--dtype float32`` keeps these parts
        in float32.

        Raises:
            CheckpointError: If the file is damaged or has another format.
            DeviceError: If bfloat16 is requested and this processor does not support it.
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
        """Facts that the speed depends on; see `Engine`."""
        return {"threads": str(self.num_threads), "openvino": openvino.__version__}

    @property
    def default_batch_size(self) -> int:
        """Number of windows per batch unless the user chooses one."""
        return cpu_batch_size(self.config)

    def logits(self, input_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute logits; see `Engine`."""
        values = np.ascontiguousarray(input_values, np.float32)
        return finite(self._request.infer({INPUT: values})[self._output].copy(), self.dtype_name)


def properties_for(precision: str, num_threads: int | None) -> dict[str, str]:
    """Return the properties with which OpenVINO runs batches one after another, each as fast as possible."""
    return {
        "PERFORMANCE_HINT": "LATENCY",  # one stream that uses all threads
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": str(num_threads or default_num_threads()),
    }


def compiled_graph(graph: Graph, properties: dict[str, str]) -> Any:
    """Compile a graph for the CPU."""
    core = the_core()
    return core.compile_model(core.read_model(as_bytes(graph)), "CPU", properties)


def imported(core: Any, prepared: Prepared, properties: dict[str, str]) -> Any | None:
    """Return the compiled model from the cache, or None if there is none or OpenVINO rejects it."""
    if prepared.file is None:
        return None
    try:
        content = np.frombuffer(content_of(prepared.file), np.uint8)
        compiled = core.import_model(openvino.Tensor(content, shared_memory=True), "CPU", properties)
        compiled.content = content  # the weights may lie in it, so it must live as long as the model
        return compiled
    except (RuntimeError, OSError, ValueError, TypeError):
        return None


def refuse_other_precision(compiled: Any, precision: str) -> None:
    """Check that the model computes in the requested precision, as OpenVINO silently falls back to float32.

    Raises:
        DeviceError: If it does not, or only by emulation.
    """
    found = compiled.get_property("INFERENCE_PRECISION_HINT")
    is_emulated = precision == "bf16" and not has_bfloat16(the_core())  # with AVX-512 only, slower than float32
    if found.to_string() != precision or is_emulated:
        raise DeviceError(f"this processor does not compute in {DTYPE_NAMES[precision]}; use --dtype float32")
