"""Multi-head self-attention: eager, which can show its probabilities, PyTorch's fused SDPA, and from a few queries."""

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
    probabilities = _probabilities(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, head_mask, dropout_p)
    return probabilities @ v, probabilities


def pooled_query_attention(
    q: Tensor,
    x: Tensor,
    of_keys: Tensor,
    of_values: Tensor,
    bias_of_values: Tensor | None,
    head_mask: Tensor | None,
    dropout_p: float,
) -> tuple[Tensor, Tensor]:
    """Attend from a few queries to tokens that are never projected to keys and values: 1.4 GFLOP each at base size.

    Matrix products are associative: with tokens x_j and weights K and V, q . (K x_j) is (K^T q) . x_j, and the sum of
    p_j V x_j is V times that of p_j x_j. The keys' bias adds the same to the scores of all tokens, which softmax does
    not see; the values' bias comes as often as the probabilities' sum says.

    Args:
        q: Queries, shape (batch, num_heads, num_queries, head_dim).
        x: Tokens, shape (batch, num_tokens, hidden_size).
        of_keys: The weights of the keys, shape (num_heads, head_dim, hidden_size).
        of_values: The weights of the values, shaped as those.
        bias_of_values: Shape (num_heads, head_dim), or None.
        head_mask: As in `eager_attention`.
        dropout_p: As in `eager_attention`.

    Returns:
        As `eager_attention`.
    """
    B, H, Q, D = q.shape
    N, C = x.shape[1:]
    to_tokens = torch.einsum("bhqd,hdc->bhqc", q * D**-0.5, of_keys).flatten(1, 2)  # (B, heads * Q, C)
    scores = (to_tokens @ x.transpose(1, 2)).view(B, H, Q, N)
    probabilities = _probabilities(scores, head_mask, dropout_p)
    means = (probabilities.flatten(1, 2) @ x).view(B, H, Q, C)  # of tokens: (B, heads, Q, C)
    output = torch.einsum("bhqc,hdc->bhqd", means, of_values)
    if bias_of_values is not None:
        output = output + probabilities.sum(dim=-1, keepdim=True) * bias_of_values[:, None]
    return output, probabilities


def _probabilities(scores: Tensor, head_mask: Tensor | None, dropout_p: float) -> Tensor:
    """Return the softmax of scores (batch, num_heads, num_queries, num_tokens), after dropout and mask."""
    probabilities = scores.softmax(dim=-1, dtype=torch.float32).to(scores.dtype)
    probabilities = F.dropout(probabilities, dropout_p)
    return probabilities if head_mask is None else probabilities * head_mask.to(scores.dtype)[:, None, None]


def sdpa_attention(q: Tensor, k: Tensor, v: Tensor, head_mask: Tensor | None, dropout_p: float) -> Tensor:
    """Attend by `torch.nn.functional.scaled_dot_product_attention`.

    Arguments as in `eager_attention`. A head's mask is one number, so scaling its output equals scaling its
    probabilities.

    Returns:
        The output, shaped as the queries.
    """
    output = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p)
    return output if head_mask is None else output * head_mask.to(q.dtype)[:, None, None]
