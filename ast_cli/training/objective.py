"""What a training step computes: logits with fewer tokens, and the loss; and what tells that a run has diverged."""

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
from ast_cli.model.config import NUM_PREFIX_TOKENS
from ast_cli.model.transformer import ASTForAudioClassification, ASTModel, pool
from ast_cli.tagging.score.scoring import scores_of
from ast_cli.training.augmentation import kept_tokens
from ast_cli.training.options import TrainOptions

DIVERGED = 2.0  # times the loss that training began with
CROSS_ENTROPY, BCE = "cross-entropy", "bce"
PROBLEM_TYPES = {CROSS_ENTROPY: "single_label_classification", BCE: "multi_label_classification"}


def training_logits(
    model: ASTForAudioClassification, input_values: Tensor, options: TrainOptions, rng: np.random.Generator
) -> Tensor:
    """Compute logits (batch, num_labels) as `ASTForAudioClassification` does, some patch tokens left out.

    Tokens know their place by their position embeddings, so that any of them may be missing (as in PaSST's structured
    and unstructured patchout, Koutini et al., 2022); attention costs less accordingly.
    """
    encoder = model.audio_spectrogram_transformer
    x = encoder.embed(input_values)
    if options.token_drop:
        x = _drop_tokens(x, options.token_drop, rng)
    if options.checkpoint_gradients:
        x = _run_blocks_again(encoder, x)
    else:
        x, _, _ = encoder.run_blocks(x, num_queries=NUM_PREFIX_TOKENS)
    return model.head(pool(encoder.norm(x)))  # type: ignore[no-any-return]


def _drop_tokens(x: Tensor, fraction: float, rng: np.random.Generator) -> Tensor:
    """Keep the prefix and a fraction of the patches of (B, N, C)."""
    B, N, C = x.shape
    kept = kept_tokens(B, N - NUM_PREFIX_TOKENS, fraction, rng).to(x.device)
    patches = x[:, NUM_PREFIX_TOKENS:].gather(1, kept[..., None].expand(-1, -1, C))
    return torch.cat([x[:, :NUM_PREFIX_TOKENS], patches], dim=1)


def _run_blocks_again(encoder: ASTModel, x: Tensor) -> Tensor:
    """Run the blocks without keeping what is inside them: it is computed again in the backward pass."""
    for i, block in enumerate(encoder.blocks):
        num_queries = NUM_PREFIX_TOKENS if i == len(encoder.blocks) - 1 else None
        x, _ = checkpoint(block, x, None, False, num_queries, use_reentrant=False)
    return x


def loss_name(options: TrainOptions, *, is_multi_label: bool) -> str:
    """Return which loss is meant: ``cross-entropy`` or ``bce``."""
    if options.loss != "auto":
        return options.loss
    return BCE if is_multi_label else CROSS_ENTROPY


def training_loss(logits: Tensor, targets: Tensor, name: str, label_smoothing: float = 0.0) -> Tensor:
    """Compute the mean loss of a batch in float32.

    Args:
        logits: Shape (batch, num_labels).
        targets: Fraction of each label, same shape.
        name: ``cross-entropy`` or ``bce``.
        label_smoothing: Fraction of each target that is spread over all labels.
    """
    logits = logits.float()
    if label_smoothing:
        targets = targets * (1 - label_smoothing) + label_smoothing / targets.shape[1]
    if name == CROSS_ENTROPY:
        return F.cross_entropy(logits, targets)
    return F.binary_cross_entropy_with_logits(logits, targets)


def predicted_scores(logits: Tensor, name: str) -> NDArray[np.float32]:
    """Turn logits (batch, num_labels) into scores as the saved model will."""
    return scores_of(logits.float().cpu().numpy(), "softmax" if name == CROSS_ENTROPY else "sigmoid")


def autocast_for(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the type of matrix products; None for float32.

    Raises:
        UsageError: fp16 off CUDA, where it has no use.
    """
    if precision == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if precision == "fp16" and device.type != "cuda":
        raise UsageError("--precision fp16 needs a CUDA device: use fp32 or bf16")
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def beginning_loss(first_loss: float, loss: str, num_labels: int) -> float:
    """Return the loss that no run should stay above: the first batch's, or that of knowing nothing if it is larger.

    A model that scores all labels alike has ln(num_labels) in cross-entropy and ln 2 in binary cross-entropy, whatever
    the targets. The first batch is looked at before any weight has changed; it is above that where the base model is
    sure of other things than the data.
    """
    return max(first_loss, math.log(num_labels if loss == CROSS_ENTROPY else 2))


def diverged_epoch(history: Sequence[Mapping[str, Any]], began_at: float, num_warmup_updates: int) -> int | None:
    """Return the first epoch whose mean training loss is above twice the loss that training began with.

    A run that learns is below `beginning_loss` within its first epoch or soon after; one whose learning rate is far too
    high is above a multiple of it from the start, as its logits grow without bound, and may never become NaN. The first
    epoch's own mean is no measure: at such rates it is often the worst of all. Measured on a tiny model: rates with
    which it still learned were below 1.4 times, and rates from three times the highest of those upwards were above 2.4
    times. Epochs that end within the warm-up are left out: what goes wrong there may come right.

    Args:
        history: A row for each epoch; see `ast_cli.training.finetune_result.HISTORY_COLUMNS`.
        began_at: `beginning_loss`.
        num_warmup_updates: Updates over which the learning rate rises.

    Returns:
        Its number, from 1; None where there is none.
    """
    for row in history:
        if row["update"] > num_warmup_updates and row["train_loss"] > DIVERGED * began_at:
            return int(row["epoch"])
    return None


def remedies(options: TrainOptions, *, is_half_precision: bool) -> str:
    """Return what helps against a loss that grows or is no number."""
    tips = ["a lower --learning-rate", "a longer --warmup-epochs"]
    if options.max_gradient_norm != 1:
        tips.append("--max-gradient-norm 1")
    if is_half_precision:
        tips.append("--precision fp32")
    return f"{', '.join(tips[:-1])} or {tips[-1]}"
