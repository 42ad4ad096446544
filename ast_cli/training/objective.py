"""Logits and loss of a training step, and the criterion of divergence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ast_cli.errors import UsageError
from ast_cli.model.transformer import ASTForAudioClassification, ASTModel
from ast_cli.tagging.score.scoring import scores_of
from ast_cli.training.augmentation import kept_tokens
from ast_cli.training.options import TrainOptions

DIVERGED = 2.0  # multiple of `reference_loss` above which a run has diverged
CROSS_ENTROPY, BCE = "cross-entropy", "bce"
PROBLEM_TYPES = {CROSS_ENTROPY: "single_label_classification", BCE: "multi_label_classification"}


def training_logits(
    model: ASTForAudioClassification, input_values: Tensor, options: TrainOptions, rng: np.random.Generator
) -> Tensor:
    """Compute logits (batch, num_labels) as `ASTForAudioClassification` does, without the dropped patch tokens.

    Position embeddings are part of the tokens, so any patch token can be dropped (as in the patchout of PaSST, Koutini
    et al., 2022), which makes attention cheaper.
    """
    encoder, num_prefix_tokens = model.audio_spectrogram_transformer, model.config.form.num_prefix_tokens
    x = encoder.embed(input_values)
    if options.token_drop:
        x = _drop_tokens(x, num_prefix_tokens, options.token_drop, rng)
    if options.checkpoint_gradients:
        x = _run_blocks_checkpointed(encoder, x, num_prefix_tokens)
    else:
        x, _, _ = encoder.run_blocks(x, num_queries=num_prefix_tokens)
    return model.head(encoder.pool(encoder.norm(x)))  # type: ignore[no-any-return]


def _drop_tokens(x: Tensor, num_prefix_tokens: int, fraction: float, rng: np.random.Generator) -> Tensor:
    """Drop a random fraction of the patch tokens of x, shape (B, N, C); prefix tokens stay."""
    B, N, C = x.shape
    kept = kept_tokens(B, N - num_prefix_tokens, fraction, rng).to(x.device)
    patches = x[:, num_prefix_tokens:].gather(1, kept[..., None].expand(-1, -1, C))
    return torch.cat([x[:, :num_prefix_tokens], patches], dim=1)


def _run_blocks_checkpointed(encoder: ASTModel, x: Tensor, num_prefix_tokens: int) -> Tensor:
    """Run the blocks without storing their activations, which the backward pass computes again."""
    for i, block in enumerate(encoder.blocks):
        num_queries = num_prefix_tokens if i == len(encoder.blocks) - 1 else None
        x, _ = checkpoint(block, x, None, False, num_queries, use_reentrant=False)
    return x


def loss_name(options: TrainOptions, *, is_multi_label: bool) -> str:
    """Return the loss of the options, with ``auto`` resolved: ``cross-entropy`` or ``bce``."""
    if options.loss != "auto":
        return options.loss
    return BCE if is_multi_label else CROSS_ENTROPY


def training_loss(logits: Tensor, targets: Tensor, name: str, label_smoothing: float = 0.0) -> Tensor:
    """Compute the mean loss of a batch in float32.

    Args:
        logits: Shape (batch, num_labels).
        targets: Fraction of each label, shape (batch, num_labels).
        name: ``cross-entropy`` or ``bce``.
        label_smoothing: Fraction of each target that is spread evenly over all labels.
    """
    logits = logits.float()
    if label_smoothing:
        targets = targets * (1 - label_smoothing) + label_smoothing / targets.shape[1]
    if name == CROSS_ENTROPY:
        return F.cross_entropy(logits, targets)
    return F.binary_cross_entropy_with_logits(logits, targets)


def predicted_scores(logits: Tensor, name: str) -> NDArray[np.float32]:
    """Return the scores of logits, shape (batch, num_labels), as the saved model computes them."""
    return scores_of(logits.float().cpu().numpy(), "softmax" if name == CROSS_ENTROPY else "sigmoid")


def autocast_for(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the data type of matrix products; None for float32.

    Raises:
        UsageError: If fp16 is chosen for a device other than CUDA.
    """
    if precision == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if precision == "fp16" and device.type != "cuda":
        raise UsageError("--precision fp16 needs a CUDA device: use fp32 or bf16")
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def reference_loss(first_loss: float, loss: str, num_labels: int) -> float:
    """Return the loss that a run is compared with: that of the first batch or of equal scores, whichever is larger.

    A model that gives all labels the same score has a loss of ln(num_labels) in cross-entropy and ln 2 in binary
    cross-entropy, whatever the targets are. The loss of the first batch is measured before any weight has changed. It
    is larger if the base model is confident of labels that the data contradicts.
    """
    return max(first_loss, math.log(num_labels if loss == CROSS_ENTROPY else 2))


def diverged_epoch(history: Sequence[Mapping[str, Any]], reference: float, num_warmup_updates: int) -> int | None:
    """Return the first epoch whose mean training loss is more than twice the reference loss.

    A run that learns falls below `reference_loss` within its first epoch or soon after. With a far too high learning
    rate the loss is a multiple of it from the start, because the logits grow without bound, and it may never become
    NaN. The mean loss of the first epoch is no reference: at such rates it is often the worst of all. Measured on a
    tiny model: with rates at which it still learned, the loss stayed below 1.4 times the reference; with rates of three
    times the highest of those and more, it was above 2.4 times. Epochs that end during the warm-up are ignored, because
    a run may recover from what happens there.

    Args:
        history: One row per epoch; see `ast_cli.training.finetune_result.HISTORY_COLUMNS`.
        reference: Result of `reference_loss`.
        num_warmup_updates: Number of updates of the warm-up.

    Returns:
        Number of the epoch, from 1; None if the run has not diverged.
    """
    for row in history:
        if row["update"] > num_warmup_updates and row["train_loss"] > DIVERGED * reference:
            return int(row["epoch"])
    return None


def remedies(options: TrainOptions, *, is_half_precision: bool) -> str:
    """Return advice, as text, for a loss that grows or becomes NaN."""
    tips = ["a lower --learning-rate", "a longer --warmup-epochs"]
    if options.max_gradient_norm != 1:
        tips.append("--max-gradient-norm 1")
    if is_half_precision:
        tips.append("--precision fp32")
    return f"{', '.join(tips[:-1])} or {tips[-1]}"
