"""How fast a model runs here: attention, data type and batch size against each other, and every stage apart.

All contestants of a cell (one data type and batch size) take turns, round after round, so that a machine that is busy
or throttles treats them alike; medians are compared, and the spread is the interquartile range.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor, nn

from ast_cli import __version__
from ast_cli.audio.decode import open_audio
from ast_cli.audio.fbank.blocks import FbankBackend
from ast_cli.audio.fbank.mel_bank import FRAME_SHIFT_S
from ast_cli.audio.feature_extractor import ASTFeatureExtractor
from ast_cli.audio.front_end import FrontEndName, check_front_end_name
from ast_cli.benchmark.peers import (
    FLOP_FORMULA,
    OURS,
    REFERENCE,
    SEED,
    SIZES,
    Contestant,
    check_agreement,
    contestant_name,
    dtype_name,
    exported_contestant,
    flop_per_window,
    load_model,
    load_references,
    our_contestants,
    random_input_values,
    reference_contestants,
)
from ast_cli.engine.choice import resolve_engine
from ast_cli.engine.interface import cpu_name
from ast_cli.engine.options import EXTRAS, TORCH_ENGINES, EngineName, EngineOptions, exported_engine
from ast_cli.engine.torch.compile_engine import CompileEngine
from ast_cli.engine.torch.device import resolve_device, resolve_dtype_for
from ast_cli.errors import DeviceError, UsageError
from ast_cli.model.attention import ATTN_IMPLEMENTATIONS
from ast_cli.model.checkpoint import resolve_dtype
from ast_cli.model.config import ASTConfig
from ast_cli.model.transformer import ASTForAudioClassification
from ast_cli.results import SCHEMA_VERSION
from ast_cli.tagging.tagger import extractor_for

DEFAULT_BATCH_SIZES = (1, 2, 4, 8)  # those of the reference's own table
CPU_BATCH_SIZES = (1, 2)  # a window of base size takes seconds there, and larger batches gain nothing
MAX_BATCH_SIZE = 65_536
CELL_S = 3.0  # to spend on one contestant in one cell
MIN_REPEATS, MAX_REPEATS = 5, 100
SLOW_S, MIN_SLOW_REPEATS = 1.0, 3  # a pass this long needs fewer repeats: the clock's noise is small beside it
CPU_WARMUPS, WARMUPS = 1, 5  # a GPU also has to raise its clock and choose its kernels

CLIP_S = 10.0  # what a stage's time refers to
CLIP_FRAMES = 1024  # of a window that holds it
CLIP_SAMPLING_RATE = 44_100  # Hz; the commonest rate of files, so that decoding includes resampling
FBANK_BATCH_SIZE = 8


@dataclass(frozen=True, slots=True)
class BenchmarkOptions:
    """What to run against what.

    Attributes:
        model: ``base``, ``small`` or ``tiny`` with random weights; else a checkpoint as in
            ``ASTForAudioClassification.from_pretrained``, or a folder that ``ast export`` wrote. A folder of such a
            name is ``./base``.
        engine: What runs the model; ``auto`` for the fastest installed that offers every data type; None for torch,
            or what an exported model was exported for.
        attn_implementations: Which attentions, in the order they take turns; None for both, or the engine's own.
        dtypes: Names of data types; ``auto`` is float16 on CUDA and float32 elsewhere.
        batch_sizes: Windows at once; None for 1, 2, 4, 8, on a CPU 1, 2.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        compare: ``transformers`` to have the reference implementation take turns too.
        num_repeats: Timed passes of a contestant in a cell; None for as many as fit 3 s, 5 to 100, and 3 where a
            pass takes longer than 1 s.
        num_warmups: Passes before those; None for 1 on a CPU and 5 elsewhere.
        num_threads: Of the engine on the CPU; None for its own choice, or torch's where ``transformers`` takes part.
        front_end: ``audioset`` or ``speech-commands``, where a checkpoint brings no ``preprocessor_config.json`` and
            its labels do not tell either.
    """

    model: str = "base"
    engine: EngineName | None = None
    attn_implementations: tuple[str, ...] | None = None
    dtypes: tuple[str, ...] = ("auto",)
    batch_sizes: tuple[int, ...] | None = None
    device: str = "auto"
    compare: str | None = None
    num_repeats: int | None = None
    num_warmups: int | None = None
    num_threads: int | None = None
    front_end: FrontEndName | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be; names of devices and data types are checked where they are resolved."""
        EngineOptions(self.engine, num_threads=self.num_threads)
        check_front_end_name(self.front_end)
        attns = self.attn_implementations
        if attns is not None and (not attns or set(attns) - set(ATTN_IMPLEMENTATIONS)):
            chosen = ",".join(attns)
            raise UsageError(f"attn must be one or more of {', '.join(ATTN_IMPLEMENTATIONS)}, not {chosen!r}")
        if not self.dtypes:
            raise UsageError("dtype must name at least one data type")
        if self.batch_sizes is not None and not self.batch_sizes:
            raise UsageError("batch size must name at least one number")
        if self.compare not in (None, REFERENCE):
            raise UsageError(f"compare must be {REFERENCE}, not {self.compare!r}")
        for batch_size in self.batch_sizes or ():
            _check_count("batch size", batch_size, MAX_BATCH_SIZE)
        _check_count("repeats", self.num_repeats)
        _check_count("warmup", self.num_warmups)


def _check_count(name: str, value: int | None, most: int = 1_000_000) -> None:
    if value is not None and not 1 <= value <= most:
        raise UsageError(f"{name} must be from 1 to {most}, not {value}")


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
    """One contestant in one cell.

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
    def contestant(self) -> str:
        """``sdpa``; of other engines ``compile sdpa`` or ``openvino``; of the reference ``transformers sdpa``."""
        return contestant_name(self.library, self.engine, self.attn)


@dataclass(frozen=True, slots=True)
class SpeedUp:
    """Two contestants of one cell.

    Attributes:
        dtype: Of the cell.
        batch_size: Of the cell.
        baseline: The contestant that is compared with.
        contestant: The contestant in question.
        baseline_ms: Its median.
        contestant_ms: Its median.
        speed_up: Their ratio; above 1 the contestant is faster.
    """

    dtype: str
    batch_size: int
    baseline: str
    contestant: str
    baseline_ms: float
    contestant_ms: float
    speed_up: float


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
        measurements: By data type, batch size and contestant, in the order asked for.
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
            "speed_ups": [_record(speed_up) for speed_up in self.speed_ups],
            "stages": [_record(stage) for stage in self.stages],
        }


def _record(part: Any) -> dict[str, Any]:
    """Return a dataclass as a dictionary, its floats at 6 significant digits: more than any clock holds."""
    return {key: float(f"{value:.6g}") if type(value) is float else value for key, value in asdict(part).items()}


def run_benchmark(
    options: BenchmarkOptions, report_progress: Callable[[str], None] = lambda _what: None
) -> BenchmarkReport:
    """Time a model on this machine.

    Args:
        options: What to run against what.
        report_progress: Is told what comes next.

    Raises:
        UsageError: An option that cannot be, or no model of that name.
        DeviceError: A device that is not there, a device or data type that the engine does not offer, a batch that does
            not fit, or transformers that is not installed.
        EngineMissingError: The engine's package is not installed.
        AstError: The reference implementation gives other logits.
    """
    if options.model not in SIZES and exported_engine(options.model):
        return _benchmark_exported(options, report_progress)
    plan = _plan(options)
    with _threads(options.num_threads):
        report_progress(f"loading {options.model}")
        model = load_model(options.model)
        backend: FbankBackend = "native" if plan.engine in TORCH_ENGINES else "numpy"  # as `ast classify` chooses
        extractor = _extractor(options, model.config, backend)
        references = load_references(model, plan.reference_attns) if options.compare else {}
        difference = check_agreement(model, references, plan.settings[0], plan.device) if references else None
        measurements, facts = _measure(model, references, plan, options, report_progress)
        report_progress("timing decode and fbank")
        front_end = _front_end_stages(extractor, plan.device, options)
        stages = (*front_end, _model_stage(measurements, model.config, plan.device))
        return BenchmarkReport(
            describe_machine(plan.device, with_reference=bool(references), facts=facts),
            _describe_model(
                options.model,
                "random" if options.model in SIZES else "checkpoint",
                sum(parameter.numel() for parameter in model.parameters()),
                model.config,
            ),
            difference,
            tuple(measurements),
            tuple(compare_measurements(measurements)),
            stages,
        )


def _benchmark_exported(options: BenchmarkOptions, report_progress: Callable[[str], None]) -> BenchmarkReport:
    """Time a model that ``ast export`` wrote, as it is: its engine and its data type are its own.

    Raises:
        UsageError: Another engine, data type or attention, or a comparison, which needs the weights.
        EngineMissingError, CheckpointError, DeviceError: As `ast_cli.engine.choice.load_engine`.
    """
    asked = (options.dtypes != ("auto",), options.attn_implementations is not None, options.compare is not None)
    for option, is_asked in zip(("--dtype", "--attn", "--compare"), asked, strict=True):
        if is_asked:
            raise UsageError(f"{options.model} is an exported model, which is timed as it is: leave out {option}")
    report_progress(f"loading {options.model}")
    settings = EngineOptions(options.engine, options.device, num_threads=options.num_threads)
    contestant, config, dtype = exported_contestant(options.model, settings)
    extractor = _extractor(options, config, "numpy")
    cpu = torch.device("cpu")
    measurements = []
    for batch_size in dict.fromkeys(options.batch_sizes or CPU_BATCH_SIZES):
        report_progress(f"timing {dtype}, batch size {batch_size}")
        measurements += _measure_cell([contestant], config, cpu, dtype, batch_size, options)
    report_progress("timing decode and fbank")
    stages = (*_front_end_stages(extractor, cpu, options), _model_stage(measurements, config, cpu))
    machine = describe_machine(cpu, with_reference=False, facts=contestant.facts)
    facts = _describe_model(options.model, "exported", None, config)
    return BenchmarkReport(machine, facts, None, tuple(measurements), (), stages)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the options come to on this machine.

    Attributes:
        engine: What runs our model.
        attns: Of our model; None for the engine's own.
        device: Where everything runs.
        settings: How our model is run, one for each data type.
        batch_sizes: Windows at once.
    """

    engine: str
    attns: tuple[str | None, ...]
    device: torch.device
    settings: tuple[EngineOptions, ...]
    batch_sizes: tuple[int, ...]

    @property
    def reference_attns(self) -> tuple[str, ...]:
        """Of the reference: the same, or its fastest."""
        return tuple(attn or "sdpa" for attn in self.attns)


def _plan(options: BenchmarkOptions) -> _Plan:
    """Settle what is left to the machine.

    Raises:
        UsageError, DeviceError, EngineMissingError: As `run_benchmark`.
    """
    engine = _engine_name(options)
    is_torch = engine in TORCH_ENGINES
    if not is_torch and options.attn_implementations is not None:
        raise UsageError(f"the {engine} engine has no choice of attention: leave out --attn, or use --engine torch")
    attns: Iterable[str | None] = (options.attn_implementations or ATTN_IMPLEMENTATIONS) if is_torch else (None,)
    device = resolve_device(options.device) if is_torch else torch.device("cpu")
    dtypes = dict.fromkeys(_resolve_dtype(name, device, is_torch=is_torch) for name in options.dtypes)
    num_threads = options.num_threads or (torch.get_num_threads() if options.compare else None)
    where = str(device) if is_torch else options.device  # another device than the CPU is for the engine to refuse
    settings = [EngineOptions(engine, where, name, num_threads=num_threads) for name in map(dtype_name, dtypes)]
    batch_sizes = options.batch_sizes or (CPU_BATCH_SIZES if device.type == "cpu" else DEFAULT_BATCH_SIZES)
    return _Plan(engine, tuple(dict.fromkeys(attns)), device, tuple(settings), tuple(dict.fromkeys(batch_sizes)))


def _engine_name(options: BenchmarkOptions) -> EngineName:
    """Return the engine to measure, which is installed; one for all data types, so that they compare."""
    found = {resolve_engine(EngineOptions(options.engine, options.device, dtype)) for dtype in options.dtypes}
    return found.pop() if len(found) == 1 else "torch"


def _resolve_dtype(name: str, device: torch.device, *, is_torch: bool) -> torch.dtype:
    """Return the data type of a name; that float16 is slow on a CPU is torch's warning, other engines refuse it."""
    if is_torch:
        return resolve_dtype_for(name, device)
    return torch.float32 if name == "auto" else resolve_dtype(name)


def _measure(
    model: ASTForAudioClassification,
    references: dict[str, nn.Module],
    plan: _Plan,
    options: BenchmarkOptions,
    report_progress: Callable[[str], None],
) -> tuple[list[Measurement], dict[str, str]]:
    """Time every cell; return the measurements, and what the engine's speed depends on."""
    ours: Iterable[list[Contestant]] = (
        our_contestants(model, plan.attns, setting, report_progress) for setting in plan.settings
    )
    if plan.engine not in TORCH_ENGINES:
        ours = list(ours)  # all of them before anything is timed: the engine may refuse a data type
    measurements: list[Measurement] = []
    facts: dict[str, str] = {}
    for setting, contestants in zip(plan.settings, ours, strict=True):
        facts = contestants[0].facts
        dtype = resolve_dtype(setting.dtype)
        everyone = [*contestants, *reference_contestants(references, model.config, plan.device, dtype)]
        for batch_size in plan.batch_sizes:
            report_progress(f"timing {setting.dtype}, batch size {batch_size}")
            measurements += _measure_cell(everyone, model.config, plan.device, setting.dtype, batch_size, options)
    return measurements, facts


def time_alternating(
    steps: Sequence[Callable[[], object]],
    device: torch.device,
    num_repeats: int | None = None,
    num_warmups: int | None = None,
) -> list[list[float]]:
    """Time steps in turn, round after round.

    Args:
        steps: What to time.
        device: Whose queue to wait for before and after each step.
        num_repeats: Rounds; None for as many as fit `CELL_S` seconds a step.
        num_warmups: Untimed rounds before those, at least 1; None for what suits the device.

    Returns:
        Seconds, one list of ``num_repeats`` a step.
    """
    latest_s = [0.0]
    for _ in range(num_warmups or (CPU_WARMUPS if device.type == "cpu" else WARMUPS)):
        latest_s = [_time_once(step, device) for step in steps]
    num_repeats = num_repeats or repeats_that_fit(statistics.mean(latest_s))
    rounds = [[_time_once(step, device) for step in steps] for _ in range(num_repeats)]
    return [list(times_s) for times_s in zip(*rounds, strict=True)]


def _time_once(step: Callable[[], object], device: torch.device) -> float:
    """Return the seconds one step takes, from an idle device to an idle device."""
    synchronize(device)
    start = time.perf_counter()
    step()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait for what a GPU still has to do: its kernels are only queued by the call that asks for them."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def repeats_that_fit(pass_s: float) -> int:
    """Return how many passes of so many seconds to time."""
    least = MIN_SLOW_REPEATS if pass_s > SLOW_S else MIN_REPEATS
    return max(least, min(MAX_REPEATS, int(CELL_S / max(pass_s, 1e-9))))


def median_and_spread_ms(times_s: Sequence[float]) -> tuple[float, float]:
    """Return the median and the interquartile range, in milliseconds, of times in seconds."""
    if len(times_s) == 1:
        return times_s[0] * 1000, 0.0
    first, median, third = statistics.quantiles(times_s, n=4, method="inclusive")
    return median * 1000, (third - first) * 1000


def _measure_cell(
    contestants: Sequence[Contestant],
    config: ASTConfig,
    device: torch.device,
    dtype: str,
    batch_size: int,
    options: BenchmarkOptions,
) -> list[Measurement]:
    """Time all contestants on one batch."""
    try:
        input_values = random_input_values(config, batch_size, torch.device("cpu"), torch.float32)
        steps = [contestant.step_for(input_values) for contestant in contestants]
        for contestant, step in zip(contestants, steps, strict=True):
            if contestant.engine == CompileEngine.name:
                step()  # compiles, which is no measure of how many passes fit
        times_s = time_alternating(steps, device, options.num_repeats, options.num_warmups)
    except (RuntimeError, MemoryError) as error:
        is_memory = isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)
        if not is_memory:
            raise
        raise DeviceError(f"a batch of {batch_size} does not fit into memory; choose a smaller --batch-size") from error
    return [
        _measurement(contestant, times, dtype, batch_size, window_s(config))
        for contestant, times in zip(contestants, times_s, strict=True)
    ]


def _measurement(
    contestant: Contestant, times_s: Sequence[float], dtype: str, batch_size: int, audio_s: float
) -> Measurement:
    """Turn seconds a pass into what is reported; ``audio_s`` is the length of one window."""
    median_ms, spread_ms = median_and_spread_ms(times_s)
    windows_per_s = batch_size / (median_ms / 1000)
    return Measurement(
        contestant.library,
        contestant.engine,
        contestant.attn,
        dtype,
        batch_size,
        len(times_s),
        median_ms,
        spread_ms,
        windows_per_s,
        real_time_factor=1 / (windows_per_s * audio_s),
        tflop_per_s=windows_per_s * contestant.flop_per_window / 1e12,
    )


def compare_measurements(measurements: Sequence[Measurement]) -> Iterator[SpeedUp]:
    """Yield sdpa over eager, then ours over the reference, pair by pair, for each cell that holds both."""
    medians = {(m.dtype, m.batch_size, m.contestant): m.median_ms for m in measurements}
    cells = dict.fromkeys((m.dtype, m.batch_size) for m in measurements)
    ours = {m.contestant: m for m in measurements if m.library == OURS}
    pairs = [(contestant_name(OURS, m.engine, "eager"), name) for name, m in ours.items() if m.attn == "sdpa"]
    for attn in ATTN_IMPLEMENTATIONS:
        reference = contestant_name(REFERENCE, "torch", attn)
        pairs += [(reference, name) for name, m in ours.items() if m.attn in (attn, None)]
    for baseline, contestant in pairs:
        for cell in cells:
            if (*cell, baseline) in medians and (*cell, contestant) in medians:
                baseline_ms, contestant_ms = medians[*cell, baseline], medians[*cell, contestant]
                yield SpeedUp(*cell, baseline, contestant, baseline_ms, contestant_ms, baseline_ms / contestant_ms)


def _extractor(options: BenchmarkOptions, config: ASTConfig, fbank_backend: FbankBackend) -> ASTFeatureExtractor:
    """Return the model's feature extractor, with a window that holds the whole clip.

    Raises:
        CheckpointError: As `ast_cli.tagging.tagger.extractor_for`.
    """
    if options.model in SIZES:
        own = ASTFeatureExtractor(num_mel_bins=config.num_mel_bins)
    else:
        own = extractor_for(options.model, config, front_end=options.front_end)
    return ASTFeatureExtractor.from_dict({**own.to_dict(), "max_length": CLIP_FRAMES}, fbank_backend=fbank_backend)


def _front_end_stages(
    extractor: ASTFeatureExtractor, device: torch.device, options: BenchmarkOptions
) -> Iterator[StageTime]:
    """Time reading a compressed file, and the filter bank of one clip and of several."""
    cpu = torch.device("cpu")
    clip = _generate_clip(CLIP_SAMPLING_RATE)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clip.flac"
        soundfile.write(file, clip, CLIP_SAMPLING_RATE)
        yield _time_stage("decode", partial(_decode, file), cpu, 1, options)
    waveform = _generate_clip(extractor.sampling_rate).mean(axis=1, dtype=np.float32)
    for batch_size in (1, FBANK_BATCH_SIZE):
        clips = [waveform] * batch_size
        yield _time_stage("fbank", partial(extractor, clips, extractor.sampling_rate, "pt"), cpu, batch_size, options)
    if device.type == "cuda":
        waveforms = torch.from_numpy(waveform).to(device).expand(FBANK_BATCH_SIZE, -1).contiguous()
        on_device = partial(_fbank_on_device, extractor, waveforms)
        yield _time_stage("fbank", on_device, device, FBANK_BATCH_SIZE, options)


def _generate_clip(sampling_rate: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a stereo clip, shape (num_samples, 2): tones in noise, which compress about as music does."""
    time_s = np.arange(int(CLIP_S * sampling_rate)) / sampling_rate
    tones = np.stack([np.sin(2 * np.pi * pitch_hz * time_s) for pitch_hz in (440.0, 554.4)], axis=1)
    noise = np.random.default_rng(SEED).standard_normal(tones.shape)
    return (0.3 * tones + 0.03 * noise).astype(np.float32)


def _decode(file: Path) -> int:
    """Read a file as the tagger does and return its number of samples."""
    with open_audio(file) as stream:
        return sum(block.size for block in stream)


def _fbank_on_device(extractor: ASTFeatureExtractor, waveforms: Tensor) -> Tensor:
    """Featurise waveforms (batch, num_samples) where they are."""
    input_values: Tensor = extractor.input_values(list(extractor.fbank(waveforms)))
    return input_values


def _time_stage(
    stage: str, step: Callable[[], object], device: torch.device, batch_size: int, options: BenchmarkOptions
) -> StageTime:
    """Time one step that handles ``batch_size`` clips of `CLIP_S` seconds."""
    times_s = time_alternating([step], device, options.num_repeats, options.num_warmups)[0]
    return _stage_time(stage, device, batch_size, *median_and_spread_ms(times_s), batch_size * CLIP_S)


def _model_stage(measurements: Sequence[Measurement], config: ASTConfig, device: torch.device) -> StageTime:
    """Return our fastest measurement as a stage."""
    best = max((m for m in measurements if m.library == OURS), key=lambda m: m.windows_per_s)
    audio_s = best.batch_size * window_s(config)
    return _stage_time("model", device, best.batch_size, best.median_ms, best.spread_ms, audio_s)


def _stage_time(
    stage: str, device: torch.device, batch_size: int, median_ms: float, spread_ms: float, audio_s: float
) -> StageTime:
    """Scale the times of ``audio_s`` seconds of audio to 10."""
    scale = 10 / audio_s
    return StageTime(
        stage, str(device), batch_size, median_ms * scale, spread_ms * scale, times_real_time=audio_s * 1000 / median_ms
    )


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


def _describe_model(name: str, weights: str, num_parameters: int | None, config: ASTConfig) -> ModelFacts:
    return ModelFacts(
        name, weights, num_parameters, config.num_tokens, window_s(config), flop_per_window=flop_per_window(config)
    )


def window_s(config: ASTConfig) -> float:
    """Return the seconds of audio between windows laid side by side: 10.24 for 1024 frames."""
    return config.max_length * FRAME_SHIFT_S


@contextlib.contextmanager
def _threads(num_threads: int | None) -> Iterator[None]:
    """Let torch use so many threads on the CPU, and as many as before afterwards."""
    before = torch.get_num_threads()
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
