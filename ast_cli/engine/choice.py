"""Choose the engine that runs a model, and load the model into it.

This module needs the standard library alone. Torch and the runtimes are imported only when an engine is loaded.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import importlib.util
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ast_cli.engine.options import EXTRAS, TORCH_ENGINES, EngineName, EngineOptions, exported_engine
from ast_cli.errors import EngineMissingError, UsageError
from ast_cli.hub.folders import checkpoint_bytes

if TYPE_CHECKING:
    from ast_cli.engine.graph.onnxruntime_engine import OnnxRuntimeEngine
    from ast_cli.engine.graph.openvino_engine import OpenVinoEngine
    from ast_cli.engine.interface import Engine

CPU_ENGINES: tuple[EngineName, ...] = ("openvino", "onnxruntime")  # the order in which ``auto`` tries them
LARGE_CHECKPOINT_BYTES = 128 << 20  # to convert a larger one at each run takes longer than to import torch
CPU_INFO = Path("/proc/cpuinfo")  # where Linux lists the processor's features
AMD_GPU_DRIVER = Path("/dev/kfd")
CUDA_DRIVERS = {"win32": "nvcuda.dll"}
CUDA_DRIVER = "libcuda.so.1"  # on all other systems


def load_engine(
    model: str | Path, options: EngineOptions, report_progress: Callable[[str], None] = lambda _what: None
) -> Engine:
    """Load a model into the engine that the options name, or that suits them.

    Args:
        model: Name or path of a checkpoint, as in ``ASTForAudioClassification.from_pretrained``, or of a model that
            ``ast export`` wrote.
        options: Engine, device, data type and threads.
        report_progress: Receives a message before a step that takes long and is done once.

    Raises:
        UsageError: If an exported model is given to another engine than its own.
        EngineMissingError: If the package of the named engine is not installed, or cannot be imported.
        CheckpointError: If the checkpoint is damaged, of another architecture, or contradicts its configuration.
        HubError: If the checkpoint is not on this machine.
        DeviceError: If the engine does not offer the device or the data type.
    """
    name = _first_importable(engines_for(model, options))
    if name in TORCH_ENGINES:
        return _load_in_torch(name, model, options, report_progress)
    return runtime_engine(name).load(model, dataclasses.replace(options, engine=name), report_progress)


def _first_importable(engines: tuple[EngineName, ...]) -> EngineName:
    """Return the first engine whose package can be imported; the last one is returned untried."""
    for name in engines[:-1]:
        with contextlib.suppress(EngineMissingError):
            runtime_engine(name)
            return name
    return engines[-1]


def _load_in_torch(
    name: EngineName, model: str | Path, options: EngineOptions, report_progress: Callable[[str], None]
) -> Engine:
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


def runtime_engine(name: EngineName) -> type[OnnxRuntimeEngine | OpenVinoEngine]:
    """Import the class of an engine that needs no torch.

    Raises:
        EngineMissingError: If its package cannot be imported.
    """
    try:
        if name == "onnxruntime":
            from ast_cli.engine.graph.onnxruntime_engine import OnnxRuntimeEngine

            return OnnxRuntimeEngine
        from ast_cli.engine.graph.openvino_engine import OpenVinoEngine

        return OpenVinoEngine
    except Exception as error:  # packages of compiled code raise all kinds: a missing library, another NumPy
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise EngineMissingError(
            f"{name} is installed but cannot be imported ({reason}): install it again, or use --engine torch"
        ) from error


def engines_for(model: str | Path, options: EngineOptions) -> tuple[EngineName, ...]:
    """Return the engines to try for a model, in this order.

    An exported model has one engine. For ``auto`` the last one is torch, which stands in for a runtime that cannot be
    imported. A large checkpoint whose converted form cannot be kept in the cache folder is also run by torch: at base
    size ONNX Runtime converts it in 1.2 s and 1.5 GB of memory, at each run.

    Raises:
        UsageError: If an exported model is given to another engine than its own.
        EngineMissingError: If the package of the named engine, or of an exported model's, is not installed.
        HubError: If the checkpoint is not on this machine.
    """
    of_file = exported_engine(model)
    if of_file is not None:
        if options.engine not in ("auto", of_file):
            raise UsageError(f"{model}: a model exported for {of_file}, which no other engine runs: leave out --engine")
        if not is_installed(of_file):
            raise EngineMissingError(f"{model}: exported for {of_file}, which is not installed: pip install {of_file}")
        return (of_file,)
    if options.engine != "auto":
        return (resolve_engine(options),)
    engines = auto_engines(options)
    if engines[0] not in TORCH_ENGINES and is_installed("torch") and _converts_at_each_run(model):
        return ("torch",)
    return engines


def _converts_at_each_run(model: str | Path) -> bool:
    """Return whether a checkpoint is large and its converted form cannot be kept."""
    from ast_cli.engine.graph.model_cache import can_keep_models

    return not can_keep_models() and checkpoint_bytes(str(model)) > LARGE_CHECKPOINT_BYTES


def resolve_engine(options: EngineOptions) -> EngineName:
    """Return the engine that the options name, or for ``auto`` the first that suits them and is installed.

    Raises:
        EngineMissingError: If the package of the named engine is not installed.
    """
    if options.engine == "auto":
        return auto_engines(options)[0]
    if options.engine in EXTRAS:
        require_installed(options.engine)
    return options.engine


def require_installed(engine: str) -> None:
    """Check that the package of an engine is installed.

    Raises:
        EngineMissingError: If the package is not installed; the message contains the command that installs it.
    """
    if not is_installed(engine):
        raise EngineMissingError(f"{engine} is not installed: pip install {engine}, or choose another engine or format")


def auto_engines(options: EngineOptions) -> tuple[EngineName, ...]:
    """Return the installed engines that suit the options, the preferred one first; the last one is always torch.

    Torch alone serves a GPU, eager attention, float16 and TF32. In float32 on a CPU the runtimes go first: they start
    without torch, whose import takes 0.6 s. Whole commands took 0.39 to 0.73 of torch's time (benchmarks/README.md).
    OpenVINO goes before ONNX Runtime where it is installed, as it is faster over many windows. It also computes in
    bfloat16 where the processor does, in 0.82 of torch's time.
    """
    return (*(name for name in _suitable_runtimes(options) if is_installed(name)), "torch")


def _suitable_runtimes(options: EngineOptions) -> tuple[EngineName, ...]:
    if options.attn_implementation == "eager" or options.device not in ("auto", "cpu"):
        return ()
    if options.dtype in ("auto", "float32", "fp32"):
        runtimes = CPU_ENGINES
    elif options.dtype in ("bfloat16", "bf16") and multiplies_bfloat16():
        runtimes = ("openvino",)
    else:
        return ()
    return () if options.device == "auto" and has_gpu() else runtimes


def is_installed(package: str) -> bool:
    """Return whether a package is installed, without importing it."""
    return importlib.util.find_spec(package) is not None


def has_gpu() -> bool:
    """Return whether torch would find a GPU, without importing torch.

    Both must be there: a torch that was built for GPUs, and a GPU with its driver. On a Mac with Apple's processor
    torch always finds one.
    """
    build = torch_gpu_build()
    if build == "cuda":
        return num_cuda_devices() > 0
    if build == "hip":
        return AMD_GPU_DRIVER.exists()
    return build == "mps"


def torch_gpu_build() -> str | None:
    """Return for which GPUs the installed torch was built: ``cuda``, ``hip`` (AMD) or ``mps`` (Apple).

    The answer is in ``torch/version.py``, whose lines read ``cuda: Optional[str] = '12.6'``.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    if sys.platform == "darwin":
        return "mps" if platform.machine() == "arm64" else None
    try:
        versions = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return "cuda"  # unknown; whether there is a CUDA device decides
    for build in ("cuda", "hip"):
        if re.search(rf"^{build}\b[^=\n]*= *['\"]", versions, re.MULTILINE):
            return build
    return None


def num_cuda_devices() -> int:
    """Return how many CUDA devices the driver offers to this process; 0 without a driver."""
    try:
        driver = ctypes.CDLL(CUDA_DRIVERS.get(sys.platform, CUDA_DRIVER))
        count = ctypes.c_int(0)
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
            return 0
        return count.value
    except (OSError, AttributeError):  # no such library, or one that is no driver
        return 0


def multiplies_bfloat16() -> bool:
    """Return whether Linux lists bfloat16 products among the processor's features; no runtime is imported."""
    try:
        flags = CPU_INFO.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)
