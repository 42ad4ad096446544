"""Build graphs whose linear layers compute in 8-bit integers.

Weights are quantized symmetrically to integers from -110 to 110, with one scale per output. Processors with AVX2 but
without VNNI add pairs of products in 16 bits, and larger integers would overflow far more often (docs/performance.md).

Activations are quantized in one of two ways: dynamically, with one scale per token, or calibrated, with a fixed range
per layer that is measured on real audio. With a fixed range all features of a layer share one scale, so their ranges
are equalized first: each feature is divided by a number by which its weights are multiplied (SmoothQuant, Xiao et al.,
2023, https://arxiv.org/abs/2211.10438). In the calibrated graph, queries and keys have a fixed range as well, and are
multiplied in integers.

Patch embedding, softmax, its product with the values, normalization, most of the attention of the last block, and the
head stay in floating point: they are a sixth of the work and would cause most of the error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ast_cli.engine.graph.builder import GraphBuilder
from ast_cli.engine.graph.onnx_file import DATA_TYPES
from ast_cli.model.arrays import Weights
from ast_cli.model.config import ASTConfig
from ast_cli.model.layout import ENCODER_PREFIX

LARGEST = 127
LARGEST_WEIGHT = 110
SMALLEST_SCALE = 1e-12  # lower limit of scales, for a token of zeros
SMOOTHING = (
    0.5  # fraction of a feature's range that moves into the weights: alpha of SmoothQuant, with the paper's value
)
Range = tuple[float, float]
FeatureRanges = tuple[NDArray[np.float32], NDArray[np.float32]]


def quantized_weight(weight: NDArray[Any]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round a weight of shape (out_features, in_features) to integers.

    Returns:
        The integers, shape (in_features, out_features), and one scale per output, shape (out_features,).
    """
    scales = np.maximum(np.abs(weight).max(axis=1), SMALLEST_SCALE).astype(np.float32) / np.float32(LARGEST_WEIGHT)
    return np.rint(weight / scales[:, None]).astype(np.int8).T, scales


class DynamicBuilder(GraphBuilder):
    """Builds graphs that quantize each token by its own largest value."""

    def __init__(self, config: ASTConfig, weights: Weights) -> None:
        super().__init__(config, weights)
        self._tokens: dict[str, tuple[str, str]] = {}  # by name of a value: the names of its integers and scales

    def product(self, x: str, weight: NDArray[Any], name: str) -> str:
        """Multiply (..., in_features) by a weight of shape (out_features, in_features) in integers."""
        if name.startswith("head."):
            return super().product(x, weight, name)
        integers, scale = self._quantized(x)
        rounded, scales = quantized_weight(weight)
        sums = self.add("MatMulInteger", integers, self.hold(name, rounded))
        sums = self.add("Mul", self.add("Cast", sums, to=DATA_TYPES["float32"]), scale)
        return self.add("Mul", sums, self.hold(f"{name}.scales", scales))

    def _quantized(self, x: str) -> tuple[str, str]:
        """Round (..., features) to integers, with one scale per token, shape (..., 1)."""
        if x not in self._tokens:
            largest = self.add("ReduceMax", self.add("Abs", x), self.integers(-1), keepdims=1)
            largest = self.add("Max", largest, self.constant("smallest", np.array(SMALLEST_SCALE)))
            scale = self.add("Div", largest, self.constant("largest_integer", np.array(LARGEST)))
            rounded = self.add("Round", self.add("Div", x, scale))
            self._tokens[x] = self.add("Cast", rounded, to=DATA_TYPES["int8"]), scale
        return self._tokens[x]


class CalibratedBuilder(GraphBuilder):
    """Builds graphs that quantize the input of each layer by a fixed range.

    Quantized values are pairs of QuantizeLinear and DequantizeLinear, which runtimes recognize.

    Args:
        config: Architecture of the model.
        weights: Weights, keyed by the names of our state dictionary.
        ranges: Ranges of the input of each linear layer, of queries and of keys; see `calibrate`.
    """

    def __init__(self, config: ASTConfig, weights: Weights, ranges: Mapping[str, FeatureRanges]) -> None:
        weights, ranges = smoothed(config, weights, ranges)
        super().__init__(config, weights)
        self.ranges: dict[str, Range] = {
            layer: (float(low.min()), float(high.max())) for layer, (low, high) in ranges.items()
        }
        self._restored: dict[str, str] = {}

    def product(self, x: str, weight: NDArray[Any], name: str) -> str:
        """Multiply (..., in_features) by a weight of shape (out_features, in_features), both quantized."""
        layer = name.removesuffix(".weight").removesuffix(".q").removesuffix(".k").removesuffix(".v")
        if layer not in self.ranges:
            return super().product(x, weight, name)
        if x not in self._restored:
            self._restored[x] = self._rounded(x, layer)
        integers, scales = quantized_weight(weight)
        zeros = self.hold(f"{name}.zero_points", np.zeros(len(scales), np.int8))
        restored = self.add(
            "DequantizeLinear", self.hold(name, integers), self.hold(f"{name}.scales", scales), zeros, axis=1
        )
        return self.add("MatMul", self._restored[x], restored)

    def scores(self, q: str, k: str, name: str) -> str:
        """Return the scaled products of queries and keys, both quantized: (B, N, C) to (B, H, N, N)."""
        q = self._balanced(q, f"{name}.q", self.head_dim**-0.5)
        return self.compared(self.heads(q, (0, 2, 1, 3)), self._balanced(k, f"{name}.k"))

    def join(self, x: str, name: str) -> str:
        """Quantize the heads for the layer that follows, and concatenate them: (B, N, H, D) to (B, N, C).

        Because they are quantized before the reshape and not after it, that layer receives its input in integers.
        """
        joined = super().join(self._rounded(x, f"{name}.proj"), name)
        self._restored[joined] = joined
        return joined

    def _balanced(self, x: str, name: str, factor: float = 1.0) -> str:
        """Quantize a value to integers from -127 to 127, and dequantize it times a factor."""
        step = max(*map(abs, self.ranges[name]), SMALLEST_SCALE) / LARGEST
        scale = self.hold(f"{name}.scale", np.array(step, np.float32))
        back = self.hold(f"{name}.scale_back", np.array(step * factor, np.float32))
        zero = self.hold("zero_point", np.array(0, np.int8))
        return self.add("DequantizeLinear", self.add("QuantizeLinear", x, scale, zero), back, zero)

    def _rounded(self, x: str, layer: str) -> str:
        """Quantize a value to the 256 steps of its range, and dequantize it."""
        low, high = self.ranges[layer]
        step = max((high - low) / 255, SMALLEST_SCALE)
        scale = self.hold(f"{layer}.input_scale", np.array(step, np.float32))
        zero = self.hold(f"{layer}.input_zero_point", np.array(round(-low / step), np.uint8))
        return self.add("DequantizeLinear", self.add("QuantizeLinear", x, scale, zero), scale, zero)


def smoothed(
    config: ASTConfig, weights: Weights, ranges: Mapping[str, FeatureRanges]
) -> tuple[Weights, dict[str, FeatureRanges]]:
    """Equalize the ranges of the features of linear layers' inputs, without changing the output of the model.

    Each feature is divided by a number. The division is folded into the weights that compute the feature: those of the
    normalization before ``qkv`` and ``fc1``, and those of the values before ``proj``. The operation before ``fc2`` is
    not linear, so the input of ``fc2`` is not changed. In a post-norm block the inputs of ``qkv`` and ``fc1`` are added
    to their outputs as well, so they are not changed either.

    Returns:
        New weights and ranges; the arguments are not modified.
    """
    weights, ranges = dict(weights), dict(ranges)
    sources = {"attn.qkv": "norm1", "attn.proj": "attn.qkv", "mlp.fc1": "norm2"}
    if not config.form.norm_first:
        sources = {"attn.proj": "attn.qkv"}
    for i in range(config.num_hidden_layers):
        block = f"{ENCODER_PREFIX}blocks.{i}"
        for layer, source in sources.items():
            name, made_by = f"{block}.{layer}", f"{block}.{source}"
            low, high = ranges[name]
            weight = weights[f"{name}.weight"]
            divisors = _divisors(np.maximum(np.abs(low), np.abs(high)), np.abs(weight).max(axis=0))
            weights[f"{name}.weight"] = weight * divisors
            ranges[name] = low / divisors, high / divisors
            values = slice(-len(divisors), None)  # all of a normalization; the last third of qkv, which is the values
            for part in ("weight", "bias"):
                if (made := weights.get(f"{made_by}.{part}")) is not None:
                    made = made.copy()
                    made[values] /= divisors if made.ndim == 1 else divisors[:, None]
                    weights[f"{made_by}.{part}"] = made
    return weights, ranges


def _divisors(of_features: NDArray[np.float32], of_weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the divisor of each feature; 1 for a feature that is zero or has only zero weights."""
    divisors = of_features**SMOOTHING / np.maximum(of_weights, SMALLEST_SCALE) ** (1 - SMOOTHING)
    is_used = (of_features > SMALLEST_SCALE) & (of_weights > SMALLEST_SCALE)
    return np.where(is_used, divisors, 1).astype(np.float32)


def calibrate(
    model: str, batches: Iterable[NDArray[np.float32]], *, unnamed_labels: bool = False
) -> dict[str, FeatureRanges]:
    """Measure the ranges of the inputs of all linear layers, and of queries and keys, on real features.

    Args:
        model: Checkpoint to run.
        batches: Batches of features, each of shape (batch, max_length, num_mel_bins).
        unnamed_labels: Whether to accept labels without names, as in ``ASTForAudioClassification.from_pretrained``.

    Returns:
        Minimum and maximum of each feature, extended to include 0, keyed by the name of the layer in our state
        dictionary; queries and keys have the names ``attn.q`` and ``attn.k``.
    """
    import torch

    from ast_cli.model.transformer import ASTForAudioClassification

    classifier = ASTForAudioClassification.from_pretrained(model, unnamed_labels=unnamed_labels)
    ranges: dict[str, FeatureRanges] = {}

    def note(layer: str, values: torch.Tensor) -> None:
        features = values.flatten(end_dim=-2).numpy()
        low, high = ranges.get(layer, (np.float32(0), np.float32(0)))
        ranges[layer] = np.minimum(low, features.min(axis=0)), np.maximum(high, features.max(axis=0))

    def note_attention(block: str, x: torch.Tensor) -> None:
        """Record the input of ``qkv``, whose weights attention uses in parts, and the queries and keys."""
        qkv = classifier.get_submodule(f"{block}.attn.qkv")
        note(f"{block}.attn.qkv", x)
        for part, made in zip("qk", qkv(x).chunk(3, dim=-1), strict=False):
            note(f"{block}.attn.{part}", made)

    for name, module in classifier.named_modules():
        if name.endswith(".attn"):
            block = name.removesuffix(".attn")
            module.register_forward_pre_hook(lambda _module, inputs, block=block: note_attention(block, inputs[0]))
        elif name.endswith((".attn.proj", ".mlp.fc1", ".mlp.fc2")):
            module.register_forward_pre_hook(lambda _module, inputs, layer=name: note(layer, inputs[0]))
    with torch.inference_mode():
        for batch in batches:
            classifier(torch.from_numpy(batch))
    return ranges
