"""YAMNet, the teacher: Google's MobileNet for 521 classes of AudioSet (Apache-2.0), in torch, for whole batches.

    python models/builtin/teacher.py yamnet.tflite yamnet.safetensors

converts the published file, once; only that needs the package ``tflite``. The file is part of the TensorFlow Model
Garden (research/audioset/yamnet): ``yamnet.tflite``, 4,078,224 bytes, SHA-256
469be6a3421cbc52cf97e9f2f966cba984198e8e7af9854d68b3e3ebb1e04194.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

SHA256 = "469be6a3421cbc52cf97e9f2f966cba984198e8e7af9854d68b3e3ebb1e04194"
SAMPLING_RATE = 16_000
FRAME, HOP, FFT = 400, 160, 512  # samples at 16 kHz: 25 ms every 10 ms
NUM_BINS, LOW_HZ, HIGH_HZ, LOG_OFFSET = 64, 125.0, 7500.0, 0.001
PATCH_FRAMES = 96
PATCH_SAMPLES = (PATCH_FRAMES - 1) * HOP + FRAME  # 15,600: what one answer hears, 0.975 s
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)  # of the depthwise convolutions after the first layer
EMBEDDING_SIZE = 1024


class YamNet(nn.Module):
    """The teacher: log-mel front end in float32, network in the type it is given."""

    def __init__(self, file: Path, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        stored = load_file(file)
        for name in [name for name in stored if not name.endswith("_scale")]:
            self.register_buffer(name, (stored[name] * stored.get(f"{name}_scale", 1.0)).to(dtype))
        self.register_buffer("window", torch.hann_window(FRAME))  # periodic
        self.register_buffer("mel", torch.from_numpy(mel_weights()))
        self.answer: Callable[[Tensor], tuple[Tensor, Tensor]] = self.network  # may be replaced by its compiled form

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Map (B, num_samples) to (B, num_frames, 64)."""
        magnitude = torch.fft.rfft(waveforms.unfold(1, FRAME, HOP) * self.window, FFT).abs()
        return (magnitude @ self.mel + LOG_OFFSET).log()

    def network(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Map log-mel patches (N, 96, 64) to scores (N, 521) and embeddings (N, 1024)."""
        x = depthwise(patches.to(self.dense_weight.dtype).unsqueeze(-1), self.stem_weight, self.stem_bias, 2)
        for i, stride in enumerate(STRIDES):
            x = depthwise(x, getattr(self, f"depthwise{i}_weight"), getattr(self, f"depthwise{i}_bias"), stride)
            x = F.linear(x, getattr(self, f"pointwise{i}_weight"), getattr(self, f"pointwise{i}_bias")).relu()
        embeddings = x.mean((1, 2))
        return F.linear(embeddings, self.dense_weight, self.dense_bias).float().sigmoid(), embeddings.float()

    @torch.no_grad()
    def hear(self, waveforms: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Answer for patches of windows.

        Args:
            waveforms: Shape (B, num_samples), between -1 and 1.
            starts: The first frame of each patch, (B, P).

        Returns:
            Scores (B, P, 521) between 0 and 1, and embeddings (B, P, 1024).
        """
        log_mel = self.log_mel(waveforms)  # (B, frames, 64)
        frames = starts[:, :, None] + torch.arange(PATCH_FRAMES, device=waveforms.device)  # (B, P, 96)
        patches = log_mel[torch.arange(len(frames), device=waveforms.device)[:, None, None], frames]
        scores, embeddings = self.answer(patches.flatten(0, 1))
        return scores.unflatten(0, starts.shape), embeddings.unflatten(0, starts.shape)

    def with_openvino(self, num_threads: int, precision: str = "f32") -> None:
        """Answer with OpenVINO on a CPU if it is installed: twice as fast there as torch; ``bf16`` needs AMX."""
        try:
            import openvino as ov
        except ImportError:
            return

        network: Any = Convolutions(self).eval()
        model = ov.convert_model(network, example_input=torch.zeros(2, PATCH_FRAMES, NUM_BINS))
        options = {"INFERENCE_NUM_THREADS": num_threads, "INFERENCE_PRECISION_HINT": precision}
        compiled = ov.Core().compile_model(model, "CPU", options)

        def answer(patches: Tensor) -> tuple[Tensor, Tensor]:
            scores, embeddings = compiled(patches.numpy()).values()
            return torch.from_numpy(scores), torch.from_numpy(embeddings)

        self.answer = answer


class Convolutions(nn.Module):
    """The same network as torch's convolutions, for a converter."""

    def __init__(self, teacher: YamNet) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ZeroPad2d((0, 1, 0, 1)), convolution(teacher, "stem", 2), nn.ReLU()]
        for i, stride in enumerate(STRIDES):
            layers.append(nn.ZeroPad2d((0, 1, 0, 1) if stride == 2 else 1))
            layers += [convolution(teacher, f"depthwise{i}", stride), nn.ReLU()]
            layers += [convolution(teacher, f"pointwise{i}", 1), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.dense_weight, self.dense_bias = teacher.dense_weight, teacher.dense_bias

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        embeddings = self.layers(patches.unsqueeze(1)).mean((2, 3))
        return F.linear(embeddings, self.dense_weight, self.dense_bias).sigmoid(), embeddings


def convolution(teacher: YamNet, name: str, stride: int) -> nn.Conv2d:
    weight, bias = getattr(teacher, f"{name}_weight"), getattr(teacher, f"{name}_bias")
    if weight.ndim == 2:
        layer = nn.Conv2d(weight.shape[1], weight.shape[0], 1)
        layer.weight.data = weight[:, :, None, None].clone()
    else:
        layer = nn.Conv2d(
            weight.shape[2] if name != "stem" else 1, len(bias), 3, stride, groups=1 if name == "stem" else len(bias)
        )
        layer.weight.data = weight.permute(2, 0, 1).unsqueeze(1).clone()
    layer.bias = nn.Parameter(bias.clone())
    return layer


def depthwise(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """Filter each channel of (N, H, W, C) by its own 3x3 kernel (3, 3, C), then ReLU; one channel may become many.

    A compiler makes one pass over memory of the nine shifted products, all that a depthwise convolution is.
    """
    before = 1 if stride == 1 else 0  # TensorFlow's "same" padding at even sizes
    x = F.pad(x, (0, 0, before, 1, before, 1))
    if torch.compiler.is_compiling():
        height, width = x.shape[1] - 2, x.shape[2] - 2
        taps = [(i, j) for i in range(3) for j in range(3)]
        shifted = (x[:, i : i + height : stride, j : j + width : stride] * weight[i, j] for i, j in taps)
        return sum(shifted, start=bias).relu()
    kernel = weight.permute(2, 0, 1).unsqueeze(1)
    return F.conv2d(x.movedim(-1, 1), kernel, bias, stride, groups=x.shape[-1]).movedim(1, -1).relu()


def mel_weights() -> np.ndarray:
    """Return TensorFlow's linear_to_mel_weight_matrix, (257, 64): triangles that are straight in HTK's mel."""

    def mel(hz: np.ndarray | float) -> np.ndarray:
        return 1127.0 * np.log1p(np.asarray(hz, np.float64) / 700.0)

    edges = np.linspace(mel(LOW_HZ), mel(HIGH_HZ), NUM_BINS + 2)
    lower, center, upper = edges[:-2], edges[1:-1], edges[2:]
    bins = mel(np.linspace(0.0, SAMPLING_RATE / 2, FFT // 2 + 1))[:, None]
    weights = np.maximum(0.0, np.minimum((bins - lower) / (center - lower), (upper - bins) / (upper - center)))
    weights[0] = 0.0  # no direct current
    return weights.astype(np.float32)


def convert(tflite_file: Path) -> dict[str, Tensor]:
    """Read the network's weights: float32, or int8 beside a scale. Its front end is made anew, not quantized."""
    import tflite

    data = tflite_file.read_bytes()
    if (digest := hashlib.sha256(data).hexdigest()) != SHA256:
        raise ValueError(f"{tflite_file} is not the published file: its SHA-256 is {digest} instead of {SHA256}")
    model = tflite.Model.GetRootAs(data, 0)
    graph = model.Subgraphs(0)

    def constant(name: str, index: int) -> dict[str, np.ndarray]:
        tensor = graph.Tensors(index)
        is_int8 = tensor.Type() == tflite.TensorType.INT8
        raw = model.Buffers(tensor.Buffer()).DataAsNumpy().view(np.int8 if is_int8 else np.float32)
        scale = {f"{name}_scale": tensor.Quantization().ScaleAsNumpy()[0]} if is_int8 else {}  # one, zero point 0
        return {name: raw.reshape(tensor.ShapeAsNumpy()), **scale}

    wanted: dict[str, list[list[int]]] = {"CONV_2D": [], "DEPTHWISE_CONV_2D": [], "FULLY_CONNECTED": []}
    dequantized = {}  # output of a DEQUANTIZE: its input
    for operator in map(graph.Operators, range(graph.OperatorsLength())):
        code = model.OperatorCodes(operator.OpcodeIndex())
        inputs = operator.InputsAsNumpy()
        name = tflite.opcode2name(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()))
        if name == "DEQUANTIZE":
            dequantized[operator.Outputs(0)] = inputs[0]
        elif name in wanted:
            wanted[name].append([dequantized.get(i, i) for i in inputs[1:3]])
    stem, *pointwise = wanted["CONV_2D"]
    named = {"stem": stem, "dense": wanted["FULLY_CONNECTED"][-1]}
    named |= {f"depthwise{i}": pair for i, pair in enumerate(wanted["DEPTHWISE_CONV_2D"])}
    named |= {f"pointwise{i}": pair for i, pair in enumerate(pointwise)}
    arrays: dict[str, np.ndarray] = {}
    for name, (weight, bias) in named.items():
        arrays |= constant(f"{name}_weight", weight) | constant(f"{name}_bias", bias)
    arrays["stem_weight"] = arrays["stem_weight"].transpose(3, 1, 2, 0)  # (32, 3, 3, 1) to (1, 3, 3, 32)
    for name, array in arrays.items():
        if name.endswith("weight") and array.ndim == 4:
            arrays[name] = array[0] if array.shape[1] == 3 else array[:, 0, 0]  # (3, 3, C) or (out, in)
    return {name: torch.from_numpy(np.array(array, order="C")) for name, array in arrays.items()}


def main() -> None:
    tflite_file, output = map(Path, sys.argv[1:])
    save_file(convert(tflite_file), output)


if __name__ == "__main__":
    main()
