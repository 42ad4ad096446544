"""Multi-head self-attention, twice: eager, which can show its probabilities, and PyTorch's fused SDPA."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

AttnImplementation = Literal["sdpa", "eager"]
ATTN_IMPLEMENTATIONS: tuple[str, ...] = get_args(AttnImplementation)


def eager_attention(
    q: Tensor, k: Tensor, v: Tensor, head_mask: Tensor | None, dropout_p: float
) -> tuple[Tensor, Tensor]:
    """Attend step by step.

    Args:
        q: Queries, shape (batch, num_heads, num_queries, head_dim).
        k: Keys, shape (batch, num_heads, num_tokens, head_dim).
        v: Values, shaped as the keys.
        head_mask: What to multiply each head's probabilities by, shape (num_heads,), or None.
        dropout_p: Probability of dropping an attention probability.

    Returns:
        The output, shaped as the queries, and the probabilities after softmax, dropout and mask, shape
        (batch, num_heads, num_queries, num_tokens).
    """
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    probabilities = scores.softmax(dim=-1, dtype=torch.float32).to(q.dtype)
    probabilities = F.dropout(probabilities, dropout_p)
    if head_mask is not None:
        probabilities = probabilities * head_mask.to(q.dtype)[:, None, None]
    return probabilities @ v, probabilities


def sdpa_attention(q: Tensor, k: Tensor, v: Tensor, head_mask: Tensor | None, dropout_p: float) -> Tensor:
    """Attend by `torch.nn.functional.scaled_dot_product_attention`.

    Arguments as in `eager_attention`. A head's mask is one number, so scaling its output equals scaling its
    probabilities.

    Returns:
        The output, shaped as the queries.
    """
    output = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p)
    return output if head_mask is None else output * head_mask.to(q.dtype)[:, None, None]
