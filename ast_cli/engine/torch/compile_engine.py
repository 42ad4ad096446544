"""The compile engine: runs the model through ``torch.compile`` and keeps the kernels in the cache folder."""

from __future__ import annotations

import contextlib
import os
import shutil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ast_cli.engine.interface import finite
from ast_cli.engine.torch.device import float32_products
from ast_cli.engine.torch.torch_engine import TorchEngine
from ast_cli.errors import EngineMissingError
from ast_cli.files.cache import cache_folder
from ast_cli.model.transformer import ASTForAudioClassification

COMPILERS = ("c++", "g++", "clang++")
KERNELS = "kernels"  # name of their folder in the cache
KERNELS_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"  # read by torch, which finds entries by content and writes them atomically


class CompileEngine(TorchEngine):
    """A torch engine whose logits are computed by compiled code.

    The model is compiled for each batch size when the first batch of that size arrives. This takes a minute, or a few
    seconds if an earlier run has compiled it.

    Raises:
        EngineMissingError: If there is no C++ compiler, which the CPU needs.
    """

    name = "compile"
    gives_back_weights = False  # compiled code runs no hooks after each block
    keeps_batch_size = True

    def _prepared(self, model: ASTForAudioClassification) -> ASTForAudioClassification:
        """Set up the compilation of a model; outputs other than logits run as in the torch engine."""
        if self.device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", ""), *COMPILERS))):
            raise EngineMissingError("the compile engine needs a C++ compiler, such as g++; use --engine torch")
        _keep_kernels()
        # Compile the plain model, not its oneDNN form: the compiler finds the same kernels and fuses more around them.
        self._plain = model
        on_gpu = self.device.type == "cuda"  # there, launches are recorded as CUDA graphs, one for each batch size
        self._compiled = torch.compile(self._logits, dynamic=False, mode="reduce-overhead" if on_gpu else None)
        self._sizes: set[int] = set()
        return super()._prepared(model)

    def _logits(self, input_values: Tensor) -> Tensor:
        logits: Tensor = self._plain(input_values, return_dict=True).logits
        return logits

    @torch.inference_mode()
    def logits(self, input_values: NDArray[np.float32] | Tensor) -> NDArray[np.float32]:
        """Compute logits; see `Engine`."""
        return finite(self.device_logits(self._on_device(input_values)).float().cpu().numpy(), self.dtype_name)

    @torch.inference_mode()
    def device_logits(self, input_values: Tensor) -> Tensor:
        """Compute logits and leave them on the device, valid until the next call; see `TorchEngine`."""
        values = self._on_device(input_values)
        if len(values) not in self._sizes:
            self._sizes.add(len(values))
            self.report_progress(f"compiling for batches of {len(values)}; the code is kept for later runs")
        if self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]  # the logits of the previous call are no longer needed
        with float32_products(self.device, tf32=self.tf32):
            logits: Tensor = self._compiled(values)
        return logits


def _keep_kernels() -> None:
    """Make torch keep compiled kernels in our cache folder, unless the user set one or it cannot be created."""
    if KERNELS_VARIABLE not in os.environ:
        with contextlib.suppress(OSError, RuntimeError):
            folder = cache_folder() / KERNELS
            folder.mkdir(parents=True, exist_ok=True)
            os.environ[KERNELS_VARIABLE] = os.fspath(folder)
