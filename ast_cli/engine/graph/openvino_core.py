"""The one OpenVINO runtime of this process, and what can be asked of it without an engine."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import Any

openvino: Any = importlib.import_module("openvino")  # which exports nothing explicitly, as mypy sees it

RT_INFO = "ast"  # of a model's free texts, those of `ast export`


@cache
def the_core() -> Any:
    """Return the one OpenVINO runtime of this process, which lives as long as it.

    Its CPU plugin gives the thread that loads it another signal stack and unmaps that stack when it is destroyed. Of
    two plugins, or of one destroyed by another thread, the thread is left with an unmapped stack: its next signal,
    Ctrl-C too, is a segmentation fault.
    """
    return openvino.Core()


def read_rt_info(file: Path, name: str) -> str | None:
    """Return a text that ``ast export`` wrote into a model; None where there is none of that name.

    Raises:
        RuntimeError: The file is damaged or foreign.
    """
    model = the_core().read_model(file)
    path = [RT_INFO, name]
    return str(model.get_rt_info(path).astype(str)) if model.has_rt_info(path) else None


def has_bfloat16(core: Any) -> bool:
    """Tell whether this processor multiplies bfloat16 itself."""
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
