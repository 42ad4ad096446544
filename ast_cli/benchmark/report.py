"""What a benchmark found, as frozen data."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ast_cli import __version__
from ast_cli.audio.fbank.mel_bank import FRAME_SHIFT_S
from ast_cli.benchmark.peers import FLOP_FORMULA, OURS, REFERENCE, flop_per_window, peer_name
from ast_cli.engine.interface import cpu_name
from ast_cli.engine.options import EXTRAS
from ast_cli.model.attention import ATTN_IMPLEMENTATIONS
from ast_cli.model.config import ASTConfig
from ast_cli.results import SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the numbers are from.

    Attributes:
        platform: Operating system and architecture.
        processor: The processor's name.
        device: Where the model ran.
        device_name: The GPU's name, or the processor's again.
        num_threads: Of the engine on the CPU.
        versions: Of Python, torch, this package, and of the engine's package and transformers where they took part.
    """

    platform: str
    processor: str
    device: str
    device_name: str
    num_threads: int
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What ran.

    Attributes:
        name: As asked for.
        weights: ``random``, ``checkpoint`` or ``exported``; only of the last does the time depend on it.
        num_parameters: In all; None of an exported model, whose file does not tell.
        num_tokens: Length of the sequence.
        window_s: Audio that one window covers, in seconds.
        flop_per_window: Floating-point operations of one window, by ``FLOP_FORMULA``.
    """

    name: str
    weights: str
    num_parameters: int | None
    num_tokens: int
    window_s: float
    flop_per_window: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """One peer in one cell.

    Attributes:
        library: ``ast`` or ``transformers``.
        engine: What ran it.
        attn: ``sdpa`` or ``eager``; None where the engine has one of its own.
        dtype: Of weights and inputs.
        batch_size: Windows at once.
        num_repeats: Timed passes.
        median_ms: Of one pass.
        spread_ms: Interquartile range of the passes.
        windows_per_s: By the median.
        real_time_factor: Processing time / audio time.
        tflop_per_s: Achieved, by ``FLOP_FORMULA``.
    """

    library: str
    engine: str
    attn: str | None
    dtype: str
    batch_size: int
    num_repeats: int
    median_ms: float
    spread_ms: float
    windows_per_s: float
    real_time_factor: float
    tflop_per_s: float

    @property
    def peer(self) -> str:
        """``sdpa``; of other engines ``compile sdpa`` or ``openvino``; of the reference ``transformers sdpa``."""
        return peer_name(self.library, self.engine, self.attn)


@dataclass(frozen=True, slots=True)
class SpeedUp:
    """Two peers of one cell.

    Attributes:
        dtype: Of the cell.
        batch_size: Of the cell.
        baseline: The peer that is compared with.
        peer: The peer in question.
        baseline_ms: Its median.
        peer_ms: Its median.
        speed_up: Their ratio; above 1 the peer is faster.
    """

    dtype: str
    batch_size: int
    baseline: str
    peer: str
    baseline_ms: float
    peer_ms: float
    speed_up: float

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, whose keys are those of version 0.1: ``contestant`` for ``peer``."""
        return {name.replace("peer", "contestant"): value for name, value in _record(self).items()}


@dataclass(frozen=True, slots=True)
class StageTime:
    """One stage of the way from a file to logits.

    Attributes:
        stage: ``decode``, ``fbank`` or ``model``.
        device: Where it ran.
        batch_size: Clips or windows at once.
        ms_per_10_s: Median time for 10 s of audio.
        spread_ms_per_10_s: Its interquartile range.
        times_real_time: Audio time / processing time.
    """

    stage: str
    device: str
    batch_size: int
    ms_per_10_s: float
    spread_ms_per_10_s: float
    times_real_time: float


@dataclass(frozen=True, slots=True)
class BenchmarkReport:
    """What `run_benchmark` returns.

    Attributes:
        machine: Where.
        model: What.
        max_abs_difference: Between our float32 logits and the reference's, where it took part.
        measurements: By data type, batch size and peer, in the order asked for.
        speed_ups: sdpa over eager, and ours over the reference.
        stages: Decode, fbank and model apart; the model as its fastest measurement.
    """

    machine: Machine
    model: ModelFacts
    max_abs_difference: float | None
    measurements: tuple[Measurement, ...]
    speed_ups: tuple[SpeedUp, ...]
    stages: tuple[StageTime, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; the order of its keys is part of the format."""
        return {
            "schema_version": SCHEMA_VERSION,
            "type": "benchmark",
            "machine": _record(self.machine),
            "model": _record(self.model),
            "flop_formula": FLOP_FORMULA,
            "max_abs_difference": self.max_abs_difference,
            "measurements": [_record(measurement) for measurement in self.measurements],
            "speed_ups": [speed_up.to_dict() for speed_up in self.speed_ups],
            "stages": [_record(stage) for stage in self.stages],
        }


def _record(part: Any) -> dict[str, Any]:
    """Return a dataclass as a dictionary, its floats at 6 significant digits: more than any clock holds."""
    return {key: float(f"{value:.6g}") if type(value) is float else value for key, value in asdict(part).items()}


def compare_measurements(measurements: Sequence[Measurement]) -> Iterator[SpeedUp]:
    """Yield sdpa over eager, then ours over the reference, pair by pair, for each cell that holds both."""
    medians = {(m.dtype, m.batch_size, m.peer): m.median_ms for m in measurements}
    cells = dict.fromkeys((m.dtype, m.batch_size) for m in measurements)
    ours = {m.peer: m for m in measurements if m.library == OURS}
    pairs = [(peer_name(OURS, m.engine, "eager"), name) for name, m in ours.items() if m.attn == "sdpa"]
    for attn in ATTN_IMPLEMENTATIONS:
        reference = peer_name(REFERENCE, "torch", attn)
        pairs += [(reference, name) for name, m in ours.items() if m.attn in (attn, None)]
    for baseline, peer in pairs:
        for cell in cells:
            if (*cell, baseline) in medians and (*cell, peer) in medians:
                baseline_ms, peer_ms = medians[*cell, baseline], medians[*cell, peer]
                yield SpeedUp(*cell, baseline, peer, baseline_ms, peer_ms, baseline_ms / peer_ms)


def describe_machine(device: torch.device, *, with_reference: bool, facts: Mapping[str, str] | None = None) -> Machine:
    """Say where this runs.

    Args:
        device: The model's.
        with_reference: Whether transformers takes part.
        facts: Of the engine, as in `ast_cli.engine.interface.Engine`; None for torch's.
    """
    versions = {"python": platform.python_version(), "torch": torch.__version__, "ast": __version__}
    facts = facts or {}
    versions |= {name: facts[name] for name in EXTRAS if name in facts}
    if with_reference:
        versions[REFERENCE] = importlib.metadata.version(REFERENCE)
    processor = cpu_name()
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor
    num_threads = int(facts.get("threads", torch.get_num_threads()))
    return Machine(platform.platform(), processor, str(device), device_name, num_threads, versions)


def describe_model(name: str, weights: str, num_parameters: int | None, config: ASTConfig) -> ModelFacts:
    """Say what ran; see `ModelFacts`."""
    return ModelFacts(
        name, weights, num_parameters, config.num_tokens, window_s(config), flop_per_window=flop_per_window(config)
    )


def window_s(config: ASTConfig) -> float:
    """Return the seconds of audio between windows laid side by side: 10.24 for 1024 frames."""
    return config.max_length * FRAME_SHIFT_S
