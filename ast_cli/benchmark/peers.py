"""The peers of a benchmark: our model, once per attention implementation, and the model of transformers."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ast_cli.engine.choice import load_engine
from ast_cli.engine.interface import Engine
from ast_cli.engine.options import TORCH_ENGINES, EngineOptions
from ast_cli.engine.torch.compile_engine import CompileEngine
from ast_cli.engine.torch.device import float32_products
from ast_cli.engine.torch.torch_engine import TorchEngine
from ast_cli.errors import AstError, DeviceError, UsageError
from ast_cli.labels import NUM_AUDIOSET_LABELS
from ast_cli.model.checkpoint import resolve_dtype
from ast_cli.model.config import ASTConfig
from ast_cli.model.form import AST
from ast_cli.model.operations import flop_per_window
from ast_cli.model.transformer import ASTForAudioClassification

SIZES = {"base": (768, 12), "small": (384, 6), "tiny": (192, 3)}  # DeiT's hidden_size and num_attention_heads
OURS, REFERENCE = "ast", "transformers"
SEED = 0  # for random weights and inputs
LOGITS_TOLERANCE = 1e-3  # between the float32 logits of two implementations; at base size they differ by at most 1e-5


@dataclass(frozen=True, slots=True)
class Peer:
    """One of the models that take turns.

    Attributes:
        library: Implementation of the model, ``ast`` or ``transformers``.
        engine: Name of the engine that runs the model.
        attn: Attention implementation, ``sdpa`` or ``eager``; None if the engine has no choice.
        flop_per_window: Floating-point operations per window, counted by ``FLOP_FORMULA``.
        step_for: Function that prepares a timed pass. It takes features in float32 on the CPU, shape (batch,
            max_length, num_mel_bins), converts them to the device and data type of the model, and returns the pass.
        facts: Facts that the speed depends on; see `ast_cli.engine.interface.Engine`.
    """

    library: str
    engine: str
    attn: str | None
    flop_per_window: int
    step_for: Callable[[Tensor], Callable[[], object]]
    facts: dict[str, str] = field(default_factory=dict)


def load_model(name: str) -> ASTForAudioClassification:
    """Return a checkpoint, or a model of a named size with random weights, in float32 on the CPU.

    Raises:
        UsageError: If there is no model of that name.
    """
    if name in SIZES:
        return random_model(size_config(name))
    try:
        return ASTForAudioClassification.from_pretrained(name, unnamed_labels=True)
    except UsageError as error:
        raise UsageError(f"{error}; or a size with random weights: {', '.join(SIZES)}") from error


def size_config(size: str) -> ASTConfig:
    """Return the architecture of a named size: DeiT's width, and AST's patches with strides of 10 at 1024 frames."""
    hidden_size, num_heads = SIZES[size]
    return ASTConfig(
        hidden_size=hidden_size,
        num_attention_heads=num_heads,
        intermediate_size=4 * hidden_size,
        num_labels=NUM_AUDIOSET_LABELS,
    )


def random_model(config: ASTConfig) -> ASTForAudioClassification:
    """Return a model with random weights, always the same ones, without changing torch's random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return ASTForAudioClassification(config).eval()


def engines_of(
    model: ASTForAudioClassification,
    attns: Sequence[str | None],
    options: EngineOptions,
    report_progress: Callable[[str], None] = lambda _what: None,
) -> dict[str | None, Engine]:
    """Return one engine per attention implementation, all sharing one copy of the weights.

    An engine without a choice of attention is the same for all.

    Args:
        model: Model in float32 on the CPU; it is not modified.
        attns: Names of attention implementations.
        options: Engine, device, data type and number of threads; no name may be ``auto``.
        report_progress: Callback for messages about slow steps.

    Raises:
        DeviceError: If the engine does not support the device or data type.
        EngineMissingError: If the engine needs a compiler and there is none.
    """
    if options.engine not in TORCH_ENGINES:
        return dict.fromkeys(attns, _runtime(model, options))
    device, dtype = torch.device(options.device), resolve_dtype(options.dtype)
    state = {name: tensor.to(device, dtype) for name, tensor in model.state_dict().items()}
    kind = CompileEngine if options.engine == CompileEngine.name else TorchEngine
    engines: dict[str | None, Engine] = {}
    for attn in attns:
        with torch.device("meta"):  # without memory for weights, which are assigned below
            twin = ASTForAudioClassification(model.config, attn or "sdpa")
        twin.load_state_dict(state, assign=True)
        engine = kind(twin, device, dtype)
        engine.report_progress = report_progress
        engines[attn] = engine
    return engines


def _runtime(model: ASTForAudioClassification, options: EngineOptions) -> Engine:
    """Return a model in ONNX Runtime or OpenVINO, converted in memory without caching it."""
    kind: type[OnnxRuntimeEngine | OpenVinoEngine]
    if options.engine == "onnxruntime":
        from ast_cli.engine.graph.onnxruntime_engine import OnnxRuntimeEngine

        kind = OnnxRuntimeEngine
    else:
        from ast_cli.engine.graph.openvino_engine import OpenVinoEngine

        kind = OpenVinoEngine
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    graph = kind.builder_for(options.dtype)(model.config, weights).build()
    return kind.from_graph(graph, model.config, options)


def own_peers(
    model: ASTForAudioClassification,
    attns: Sequence[str | None],
    options: EngineOptions,
    report_progress: Callable[[str], None] = lambda _what: None,
) -> list[Peer]:
    """Return one peer per attention implementation for our model; see `engines_of`."""
    flop = flop_per_window(model.config)
    return [
        Peer(OURS, options.engine, attn, flop, partial(_step_of_engine, engine), engine.facts)
        for attn, engine in engines_of(model, attns, options, report_progress).items()
    ]


def exported_peer(model: str, options: EngineOptions) -> tuple[Peer, ASTConfig, str]:
    """Return the peer for a model written by ``ast export``, with its configuration and data type.

    Raises:
        UsageError: If another engine than that of the model is requested.
        EngineMissingError, CheckpointError, DeviceError: As in `ast_cli.engine.choice.load_engine`.
    """
    engine = load_engine(model, options)
    step_for = partial(_step_of_engine, engine)
    peer = Peer(OURS, engine.name, None, flop_per_window(engine.config), step_for, engine.facts)
    return peer, engine.config, engine.dtype_name


def _step_of_engine(engine: Engine, values: Tensor) -> Callable[[], object]:
    """Return a timed pass; a torch engine leaves the logits on the device, so that only the model is timed."""
    if isinstance(engine, TorchEngine):
        return partial(engine.device_logits, values.to(engine.device, engine.dtype))
    return partial(engine.logits, values.numpy())


def reference_peers(
    references: dict[str, nn.Module], config: ASTConfig, device: torch.device, dtype: torch.dtype
) -> list[Peer]:
    """Return one peer per model of transformers, on a device and in a data type."""
    flop = flop_per_window(config, trimmed=False)
    peers = []
    for attn, reference in references.items():
        moved = copy.deepcopy(reference).to(device, dtype)

        def step_for(values: Tensor, moved: nn.Module = moved) -> Callable[[], object]:
            return partial(_reference_logits, moved, values.to(device, dtype))

        peers.append(Peer(REFERENCE, "torch", attn, flop, step_for))
    return peers


def random_input_values(config: ASTConfig, batch_size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return random features with the mean (0) and standard deviation (0.5) of real ones.

    The shape is (batch_size, max_length, num_mel_bins).
    """
    generator = torch.Generator().manual_seed(SEED)
    input_values = torch.randn(batch_size, config.max_length, config.num_mel_bins, generator=generator) * 0.5
    return input_values.to(device, dtype)


def load_references(model: ASTForAudioClassification, attns: Sequence[str]) -> dict[str, nn.Module]:
    """Return the model of transformers with the same weights, once per attention, in float32 on the CPU.

    Raises:
        DeviceError: If transformers is missing or cannot be imported.
        UsageError: If transformers has no such model.
    """
    if model.config.form != AST:
        raise UsageError(f"transformers has no model of type {model.config.model_type}; leave out --compare")
    try:
        from transformers import ASTForAudioClassification as ReferenceModel
    except (
        ImportError,
        OSError,
        RuntimeError,
    ) as error:  # OSError: transformers imports a torchaudio built for another torch
        raise DeviceError(
            f"transformers cannot be used here ({str(error).splitlines()[0]}); "
            "install it with `pip install transformers`"
        ) from error
    references: dict[str, nn.Module] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, _no_loading_bar():
        model.save_pretrained(folder)
        for attn in attns:
            references[attn] = ReferenceModel.from_pretrained(folder, attn_implementation=attn)
            references[attn].eval()
    return references


@contextlib.contextmanager
def _no_loading_bar() -> Iterator[None]:
    """Disable the progress bar that transformers draws on stderr, even if stderr is not a terminal."""
    from transformers.utils import logging

    bars: Any = logging
    if not bars.is_progress_bar_enabled():
        yield
        return
    bars.disable_progress_bar()
    try:
        yield
    finally:
        bars.enable_progress_bar()


@torch.inference_mode()
def _reference_logits(reference: nn.Module, input_values: Tensor) -> Tensor:
    with float32_products(input_values.device, tf32=False):  # as in our engine
        logits: Tensor = reference(input_values).logits
    return logits


def check_agreement(
    model: ASTForAudioClassification, references: dict[str, nn.Module], options: EngineOptions, device: torch.device
) -> float:
    """Check that our float32 logits equal those of transformers, as times of different computations do not compare.

    Args:
        model: Our model.
        references: Models of transformers by attention implementation.
        options: Options of our engine; see `engines_of`.
        device: Device for the models of transformers.

    Returns:
        The largest absolute difference over all attention implementations.

    Raises:
        AstError: If the difference is larger than `LOGITS_TOLERANCE`.
    """
    input_values = random_input_values(model.config, 1, torch.device("cpu"), torch.float32)
    engines = engines_of(model, tuple(references), dataclasses.replace(options, dtype="float32"))
    differences = [0.0]
    for attn, reference in references.items():
        expected = _reference_logits(copy.deepcopy(reference).to(device), input_values.to(device)).cpu().numpy()
        differences.append(float(np.abs(engines[attn].logits(input_values.numpy()) - expected).max()))
    if not all(difference <= LOGITS_TOLERANCE for difference in differences):  # NaN fails too
        raise AstError(
            f"ast and transformers compute different logits (up to {max(differences):.2g} apart; rounding explains "
            f"{LOGITS_TOLERANCE:g}), so their times do not compare; please report this with the model's config.json"
        )
    return max(differences)


def peer_name(library: str, engine: str, attn: str | None) -> str:
    """Return the name of a peer in reports; a peer of the torch engine is named by its attention only."""
    runner = library if library != OURS else engine if engine != "torch" else None
    return " ".join(part for part in (runner, attn) if part)


def dtype_name(dtype: torch.dtype) -> str:
    """Return ``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")
