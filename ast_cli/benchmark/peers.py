"""Who takes turns in a benchmark: a model in one of our engines, once for each attention, and the reference's."""

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
from ast_cli.engine.options import DEFAULT_ENGINE, TORCH_ENGINES, EngineOptions
from ast_cli.engine.torch.compile_engine import CompileEngine
from ast_cli.engine.torch.device import float32_products
from ast_cli.engine.torch.torch_engine import TorchEngine
from ast_cli.errors import AstError, DeviceError, UsageError
from ast_cli.labels import NUM_AUDIOSET_LABELS
from ast_cli.model.checkpoint import resolve_dtype
from ast_cli.model.config import NUM_PREFIX_TOKENS, ASTConfig
from ast_cli.model.transformer import ASTForAudioClassification

SIZES = {"base": (768, 12), "small": (384, 6), "tiny": (192, 3)}  # DeiT's hidden_size and num_attention_heads
OURS, REFERENCE = "ast", "transformers"
SEED = 0  # of random weights and inputs
LOGITS_TOLERANCE = 1e-3  # float32 logits of two implementations; they differ by 1e-5 and less at base size

FLOP_FORMULA = (
    "2 x multiply-adds: patches P*p^2*C; a block 3NC^2 (qkv) + 2N^2C (attention) + NC^2 (proj) + 2NCM (MLP); the last "
    "block 4QC^2 + 2QHNC + 2QCM, as the head reads Q=2 rows (transformers: as the others); head CL. "
    "N tokens, P patches of side p, C hidden_size, H heads, M intermediate_size, L labels"
)


@dataclass(frozen=True, slots=True)
class Peer:
    """One model that takes turns.

    Attributes:
        library: ``ast`` or ``transformers``.
        engine: What runs it.
        attn: ``sdpa`` or ``eager``; None where the engine has one of its own.
        flop_per_window: Floating-point operations of one window, by ``FLOP_FORMULA``.
        step_for: From features, float32 on the CPU, shape (batch, max_length, num_mel_bins), to the pass over them that
            is timed: they lie by then where, and in the type in which, the model takes them.
        facts: What its speed depends on; see `ast_cli.engine.interface.Engine`.
    """

    library: str
    engine: str
    attn: str | None
    flop_per_window: int
    step_for: Callable[[Tensor], Callable[[], object]]
    facts: dict[str, str] = field(default_factory=dict)


def load_model(name: str) -> ASTForAudioClassification:
    """Return a model in float32 on the CPU: of a named size with random weights, or a checkpoint.

    Raises:
        UsageError: No model of that name.
    """
    if name in SIZES:
        return random_model(size_config(name))
    try:
        return ASTForAudioClassification.from_pretrained(name, unnamed_labels=True)
    except UsageError as error:
        raise UsageError(f"{error}; or a size with random weights: {', '.join(SIZES)}") from error


def size_config(size: str) -> ASTConfig:
    """Return the architecture of a named size: DeiT's widths, AST's patches of 10-10 strides at 1024 frames."""
    hidden_size, num_heads = SIZES[size]
    return ASTConfig(
        hidden_size=hidden_size,
        num_attention_heads=num_heads,
        intermediate_size=4 * hidden_size,
        num_labels=NUM_AUDIOSET_LABELS,
    )


def random_model(config: ASTConfig) -> ASTForAudioClassification:
    """Return a model of random weights, always the same, leaving the random state of others alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return ASTForAudioClassification(config).eval()


def flop_per_window(config: ASTConfig, *, trimmed: bool = True) -> int:
    """Count the floating-point operations of one window's matrix products, the rest being far below 1 %.

    Args:
        config: The architecture.
        trimmed: Whether the last block computes only the two rows that the head reads.

    Returns:
        Twice the multiply-adds: 261 GFLOP for base size at 1024 frames, 239 trimmed.
    """
    N, C, M = config.num_tokens, config.hidden_size, config.intermediate_size
    Q, H = NUM_PREFIX_TOKENS, config.num_attention_heads
    patches = (N - NUM_PREFIX_TOKENS) * config.patch_size**2 * C
    block = N * (4 * C * C + 2 * N * C + 2 * C * M)  # queries, keys, values and output; attention; MLP
    last = Q * (4 * C * C + 2 * H * N * C + 2 * C * M) if trimmed else block
    multiply_adds = patches + (config.num_hidden_layers - 1) * block + last + C * config.num_labels
    return 2 * multiply_adds


def engines_of(
    model: ASTForAudioClassification,
    attns: Sequence[str | None],
    options: EngineOptions,
    report_progress: Callable[[str], None] = lambda _what: None,
) -> dict[str | None, Engine]:
    """Return one engine for each attention, on one copy of the weights; where it has one of its own, one for all.

    Args:
        model: In float32 on the CPU; it stays as it is.
        attns: Names of attentions.
        options: Engine, device and data type, all by their names, and threads.
        report_progress: Is told what takes long.

    Raises:
        DeviceError: A device or data type that the engine does not offer.
        EngineMissingError: It needs a compiler, and there is none.
    """
    if options.engine not in (None, *TORCH_ENGINES):
        return dict.fromkeys(attns, _runtime(model, options))
    device, dtype = torch.device(options.device), resolve_dtype(options.dtype)
    state = {name: tensor.to(device, dtype) for name, tensor in model.state_dict().items()}
    kind = CompileEngine if options.engine == CompileEngine.name else TorchEngine
    engines: dict[str | None, Engine] = {}
    for attn in attns:
        with torch.device("meta"):  # the module alone: its weights are assigned
            twin = ASTForAudioClassification(model.config, attn or "sdpa")
        twin.load_state_dict(state, assign=True)
        engine = kind(twin, device, dtype)
        engine.report_progress = report_progress
        engines[attn] = engine
    return engines


def _runtime(model: ASTForAudioClassification, options: EngineOptions) -> Engine:
    """Return a model in an engine that needs no torch, converted in memory: nothing of it is kept."""
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
    """Return a model in an engine, once for each attention; see `engines_of`."""
    flop = flop_per_window(model.config)
    return [
        Peer(OURS, options.engine or DEFAULT_ENGINE, attn, flop, partial(_step_of_engine, engine), engine.facts)
        for attn, engine in engines_of(model, attns, options, report_progress).items()
    ]


def exported_peer(model: str, options: EngineOptions) -> tuple[Peer, ASTConfig, str]:
    """Return a model that ``ast export`` wrote, with its configuration and the data type that it computes in.

    Raises:
        UsageError: An engine that it was not exported for.
        EngineMissingError, CheckpointError, DeviceError: As `ast_cli.engine.choice.load_engine`.
    """
    engine = load_engine(model, options)
    step_for = partial(_step_of_engine, engine)
    peer = Peer(OURS, engine.name, None, flop_per_window(engine.config), step_for, engine.facts)
    return peer, engine.config, engine.dtype_name


def _step_of_engine(engine: Engine, values: Tensor) -> Callable[[], object]:
    """Return a pass; a torch engine's logits are left on the device, as only the model is timed."""
    if isinstance(engine, TorchEngine):
        return partial(engine.device_logits, values.to(engine.device, engine.dtype))
    return partial(engine.logits, values.numpy())


def reference_peers(
    references: dict[str, nn.Module], config: ASTConfig, device: torch.device, dtype: torch.dtype
) -> list[Peer]:
    """Put the reference's models on a device, in a data type."""
    flop = flop_per_window(config, trimmed=False)
    peers = []
    for attn, reference in references.items():
        moved = copy.deepcopy(reference).to(device, dtype)

        def step_for(values: Tensor, moved: nn.Module = moved) -> Callable[[], object]:
            return partial(_reference_logits, moved, values.to(device, dtype))

        peers.append(Peer(REFERENCE, "torch", attn, flop, step_for))
    return peers


def random_input_values(config: ASTConfig, batch_size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return features like those of real audio, mean 0 and std 0.5: (batch_size, max_length, num_mel_bins)."""
    generator = torch.Generator().manual_seed(SEED)
    input_values = torch.randn(batch_size, config.max_length, config.num_mel_bins, generator=generator) * 0.5
    return input_values.to(device, dtype)


def load_references(model: ASTForAudioClassification, attns: Sequence[str]) -> dict[str, nn.Module]:
    """Return transformers' model with the same weights, one for each attention, in float32 on the CPU.

    Raises:
        DeviceError: transformers is missing or does not load.
    """
    try:
        from transformers import ASTForAudioClassification as ReferenceModel
    except (
        ImportError,
        OSError,
        RuntimeError,
    ) as error:  # OSError: a torchaudio built for another torch, imported by it
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
    """Keep transformers from drawing a bar on stderr, which it does even where that is no terminal."""
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
    with float32_products(input_values.device, tf32=False):  # as our engine
        logits: Tensor = reference(input_values).logits
    return logits


def check_agreement(
    model: ASTForAudioClassification, references: dict[str, nn.Module], options: EngineOptions, device: torch.device
) -> float:
    """Compare logits with the reference's in float32: a faster model that computes something else is no faster model.

    Args:
        model: Ours.
        references: The reference's, by attention.
        options: What runs ours; see `engines_of`.
        device: Where the reference's runs.

    Returns:
        The largest absolute difference, over all attentions.

    Raises:
        AstError: It is above `LOGITS_TOLERANCE`.
    """
    input_values = random_input_values(model.config, 1, torch.device("cpu"), torch.float32)
    engines = engines_of(model, tuple(references), dataclasses.replace(options, dtype="float32"))
    differences = [0.0]
    for attn, reference in references.items():
        expected = _reference_logits(copy.deepcopy(reference).to(device), input_values.to(device)).cpu().numpy()
        differences.append(float(np.abs(engines[attn].logits(input_values.numpy()) - expected).max()))
    if not all(difference <= LOGITS_TOLERANCE for difference in differences):  # NaN fails too
        raise AstError(
            f"transformers gives other logits than ast (differences up to {max(differences):.2g}, rounding explains "
            f"{LOGITS_TOLERANCE:g}): there is nothing to compare; please report it with the model's config.json"
        )
    return max(differences)


def peer_name(library: str, engine: str, attn: str | None) -> str:
    """Return what a peer is called in tables; of the torch engine the attention alone."""
    whose = library if library != OURS else engine if engine != "torch" else None
    return " ".join(part for part in (whose, attn) if part)


def dtype_name(dtype: torch.dtype) -> str:
    """Return ``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")
