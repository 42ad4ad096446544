"""Set up every installed way to run AST on the same weights: our engines, and the peers to compare them with.

The peers run the graph that transformers defines. ONNX Runtime loads it as exported by `torch.onnx`, and OpenVINO
converts it itself. This is what users get if they export the reference implementation without further work.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import platform
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ast_cli import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from ast_cli.engine.interface import cpu_name
from ast_cli.engine.torch.torch_engine import TorchEngine
from ast_cli.model.form import EAT
from ast_cli.model.operations import flop_per_window

TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
INT8 = "int8"  # our peers run models of `ast export --dtype int8`, the others run in float32
CALIBRATION = Path(__file__).parent.parent / "sample_audio"
BASELINE = "transformers sdpa"
OURS_WITH_EXTRAS = ("compile", "openvino", "onnxruntime")
PACKAGES = ("torch", "transformers", "onnxruntime", "openvino", "numpy")

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Peer:
    """One way to run the model.

    Attributes:
        name: Name in tables and in ``--peers``.
        run: Function from input_values (batch, max_length, num_mel_bins) to logits (batch, num_labels).
        flop_per_window: Number of floating-point operations per window.
    """

    name: str
    run: Run
    flop_per_window: int


@dataclass(frozen=True)
class Setting:
    """The setting that all peers share.

    Attributes:
        folder: Folder of a checkpoint in the hub's layout.
        config: Configuration of the checkpoint.
        dtype: Data type: ``float32``, ``bfloat16``, ``float16`` or ``int8``.
        batch_size: Number of windows per pass.
        num_threads: Number of threads of each peer.
        scratch: Folder for converted models.
    """

    folder: Path
    config: ASTConfig
    dtype: str
    batch_size: int
    num_threads: int
    scratch: Path

    @property
    def float_dtype(self) -> str:
        """Data type of the peers that run the checkpoint without quantization: ``dtype``, or float32 for int8."""
        return "float32" if self.dtype == INT8 else self.dtype

    @property
    def torch_dtype(self) -> torch.dtype:
        """Data type `float_dtype` of torch."""
        return TORCH_DTYPES[self.float_dtype]


# Published sizes to measure with random weights, which run at the same speed: AST's, and those of its relatives.
MAEST = {"num_mel_bins": 96, "layer_norm_eps": 1e-6}
SIZES: dict[str, dict[str, Any]] = {
    "base": {"num_labels": 527},
    "maest": {**MAEST, "max_length": 1876, "num_labels": 519},
    "maest-5s": {**MAEST, "max_length": 316, "num_labels": 400},
    "eat": {"model_type": "eat", "num_labels": 527, "frequency_stride": 16, "time_stride": 16, "layer_norm_eps": 1e-6},
    "birdset": {"num_labels": 411},
    "birdset-xcl": {"num_labels": 9736},
}


def make_checkpoint(name: str, scratch: Path) -> Path:
    """Return the folder of a checkpoint; for one of `SIZES`, write one with random weights."""
    if name not in SIZES:
        from ast_cli.hub.folders import checkpoint_folder

        return checkpoint_folder(name)
    torch.manual_seed(0)
    folder = scratch / name
    config = ASTConfig(problem_type="multi_label_classification", **SIZES[name])
    ASTForAudioClassification(config).save_pretrained(folder)
    # The engines are given features, so that the front end makes no difference beyond their size.
    ASTFeatureExtractor(max_length=config.max_length, num_mel_bins=config.num_mel_bins).save_pretrained(folder)
    return folder


def set_up(setting: Setting, wanted: list[str] | None) -> tuple[list[Peer], dict[str, str]]:
    """Return the available peers, with the baseline first, and the reasons why others are missing."""
    peers: list[Peer] = []
    missing: dict[str, str] = {}
    for name, build in BUILDERS.items():
        is_asked_for = setting.dtype == INT8 or INT8 not in name if wanted is None else name in wanted
        if not is_asked_for:
            continue
        print(f"setting up {name}", file=sys.stderr)
        try:
            with quiet_libraries():
                peers.append(build(setting))
        except Exception as error:  # a peer that is not installed or does not work is left out
            missing[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
    return peers, missing


def transformers_model(setting: Setting, attn: str) -> torch.nn.Module:
    if setting.config.form == EAT:
        raise ValueError("transformers does not have EAT")
    from transformers import ASTForAudioClassification as ReferenceModel
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    model = ReferenceModel.from_pretrained(str(setting.folder), attn_implementation=attn, dtype=setting.torch_dtype)
    return model.eval()


def transformers_peer(setting: Setting, attn: str) -> Peer:
    model, dtype = transformers_model(setting, attn), setting.torch_dtype

    @torch.inference_mode()
    def run(input_values: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: torch.Tensor = model(torch.from_numpy(input_values).to(dtype)).logits
        return logits.float().numpy()

    return Peer(f"transformers {attn}", run, flop_per_window(setting.config, trimmed=False))


class PlainEAT(torch.nn.Module):
    """EAT as a plain sequence of torch's operations, for weights under their published names."""

    def __init__(self, weights: dict[str, torch.Tensor], num_heads: int, epsilon: float) -> None:
        super().__init__()
        self.weights = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
        self.num_heads, self.epsilon = num_heads, epsilon

    def linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        parameters = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return torch.nn.functional.layer_norm(x, x.shape[-1:], *parameters, self.epsilon)

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        """Map (B, max_length, num_mel_bins) to logits (B, num_labels)."""
        kernel = self.weights["local_encoder.proj.weight"]
        bias, stride = self.weights["local_encoder.proj.bias"], kernel.shape[-1]
        x = torch.nn.functional.conv2d(input_values[:, None], kernel, bias, stride=stride)
        x = x.flatten(2).transpose(1, 2)  # (B, num_patches, C), time-major
        x = x + self.weights["fixed_positional_encoder.positions"][:, : x.shape[1]]
        x = torch.cat([self.weights["extra_tokens"].expand(len(x), -1, -1), x], dim=1)
        x = self.norm(x, "pre_norm")
        B, N, C = x.shape
        for i in range(sum(name.endswith("mlp.fc1.weight") for name in self.weights)):
            qkv = self.linear(x, f"blocks.{i}.attn.qkv").view(B, N, 3, self.num_heads, -1)
            attended = torch.nn.functional.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
            x = x + self.linear(attended.transpose(1, 2).reshape(B, N, C), f"blocks.{i}.attn.proj")
            x = self.norm(x, f"blocks.{i}.norm1")
            hidden = torch.nn.functional.gelu(self.linear(x, f"blocks.{i}.mlp.fc1"))
            x = self.norm(x + self.linear(hidden, f"blocks.{i}.mlp.fc2"), f"blocks.{i}.norm2")
        return self.linear(self.norm(x[:, 0], "fc_norm"), "head")


def plain_peer(setting: Setting) -> Peer:
    """Set up EAT in plain torch; its own code is not a package, and transformers does not have it."""
    if setting.config.form != EAT:
        raise ValueError("only for EAT: transformers has the other forms")
    from safetensors.torch import load_file

    weights = load_file(setting.folder / "model.safetensors")
    dtype, config = setting.torch_dtype, setting.config
    typed = {name: tensor.to(dtype) for name, tensor in weights.items()}
    model = PlainEAT(typed, config.num_attention_heads, config.layer_norm_eps)

    @torch.inference_mode()
    def run(input_values: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: torch.Tensor = model(torch.from_numpy(input_values).to(dtype))
        return logits.float().numpy()

    return Peer("plain torch", run, flop_per_window(setting.config, trimmed=False))


def ours(setting: Setting, attn: str) -> Peer:
    engine = TorchEngine.load(setting.folder, device="cpu", dtype=setting.float_dtype, attn_implementation=attn)
    name = "ast torch" if attn == "sdpa" else "ast torch eager"
    return Peer(name, engine.logits, flop_per_window(setting.config))


def ours_with(setting: Setting, engine_name: str) -> Peer:
    """Set up one of our engines other than torch."""
    from ast_cli.engine.choice import load_engine
    from ast_cli.engine.options import EngineOptions

    options = EngineOptions(engine_name, device="cpu", dtype=setting.float_dtype, num_threads=setting.num_threads)  # type: ignore[arg-type]
    engine = load_engine(setting.folder, options)
    if engine.name != engine_name:
        raise ValueError("this version has no such engine")
    return Peer(f"ast {engine_name}", engine.logits, flop_per_window(setting.config))


def ours_in_int8(setting: Setting, engine_name: str, *, is_calibrated: bool) -> Peer:
    """Set up the model of ``ast export --dtype int8`` for an engine, calibrated on the sample files or dynamic."""
    from ast_cli.engine.choice import load_engine
    from ast_cli.engine.options import EngineOptions
    from ast_cli.export import ExportOptions, export_model

    if setting.dtype != INT8:
        raise ValueError("only with --dtype int8")
    name = f"ast {engine_name} int8" + (" calibrated" if is_calibrated else "")
    folder = setting.scratch / name.replace(" ", "-")
    form = "openvino" if engine_name == "openvino" else "onnx"
    calibrate = CALIBRATION if is_calibrated else None
    export_model(ExportOptions(str(setting.folder), folder, format=form, dtype="int8", calibrate=calibrate))
    options = EngineOptions(engine_name, device="cpu", num_threads=setting.num_threads)  # type: ignore[arg-type]
    return Peer(name, load_engine(str(folder), options).logits, flop_per_window(setting.config))


def onnxruntime_reference(setting: Setting) -> Peer:
    """Set up ONNX Runtime on the graph of transformers, as exported by `torch.onnx.export`."""
    import onnxruntime

    if setting.torch_dtype != torch.float32:
        raise ValueError("ONNX Runtime has no CPU kernels for it")
    file = setting.scratch / "reference.onnx"
    model = transformers_model(setting, "sdpa")
    torch.onnx.export(
        LogitsOnly(model),
        (example(setting),),
        str(file),
        input_names=["input_values"],
        output_names=["logits"],
        dynamo=True,
        verbose=False,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = setting.num_threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def run(input_values: NDArray[np.float32]) -> NDArray[np.float32]:
        return session.run(["logits"], {"input_values": input_values})[0]

    return Peer("onnxruntime reference", run, flop_per_window(setting.config, trimmed=False))


def openvino_reference(setting: Setting) -> Peer:
    """Set up OpenVINO on the graph of transformers, as converted by OpenVINO."""
    import openvino

    precision = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}[setting.float_dtype]
    float32 = Setting(**{**vars(setting), "dtype": "float32"})  # OpenVINO itself converts the weights
    graph = openvino.convert_model(LogitsOnly(transformers_model(float32, "sdpa")), example_input=example(setting))
    graph.reshape([setting.batch_size, setting.config.max_length, setting.config.num_mel_bins])
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": setting.num_threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(graph, "CPU", settings)
    request = compiled.create_infer_request()

    def run(input_values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.array(request.infer({0: input_values})[0])

    return Peer("openvino reference", run, flop_per_window(setting.config, trimmed=False))


class LogitsOnly(torch.nn.Module):
    """The model of transformers with logits as its only output, as exporters fail on the full output."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        return self.model(input_values).logits  # type: ignore[no-any-return]


def example(setting: Setting) -> torch.Tensor:
    return torch.zeros(setting.batch_size, setting.config.max_length, setting.config.num_mel_bins)


BUILDERS: dict[str, Callable[[Setting], Peer]] = {
    BASELINE: lambda setting: transformers_peer(setting, "sdpa"),
    "plain torch": plain_peer,
    "transformers eager": lambda setting: transformers_peer(setting, "eager"),
    "onnxruntime reference": onnxruntime_reference,
    "openvino reference": openvino_reference,
    "ast torch": lambda setting: ours(setting, "sdpa"),
    "ast torch eager": lambda setting: ours(setting, "eager"),
    **{
        f"ast {name}": lambda setting, engine_name=name: ours_with(setting, engine_name)  # type: ignore[misc]
        for name in OURS_WITH_EXTRAS
    },
    **{
        f"ast {name} int8{' calibrated' * is_calibrated}": (
            lambda setting, engine_name=name, is_calibrated=is_calibrated: ours_in_int8(  # type: ignore[misc]
                setting, engine_name, is_calibrated=is_calibrated
            )
        )
        for name in ("openvino", "onnxruntime")
        for is_calibrated in (False, True)
    },
}


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Suppress warnings and messages of exporters; comparing logits verifies the result."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def describe_machine(num_threads: int) -> dict[str, Any]:
    """Return the processor, its instructions and the versions of the packages."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "processor": cpu_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "num_threads": num_threads,
        "platform": platform.platform(),
        "versions": versions,
    }


def is_native(dtype: str) -> bool:
    """Return whether this processor has instructions for matrix products of a data type."""
    instructions = {"bfloat16": ("avx512_bf16", "amx_bf16"), INT8: ("avx512_vnni", "avx_vnni", "amx_int8")}
    if dtype not in instructions:
        return dtype == "float32"
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        return any(flag in flags for flag in instructions[dtype])
    return False
