"""The operations and the weights of a model, counted from its configuration. Does not import torch."""

from __future__ import annotations

from ast_cli.model.config import ASTConfig

FLOP_FORMULA = (
    "2 x multiply-adds: patches P*p^2*C; a block 3NC^2 (qkv) + 2N^2C (attention) + NC^2 (proj) + 2NCM (MLP); the last "
    "block 4QC^2 + 2QHNC + 2QCM, as the head reads Q rows (AST 2, EAT 1; transformers: as the others); head CL. "
    "N tokens, P patches of side p, C hidden_size, H heads, M intermediate_size, L labels"
)


def flop_per_window(config: ASTConfig, *, trimmed: bool = True) -> int:
    """Count the floating-point operations of the matrix products of one window; all others are far below 1 %.

    Args:
        config: Architecture of the model.
        trimmed: Whether the last block computes only the rows that the head reads.

    Returns:
        Twice the number of multiply-adds: 261 GFLOP at base size with 1024 frames, 239 if trimmed.
    """
    N, C, M = config.num_tokens, config.hidden_size, config.intermediate_size
    P, H = num_patches(config), config.num_attention_heads
    Q = N - P
    patches = P * config.patch_size**2 * C
    block = N * (4 * C * C + 2 * N * C + 2 * C * M)  # queries, keys, values and output; attention; MLP
    last = Q * (4 * C * C + 2 * H * N * C + 2 * C * M) if trimmed else block
    multiply_adds = patches + (config.num_hidden_layers - 1) * block + last + C * config.num_labels
    return 2 * multiply_adds


def num_weights(config: ASTConfig) -> int:
    """Count the weights of a model with its head: 86,594,063 at base size with 1024 frames and 527 labels."""
    N, C, M, L = config.num_tokens, config.hidden_size, config.intermediate_size, config.num_labels
    num_rows = N - num_patches(config) + config.num_positions  # of tokens and positions
    embeddings = config.patch_size**2 * C + C + num_rows * C
    block = 4 * C * C + C + 3 * C * config.qkv_bias + 2 * C * M + M + C + 4 * C  # attention, MLP, two normalizations
    return embeddings + config.num_hidden_layers * block + 2 * C + 2 * C + C * L + L


def num_patches(config: ASTConfig) -> int:
    """Return the number of patches of a window; the other tokens are learned."""
    frequency, time = config.num_patches
    return frequency * time
