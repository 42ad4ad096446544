"""The graph with linear layers in 8-bit integers: symmetric weights per output; activations per token, or calibrated.

Weights take the integers from -110 to 110, one scale an output: processors with AVX2 and no VNNI add products in pairs
in 16 bits, which larger ones make overflow far more often (docs/performance.md). Activations are either measured as
they come, one scale a token, or have a fixed range a layer, found on real audio. With a fixed range the features of a
layer share one scale, so they are first made alike: what a feature is divided by, its weights are multiplied by
(SmoothQuant, Xiao et al., 2023, https://arxiv.org/abs/2211.10438). Queries and keys have a fixed range then as well,
and are compared in integers. Patches, softmax, its product with the values, normalization, most of the last block's
attention and the head stay in floating point: they are a sixth of the work and most of the error.
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
SMALLEST_SCALE = 1e-12  # of a token of zeros alone
SMOOTHING = 0.5  # how much of a feature's width goes into the weights: alpha of SmoothQuant, and its value there
Range = tuple[float, float]
FeatureRanges = tuple[NDArray[np.float32], NDArray[np.float32]]


def quantized_weight(weight: NDArray[Any]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round a weight (out_features, in_features) to integers.

    Returns:
        The integers, shape (in_features, out_features), and one scale an output, shape (out_features,).
    """
    scales = np.maximum(np.abs(weight).max(axis=1), SMALLEST_SCALE).astype(np.float32) / np.float32(LARGEST_WEIGHT)
    return np.rint(weight / scales[:, None]).astype(np.int8).T, scales


class DynamicBuilder(GraphBuilder):
    """Quantizes each token by its own largest value, as it comes."""

    def __init__(self, config: ASTConfig, weights: Weights) -> None:
        super().__init__(config, weights)
        self._tokens: dict[str, tuple[str, str]] = {}  # a value, as integers and scales

    def product(self, x: str, weight: NDArray[Any], name: str) -> str:
        """Multiply (..., in_features) by a weight of shape (out_features, in_features), in integers."""
        if name.startswith("head."):
            return super().product(x, weight, name)
        integers, scale = self._quantized(x)
        rounded, scales = quantized_weight(weight)
        sums = self.add("MatMulInteger", integers, self.hold(name, rounded))
        sums = self.add("Mul", self.add("Cast", sums, to=DATA_TYPES["float32"]), scale)
        return self.add("Mul", sums, self.hold(f"{name}.scales", scales))

    def _quantized(self, x: str) -> tuple[str, str]:
        """Round (..., features) to integers, with one scale a token (..., 1)."""
        if x not in self._tokens:
            largest = self.add("ReduceMax", self.add("Abs", x), self.integers(-1), keepdims=1)
            largest = self.add("Max", largest, self.constant("smallest", np.array(SMALLEST_SCALE)))
            scale = self.add("Div", largest, self.constant("largest_integer", np.array(LARGEST)))
            rounded = self.add("Round", self.add("Div", x, scale))
            self._tokens[x] = self.add("Cast", rounded, to=DATA_TYPES["int8"]), scale
        return self._tokens[x]


class CalibratedBuilder(GraphBuilder):
    """Quantizes each layer's input by a fixed range: pairs of QuantizeLinear and DequantizeLinear, as runtimes expect.

    Args:
        config: The architecture.
        weights: By the names of our state dictionary.
        ranges: Of each linear layer's input, of queries and of keys; see `calibrate`.
    """

    def __init__(self, config: ASTConfig, weights: Weights, ranges: Mapping[str, FeatureRanges]) -> None:
        weights, ranges = smoothed(config, weights, ranges)
        super().__init__(config, weights)
        self.ranges: dict[str, Range] = {
            layer: (float(low.min()), float(high.max())) for layer, (low, high) in ranges.items()
        }
        self._restored: dict[str, str] = {}

    def product(self, x: str, weight: NDArray[Any], name: str) -> str:
        """Multiply (..., in_features) by a weight of shape (out_features, in_features), both rounded."""
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
        """Compare queries and keys (B, N, C), both rounded: (B, H, N, N), scaled."""
        q = self._balanced(q, f"{name}.q", self.head_dim**-0.5)
        return self.compared(self.heads(q, (0, 2, 1, 3)), self._balanced(k, f"{name}.k"))

    def join(self, x: str, name: str) -> str:
        """Put heads (B, N, H, D) together: (B, N, C), rounded for the layer that comes next.

        Rounded before and not behind the change of shape, that layer's input is handed to it in integers.
        """
        joined = super().join(self._rounded(x, f"{name}.proj"), name)
        self._restored[joined] = joined
        return joined

    def _balanced(self, x: str, name: str, factor: float = 1.0) -> str:
        """Round a value to integers from -127 to 127, and back, times a factor."""
        step = max(*map(abs, self.ranges[name]), SMALLEST_SCALE) / LARGEST
        scale = self.hold(f"{name}.scale", np.array(step, np.float32))
        back = self.hold(f"{name}.scale_back", np.array(step * factor, np.float32))
        zero = self.hold("zero_point", np.array(0, np.int8))
        return self.add("DequantizeLinear", self.add("QuantizeLinear", x, scale, zero), back, zero)

    def _rounded(self, x: str, layer: str) -> str:
        """Round a value to the 256 steps of its range, and back."""
        low, high = self.ranges[layer]
        step = max((high - low) / 255, SMALLEST_SCALE)
        scale = self.hold(f"{layer}.input_scale", np.array(step, np.float32))
        zero = self.hold(f"{layer}.input_zero_point", np.array(round(-low / step), np.uint8))
        return self.add("DequantizeLinear", self.add("QuantizeLinear", x, scale, zero), scale, zero)


def smoothed(
    config: ASTConfig, weights: Weights, ranges: Mapping[str, FeatureRanges]
) -> tuple[Weights, dict[str, FeatureRanges]]:
    """Make the features of linear layers' inputs alike in width, without changing what a model computes.

    A feature's divisor goes into what makes it: the normalization before ``qkv`` and ``fc1``, the values before
    ``proj``. What comes before ``fc2`` is not linear, and stays.

    Returns:
        Weights and ranges anew; what was given stays as it is.
    """
    weights, ranges = dict(weights), dict(ranges)
    for i in range(config.num_hidden_layers):
        block = f"{ENCODER_PREFIX}blocks.{i}"
        for layer, source in (("attn.qkv", "norm1"), ("attn.proj", "attn.qkv"), ("mlp.fc1", "norm2")):
            name, made_by = f"{block}.{layer}", f"{block}.{source}"
            low, high = ranges[name]
            weight = weights[f"{name}.weight"]
            divisors = _divisors(np.maximum(np.abs(low), np.abs(high)), np.abs(weight).max(axis=0))
            weights[f"{name}.weight"] = weight * divisors
            ranges[name] = low / divisors, high / divisors
            values = slice(-len(divisors), None)  # of a normalization all there is; of qkv the last third, the values
            for part in ("weight", "bias"):
                if (made := weights.get(f"{made_by}.{part}")) is not None:
                    made = made.copy()
                    made[values] /= divisors if made.ndim == 1 else divisors[:, None]
                    weights[f"{made_by}.{part}"] = made
    return weights, ranges


def _divisors(of_features: NDArray[np.float32], of_weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what to divide each feature by; 1 where it, or all its weights, are nothing."""
    divisors = of_features**SMOOTHING / np.maximum(of_weights, SMALLEST_SCALE) ** (1 - SMOOTHING)
    is_used = (of_features > SMALLEST_SCALE) & (of_weights > SMALLEST_SCALE)
    return np.where(is_used, divisors, 1).astype(np.float32)


def calibrate(
    model: str, batches: Iterable[NDArray[np.float32]], *, unnamed_labels: bool = False
) -> dict[str, FeatureRanges]:
    """Find the range of every linear layer's input, and of queries and keys, by running a model on real features.

    Args:
        model: The checkpoint.
        batches: Features, shape (batch, max_length, num_mel_bins) each.
        unnamed_labels: As in ``ASTForAudioClassification.from_pretrained``.

    Returns:
        The smallest and the largest value of each feature, at most and at least 0, by the layer's name in our state
        dictionary; of queries and keys as ``attn.q`` and ``attn.k``.
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
        """Note what goes into attention, which takes its weights apart, and the queries and keys made of it."""
        qkv = classifier.get_submodule(f"{block}.attn.qkv")
        note(f"{block}.attn.qkv", x)
        for part, made in zip("qk", qkv(x).chunk(3, dim=-1), strict=False):
            note(f"{block}.attn.{part}", made)

    for name, module in classifier.named_modules():
        if name.endswith(".norm1"):
            block = name.removesuffix(".norm1")
            module.register_forward_hook(lambda _module, _inputs, output, block=block: note_attention(block, output))
        elif name.endswith((".attn.proj", ".mlp.fc1", ".mlp.fc2")):
            module.register_forward_pre_hook(lambda _module, inputs, layer=name: note(layer, inputs[0]))
    with torch.inference_mode():
        for batch in batches:
            classifier(torch.from_numpy(batch))
    return ranges
