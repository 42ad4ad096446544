"""The results of a benchmark."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ast_cli import __version__
from ast_cli.benchmark.peers import OURS, REFERENCE, peer_name
from ast_cli.engine.interface import cpu_name
from ast_cli.engine.options import EXTRAS
from ast_cli.model.attention import ATTN_IMPLEMENTATIONS
from ast_cli.model.config import ASTConfig
from ast_cli.model.operations import FLOP_FORMULA, flop_per_window
from ast_cli.results import SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine and the software that the numbers were measured with.

    Attributes:
        platform: Operating system and architecture.
        processor: Name of the processor.
        device: Device that ran the model, such as ``cpu`` or ``cuda:0``.
        device_name: Name of the GPU, or of the processor if the model ran on the CPU.
        num_threads: Number of CPU threads of the engine.
        versions: Versions of Python, torch and this package, and of the engine's package and transformers if used.
    """

    platform: str
    processor: str
    device: str
    device_name: str
    num_threads: int
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The model that was measured.

    Attributes:
        name: Name of the model, as given in the options.
        weights: Origin of the weights: ``random``, ``checkpoint`` or ``exported``. Times depend on it only for
            exported models, which may be quantized.
        num_parameters: Number of parameters; None for an exported model, whose file does not contain it.
        num_tokens: Length of the sequence.
        window_s: Audio that one window covers, in seconds.
        flop_per_window: Floating-point operations per window, counted by ``FLOP_FORMULA``.
    """

    name: str
    weights: str
    num_parameters: int | None
    num_tokens: int
    window_s: float
    flop_per_window: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """The times of one peer in one cell, which is a data type and a batch size.

    Attributes:
        library: Implementation of the model, ``ast`` or ``transformers``.
        engine: Name of the engine that ran the model.
        attn: Attention implementation, ``sdpa`` or ``eager``; None if the engine has no choice.
        dtype: Data type of weights and inputs.
        batch_size: Number of windows per pass.
        num_repeats: Number of timed passes.
        median_ms: Median time of a pass, in milliseconds.
        spread_ms: Interquartile range of the times, in milliseconds.
        windows_per_s: Windows per second, from the median.
        real_time_factor: Processing time / audio time.
        tflop_per_s: Floating-point operations per second, in units of 1e12, counted by ``FLOP_FORMULA``.
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
        """Name of the peer, such as ``sdpa`` (torch), ``compile sdpa``, ``openvino`` or ``transformers sdpa``."""
        return peer_name(self.library, self.engine, self.attn)


@dataclass(frozen=True, slots=True)
class SpeedUp:
    """A comparison of two peers in one cell.

    Attributes:
        dtype: Data type of the cell.
        batch_size: Batch size of the cell.
        baseline: Name of the peer to compare with.
        peer: Name of the peer to compare.
        baseline_ms: Median time of a pass of the baseline, in milliseconds.
        peer_ms: Median time of a pass of the peer, in milliseconds.
        speed_up: ``baseline_ms / peer_ms``; the peer is faster if it is above 1.
    """

    dtype: str
    batch_size: int
    baseline: str
    peer: str
    baseline_ms: float
    peer_ms: float
    speed_up: float

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, with the keys of version 0.1, where ``peer`` was called ``contestant``."""
        return {name.replace("peer", "contestant"): value for name, value in _record(self).items()}


@dataclass(frozen=True, slots=True)
class StageTime:
    """The time of one processing stage between file and logits.

    Attributes:
        stage: Name of the stage: ``decode``, ``fbank`` or ``model``.
        device: Device that ran the stage.
        batch_size: Number of clips or windows per pass.
        ms_per_10_s: Median time for 10 s of audio, in milliseconds.
        spread_ms_per_10_s: Interquartile range of that time, in milliseconds.
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
    """The report of `run_benchmark`.

    Attributes:
        machine: Machine and software.
        model: Model that was measured.
        max_abs_difference: Largest difference between our float32 logits and those of transformers; None without it.
        measurements: Measurements by data type, batch size and peer, in the order of the options.
        speed_ups: Comparisons of sdpa with eager, and of our model with transformers.
        stages: Times of decoding, filter bank and model; the model is represented by its fastest measurement.
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
    """Return a dataclass as a dictionary, with floats at 6 significant digits, more than clocks resolve."""
    return {key: float(f"{value:.6g}") if type(value) is float else value for key, value in asdict(part).items()}


def compare_measurements(measurements: Sequence[Measurement]) -> Iterator[SpeedUp]:
    """Yield comparisons of sdpa with eager, then of ours with transformers, for each cell that contains both."""
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
    """Return the description of this machine.

    Args:
        device: Device of the model.
        with_reference: Whether transformers is measured too.
        facts: Facts of the engine, as in `ast_cli.engine.interface.Engine`; None for those of torch.
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


def describe_model(
    name: str, weights: str, num_parameters: int | None, config: ASTConfig, window_s: float
) -> ModelFacts:
    """Return the description of a model; see `ModelFacts`."""
    return ModelFacts(
        name, weights, num_parameters, config.num_tokens, window_s, flop_per_window=flop_per_window(config)
    )
