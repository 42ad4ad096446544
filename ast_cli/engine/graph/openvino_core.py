"""The OpenVINO runtime of this process, and functions that need it but no engine."""

from __future__ import annotations

import importlib
import sys
from functools import cache
from pathlib import Path
from typing import Any

TELEMETRY = "openvino_telemetry"


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which would report each import to Google Analytics.

    Where that package is missing, OpenVINO uses an empty one of its own; an entry of None makes it look missing.
    """
    if TELEMETRY in sys.modules:  # this program imported it for its own reasons
        return importlib.import_module("openvino")
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[TELEMETRY]


openvino: Any = import_openvino()  # it has no explicit exports for mypy

RT_INFO = "ast"  # section of a model's runtime information that contains the texts of `ast export`


@cache
def the_core() -> Any:
    """Return the single OpenVINO runtime of this process, which exists until the process ends.

    The CPU plugin installs another signal stack in the thread that loads it, and unmaps that stack when the plugin is
    destroyed. With two plugins, or a plugin destroyed by another thread, the thread keeps an unmapped signal stack, and
    its next signal, including Ctrl-C, causes a segmentation fault.
    """
    return openvino.Core()


def read_rt_info(file: Path, name: str) -> str | None:
    """Return the text that ``ast export`` stored in a model under a name, or None if there is none.

    Raises:
        RuntimeError: If the file is damaged or has another format.
    """
    model = the_core().read_model(file)
    path = [RT_INFO, name]
    return str(model.get_rt_info(path).astype(str)) if model.has_rt_info(path) else None


def has_bfloat16(core: Any) -> bool:
    """Return whether this processor has instructions for bfloat16 products."""
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
