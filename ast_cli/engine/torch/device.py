"""Resolve the names of devices and data types, and set the number of threads and the precision of products."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch

from ast_cli.engine.options import check_num_threads
from ast_cli.errors import AstWarning, DeviceError, UsageError
from ast_cli.model.checkpoint import resolve_dtype


def resolve_device(name: str) -> torch.device:
    """Return the device for a name; ``auto`` is the first CUDA device, else Apple's GPU, else the CPU.

    Args:
        name: Name of the device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        UsageError: If the name is unknown.
        DeviceError: If this machine does not have the device.
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
    """Set the number of threads that torch uses on the CPU; None keeps torch's choice, one per core.

    Raises:
        UsageError: If the number is out of range.
    """
    check_num_threads(num_threads)
    if num_threads is not None:
        torch.set_num_threads(num_threads)


@contextlib.contextmanager
def float32_products(device: torch.device, *, tf32: bool) -> Iterator[None]:
    """Make a CUDA device multiply float32 matrices in full precision or as TF32 within a ``with`` block.

    TF32 has 10 bits of mantissa and is several times faster. By default torch uses TF32 for convolutions, such as the
    patch embedding, and full precision for other products. Other devices do not support TF32 and are left alone.
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
    """Return the data type for a name; ``auto`` is float16 on CUDA and float32 elsewhere.

    float16 works on a CPU but has no fast kernels there, so this function warns.

    Raises:
        UsageError: If the name is unknown.
    """
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    dtype = resolve_dtype(name)
    if dtype == torch.float16 and device.type == "cpu":
        warnings.warn("float16 is slow on a CPU; float32 or bfloat16 is faster there", AstWarning, stacklevel=3)
    return dtype
