"""The Audio Spectrogram Transformer (Gong, Chung, Glass, 2021), bottom up, with the names of timm's vision transformer.

The model cuts a spectrogram into overlapping square patches and embeds each as a token. A classification and a
distillation token are prepended, as in DeiT. The tokens pass through pre-norm transformer blocks, and the head reads
the mean of the first two tokens.

EAT (Chen et al., 2024) and SSLAM are the same but for four places: `PatchEmbed.forward`, `PostNormBlock`, and the
constructor and `embed` of `ASTModel`. Patches are ordered by time first, their positions are a fixed table, blocks are
post-norm, and the head reads a single classification token.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ast_cli.errors import UsageError
from ast_cli.keyed_output import KeyedOutput
from ast_cli.model.attention import ATTN_IMPLEMENTATIONS, eager_attention, pooled_query_attention, sdpa_attention
from ast_cli.model.checkpoint import PretrainedAST
from ast_cli.model.config import ASTConfig

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "selu": F.selu,
    "gelu_new": functools.partial(F.gelu, approximate="tanh"),
}


class ASTModelOutput(KeyedOutput):
    """Output of `ASTModel`.

    Attributes:
        last_hidden_state: Tokens after the final layer normalization, shape (batch, num_tokens, hidden_size).
        pooler_output: Mean of the prefix tokens, which the head reads, shape (batch, hidden_size).
        hidden_states: With ``output_hidden_states``, the embeddings and the output of every block before the final
            normalization: num_hidden_layers + 1 tensors, shape as ``last_hidden_state``.
        attentions: With ``output_attentions``, the attention probabilities of every block: num_hidden_layers tensors,
            shape (batch, num_heads, num_tokens, num_tokens).
    """

    last_hidden_state: Tensor
    pooler_output: Tensor
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


class ASTClassifierOutput(KeyedOutput):
    """Output of `ASTForAudioClassification`.

    Attributes:
        loss: Loss, a scalar, if labels were given.
        logits: Scores before softmax or sigmoid, shape (batch, num_labels).
        hidden_states: Hidden states, as in `ASTModelOutput`.
        attentions: Attention probabilities, as in `ASTModelOutput`.
    """

    loss: Tensor | None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


class PatchEmbed(nn.Module):
    """Cut a spectrogram into overlapping square patches and embed each patch."""

    def __init__(self, config: ASTConfig) -> None:
        super().__init__()
        self.time_major = config.form.time_major
        along_frequency, along_time = config.frequency_stride, config.time_stride
        stride = (along_time, along_frequency) if self.time_major else (along_frequency, along_time)
        self.proj = nn.Conv2d(1, config.hidden_size, kernel_size=config.patch_size, stride=stride)

    def forward(self, input_values: Tensor) -> Tensor:
        """Map (B, max_length, num_mel_bins) to (B, num_patches, hidden_size), frequency-major or time-major."""
        x = input_values.to(self.proj.weight.dtype)  # features are float32, the weights may have another type
        if not self.time_major:
            x = x.transpose(1, 2)  # (B, num_mel_bins, max_length)
        return self.proj(x.unsqueeze(1)).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Multi-head self-attention with one fused linear layer for queries, keys and values."""

    def __init__(self, config: ASTConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.dropout_p = config.attention_probs_dropout_prob
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.qkv_bias)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.attn_implementation = "sdpa"

    def forward(
        self, x: Tensor, head_mask: Tensor | None, output_attentions: bool, num_queries: int | None
    ) -> tuple[Tensor, Tensor | None]:
        """Compute the attention of the first ``num_queries`` tokens, or of all if None, to all tokens.

        In the shapes, B is the batch size, N the number of tokens, Q of queries, and C the hidden size.
        """
        dropout_p = self.dropout_p if self.training else 0.0
        probabilities = None
        if num_queries is not None:
            output, probabilities = self._from_first(x, num_queries, head_mask, dropout_p)
        elif output_attentions or self.attn_implementation == "eager":
            output, probabilities = eager_attention(*self._project(x), head_mask, dropout_p)
        else:
            output = self._fused(*self._project(x), head_mask, dropout_p)
        output = output.transpose(1, 2).flatten(2)  # (B, Q, C)
        return self.proj(output), probabilities if output_attentions else None

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project tokens (B, N, C) to queries, keys and values, each of shape (B, heads, N, C / heads)."""
        B, N, C = x.shape
        qkv = self._linear(x, self.qkv.weight, self.qkv.bias).view(B, N, 3, self.num_heads, C // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return q, k, v

    def _from_first(
        self, x: Tensor, num_queries: int, head_mask: Tensor | None, dropout_p: float
    ) -> tuple[Tensor, Tensor]:
        """Compute the attention of the first tokens without keys and values; see `pooled_query_attention`."""
        B, _, C = x.shape
        H, D = self.num_heads, C // self.num_heads
        weight, bias = self.qkv.weight, self.qkv.bias  # the rows are queries, keys, values
        q = self._linear(x[:, :num_queries], weight[:C], None if bias is None else bias[:C])  # (B, Q, C)
        q = q.view(B, num_queries, H, D).transpose(1, 2)
        key_weight, value_weight = weight[C:].view(2, H, D, C)
        value_bias = None if bias is None else bias[2 * C :].view(H, D)
        return pooled_query_attention(q, x, key_weight, value_weight, value_bias, head_mask, dropout_p)

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Apply a linear layer to (B, N, C), returning (B, N, rows of weight); engines override this."""
        return F.linear(x, weight, bias)

    def _fused(self, q: Tensor, k: Tensor, v: Tensor, head_mask: Tensor | None, dropout_p: float) -> Tensor:
        """Compute attention without returning probabilities; engines override this."""
        return sdpa_attention(q, k, v, head_mask, dropout_p)


class Mlp(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, config: ASTConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.act = config.hidden_act if callable(config.hidden_act) else ACTIVATIONS[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        return self.fc2(self.act(self.fc1(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """One pre-norm transformer block, as in AST."""

    def __init__(self, config: ASTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = Mlp(config)
        self.drop = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        x: Tensor,
        head_mask: Tensor | None = None,
        output_attentions: bool = False,
        num_queries: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Map (B, N, C) to (B, N, C), or to (B, num_queries, C) to compute the first tokens only."""
        attended, probabilities = self.attn(self.norm1(x), head_mask, output_attentions, num_queries)
        x = x[:, :num_queries] + self.drop(attended)
        x = x + self.drop(self.mlp(self.norm2(x)))
        return x, probabilities


class PostNormBlock(Block):
    """One post-norm transformer block, as in EAT, with the layers of a pre-norm block."""

    def forward(
        self,
        x: Tensor,
        head_mask: Tensor | None = None,
        output_attentions: bool = False,
        num_queries: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Map (B, N, C) to (B, N, C), or to (B, num_queries, C) to compute the first tokens only."""
        attended, probabilities = self.attn(x, head_mask, output_attentions, num_queries)
        x = self.norm1(x[:, :num_queries] + self.drop(attended))
        x = self.norm2(x + self.drop(self.mlp(x)))
        return x, probabilities


class ASTBase(PretrainedAST):
    """Base class of the two public models: attention implementation and weight initialization."""

    @property
    def attn_implementation(self) -> str:
        """Attention implementation of all blocks, ``sdpa`` or ``eager``; can be set at any time."""
        return next(m.attn_implementation for m in self.modules() if isinstance(m, Attention))

    @attn_implementation.setter
    def attn_implementation(self, value: str) -> None:
        if value not in ATTN_IMPLEMENTATIONS:
            raise UsageError(f"attn_implementation must be one of {', '.join(ATTN_IMPLEMENTATIONS)}, not {value!r}")
        for module in self.modules():
            if isinstance(module, Attention):
                module.attn_implementation = value

    @torch.no_grad()
    def init_weights(self) -> None:
        """Initialize all weights as transformers does: truncated normal weights, zero biases and special tokens."""
        for module in self.modules():
            self._init_module(module)

    @torch.no_grad()
    def _init_module(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Conv2d):
            if self.config.initializer_range:
                nn.init.trunc_normal_(module.weight, std=self.config.initializer_range)
            else:  # trunc_normal_ divides by the standard deviation
                nn.init.zeros_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, ASTModel):
            for token in module.embeddings:
                nn.init.zeros_(token)


class ASTModel(ASTBase):
    """The encoder without a classification head.

    Args:
        config: Architecture of the model.
        attn_implementation: Attention implementation, ``sdpa`` or ``eager``.
    """

    pos_embed: Tensor

    def __init__(self, config: ASTConfig, attn_implementation: str = "sdpa") -> None:
        super().__init__()
        config.validate()
        self.config = config
        C, form = config.hidden_size, config.form
        self.fixed_positions = form.fixed_positions
        self.patch_embed = PatchEmbed(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, C))
        positions = torch.zeros(1, config.num_positions, C)
        if self.fixed_positions:  # EAT
            self.register_buffer("pos_embed", positions)
        else:  # AST
            self.dist_token = nn.Parameter(torch.zeros(1, 1, C))
            self.pos_embed = nn.Parameter(positions)
        self.pos_drop = nn.Dropout(config.hidden_dropout_prob)
        if form.norm_first:  # AST
            self.pre_norm: nn.Module = nn.Identity()
            self.blocks = nn.ModuleList([Block(config) for _ in range(config.num_hidden_layers)])
            self.norm: nn.Module = nn.LayerNorm(C, eps=config.layer_norm_eps)
        else:  # EAT
            self.pre_norm = nn.LayerNorm(C, eps=config.layer_norm_eps)
            self.blocks = nn.ModuleList([PostNormBlock(config) for _ in range(config.num_hidden_layers)])
            self.norm = nn.Identity()
        self.attn_implementation = attn_implementation
        self.init_weights()

    @property
    def embeddings(self) -> list[Tensor]:
        """Prefix tokens and positions, which have no layer of their own."""
        return [self.cls_token, *([] if self.fixed_positions else [self.dist_token]), self.pos_embed]

    def embed(self, input_values: Tensor) -> Tensor:
        """Map spectrograms (B, max_length, num_mel_bins) to tokens (B, N, C)."""
        self._check_input(input_values)
        x = self.patch_embed(input_values)
        B, num_patches, _ = x.shape
        if self.fixed_positions:  # EAT: the classification token has no position
            x = x + self.pos_embed[:, :num_patches]
            x = torch.cat([self.cls_token.expand(B, -1, -1), x], dim=1)
        else:  # AST
            x = torch.cat([self.cls_token.expand(B, -1, -1), self.dist_token.expand(B, -1, -1), x], dim=1)
            x = x + self.pos_embed
        return self.pos_drop(self.pre_norm(x))  # type: ignore[no-any-return]

    def pool(self, x: Tensor) -> Tensor:
        """Return the mean of the prefix tokens, which the head reads: (B, N, C) to (B, C)."""
        return x[:, : self.config.form.num_prefix_tokens].mean(dim=1)

    def _check_input(self, input_values: Tensor) -> None:
        expected = (self.config.max_length, self.config.num_mel_bins)
        if input_values is None or input_values.ndim != 3 or tuple(input_values.shape[1:]) != expected:
            shape = None if input_values is None else tuple(input_values.shape)
            raise UsageError(f"input_values must have shape (batch, {expected[0]}, {expected[1]}), not {shape}")

    def forward(
        self,
        input_values: Tensor,
        head_mask: Tensor | None = None,
        *,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> ASTModelOutput | tuple[Any, ...]:
        """Encode spectrograms.

        Args:
            input_values: Features from `FeatureExtractor`, shape (batch, max_length, num_mel_bins), of any type.
            head_mask: Factors from 0 (head switched off) to 1, shape (num_heads,) or (num_layers, num_heads).
            attention_mask: Ignored; accepted so that ``model(**features)`` works. AST processes padding like any
                other input, in training as well.
            output_attentions: Whether to return the attention probabilities of every block, which uses the eager
                implementation. Default: ``config.output_attentions``.
            output_hidden_states: Whether to return the output of every block. Default: ``config.output_hidden_states``.
            return_dict: Whether to return an `ASTModelOutput` instead of a tuple. Default: ``config.return_dict``.

        Raises:
            UsageError: If a shape does not match the configuration.
        """
        x = self.embed(input_values)
        want = _extra_outputs(self.config, output_attentions, output_hidden_states)
        x, hidden_states, attentions = self.run_blocks(x, head_mask, *want)
        x = self.norm(x)
        output = ASTModelOutput(last_hidden_state=x, pooler_output=self.pool(x))
        if hidden_states is not None:
            output["hidden_states"] = hidden_states
        if attentions is not None:
            output["attentions"] = attentions
        return output if _as_dict(self.config, return_dict) else output.to_tuple()

    def run_blocks(
        self,
        x: Tensor,
        head_mask: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        num_queries: int | None = None,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None, tuple[Tensor, ...] | None]:
        """Pass tokens (B, N, C) through the blocks.

        With ``num_queries`` the last block computes the first tokens only, (B, num_queries, C). As the head reads the
        prefix tokens only, this gives the same logits with 8 % fewer operations at base size.
        """
        masks = self._head_masks(head_mask)
        hidden_states, attentions = [x], []
        for i, block in enumerate(self.blocks):
            is_last = i == len(self.blocks) - 1
            x, probabilities = block(x, masks[i], output_attentions, num_queries if is_last else None)
            if output_hidden_states:
                hidden_states.append(x)
            attentions.append(probabilities)
        return (
            x,
            tuple(hidden_states) if output_hidden_states else None,
            tuple(attentions) if output_attentions else None,
        )

    def _head_masks(self, head_mask: Tensor | None) -> list[Tensor | None]:
        """Return one mask (num_heads,), or None, for each block."""
        num_layers, num_heads = len(self.blocks), self.config.num_attention_heads
        if head_mask is None:
            return [None] * num_layers
        if tuple(head_mask.shape) not in ((num_heads,), (num_layers, num_heads)):
            shape = tuple(head_mask.shape)
            raise UsageError(f"head_mask must have shape ({num_heads},) or ({num_layers}, {num_heads}), not {shape}")
        return list(head_mask.to(self.device).expand(num_layers, num_heads))


class Head(nn.Module):
    """Classification head: layer normalization and a linear layer on the pooled tokens."""

    def __init__(self, config: ASTConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.fc = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C) to logits (B, num_labels)."""
        return self.fc(self.norm(x))  # type: ignore[no-any-return]


class ASTForAudioClassification(ASTBase):
    """The encoder with a classification head.

    Args:
        config: Architecture and labels of the model.
        attn_implementation: Attention implementation, ``sdpa`` or ``eager``.
    """

    has_head = True

    def __init__(self, config: ASTConfig, attn_implementation: str = "sdpa") -> None:
        super().__init__()
        self.config = config
        self.audio_spectrogram_transformer = ASTModel(config, attn_implementation)
        self.head = Head(config)
        for module in self.head.modules():  # the encoder has initialized its own modules
            self._init_module(module)

    def forward(
        self,
        input_values: Tensor,
        head_mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> ASTClassifierOutput | tuple[Any, ...]:
        """Compute logits and, if labels are given, the loss.

        Args:
            input_values: Features from `FeatureExtractor`, shape (batch, max_length, num_mel_bins), of any type.
            head_mask: Factors for attention heads, as in `ASTModel.forward`.
            labels: Class indices (batch,), multi-hot floats (batch, num_labels), or values for a regression.
            attention_mask: Ignored, as in `ASTModel.forward`.
            output_attentions: Whether to return attention probabilities, as in `ASTModel.forward`.
            output_hidden_states: Whether to return the output of every block, as in `ASTModel.forward`.
            return_dict: Whether to return an `ASTClassifierOutput` instead of a tuple.

        Raises:
            UsageError: If a shape does not match the configuration.
        """
        encoder = self.audio_spectrogram_transformer
        want = _extra_outputs(self.config, output_attentions, output_hidden_states)
        x = encoder.embed(input_values)
        num_prefix_tokens = self.config.form.num_prefix_tokens
        num_queries = None if any(want) else num_prefix_tokens
        x, hidden_states, attentions = encoder.run_blocks(x, head_mask, *want, num_queries=num_queries)
        logits = self.head(encoder.pool(encoder.norm(x[:, :num_prefix_tokens])))
        output = ASTClassifierOutput()
        if labels is not None:
            output["loss"] = classification_loss(logits, labels, self.config)
        output["logits"] = logits
        if hidden_states is not None:
            output["hidden_states"] = hidden_states
        if attentions is not None:
            output["attentions"] = attentions
        return output if _as_dict(self.config, return_dict) else output.to_tuple()


def classification_loss(logits: Tensor, labels: Tensor, config: ASTConfig) -> Tensor:
    """Compute the loss for the problem type of a configuration.

    If ``config.problem_type`` is None, the loss is the mean squared error for a single label, cross-entropy for class
    indices, and binary cross-entropy for floating-point (multi-hot) targets.

    Args:
        logits: Logits, shape (batch, num_labels).
        labels: Targets, shape (batch,) or (batch, num_labels).
        config: Configuration with ``problem_type`` and ``num_labels``.

    Returns:
        The loss, a scalar.
    """
    problem_type = config.problem_type
    if problem_type is None:
        indices = labels.dtype in (torch.int64, torch.int32)
        problem_type = "single_label_classification" if indices else "multi_label_classification"
        if config.num_labels == 1:
            problem_type = "regression"
    labels = labels.to(logits.device)
    if problem_type == "regression":
        labels = labels.to(logits.dtype)
        return F.mse_loss(logits.squeeze(), labels.squeeze()) if config.num_labels == 1 else F.mse_loss(logits, labels)
    if problem_type == "single_label_classification":
        return F.cross_entropy(logits.view(-1, config.num_labels), labels.view(-1).long())
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


def _extra_outputs(
    config: ASTConfig, output_attentions: bool | None, output_hidden_states: bool | None
) -> tuple[bool, bool]:
    """Return whether to output attentions and hidden states; the configuration fills in arguments that are None."""
    attentions = config.output_attentions if output_attentions is None else output_attentions
    hidden_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
    return attentions, hidden_states


def _as_dict(config: ASTConfig, return_dict: bool | None) -> bool:
    return config.return_dict if return_dict is None else return_dict
