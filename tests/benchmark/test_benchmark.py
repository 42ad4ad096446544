from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine.tiny_engines import int8_name
from installed import needs_transformers
from tiny_models import small_config
from torch.utils.flop_counter import FlopCounterMode

from ast_cli import ASTFeatureExtractor
from ast_cli.benchmark import peers, run, stages, timing
from ast_cli.benchmark.options import BenchmarkOptions
from ast_cli.benchmark.report import BenchmarkReport, Measurement, SpeedUp, compare_measurements
from ast_cli.benchmark.run import run_benchmark
from ast_cli.errors import AstWarning, DeviceError, UsageError
from ast_cli.export import ExportOptions, export_model
from ast_cli.model import operations
from ast_cli.model.config import ASTConfig
from ast_cli.model.transformer import ASTForAudioClassification

CPU = torch.device("cpu")
MINI = small_config(
    hidden_size=32,
    num_hidden_layers=3,
    intermediate_size=96,
    max_length=128,
    num_mel_bins=64,
    frequency_stride=12,
    time_stride=9,
    num_labels=7,
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def mini_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("mini")
    peers.random_model(MINI).save_pretrained(folder)
    ASTFeatureExtractor(num_mel_bins=MINI.num_mel_bins, max_length=MINI.max_length).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def mini_report(mini_folder: str) -> BenchmarkReport:
    return run_benchmark(BenchmarkOptions(mini_folder, batch_sizes=(1, 3), num_repeats=2, num_warmups=1, device="cpu"))


def once(model: str, **changes: Any) -> BenchmarkOptions:
    """Return options for one pass over one window with one attention implementation."""
    values = {"attn_implementations": ("sdpa",), "batch_sizes": (1,), "device": "cpu"}
    return BenchmarkOptions(model, **{**values, "num_repeats": 1, "num_warmups": 1, **changes})


# --- operations


@pytest.mark.parametrize("trimmed", [True, False])
def test_flop_formula_agrees_with_torchs_counter(trimmed: bool) -> None:
    model = ASTForAudioClassification(MINI, "eager").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():  # torch 2.4 counts nothing in inference_mode
        # the last block is not trimmed if all hidden states are requested
        model(torch.zeros(1, 128, 64), output_hidden_states=not trimmed)
    # 1 %: the formula leaves out all but matrix products, and torch counts those alone too
    assert operations.flop_per_window(MINI, trimmed=trimmed) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_flop_of_base_size_is_twice_the_published_130_5_gmac_and_8_percent_less_trimmed() -> None:
    base = peers.size_config("base")
    whole, trimmed = (operations.flop_per_window(base, trimmed=trimmed) for trimmed in (False, True))
    assert whole / 2e9 == pytest.approx(130.5, abs=0.05)  # as many digits as the reference figure holds
    assert 1 - trimmed / whole == pytest.approx(0.083, abs=0.0005)


# --- the clock


def test_median_and_spread_are_in_milliseconds_and_the_spread_is_the_interquartile_range() -> None:
    median_ms, spread_ms = timing.median_and_spread_ms([0.001, 0.002, 0.004, 0.008, 0.1])
    assert (median_ms, spread_ms) == pytest.approx((4.0, 6.0))  # quartiles 2 and 8; the slow pass does not count


def test_one_pass_has_no_spread() -> None:
    assert timing.median_and_spread_ms([0.25]) == (250.0, 0.0)


@pytest.mark.parametrize(
    ("pass_s", "repeats"), [(1e-6, 100), (0.05, 60), (0.5, 6), (0.9, 5), (1.0, 5), (1.01, 3), (60.0, 3)]
)
def test_as_many_repeats_as_fit_three_seconds_within_limits(pass_s: float, repeats: int) -> None:
    assert timing.repeats_that_fit(pass_s) == repeats


def test_peers_take_turns_after_the_warm_up() -> None:
    calls: list[str] = []
    steps = [lambda: calls.append("a"), lambda: calls.append("b")]
    times_s = timing.time_alternating(steps, CPU, num_repeats=3, num_warmups=2)
    assert calls == ["a", "b"] * (2 + 3)
    assert [len(times) for times in times_s] == [3, 3]
    assert all(time_s > 0 for times in times_s for time_s in times)


def test_times_belong_to_their_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def step(duration_s: float) -> None:
        now[0] += duration_s

    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    times_s = timing.time_alternating([lambda: step(1.0), lambda: step(2.0)], CPU, num_repeats=2)
    assert times_s == [[1.0, 1.0], [2.0, 2.0]]


def test_the_default_number_of_repeats_follows_from_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def step() -> None:
        now[0] += 0.25

    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert len(timing.time_alternating([step], CPU)[0]) == 12  # 3 s / 0.25 s


def test_a_gpu_is_idle_before_and_after_each_timed_step(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: calls.append(f"wait for {device}"))
    timing.time_alternating([lambda: calls.append("step")], torch.device("cuda", 1), num_repeats=1, num_warmups=1)
    assert calls == ["wait for cuda:1", "step", "wait for cuda:1"] * 2


def test_a_cpu_waits_for_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _device: pytest.fail("there is nothing to wait for"))
    timing.synchronize(CPU)


# --- a run


def test_every_cell_is_measured_in_the_order_of_the_options(mini_report: BenchmarkReport) -> None:
    cells = [(m.library, m.engine, m.dtype, m.batch_size, m.peer) for m in mini_report.measurements]
    assert cells == [
        ("ast", "torch", "float32", 1, "sdpa"),
        ("ast", "torch", "float32", 1, "eager"),
        ("ast", "torch", "float32", 3, "sdpa"),
        ("ast", "torch", "float32", 3, "eager"),
    ]
    assert {m.num_repeats for m in mini_report.measurements} == {2}


def test_rates_follow_from_the_median(mini_report: BenchmarkReport) -> None:
    for m in mini_report.measurements:
        windows_per_s = m.batch_size / (m.median_ms / 1000)
        expected = (windows_per_s, 1 / (windows_per_s * 1.28), windows_per_s * operations.flop_per_window(MINI) / 1e12)
        # the same formula in another order: rounding in the 15th digit
        assert (m.windows_per_s, m.real_time_factor, m.tflop_per_s) == pytest.approx(expected, rel=1e-12)


def test_stages_run_from_decode_to_the_fastest_model(mini_report: BenchmarkReport) -> None:
    stages = mini_report.stages
    assert [stage.stage for stage in stages] == ["decode", "fbank", "fbank", "model"]
    assert [stage.batch_size for stage in stages[:3]] == [1, 1, 8]
    for stage in stages:
        assert stage.ms_per_10_s * stage.times_real_time == pytest.approx(10_000, rel=1e-12)
    fastest = max(mini_report.measurements, key=lambda m: m.windows_per_s)
    assert stages[3].batch_size == fastest.batch_size
    assert stages[3].ms_per_10_s == pytest.approx(10_000 * fastest.real_time_factor, rel=1e-12)


def test_the_decode_stage_reads_ten_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    monkeypatch.setattr(stages, "time_alternating", lambda steps, *_: (results.append(steps[0]()), [[0.02]])[1])
    decode, fbank, fbank_batch = stages.front_end_stages(ASTFeatureExtractor(num_mel_bins=64), CPU, BenchmarkOptions())
    assert results[0] == 160_000  # samples at 16 kHz
    assert results[1]["input_values"].shape == (1, 1024, 64)
    assert results[2]["input_values"].shape == (8, 1024, 64)
    assert (decode.ms_per_10_s, fbank.ms_per_10_s, fbank_batch.ms_per_10_s) == pytest.approx((20.0, 20.0, 2.5))
    assert (decode.times_real_time, fbank_batch.times_real_time) == pytest.approx((500, 4000))


def test_report_keys_have_a_fixed_order(mini_report: BenchmarkReport) -> None:
    record = mini_report.to_dict()
    assert list(record) == [
        "schema_version",
        "type",
        "machine",
        "model",
        "flop_formula",
        "max_abs_difference",
        "measurements",
        "speed_ups",
        "stages",
    ]
    assert list(record["machine"]) == ["platform", "processor", "device", "device_name", "num_threads", "versions"]
    assert list(record["model"]) == [
        "name",
        "weights",
        "num_parameters",
        "num_tokens",
        "window_s",
        "flop_per_window",
    ]
    assert list(record["measurements"][0]) == [
        "library",
        "engine",
        "attn",
        "dtype",
        "batch_size",
        "num_repeats",
        "median_ms",
        "spread_ms",
        "windows_per_s",
        "real_time_factor",
        "tflop_per_s",
    ]
    assert list(record["speed_ups"][0]) == [
        "dtype",
        "batch_size",
        "baseline",
        "contestant",
        "baseline_ms",
        "contestant_ms",
        "speed_up",
    ]
    assert list(record["stages"][0]) == [
        "stage",
        "device",
        "batch_size",
        "ms_per_10_s",
        "spread_ms_per_10_s",
        "times_real_time",
    ]
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_report_describes_model_and_machine(mini_report: BenchmarkReport, mini_folder: str) -> None:
    record = mini_report.to_dict()
    assert (record["schema_version"], record["type"], record["max_abs_difference"]) == (1, "benchmark", None)
    num_parameters = sum(p.numel() for p in peers.random_model(MINI).parameters())
    assert record["model"] == {
        "name": mini_folder,
        "weights": "checkpoint",
        "num_parameters": num_parameters,
        "num_tokens": MINI.num_tokens,
        "window_s": 1.28,
        "flop_per_window": operations.flop_per_window(MINI),
    }
    assert (record["machine"]["device"], record["machine"]["num_threads"]) == ("cpu", 1)
    assert record["machine"]["device_name"] == record["machine"]["processor"] != ""
    assert record["machine"]["versions"]["torch"] == torch.__version__
    assert "transformers" not in record["machine"]["versions"]


def measurement(peer: str, batch_size: int, median_ms: float) -> Measurement:
    """Return a measurement of ``library engine attn``; ``-`` for no attention."""
    library, engine, attn = peer.split()
    return Measurement(
        library, engine, None if attn == "-" else attn, "float32", batch_size, 5, median_ms, 0.0, 1.0, 1.0, 1.0
    )


def test_speed_ups_pair_sdpa_with_eager_and_ours_with_the_reference() -> None:
    measurements = [
        measurement("ast torch sdpa", 1, 10.0),
        measurement("ast torch eager", 1, 40.0),
        measurement("transformers torch sdpa", 1, 15.0),
        measurement("transformers torch eager", 1, 30.0),
        measurement("ast torch sdpa", 2, 20.0),  # alone in its cell: nothing to compare with
    ]
    assert list(compare_measurements(measurements)) == [
        SpeedUp("float32", 1, "eager", "sdpa", 40.0, 10.0, 4.0),
        SpeedUp("float32", 1, "transformers sdpa", "sdpa", 15.0, 10.0, 1.5),
        SpeedUp("float32", 1, "transformers eager", "eager", 30.0, 40.0, 0.75),
    ]


def test_speed_ups_name_the_engine() -> None:
    compiled = [measurement("ast compile sdpa", 1, 10.0), measurement("ast compile eager", 1, 20.0)]
    assert list(compare_measurements(compiled)) == [
        SpeedUp("float32", 1, "compile eager", "compile sdpa", 20.0, 10.0, 2.0)
    ]
    runtime = [measurement("ast openvino -", 1, 10.0), measurement("transformers torch sdpa", 1, 30.0)]
    assert list(compare_measurements(runtime)) == [
        SpeedUp("float32", 1, "transformers sdpa", "openvino", 30.0, 10.0, 3.0)
    ]


def test_defaults_on_a_cpu_are_float32_and_batches_of_1_and_2(mini_folder: str) -> None:
    messages: list[str] = []
    options = once(mini_folder, attn_implementations=("eager",), batch_sizes=None)
    report = run_benchmark(options, messages.append)
    assert [(m.dtype, m.batch_size, m.peer) for m in report.measurements] == [
        ("float32", 1, "eager"),
        ("float32", 2, "eager"),
    ]
    assert report.speed_ups == ()
    assert messages == [
        f"loading {mini_folder}",
        "timing float32, batch size 1",
        "timing float32, batch size 2",
        "timing decode and fbank",
    ]


def test_data_types_are_measured_once_each_and_float16_on_a_cpu_warns(mini_folder: str) -> None:
    dtypes = ("fp16", "auto", "fp32", "float16", "bf16")
    options = once(mini_folder, attn_implementations=("sdpa", "sdpa"), dtypes=dtypes, batch_sizes=(1, 1))
    with pytest.warns(AstWarning, match="float16 is slow on a CPU"):
        report = run_benchmark(options)
    assert [m.dtype for m in report.measurements] == ["float16", "float32", "bfloat16"]


def test_thread_count_is_used_and_then_restored(mini_folder: str) -> None:
    assert run_benchmark(once(mini_folder, num_threads=2)).machine.num_threads == 2
    assert torch.get_num_threads() == 1


# --- models


@pytest.mark.parametrize(
    ("size", "widths"), [("base", (768, 12, 3072)), ("small", (384, 6, 1536)), ("tiny", (192, 3, 768))]
)
def test_named_sizes_differ_in_width_alone(size: str, widths: tuple[int, int, int]) -> None:
    hidden_size, num_heads, intermediate_size = widths
    assert peers.size_config(size) == ASTConfig(
        hidden_size=hidden_size,
        num_attention_heads=num_heads,
        intermediate_size=intermediate_size,
        num_labels=527,
    )


def test_random_weights_are_the_same_each_time_and_leave_the_random_state_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, second = peers.random_model(MINI), peers.random_model(MINI)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_size_needs_no_download_and_is_reported_as_random() -> None:
    report = run_benchmark(once("tiny"))
    assert (report.model.weights, report.model.num_tokens, report.model.window_s) == ("random", 1214, 10.24)


def test_an_unknown_model_is_refused_naming_the_sizes() -> None:
    with pytest.raises(UsageError, match=r"no checkpoint .* 'bsae'.*random weights: base, small, tiny"):
        peers.load_model("bsae")


# --- the reference


@pytest.mark.parity
@needs_transformers
def test_transformers_takes_turns_after_its_logits_agree(mini_folder: str) -> None:
    report = run_benchmark(once(mini_folder, attn_implementations=None, compare="transformers"))
    names = ["sdpa", "eager", "transformers sdpa", "transformers eager"]
    assert [m.peer for m in report.measurements] == names
    flop = {"ast": operations.flop_per_window(MINI), "transformers": operations.flop_per_window(MINI, trimmed=False)}
    for m in report.measurements:  # the reference computes its last block whole
        assert m.tflop_per_s == pytest.approx(m.windows_per_s * flop[m.library] / 1e12, rel=1e-12)
    assert [(s.baseline, s.peer) for s in report.speed_ups] == [
        ("eager", "sdpa"),
        ("transformers sdpa", "sdpa"),
        ("transformers eager", "eager"),
    ]
    assert report.max_abs_difference is not None
    assert report.max_abs_difference < 1e-5  # float32 rounding of two orders of operations
    assert "transformers" in report.machine.versions


@pytest.mark.parity
@needs_transformers
def test_loading_the_reference_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    peers.load_references(peers.random_model(MINI), ["sdpa"])
    assert capfd.readouterr() == ("", "")


def test_missing_transformers_is_an_error_with_the_remedy(monkeypatch: pytest.MonkeyPatch, mini_folder: str) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(DeviceError, match="pip install transformers"):
        run_benchmark(BenchmarkOptions(mini_folder, device="cpu", compare="transformers"))


# --- invalid options


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"attn_implementations": ("flash",)}, "--attn must be one or more of sdpa, eager, not 'flash'"),
        ({"engine": "tensorflow"}, "engine must be one of torch, compile, openvino, onnxruntime, auto"),
        ({"attn_implementations": ()}, "--attn must be one or more"),
        ({"dtypes": ()}, "--dtype must name at least one"),
        ({"batch_sizes": ()}, "--batch-size must name at least one"),
        ({"batch_sizes": (1, 0)}, "--batch-size must be from 1 to 65536, not 0"),
        ({"batch_sizes": (65_537,)}, "--batch-size must be from 1 to 65536, not 65537"),
        ({"num_repeats": 0}, "--repeats must be from 1"),
        ({"num_warmups": 0}, "--warmup must be from 1"),
        ({"num_threads": 0}, "threads must be from 1 to 1024, not 0"),
        ({"compare": "onnx"}, "--compare must be transformers, not 'onnx'"),
    ],
)
def test_invalid_options_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BenchmarkOptions(**wrong)  # type: ignore[arg-type]


def _cell_whose_model_raises(error: Exception) -> None:
    def step() -> None:
        raise error

    peer = peers.Peer("ast", "torch", "sdpa", 1, lambda _values: step)
    run._measure_cell([peer], MINI, CPU, "float32", 4, BenchmarkOptions(num_repeats=1), 1.28)


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
        MemoryError(),
    ],
)
def test_a_batch_that_does_not_fit_into_memory_is_an_error(error: Exception) -> None:
    with pytest.raises(DeviceError, match="a batch of 4 does not fit into memory; choose a smaller --batch-size"):
        _cell_whose_model_raises(error)


def test_other_errors_of_torch_are_not_reported_as_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        _cell_whose_model_raises(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_run_without_float16_gives_no_warning(mini_folder: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run_benchmark(once(mini_folder))
    assert [str(warning.message) for warning in caught] == []


@pytest.mark.filterwarnings("ignore:int8 without calibration")
@pytest.mark.parametrize(
    ("format_name", "engine", "dtype"), [("onnx", "onnxruntime", "float32"), ("openvino", "openvino", "int8")]
)
def test_an_exported_model_is_measured_with_its_engine_and_data_type(
    mini_folder: str, tmp_path: Path, format_name: Any, engine: Any, dtype: Any
) -> None:
    pytest.importorskip(engine)
    export_model(ExportOptions(mini_folder, tmp_path / "out", format_name, dtype))
    timed = {"engine": "auto", "attn_implementations": None}
    report = run_benchmark(once(str(tmp_path / "out"), batch_sizes=(2,), **timed))
    (measurement,) = report.measurements
    expected = int8_name(engine) if dtype == "int8" else dtype
    assert (measurement.engine, measurement.attn, measurement.dtype) == (engine, None, expected)
    assert measurement.batch_size == 2
    assert (report.model.weights, report.model.num_parameters) == ("exported", None)
    assert report.model.flop_per_window == operations.flop_per_window(MINI)
    assert engine in report.machine.versions
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["model"]["num_parameters"] is None


def test_other_engines_types_and_comparisons_are_refused_for_an_exported_model(
    mini_folder: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    export_model(ExportOptions(mini_folder, out, "onnx"))
    for changes, message in (
        ({"engine": "torch"}, "a model exported for onnxruntime, which no other engine runs: leave out --engine"),
        ({"dtypes": ("fp32",)}, "an exported model is measured without changes; leave out --dtype"),
        ({"attn_implementations": ("sdpa",)}, "leave out --attn"),
        ({"compare": "transformers"}, "leave out --compare"),
    ):
        values = {"engine": "auto", "attn_implementations": None, **changes}
        with pytest.raises(UsageError, match=message):
            run_benchmark(once(str(out), **values))
