"""Options that say how a model is run, and the engine of an exported model. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from ast_cli.about import About
from ast_cli.errors import UsageError
from ast_cli.hub.folders import exported_file

EngineName = Literal["torch", "compile", "openvino", "onnxruntime", "auto"]
DtypeName = Literal["auto", "float32", "float16", "bfloat16", "fp32", "fp16", "bf16", "tf32"]
ENGINES: tuple[str, ...] = get_args(EngineName)
TORCH_ENGINES = ("torch", "compile")
EXTRAS = ("onnxruntime", "openvino")  # engines that have the name of the package they need
MAX_THREADS = 1_024


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How a model is run.

    Attributes:
        engine: Engine that runs the model. ``auto`` is the engine of an exported model; for a checkpoint it is torch on
            a GPU, and a runtime that starts without torch on a CPU (`ast_cli.engine.choice.auto_engines`).
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        dtype: Data type of the weights: ``auto``, ``float32``, ``float16``, ``bfloat16`` or ``tf32``.
        attn_implementation: ``sdpa`` or ``eager``; the latter is torch's alone.
        unnamed_labels: Whether labels that the checkpoint does not name are called ``LABEL_n``.
        num_threads: Number of threads on the CPU; None for the engine's choice.
    """

    engine: Annotated[
        EngineName,
        About(
            "Engine that runs the model. auto: torch on a GPU, in half precision and with eager attention; otherwise "
            "openvino if it is installed, else onnxruntime; an exported model's own."
        ),
    ] = "auto"
    device: Annotated[str, About("Device: auto, cpu, cuda, cuda:N or mps.")] = "auto"
    dtype: Annotated[
        str,
        About(
            "Data type of the weights. auto: float16 on CUDA, else float32. tf32: float32 with TF32 matrix products.",
            choices=DtypeName,
        ),
    ] = "auto"
    attn_implementation: Annotated[
        str,
        About(
            "Attention implementation; eager needs the torch engine.", flag="--attn", choices=Literal["sdpa", "eager"]
        ),
    ] = "sdpa"
    unnamed_labels: Annotated[bool, About("Use LABEL_n where a checkpoint does not name its labels.")] = False
    num_threads: Annotated[
        int | None,
        About(
            "Threads of the model on the CPU. [default: OMP_NUM_THREADS, else the number of cores]", flag="--threads"
        ),
    ] = None

    def __post_init__(self) -> None:
        """Validate the options; names of devices and data types are validated where they are resolved."""
        if self.engine not in ENGINES:
            raise UsageError(f"--engine must be one of {', '.join(ENGINES)}, not {self.engine!r}")
        check_num_threads(self.num_threads)


def check_num_threads(num_threads: int | None) -> None:
    """Validate a number of threads; None leaves the choice to the engine.

    Raises:
        UsageError: If the number is below 1 or above `MAX_THREADS`.
    """
    if num_threads is not None and not 1 <= num_threads <= MAX_THREADS:
        raise UsageError(f"--threads must be from 1 to {MAX_THREADS}, not {num_threads}")


def exported_engine(model: str | Path) -> EngineName | None:
    """Return the engine of a folder or file that `ast export` wrote; None for a checkpoint."""
    file = exported_file(model)
    if file is None:
        return None
    return "onnxruntime" if file.suffix == ".onnx" else "openvino"
