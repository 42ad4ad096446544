"""Linear layers and attention through oneDNN: how the torch engine runs a model on a CPU.

torch's CPU build holds two libraries of matrix products. For float32 it asks MKL, which on AMD processors takes code of
half their vector width; oneDNN takes the full width (measured on one core with AVX-512: 118 against 267 GFLOP/s). The
operator that reaches it is the one `torch.compile` emits; where it is missing or refuses, the model is left alone. Same
mathematics and precision: tests/engine/test_onednn.py holds the logits to the plain model's.
"""

from __future__ import annotations

import copy
import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ast_cli.model.transformer import ASTForAudioClassification, Attention, Mlp

DTYPES = (torch.float32, torch.bfloat16)
QUERY_BLOCK = 607  # half of the base size's tokens: 0.96 of the time of blocks of 304, or of all 1214, on two threads
MIN_TOKENS = 512  # below, one fused call beats many small products


@functools.cache
def attends_in_blocks() -> bool:
    """Tell whether `attention` beats torch's own on this processor.

    Where there is AVX-512 it does. With AVX2 alone both libraries multiply equally fast, and torch's single fused call
    wins (measured at base size on two cores: the model takes 1.02 of transformers' time with blocks, 0.85 without).
    """
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")


@functools.cache
def is_available(dtype: torch.dtype = torch.float32) -> bool:
    """Tell whether torch has the operator and it works on this processor; bfloat16 needs AVX-512."""
    if dtype not in DTYPES or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    weight, bias = torch.full((4, 3), 0.5, dtype=dtype), torch.ones(4, dtype=dtype)
    try:
        product = linear(torch.ones(2, 3, dtype=dtype), weight, bias)
    except (AttributeError, RuntimeError):  # an older or a later torch; a processor without the instructions
        return False
    return bool((product == 2.5).all())


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    """Map (..., in_features) to (..., out_features); ``gelu`` as an activation is computed on the way out.

    Args:
        x: Float32 or bfloat16.
        weight: Shape (out_features, in_features), of the same type.
        bias: Shape (out_features,), or None.
        activation: ``none`` or ``gelu``.
    """
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "none")  # type: ignore[no-any-return]


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend head by head, as many queries at a time as suit the cache.

    Args:
        q: Queries, shape (batch, num_heads, num_queries, head_dim).
        k: Keys, shape (batch, num_heads, num_tokens, head_dim).
        v: Values, shaped as the keys.

    Returns:
        The output, shaped as the queries.
    """
    B, H, Q, D = q.shape
    output = q.new_empty(B, Q, H, D)
    for b in range(B):
        for h in range(H):
            keys, values = k[b, h] * D**-0.5, v[b, h].t().contiguous()  # (N, D), (D, N): the weights of linear layers
            for start in range(0, Q, QUERY_BLOCK):
                part = slice(start, start + QUERY_BLOCK)
                probabilities = linear(q[b, h, part].contiguous(), keys, None).softmax(-1)  # (QUERY_BLOCK, N)
                output[b, part, h] = linear(probabilities, values, None)
    return output.transpose(1, 2)


class OneDnnLinear(nn.Linear):
    """A linear layer that shares another's weights."""

    def __init__(self, layer: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        return linear(x, self.weight, self.bias)


class OneDnnMlp(nn.Module):
    """The two linear layers of a block, the activation within the first where it is GELU."""

    def __init__(self, mlp: Mlp) -> None:
        super().__init__()
        self.fc1, self.fc2, self.act = mlp.fc1, mlp.fc2, mlp.act

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        if self.act is F.gelu:
            x = linear(x, self.fc1.weight, self.fc1.bias, "gelu")
        else:
            x = self.act(linear(x, self.fc1.weight, self.fc1.bias))
        return linear(x, self.fc2.weight, self.fc2.bias)


class OneDnnAttention(Attention):
    """Self-attention that shares another's weights."""

    def __init__(self, attention: Attention) -> None:
        nn.Module.__init__(self)
        self.num_heads, self.dropout_p = attention.num_heads, attention.dropout_p
        self.qkv = attention.qkv
        self.proj = OneDnnLinear(attention.proj)
        self.attn_implementation = attention.attn_implementation

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return linear(x, weight, bias)

    def _fused(self, q: Tensor, k: Tensor, v: Tensor, head_mask: Tensor | None, dropout_p: float) -> Tensor:
        if k.shape[2] < MIN_TOKENS or dropout_p or not attends_in_blocks():
            return super()._fused(q, k, v, head_mask, dropout_p)
        output = attention(q, k, v)
        return output if head_mask is None else output * head_mask.to(q.dtype)[:, None, None]


def with_onednn(model: ASTForAudioClassification) -> ASTForAudioClassification:
    """Return a model whose blocks run through oneDNN and that shares the weights of the one given.

    For inference alone: it has no gradients. Where oneDNN is not to be had, the model itself.
    """
    if model.device.type != "cpu" or not is_available(model.dtype):
        return model
    shared = _sharing(model)
    assert isinstance(shared, ASTForAudioClassification)
    return shared.train(model.training)  # new parts begin in training, where they would drop


def _sharing(module: nn.Module) -> nn.Module:
    """Copy a module without its weights, putting oneDNN's parts in place of a block's own."""
    if isinstance(module, Attention):
        return OneDnnAttention(module)
    if isinstance(module, Mlp):
        return OneDnnMlp(module)
    shared = copy.copy(module)
    shared._modules = {name: child and _sharing(child) for name, child in module._modules.items()}
    return shared
