"""Measure the speed of a model by attention, data type and batch size, and of every processing stage.

All peers of a cell (one data type and batch size) take turns, round after round, so that a busy or throttling machine
affects all of them equally. Times are medians, and the spread is the interquartile range.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ast_cli.audio.fbank.filter_bank import FbankBackend
from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.audio.front_ends.kaldi import ASTFeatureExtractor
from ast_cli.benchmark.options import BenchmarkOptions
from ast_cli.benchmark.peers import (
    SIZES,
    Peer,
    check_agreement,
    dtype_name,
    exported_peer,
    load_model,
    load_references,
    own_peers,
    random_input_values,
    reference_peers,
)
from ast_cli.benchmark.report import (
    BenchmarkReport,
    Measurement,
    compare_measurements,
    describe_machine,
    describe_model,
)
from ast_cli.benchmark.stages import CLIP_S, front_end_stages, model_stage
from ast_cli.benchmark.timing import median_and_spread_ms, time_alternating
from ast_cli.engine.choice import resolve_engine
from ast_cli.engine.options import TORCH_ENGINES, EngineName, EngineOptions, exported_engine
from ast_cli.engine.torch.compile_engine import CompileEngine
from ast_cli.engine.torch.device import resolve_device, resolve_dtype_for
from ast_cli.errors import DeviceError, UsageError
from ast_cli.model.attention import ATTN_IMPLEMENTATIONS
from ast_cli.model.checkpoint import resolve_dtype
from ast_cli.model.config import ASTConfig
from ast_cli.model.transformer import ASTForAudioClassification
from ast_cli.tagging.tagger import extractor_for

DEFAULT_BATCH_SIZES = (1, 2, 4, 8)  # those of the table in the documentation of transformers
CPU_BATCH_SIZES = (1, 2)  # a window takes seconds there at base size, and larger batches gain nothing


def run_benchmark(
    options: BenchmarkOptions, report_progress: Callable[[str], None] = lambda _what: None
) -> BenchmarkReport:
    """Measure the speed of a model on this machine.

    Args:
        options: Model, and what to compare.
        report_progress: Callback for messages about the next step.

    Raises:
        UsageError: If an option is invalid or there is no model of that name.
        DeviceError: If the device does not exist, the engine does not support the device or data type, a batch does not
            fit into memory, or transformers is not installed.
        EngineMissingError: If the package of the engine is not installed.
        AstError: If transformers computes different logits.
    """
    if options.model not in SIZES and exported_engine(options.model):
        return _benchmark_exported(options, report_progress)
    plan = _plan(options)
    with _threads(options.num_threads):
        report_progress(f"loading {options.model}")
        model = load_model(options.model)
        backend: FbankBackend = "native" if plan.engine in TORCH_ENGINES else "numpy"  # as in `ast classify`
        extractor, window_s = _front_end(options, model.config, backend)
        references = load_references(model, plan.reference_attns) if options.compare else {}
        difference = check_agreement(model, references, plan.settings[0], plan.device) if references else None
        measurements, facts = _measure(model, references, plan, options, window_s, report_progress)
        report_progress("timing decode and fbank")
        front_end = front_end_stages(extractor, plan.device, options)
        stages = (*front_end, model_stage(measurements, window_s, plan.device))
        return BenchmarkReport(
            describe_machine(plan.device, with_reference=bool(references), facts=facts),
            describe_model(
                options.model,
                "random" if options.model in SIZES else "checkpoint",
                sum(parameter.numel() for parameter in model.parameters()),
                model.config,
                window_s,
            ),
            difference,
            tuple(measurements),
            tuple(compare_measurements(measurements)),
            stages,
        )


def _benchmark_exported(options: BenchmarkOptions, report_progress: Callable[[str], None]) -> BenchmarkReport:
    """Measure a model written by ``ast export``, with the engine and data type that it was exported for.

    Raises:
        UsageError: If another engine, a data type, an attention implementation or a comparison is requested.
        EngineMissingError, CheckpointError, DeviceError: As in `ast_cli.engine.choice.load_engine`.
    """
    given = (options.dtypes != ("auto",), options.attn_implementations is not None, options.compare is not None)
    for option, is_given in zip(("--dtype", "--attn", "--compare"), given, strict=True):
        if is_given:
            raise UsageError(f"{options.model}: an exported model is measured without changes; leave out {option}")
    report_progress(f"loading {options.model}")
    settings = EngineOptions(options.engine or "auto", options.device, num_threads=options.num_threads)
    peer, config, dtype = exported_peer(options.model, settings)
    extractor, window_s = _front_end(options, config, "numpy")
    cpu = torch.device("cpu")
    measurements = []
    for batch_size in dict.fromkeys(options.batch_sizes or CPU_BATCH_SIZES):
        report_progress(f"timing {dtype}, batch size {batch_size}")
        measurements += _measure_cell([peer], config, cpu, dtype, batch_size, options, window_s)
    report_progress("timing decode and fbank")
    stages = (*front_end_stages(extractor, cpu, options), model_stage(measurements, window_s, cpu))
    machine = describe_machine(cpu, with_reference=False, facts=peer.facts)
    facts = describe_model(options.model, "exported", None, config, window_s)
    return BenchmarkReport(machine, facts, None, tuple(measurements), (), stages)


@dataclass(frozen=True, slots=True)
class _Plan:
    """The options with all defaults resolved for this machine.

    Attributes:
        engine: Name of the engine for our model.
        attns: Attention implementations of our model; None for an engine without a choice.
        device: Device of all models.
        settings: Engine options for our model, one per data type.
        batch_sizes: Numbers of windows per pass.
    """

    engine: str
    attns: tuple[str | None, ...]
    device: torch.device
    settings: tuple[EngineOptions, ...]
    batch_sizes: tuple[int, ...]

    @property
    def reference_attns(self) -> tuple[str, ...]:
        """Attention implementations of transformers: the same, or sdpa if our engine has no choice."""
        return tuple(attn or "sdpa" for attn in self.attns)


def _plan(options: BenchmarkOptions) -> _Plan:
    """Resolve the defaults of the options for this machine.

    Raises:
        UsageError, DeviceError, EngineMissingError: As in `run_benchmark`.
    """
    engine = _engine_name(options)
    is_torch = engine in TORCH_ENGINES
    if not is_torch and options.attn_implementations is not None:
        raise UsageError(f"the {engine} engine has no choice of attention: leave out --attn, or use --engine torch")
    attns: Iterable[str | None] = (options.attn_implementations or ATTN_IMPLEMENTATIONS) if is_torch else (None,)
    device = resolve_device(options.device) if is_torch else torch.device("cpu")
    dtypes = dict.fromkeys(_resolve_dtype(name, device, is_torch=is_torch) for name in options.dtypes)
    num_threads = options.num_threads or (torch.get_num_threads() if options.compare else None)
    where = str(device) if is_torch else options.device  # the engine rejects devices other than the CPU
    settings = [EngineOptions(engine, where, name, num_threads=num_threads) for name in map(dtype_name, dtypes)]
    batch_sizes = options.batch_sizes or (CPU_BATCH_SIZES if device.type == "cpu" else DEFAULT_BATCH_SIZES)
    return _Plan(engine, tuple(dict.fromkeys(attns)), device, tuple(settings), tuple(dict.fromkeys(batch_sizes)))


def _engine_name(options: BenchmarkOptions) -> EngineName:
    """Return the name of the installed engine to measure; it is the same for all data types, so that they compare."""
    if options.engine is None:  # only torch has attention implementations to compare
        return "torch"
    found = {resolve_engine(EngineOptions(options.engine, options.device, dtype)) for dtype in options.dtypes}
    return found.pop() if len(found) == 1 else "torch"


def _resolve_dtype(name: str, device: torch.device, *, is_torch: bool) -> torch.dtype:
    """Return the data type for a name, with torch's warning about float16 on a CPU, which other engines reject."""
    if is_torch:
        return resolve_dtype_for(name, device)
    return torch.float32 if name == "auto" else resolve_dtype(name)


def _measure(
    model: ASTForAudioClassification,
    references: dict[str, nn.Module],
    plan: _Plan,
    options: BenchmarkOptions,
    window_s: float,
    report_progress: Callable[[str], None],
) -> tuple[list[Measurement], dict[str, str]]:
    """Time every cell; return the measurements and the facts of the engine."""
    ours: Iterable[list[Peer]] = (own_peers(model, plan.attns, setting, report_progress) for setting in plan.settings)
    if plan.engine not in TORCH_ENGINES:
        ours = list(ours)  # create all engines before timing, as one may reject its data type
    measurements: list[Measurement] = []
    facts: dict[str, str] = {}
    for setting, peers in zip(plan.settings, ours, strict=True):
        facts = peers[0].facts
        dtype = resolve_dtype(setting.dtype)
        all_peers = [*peers, *reference_peers(references, model.config, plan.device, dtype)]
        for batch_size in plan.batch_sizes:
            report_progress(f"timing {setting.dtype}, batch size {batch_size}")
            measurements += _measure_cell(
                all_peers, model.config, plan.device, setting.dtype, batch_size, options, window_s
            )
    return measurements, facts


def _measure_cell(
    peers: Sequence[Peer],
    config: ASTConfig,
    device: torch.device,
    dtype: str,
    batch_size: int,
    options: BenchmarkOptions,
    window_s: float,
) -> list[Measurement]:
    """Time all peers on batches of one size, of windows of ``window_s`` seconds.

    Raises:
        DeviceError: If a batch does not fit into memory.
    """
    try:
        input_values = random_input_values(config, batch_size, torch.device("cpu"), torch.float32)
        steps = [peer.step_for(input_values) for peer in peers]
        for peer, step in zip(peers, steps, strict=True):
            if peer.engine == CompileEngine.name:
                step()  # compiles; its time must not influence the number of repeats
        times_s = time_alternating(steps, device, options.num_repeats, options.num_warmups)
    except (RuntimeError, MemoryError) as error:
        is_memory = isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)
        if not is_memory:
            raise
        raise DeviceError(f"a batch of {batch_size} does not fit into memory; choose a smaller --batch-size") from error
    return [_measurement(peer, times, dtype, batch_size, window_s) for peer, times in zip(peers, times_s, strict=True)]


def _measurement(peer: Peer, times_s: Sequence[float], dtype: str, batch_size: int, audio_s: float) -> Measurement:
    """Return the measurement for the times of a peer in seconds; ``audio_s`` is the length of one window."""
    median_ms, spread_ms = median_and_spread_ms(times_s)
    windows_per_s = batch_size / (median_ms / 1000)
    return Measurement(
        peer.library,
        peer.engine,
        peer.attn,
        dtype,
        batch_size,
        len(times_s),
        median_ms,
        spread_ms,
        windows_per_s,
        real_time_factor=1 / (windows_per_s * audio_s),
        tflop_per_s=windows_per_s * peer.flop_per_window / 1e12,
    )


def _front_end(
    options: BenchmarkOptions, config: ASTConfig, fbank_backend: FbankBackend
) -> tuple[FeatureExtractor, float]:
    """Return the model's feature extractor, with a window that contains the whole clip, and its own window in seconds.

    Raises:
        CheckpointError: As in `ast_cli.tagging.tagger.extractor_for`.
    """
    own: FeatureExtractor
    if options.model in SIZES:
        own = ASTFeatureExtractor(num_mel_bins=config.num_mel_bins, max_length=config.max_length)
    else:
        own = extractor_for(options.model, config, front_end=options.front_end)
    with_clip = {**own.to_dict(), "max_length": math.ceil(CLIP_S * own.frames_per_s) + 1}
    return FeatureExtractor.from_dict(with_clip, fbank_backend=fbank_backend), own.window_s


@contextlib.contextmanager
def _threads(num_threads: int | None) -> Iterator[None]:
    """Set the number of CPU threads of torch within a ``with`` block, and restore it afterwards."""
    before = torch.get_num_threads()
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
