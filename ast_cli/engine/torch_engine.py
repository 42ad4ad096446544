"""The torch engine: a model on a device, from features to logits."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ast_cli.engine.device import float32_products, resolve_device, resolve_dtype_for
from ast_cli.engine.onednn import with_onednn
from ast_cli.errors import CheckpointError, DeviceError
from ast_cli.model.config import ASTConfig
from ast_cli.model.transformer import ASTClassifierOutput, ASTForAudioClassification

CUDA_BATCH_SIZE = 32
CPU_BATCH_SIZE = 16
CPU_BATCH_ACTIVATIONS = 1_000_000  # numbers in one layer's output that still suit a processor's cache


class TorchEngine:
    """A loaded classifier that is only run, never trained.

    Args:
        model: In evaluation mode.
        device: Where to run it.
        dtype: Of its weights and inputs.
        tf32: Whether a CUDA device may round float32 factors to TF32.
    """

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
        self.model = with_onednn(model.to(device=self.device, dtype=dtype).eval())

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        attn_implementation: str = "sdpa",
        unnamed_labels: bool = False,
    ) -> TorchEngine:
        """Load a checkpoint; arguments and errors as in ``ASTForAudioClassification.from_pretrained``.

        Raises:
            DeviceError: The device was asked for by name and is not there.
        """
        on = resolve_device(device)
        tf32 = dtype == "tf32"
        if tf32 and on.type != "cuda":
            raise DeviceError(f"tf32 is arithmetic of CUDA devices, not of {on}: use --dtype float32")
        as_dtype = resolve_dtype_for("float32" if tf32 else dtype, on)
        loaded = ASTForAudioClassification.from_pretrained(
            model,
            attn_implementation=attn_implementation,
            dtype=as_dtype,
            device=on,
            unnamed_labels=unnamed_labels,
        )
        return cls(loaded, on, as_dtype, tf32=tf32)

    @property
    def config(self) -> ASTConfig:
        """The model's configuration."""
        return self.model.config

    @property
    def default_batch_size(self) -> int:
        """Windows to run at once when nobody says.

        On a CPU a batch that outgrows the cache is slower per window (measured: base size 1.7 s alone, 2.0 s in a batch
        of 4), and a tiny model gains from a larger one (26 ms alone, 16 ms in a batch of 8).
        """
        if self.device.type == "cuda":
            return CUDA_BATCH_SIZE
        return max(1, min(CPU_BATCH_SIZE, CPU_BATCH_ACTIVATIONS // (self.config.num_tokens * self.config.hidden_size)))

    def logits(self, input_values: Tensor) -> Tensor:
        """Compute logits.

        Args:
            input_values: Normalised features on any device, shape (batch, max_length, num_mel_bins).

        Returns:
            float32 on the CPU, shape (batch, num_labels).

        Raises:
            CheckpointError: They are not finite: weights out of proportion, or too large for half precision.
        """
        return self.checked(self.forward(input_values).logits.float().cpu())

    def checked(self, logits: Tensor) -> Tensor:
        """Return logits on the CPU as they are.

        Raises:
            CheckpointError: They are not finite, as in `logits`.
        """
        if not torch.isfinite(logits).all():
            remedy = (
                "; try --dtype float32" if self.dtype != torch.float32 else ": its weights are out of all proportion"
            )
            raise CheckpointError(f"the model's outputs are not numbers in {str(self.dtype)[6:]}{remedy}")
        return logits

    @torch.inference_mode()
    def forward(
        self, input_values: Tensor, *, output_attentions: bool = False, output_hidden_states: bool = False
    ) -> ASTClassifierOutput:
        """Run the model and return all it was asked for, on its device and in its data type."""
        with float32_products(self.device, tf32=self.tf32):
            output = self.model(
                input_values.to(self.device, self.dtype),
                output_attentions=output_attentions,
                output_hidden_states=output_hidden_states,
                return_dict=True,
            )
        assert isinstance(output, ASTClassifierOutput)
        return output

    @torch.inference_mode()
    def embeddings(self, input_values: Tensor) -> Tensor:
        """Return the pooled output of the encoder, what the head reads: float32 on the CPU, (batch, hidden_size)."""
        with float32_products(self.device, tf32=self.tf32):
            output = self.model.audio_spectrogram_transformer(
                input_values.to(self.device, self.dtype), return_dict=True
            )
        return output.pooler_output.float().cpu()  # type: ignore[no-any-return]
