"""How a model is run, as frozen data, and which engine an exported model is for. Standard library only."""

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
DEFAULT_ENGINE: EngineName = "torch"  # of a checkpoint; an exported model has its own
EXTRAS = ("onnxruntime", "openvino")  # engines named as the package that they need, and as its extra
MAX_THREADS = 1_024


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How a model is run.

    Attributes:
        engine: Which engine; ``auto`` for the fastest that is installed, see `ast_cli.engine.choice.auto_engine`; None
            for torch, or of an exported model the one that it was exported for.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        dtype: ``auto``, ``float32``, ``float16``, ``bfloat16``.
        attn_implementation: ``sdpa`` or ``eager``; of the torch engine.
        unnamed_labels: Take ``LABEL_n`` where the checkpoint does not name its labels.
        num_threads: On the CPU; None for as many as there are cores.
    """

    engine: Annotated[
        EngineName | None,
        About(
            "What runs the model; all but torch are extras. auto: the fastest installed, see the README. "
            "[default: torch, or what an exported model was exported for]"
        ),
    ] = None
    device: Annotated[str, About("auto, cpu, cuda, cuda:N or mps.")] = "auto"
    dtype: Annotated[
        str,
        About("Of the model. auto: float16 on CUDA, else float32. tf32: float32, products rounded.", choices=DtypeName),
    ] = "auto"
    attn_implementation: Annotated[
        str, About("Attention implementation.", flag="--attn", choices=Literal["sdpa", "eager"])
    ] = "sdpa"
    unnamed_labels: Annotated[bool, About("Take LABEL_n where a checkpoint does not name its labels.")] = False
    num_threads: Annotated[
        int | None, About("Of the model on the CPU. [default: the engine's choice, the cores]", flag="--threads")
    ] = None

    def __post_init__(self) -> None:
        """Refuse what cannot be; names of devices and data types are checked where they are resolved."""
        if self.engine not in (None, *ENGINES):
            raise UsageError(f"engine must be one of {', '.join(ENGINES)}, not {self.engine!r}")
        check_num_threads(self.num_threads)


def check_num_threads(num_threads: int | None) -> None:
    """Refuse what is no number of threads; None leaves the choice to the engine.

    Raises:
        UsageError: It is below 1 or above `MAX_THREADS`.
    """
    if num_threads is not None and not 1 <= num_threads <= MAX_THREADS:
        raise UsageError(f"threads must be from 1 to {MAX_THREADS}, not {num_threads}")


def exported_engine(model: str | Path) -> EngineName | None:
    """Return which engine a folder or file that `ast export` wrote is for; None for a checkpoint."""
    file = exported_file(model)
    if file is None:
        return None
    return "onnxruntime" if file.suffix == ".onnx" else "openvino"
