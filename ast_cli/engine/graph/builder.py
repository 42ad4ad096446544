"""Build the model as a graph of ONNX operators, for ONNX Runtime, OpenVINO and exported files.

The code follows `ast_cli.model.transformer` line by line; the last block computes only the rows that the head reads.
The operations of a block have the same order as in the model; runtimes may fuse and round them differently.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ast_cli.engine.graph.onnx_file import Attribute, Graph, Node
from ast_cli.errors import CheckpointError
from ast_cli.model.arrays import Weights
from ast_cli.model.config import ASTConfig
from ast_cli.model.layout import ENCODER_PREFIX

INPUT, OUTPUT = "input_values", "logits"
OPSET = 20  # the first with Gelu
GRAPH_FORM = "3"  # version of the graph; increase it with every change, so that cached models are not used again
ACTIVATIONS: dict[str, tuple[str, dict[str, Attribute]]] = {
    "gelu": ("Gelu", {}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
    "selu": ("Selu", {}),
}


class GraphBuilder:
    """Builds the graph of a classifier, operation by operation; most methods return the name of their result.

    In the shapes, B is the batch size, N the number of tokens, H of heads, D the width of a head, C the hidden size,
    and Q the number of rows that the head reads.

    Args:
        config: Architecture of the model.
        weights: Weights, keyed by the names of our state dictionary.
        dtype: Data type of the computation, ``float32`` or ``float16``; input and output are always float32.

    Raises:
        CheckpointError: If the activation is a function, which a graph cannot represent.
    """

    def __init__(self, config: ASTConfig, weights: Weights, dtype: str = "float32") -> None:
        if callable(config.hidden_act):
            raise CheckpointError("hidden_act is a function, which only the torch engine can run")
        self.config = config
        self.weights = weights
        self.dtype = np.dtype(dtype)
        self.graph = Graph(OPSET)
        self.num_values = 0
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.num_queries = config.form.num_prefix_tokens

    def build(self) -> Graph:
        """Return the graph from input_values (B, max_length, num_mel_bins) to logits (B, num_labels)."""
        config = self.config
        self.graph.inputs[INPUT] = ("batch", config.max_length, config.num_mel_bins)
        self.graph.outputs[OUTPUT] = ("batch", config.num_labels)
        x = self.embed(self.cast(INPUT, self.dtype))
        block = self.block if config.form.norm_first else self.post_norm_block
        for i in range(config.num_hidden_layers):
            x = block(x, f"{ENCODER_PREFIX}blocks.{i}", is_last=i == config.num_hidden_layers - 1)
        if config.form.norm_first:
            x = self.norm(x, f"{ENCODER_PREFIX}norm")  # (B, Q, C)
        x = self.add("ReduceMean", x, self.integers(1), keepdims=0)  # (B, C)
        logits = self.linear(self.norm(x, "head.norm"), "head.fc")
        self.cast(logits, np.dtype(np.float32), output=OUTPUT)
        return self.graph

    def embed(self, x: str) -> str:
        """Map spectrograms to tokens (B, N, C): the prefix tokens, then the patches, plus position embeddings."""
        config, C, Q = self.config, self.config.hidden_size, self.num_queries
        strides: tuple[int, ...] = (config.frequency_stride, config.time_stride)
        if config.form.time_major:
            strides = strides[::-1]
        else:
            x = self.add("Transpose", x, perm=(0, 2, 1))  # (B, num_mel_bins, max_length)
        x = self.add("Unsqueeze", x, self.integers(1))
        x = self.add(
            "Conv",
            x,
            self.weight(f"{ENCODER_PREFIX}patch_embed.proj.weight"),
            self.weight(f"{ENCODER_PREFIX}patch_embed.proj.bias"),
            kernel_shape=(config.patch_size, config.patch_size),
            strides=strides,
        )
        # Runtimes store the result of a convolution in this order anyway, so the transpose moves no data.
        x = self.add("Reshape", self.add("Transpose", x, perm=(0, 2, 3, 1)), self.integers(0, -1, C))
        positions = self.weights[f"{ENCODER_PREFIX}pos_embed"]
        if config.form.fixed_positions:  # EAT: the classification token has no position
            positions = positions[:, : config.num_tokens - Q]
            prefix = self.weights[f"{ENCODER_PREFIX}cls_token"]
        else:  # AST
            tokens = [self.weights[f"{ENCODER_PREFIX}{name}"] for name in ("cls_token", "dist_token")]
            prefix, positions = np.concatenate(tokens, axis=1) + positions[:, :Q], positions[:, Q:]
        x = self.add("Add", x, self.constant("patch_positions", positions))
        batch = self.add("Shape", INPUT, start=0, end=1)
        shape = self.add("Concat", batch, self.integers(Q, C), axis=0)
        x = self.add("Concat", self.add("Expand", self.constant("prefix", prefix), shape), x, axis=1)
        return x if config.form.norm_first else self.norm(x, f"{ENCODER_PREFIX}pre_norm")

    def block(self, x: str, name: str, *, is_last: bool) -> str:
        """Compute a pre-norm block, (B, N, C) to (B, N, C); the last block to (B, Q, C)."""
        tokens = self.norm(x, f"{name}.norm1")
        attended = (self.pooled_query_attention if is_last else self.attention)(tokens, f"{name}.attn")
        x = self.add("Add", self.first_tokens(x) if is_last else x, attended)
        return self.add("Add", x, self.mlp(self.norm(x, f"{name}.norm2"), f"{name}.mlp"))

    def post_norm_block(self, x: str, name: str, *, is_last: bool) -> str:
        """Compute a post-norm block, (B, N, C) to (B, N, C); the last block to (B, Q, C)."""
        attended = (self.pooled_query_attention if is_last else self.attention)(x, f"{name}.attn")
        x = self.norm(self.add("Add", self.first_tokens(x) if is_last else x, attended), f"{name}.norm1")
        return self.norm(self.add("Add", x, self.mlp(x, f"{name}.mlp")), f"{name}.norm2")

    def mlp(self, x: str, name: str) -> str:
        """Apply two linear layers with an activation between them: (B, N, C) to (B, N, C)."""
        operator, attributes = ACTIVATIONS[str(self.config.hidden_act)]
        hidden = self.add(operator, self.linear(x, f"{name}.fc1"), output=None, **attributes)
        return self.linear(hidden, f"{name}.fc2")

    def attention(self, tokens: str, name: str) -> str:
        """Compute self-attention of all tokens: (B, N, C) to (B, N, C)."""
        q, k, v = (self.linear(tokens, f"{name}.qkv", part) for part in range(3))
        return self.linear(self.attend(q, k, v, name), f"{name}.proj")

    def pooled_query_attention(self, tokens: str, name: str) -> str:
        """Compute attention of the rows that the head reads to all tokens: (B, N, C) to (B, Q, C).

        Tokens are not projected to keys and values; see `ast_cli.model.attention.pooled_query_attention`.
        """
        H, D, Q, C = self.config.num_attention_heads, self.head_dim, self.num_queries, self.config.hidden_size
        _, key_weight, value_weight = self.weights[f"{name}.qkv.weight"].reshape(3, H, D, C)
        q = self.heads(self.linear(self.first_tokens(tokens), f"{name}.qkv", 0), (0, 2, 1, 3))  # (B, H, Q, D)
        q = self.add("MatMul", q, self.constant(f"{name}.qkv.k.weight", key_weight * D**-0.5))
        q = self.add("Reshape", q, self.integers(0, H * Q, C))
        probabilities = self.add(
            "Softmax", self.add("MatMul", q, self.add("Transpose", tokens, perm=(0, 2, 1))), axis=-1
        )
        means = self.add("Reshape", self.add("MatMul", probabilities, tokens), self.integers(0, H, Q, C))
        x = self.add("MatMul", means, self.constant(f"{name}.qkv.v.weight", value_weight.transpose(0, 2, 1)))
        if (bias := self.weights.get(f"{name}.qkv.bias")) is not None:
            x = self.add("Add", x, self.constant(f"{name}.qkv.v.bias", bias[2 * C :].reshape(H, 1, D)))
        return self.linear(self.join(self.add("Transpose", x, perm=(0, 2, 1, 3)), name), f"{name}.proj")

    def attend(self, q: str, k: str, v: str, name: str) -> str:
        """Compute attention head by head: queries, keys and values (B, N, C) to (B, N, C)."""
        probabilities = self.add("Softmax", self.scores(q, k, name), axis=-1)
        x = self.add("MatMul", probabilities, self.heads(v, (0, 2, 1, 3)))  # (B, H, N, D)
        return self.join(self.add("Transpose", x, perm=(0, 2, 1, 3)), name)

    def scores(self, q: str, k: str, name: str) -> str:
        """Return the scaled products of queries and keys: (B, N, C) to (B, H, N, N)."""
        scale = self.constant("scale", np.array(self.head_dim**-0.5))
        return self.compared(self.add("Mul", self.heads(q, (0, 2, 1, 3)), scale), k)

    def compared(self, q: str, k: str) -> str:
        """Multiply queries (B, H, N, D) by keys (B, N, C), giving (B, H, N, N)."""
        by_head = self.heads(k, (0, 2, 1, 3))
        # Runtimes fuse the second of two transposes into the product: in OpenVINO 0.99 of the time of the whole model.
        return self.add("MatMul", q, self.add("Transpose", by_head, perm=(0, 1, 3, 2)))

    def heads(self, x: str, perm: tuple[int, ...]) -> str:
        """Split (B, N, C) by head into (B, N, H, D), and permute the axes."""
        by_head = self.integers(0, 0, self.config.num_attention_heads, self.head_dim)
        return self.add("Transpose", self.add("Reshape", x, by_head), perm=perm)

    def join(self, x: str, name: str) -> str:
        """Concatenate the heads: (B, N, H, D) to (B, N, C)."""
        return self.add("Reshape", x, self.integers(0, 0, self.config.hidden_size))

    def linear(self, x: str, name: str, part: int | None = None) -> str:
        """Apply a linear layer, or part 0, 1 or 2 of ``qkv``: (..., in_features) to (..., out_features)."""
        weight, bias, suffix = self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"), ""
        if part is not None:
            rows = slice(part * self.config.hidden_size, (part + 1) * self.config.hidden_size)
            weight, suffix = weight[rows], f".{'qkv'[part]}"
            bias = None if bias is None else bias[rows]
        x = self.product(x, weight, f"{name}{suffix}.weight")
        return x if bias is None else self.add("Add", x, self.constant(f"{name}{suffix}.bias", bias))

    def product(self, x: str, weight: NDArray[Any], name: str) -> str:
        """Multiply (..., in_features) by a weight of shape (out_features, in_features)."""
        return self.add("MatMul", x, self.constant(name, weight.T))

    def norm(self, x: str, name: str) -> str:
        """Apply layer normalization to the last axis."""
        parameters = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.add("LayerNormalization", x, *parameters, axis=-1, epsilon=float(self.config.layer_norm_eps))

    def first_tokens(self, x: str) -> str:
        """Return the rows that the head reads: (B, N, C) to (B, Q, C)."""
        return self.add("Slice", x, self.integers(0), self.integers(self.num_queries), self.integers(1))

    def cast(self, x: str, dtype: np.dtype[Any], output: str | None = None) -> str:
        """Convert a value to a data type or, if nothing is to convert, give it a new name."""
        if self.dtype == np.float32:
            return x if output is None else self.add("Identity", x, output=output)
        return self.add("Cast", x, output=output, to=10 if dtype == np.float16 else 1)

    def weight(self, name: str) -> str:
        """Add a tensor of the checkpoint as a constant."""
        return self.constant(name, self.weights[name])

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """Add an array as a constant, in the data type of the computation."""
        return self.hold(name, np.ascontiguousarray(array, self.dtype))

    def integers(self, *values: int) -> str:
        """Add a short list of integers, such as axes or a shape, as a constant."""
        return self.hold("_".join(["integers", *map(str, values)]), np.array(values, np.int64))

    def hold(self, name: str, array: NDArray[Any]) -> str:
        """Add an array as a constant, without conversion; a name is added only once."""
        self.graph.constants.setdefault(name, array)
        return name

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Attribute) -> str:
        """Add an operation, and return the name of its result."""
        if output is None:
            self.num_values += 1
            output = f"value_{self.num_values}"
        self.graph.nodes.append(Node(operator, inputs, (output,), attributes))
        return output
