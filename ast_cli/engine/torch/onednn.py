"""Run linear layers and attention through oneDNN on a CPU.

The CPU build of torch contains two libraries for matrix products. For float32 it uses MKL, which on AMD processors runs
code of half their vector width, while oneDNN uses the full width (measured on one core with AVX-512: 118 against
267 GFLOP/s). oneDNN is reached by the operator that `torch.compile` emits. Where that operator is missing or fails, the
model is left alone. Mathematics and precision are the same: tests/engine/test_onednn.py compares the logits with those
of the plain model.
"""

from __future__ import annotations

import copy
import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ast_cli.model.transformer import ASTForAudioClassification, Attention, Mlp

DTYPES = (torch.float32, torch.bfloat16)
QUERY_BLOCK = 607  # half of the tokens at base size: 0.96 of the time of blocks of 304, or of all 1214, on two threads
MIN_TOKENS = 512  # for shorter sequences, one fused call is faster than many small products


@functools.cache
def attends_in_blocks() -> bool:
    """Return whether `attention` is faster than torch's fused attention on this processor.

    It is faster with AVX-512. With AVX2 only, both libraries multiply equally fast and the single fused call of torch
    is faster (measured at base size on two cores: the model takes 1.02 of transformers' time with blocks and 0.85
    without).
    """
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")


@functools.cache
def is_available(dtype: torch.dtype = torch.float32) -> bool:
    """Return whether torch has the operator and it works on this processor; bfloat16 needs AVX-512."""
    if dtype not in DTYPES or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    weight, bias = torch.full((4, 3), 0.5, dtype=dtype), torch.ones(4, dtype=dtype)
    try:
        product = linear(torch.ones(2, 3, dtype=dtype), weight, bias)
    except (AttributeError, RuntimeError):  # another version of torch, or a processor without the instructions
        return False
    return bool((product == 2.5).all())


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    """Apply a linear layer and, fused with it, an activation: (..., in_features) to (..., out_features).

    Args:
        x: Input in float32 or bfloat16, shape (..., in_features).
        weight: Weights of the same type, shape (out_features, in_features).
        bias: Bias, shape (out_features,), or None.
        activation: Activation of the output, ``none`` or ``gelu``.
    """
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "none")  # type: ignore[no-any-return]


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute attention head by head, in blocks of queries that fit into the cache.

    Args:
        q: Queries, shape (batch, num_heads, num_queries, head_dim).
        k: Keys, shape (batch, num_heads, num_tokens, head_dim).
        v: Values, shape as ``k``.

    Returns:
        The output, shape as ``q``.
    """
    B, H, Q, D = q.shape
    output = q.new_empty(B, Q, H, D)
    for b in range(B):
        for h in range(H):
            keys, values = k[b, h] * D**-0.5, v[b, h].t().contiguous()  # (N, D) and (D, N), as weights of linear layers
            for start in range(0, Q, QUERY_BLOCK):
                part = slice(start, start + QUERY_BLOCK)
                probabilities = linear(q[b, h, part].contiguous(), keys, None).softmax(-1)  # (QUERY_BLOCK, N)
                output[b, part, h] = linear(probabilities, values, None)
    return output.transpose(1, 2)


class OneDnnLinear(nn.Linear):
    """A linear layer that shares the weights of another layer."""

    def __init__(self, layer: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        return linear(x, self.weight, self.bias)


class OneDnnMlp(nn.Module):
    """An MLP that shares the weights of another; GELU is fused into the first layer."""

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
    """Self-attention that shares the weights of another module."""

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
    """Return a model that runs its blocks through oneDNN and shares the weights of the given model.

    The returned model is for inference and has no gradients. If oneDNN is not available, the given model is returned.
    """
    if model.device.type != "cpu" or not is_available(model.dtype):
        return model
    shared = _sharing(model)
    assert isinstance(shared, ASTForAudioClassification)
    return shared.train(model.training)  # new modules start in training mode, which would apply dropout


def _sharing(module: nn.Module) -> nn.Module:
    """Copy a module without copying its weights, replacing attention and MLPs by their oneDNN versions."""
    if isinstance(module, Attention):
        return OneDnnAttention(module)
    if isinstance(module, Mlp):
        return OneDnnMlp(module)
    shared = copy.copy(module)
    shared._modules = {name: child and _sharing(child) for name, child in module._modules.items()}
    return shared
