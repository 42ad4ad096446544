"""Three implementations of multi-head self-attention.

`eager_attention` also returns its probabilities, `sdpa_attention` calls PyTorch's fused kernels, and
`pooled_query_attention` computes the output of a few queries only.
"""

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
    """Compute attention as separate products and a softmax, and return the probabilities as well.

    Args:
        q: Queries, shape (batch, num_heads, num_queries, head_dim).
        k: Keys, shape (batch, num_heads, num_tokens, head_dim).
        v: Values, shape as ``k``.
        head_mask: Factor for the probabilities of each head, shape (num_heads,), or None.
        dropout_p: Dropout rate of the attention probabilities.

    Returns:
        The output, shape as ``q``, and the probabilities after softmax, dropout and mask, shape
        (batch, num_heads, num_queries, num_tokens).
    """
    probabilities = _probabilities(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, head_mask, dropout_p)
    return probabilities @ v, probabilities


def pooled_query_attention(
    q: Tensor,
    x: Tensor,
    key_weight: Tensor,
    value_weight: Tensor,
    value_bias: Tensor | None,
    head_mask: Tensor | None,
    dropout_p: float,
) -> tuple[Tensor, Tensor]:
    """Compute the attention of a few queries without projecting the tokens to keys and values.

    Each of these two projections would take 1.4 GFLOP at base size. Matrix products are associative: with tokens x_j
    and weights K and V, q . (K x_j) equals (K^T q) . x_j, and the sum of p_j V x_j equals V times the sum of p_j x_j.
    The bias of the keys adds the same number to the scores of all tokens, which softmax cancels. The bias of the values
    is added once per unit of probability, so it is multiplied by the sum of the probabilities.

    Args:
        q: Queries, shape (batch, num_heads, num_queries, head_dim).
        x: Tokens, shape (batch, num_tokens, hidden_size).
        key_weight: Weights of the key projection, shape (num_heads, head_dim, hidden_size).
        value_weight: Weights of the value projection, shape as ``key_weight``.
        value_bias: Bias of the value projection, shape (num_heads, head_dim), or None.
        head_mask: Factor for the probabilities of each head, shape (num_heads,), or None.
        dropout_p: Dropout rate of the attention probabilities.

    Returns:
        The output, shape as ``q``, and the probabilities, shape (batch, num_heads, num_queries, num_tokens).
    """
    B, H, Q, D = q.shape
    N, C = x.shape[1:]
    token_queries = torch.einsum("bhqd,hdc->bhqc", q * D**-0.5, key_weight).flatten(1, 2)  # (B, heads * Q, C)
    scores = (token_queries @ x.transpose(1, 2)).view(B, H, Q, N)
    probabilities = _probabilities(scores, head_mask, dropout_p)
    means = (probabilities.flatten(1, 2) @ x).view(B, H, Q, C)  # weighted means of the tokens, (B, heads, Q, C)
    output = torch.einsum("bhqc,hdc->bhqd", means, value_weight)
    if value_bias is not None:
        output = output + probabilities.sum(dim=-1, keepdim=True) * value_bias[:, None]
    return output, probabilities


def _probabilities(scores: Tensor, head_mask: Tensor | None, dropout_p: float) -> Tensor:
    """Return the softmax of the scores (batch, num_heads, num_queries, num_tokens), with dropout and mask applied."""
    probabilities = scores.softmax(dim=-1, dtype=torch.float32).to(scores.dtype)
    probabilities = F.dropout(probabilities, dropout_p)
    return probabilities if head_mask is None else probabilities * head_mask.to(scores.dtype)[:, None, None]


def sdpa_attention(q: Tensor, k: Tensor, v: Tensor, head_mask: Tensor | None, dropout_p: float) -> Tensor:
    """Compute attention with `torch.nn.functional.scaled_dot_product_attention`.

    The arguments are those of `eager_attention`. The mask of a head is a single number, so multiplying the output of
    the head by it equals multiplying the probabilities.

    Returns:
        The output, shape as ``q``.
    """
    output = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p)
    return output if head_mask is None else output * head_mask.to(q.dtype)[:, None, None]
