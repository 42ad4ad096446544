"""Which device and which data type: what was asked for, checked, or what suits the machine."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch

from ast_cli.engine.options import check_num_threads
from ast_cli.errors import AstWarning, DeviceError, UsageError
from ast_cli.model.checkpoint import resolve_dtype


def resolve_device(name: str) -> torch.device:
    """Return the device of a name; ``auto`` is the first CUDA device if there is one, else Apple's GPU, else the CPU.

    Args:
        name: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        UsageError: No such name.
        DeviceError: Asked for by name, and not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda:0")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not (kind == "cuda" and index.isdecimal())):
        raise UsageError(f"device must be auto, cpu, cuda, cuda:N or mps, not {name!r}")
    if kind == "cuda":
        if not torch.cuda.is_available():
            reason = "this torch is built without CUDA" if torch.version.cuda is None else "no CUDA device is visible"
            raise DeviceError(f"device {name!r} cannot be used: {reason}; use --device cpu or auto")
        if int(index or 0) >= torch.cuda.device_count():
            raise DeviceError(
                f"device {name!r} does not exist: this machine has {torch.cuda.device_count()} CUDA device(s)"
            )
        return torch.device("cuda", int(index or 0))
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device 'mps' cannot be used: this machine has no Apple GPU; use --device cpu or auto")
    return torch.device(kind)


def set_num_threads(num_threads: int | None) -> None:
    """Have torch use so many threads on the CPU; None leaves its choice, one a core.

    Raises:
        UsageError: No number of threads.
    """
    check_num_threads(num_threads)
    if num_threads is not None:
        torch.set_num_threads(num_threads)


@contextlib.contextmanager
def float32_products(device: torch.device, *, tf32: bool) -> Iterator[None]:
    """Have a CUDA device multiply float32 matrices in full, or as TF32: with 10 bits of mantissa, several times faster.

    torch's own default is TF32 in convolutions, such as the one that embeds patches, and full products elsewhere.
    Other devices have no TF32.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def resolve_dtype_for(name: str, device: torch.device) -> torch.dtype:
    """Return the data type of a name; ``auto`` is float16 on CUDA and float32 elsewhere.

    float16 on a CPU works, and warns: there are no fast kernels for it.

    Raises:
        UsageError: No such name.
    """
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    dtype = resolve_dtype(name)
    if dtype == torch.float16 and device.type == "cpu":
        warnings.warn("float16 is slow on a CPU; float32 or bfloat16 is faster there", AstWarning, stacklevel=3)
    return dtype
