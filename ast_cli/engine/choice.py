"""Which engine: by name or by the machine, and loading it. Standard library only, until an engine is loaded."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ast_cli.engine.options import DEFAULT_ENGINE, EXTRAS, EngineName, EngineOptions, exported_engine
from ast_cli.errors import EngineMissingError, UsageError

if TYPE_CHECKING:
    from ast_cli.engine.interface import Engine

CPU_INFO = Path("/proc/cpuinfo")  # Linux's words about the processor


def load_engine(
    model: str | Path, options: EngineOptions, report_progress: Callable[[str], None] = lambda _what: None
) -> Engine:
    """Load a checkpoint into an engine.

    Args:
        model: As in ``ASTForAudioClassification.from_pretrained``.
        options: Which engine, and how.
        report_progress: Is told what takes long and is done once.

    Raises:
        EngineMissingError: The engine's package is not installed.
        CheckpointError: The checkpoint is damaged, foreign, or at odds with itself.
        HubError: It is not on this machine.
        DeviceError: A device or data type that the engine does not offer.
    """
    options = dataclasses.replace(options, engine=engine_for(model, options))
    name = resolve_engine(options)
    if name == "onnxruntime":
        from ast_cli.engine.graph.onnxruntime_engine import OnnxRuntimeEngine

        return OnnxRuntimeEngine.load(model, options, report_progress)
    if name == "openvino":
        from ast_cli.engine.graph.openvino_engine import OpenVinoEngine

        return OpenVinoEngine.load(model, options, report_progress)
    from ast_cli.engine.torch.device import set_num_threads
    from ast_cli.engine.torch.torch_engine import TorchEngine

    set_num_threads(options.num_threads)
    kind = TorchEngine
    if name == "compile":
        from ast_cli.engine.torch.compile_engine import CompileEngine

        kind = CompileEngine
    loaded = kind.load(
        model,
        device=options.device,
        dtype=options.dtype,
        attn_implementation=options.attn_implementation,
        unnamed_labels=options.unnamed_labels,
    )
    loaded.report_progress = report_progress
    return loaded


def engine_for(model: str | Path, options: EngineOptions) -> EngineName:
    """Return the engine asked for; where none was, or ``auto``, of an exported model the one it was exported for.

    Raises:
        UsageError: An exported model, and another engine.
        EngineMissingError: The engine of an exported model is not installed.
    """
    of_file = exported_engine(model)
    if of_file is None:
        return options.engine or DEFAULT_ENGINE
    if options.engine not in (None, "auto", of_file):
        raise UsageError(f"{model}: a model exported for {of_file}, which no other engine runs: leave out --engine")
    if not is_installed(of_file):
        raise EngineMissingError(f"{model}: exported for {of_file}, which is not installed: pip install {of_file}")
    return of_file


def resolve_engine(options: EngineOptions) -> EngineName:
    """Return the engine to use, which is installed.

    Raises:
        EngineMissingError: The one asked for is not.
    """
    if options.engine == "auto":
        return auto_engine(options)
    if options.engine in EXTRAS:
        require_installed(options.engine)
    return options.engine or DEFAULT_ENGINE


def require_installed(engine: str) -> None:
    """Refuse an engine whose package is missing.

    Raises:
        EngineMissingError: With the command that installs it.
    """
    if not is_installed(engine):
        raise EngineMissingError(f"{engine} is not installed: pip install {engine}, or do without --engine {engine}")


def auto_engine(options: EngineOptions) -> EngineName:
    """Return the fastest engine that is installed for this machine.

    A GPU is torch's; so is a CPU where a half precision is asked for that its runtimes do not offer. On a CPU OpenVINO
    goes before ONNX Runtime, by 4 to 8 % a window at base size (docs/architecture.md), and both before torch, for its
    import alone. OpenVINO computes in bfloat16 too, in 0.82 of torch's time, where the processor does.
    """
    wants_cpu = options.device == "cpu" or (options.device == "auto" and not _has_gpu())
    if wants_cpu and options.dtype in ("auto", "float32", "fp32"):
        if is_installed("openvino"):
            return "openvino"
        if is_installed("onnxruntime"):
            return "onnxruntime"
    if wants_cpu and options.dtype in ("bfloat16", "bf16") and is_installed("openvino") and multiplies_bfloat16():
        return "openvino"
    return "torch"


def is_installed(package: str) -> bool:
    """Tell whether a package is there, without importing it."""
    return importlib.util.find_spec(package) is not None


def _has_gpu() -> bool:
    """Tell whether torch would find a GPU, without importing torch: by the driver's files."""
    return any(Path(file).exists() for file in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))


def multiplies_bfloat16() -> bool:
    """Tell whether the processor multiplies bfloat16 itself, without importing a runtime: by what Linux says of it."""
    try:
        flags = CPU_INFO.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)
