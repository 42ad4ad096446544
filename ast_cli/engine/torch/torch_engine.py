"""The torch engine: runs a model in PyTorch on any device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ast_cli.engine.interface import cpu_batch_size, finite
from ast_cli.engine.torch.device import float32_products, resolve_device, resolve_dtype_for
from ast_cli.engine.torch.mapped_weights import give_back_behind
from ast_cli.engine.torch.onednn import with_onednn
from ast_cli.errors import DeviceError
from ast_cli.model.config import ASTConfig
from ast_cli.model.transformer import ASTClassifierOutput, ASTForAudioClassification

CUDA_BATCH_SIZE = 32


class TorchEngine:
    """An engine that runs the model in PyTorch, layer by layer.

    It is always available, and its logits are the reference for all other engines.

    Args:
        model: Classifier in evaluation mode.
        device: Device that runs the model.
        dtype: Data type of weights and inputs.
        tf32: Whether a CUDA device may round the factors of float32 products to TF32.

    Attributes:
        report_progress: Callback for messages about slow steps that happen once. This engine has none; subclasses do.
    """

    name = "torch"
    out_of_memory: tuple[type[Exception], ...] = (torch.OutOfMemoryError,)
    gives_back_weights = True  # see `give_back_behind`
    keeps_batch_size = False  # whether to pad a smaller batch to the usual size instead of running it as it is

    def __init__(
        self,
        model: ASTForAudioClassification,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        tf32: bool = False,
    ) -> None:
        self.device = torch.device(device)
        self.dtype = dtype
        self.tf32 = tf32
        self.report_progress: Callable[[str], None] = lambda _what: None
        self.model = self._prepared(model.to(device=self.device, dtype=dtype).eval())

    def _prepared(self, model: ASTForAudioClassification) -> ASTForAudioClassification:
        """Return the form of the model to run; the given model is already on the device."""
        return with_onednn(model)

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        attn_implementation: str = "sdpa",
        unnamed_labels: bool = False,
    ) -> Self:
        """Load a checkpoint; arguments and errors are those of ``ASTForAudioClassification.from_pretrained``.

        Raises:
            DeviceError: If this machine does not have the device, or TF32 is requested without a CUDA device.
        """
        on = resolve_device(device)
        tf32 = dtype == "tf32"
        if tf32 and on.type != "cuda":
            raise DeviceError(f"--dtype tf32 needs a CUDA device, not {on}; use --dtype float32")
        as_dtype = resolve_dtype_for("float32" if tf32 else dtype, on)
        loaded = ASTForAudioClassification.from_pretrained(
            model,
            attn_implementation=attn_implementation,
            dtype=as_dtype,
            device=on,
            unnamed_labels=unnamed_labels,
        )
        engine = cls(loaded, on, as_dtype, tf32=tf32)
        if cls.gives_back_weights:
            give_back_behind(engine.model)
        return engine

    @property
    def config(self) -> ASTConfig:
        """Configuration of the model."""
        return self.model.config

    @property
    def device_name(self) -> str:
        """Name of the device, such as ``cpu``, ``cuda:0`` or ``mps``."""
        return str(self.device)

    @property
    def dtype_name(self) -> str:
        """Name of the data type, such as ``float32``; ``tf32`` if the factors of products are rounded."""
        return "tf32" if self.tf32 else str(self.dtype).removeprefix("torch.")

    @property
    def facts(self) -> dict[str, str]:
        """Facts that the speed depends on; see `Engine`."""
        return {
            "threads": str(torch.get_num_threads()),
            "torch": torch.__version__,
            "attn": self.model.attn_implementation,
        }

    @property
    def default_batch_size(self) -> int:
        """Number of windows per batch unless the user chooses one."""
        return CUDA_BATCH_SIZE if self.device.type == "cuda" else cpu_batch_size(self.config)

    def logits(self, input_values: NDArray[np.float32] | Tensor) -> NDArray[np.float32]:
        """Compute logits; see `Engine`. Accepts tensors on any device as well."""
        return finite(self.forward(input_values).logits.float().cpu().numpy(), self.dtype_name)

    def device_logits(self, input_values: Tensor) -> Tensor:
        """Return logits on the device, shape (batch, num_labels), possibly before the device has computed them."""
        return self.forward(input_values).logits

    @torch.inference_mode()
    def forward(
        self,
        input_values: NDArray[np.float32] | Tensor,
        *,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> ASTClassifierOutput:
        """Run the model and return its output, on its device and in its data type."""
        with float32_products(self.device, tf32=self.tf32):
            output = self.model(
                self._on_device(input_values),
                output_attentions=output_attentions,
                output_hidden_states=output_hidden_states,
                return_dict=True,
            )
        assert isinstance(output, ASTClassifierOutput)
        return output

    @torch.inference_mode()
    def embeddings(self, input_values: NDArray[np.float32] | Tensor) -> NDArray[np.float32]:
        """Return the pooled output of the encoder, which is the input of the head, shape (batch, hidden_size)."""
        with float32_products(self.device, tf32=self.tf32):
            output = self.model.audio_spectrogram_transformer(self._on_device(input_values), return_dict=True)
        embeddings: NDArray[np.float32] = output.pooler_output.float().cpu().numpy()
        return embeddings

    def _on_device(self, input_values: NDArray[Any] | Tensor) -> Tensor:
        return torch.as_tensor(input_values).to(self.device, self.dtype)
