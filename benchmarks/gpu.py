"""Measure all claims about GPUs in a few minutes: attention, fraction of the peak rate, latency, a folder.

    python benchmarks/gpu.py [--json gpu.json] [--device cuda] [--no-compile] [--files 200]
    python benchmarks/gpu.py --smoke        # the same steps on the CPU with a tiny model, in seconds: tests run it

The script measures:

- sdpa against eager attention, and ours against transformers, at batch sizes of 1, 2, 4 and 8, in float32 and float16,
  and ours in TF32;
- the largest rate of a matrix product, and the fraction of it that the model reaches at batch sizes of 32, 64 and 128,
  in float16 and bfloat16, plain and compiled;
- the latency of one window in float16, plain, as a CUDA graph, and compiled;
- a folder of FLAC files against the model alone.

It prints the targets beside the numbers.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from folder import make_clips, run_folder, run_model
from torch import Tensor

from ast_cli import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, ClassifyOptions, Tagger
from ast_cli.benchmark.options import BenchmarkOptions
from ast_cli.benchmark.peers import random_input_values
from ast_cli.benchmark.report import describe_machine
from ast_cli.benchmark.run import run_benchmark
from ast_cli.benchmark.timing import median_and_spread_ms, time_alternating
from ast_cli.engine.torch.compile_engine import CompileEngine
from ast_cli.engine.torch.device import resolve_device
from ast_cli.engine.torch.torch_engine import TorchEngine
from ast_cli.model.operations import flop_per_window
from ast_cli.tagging.decode.pool import default_num_workers

AGREEMENT = {
    torch.float32: 1e-3,
    torch.float16: 5e-2,
    torch.bfloat16: 2e-1,
}  # of compiled and graphed runs with plain ones
RATE_KEYS = (
    *("dtype", "batch_size", "run", "median_ms", "windows_per_s", "tflop_per_s"),
    *("largest_product_tflop_per_s", "share"),
)
NUM_GRAPH_WARMUPS = 3  # kernels are selected and built before launches are recorded


@dataclass(frozen=True)
class Plan:
    """The sizes of all measurements; those of the smoke test are small.

    Attributes:
        small_batches: Batch sizes for the table of attention implementations.
        large_batches: Batch sizes for the fraction of the peak rate.
        half_dtypes: Data types for the fraction of the peak rate.
        matrix_sizes: Sizes of square matrix products.
        num_files: Number of files in the folder.
        num_repeats: Number of timed passes; None for as many as fit into a few seconds.
    """

    small_batches: tuple[int, ...] = (1, 2, 4, 8)
    large_batches: tuple[int, ...] = (32, 64, 128)
    half_dtypes: tuple[str, ...] = ("float16", "bfloat16")
    matrix_sizes: tuple[int, ...] = (4096, 8192)
    num_files: int = 200
    num_repeats: int | None = None


SMOKE = Plan((1, 2), (3,), ("bfloat16",), (64,), 3, 2)
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_length": 128,
    "num_labels": 5,
}


def main() -> None:
    arguments = parse_arguments()
    device = resolve_device("cpu" if arguments.smoke else arguments.device)
    plan = SMOKE if arguments.smoke else dataclasses.replace(Plan(), num_files=arguments.files)
    config = ASTConfig(**TINY) if arguments.smoke else ASTConfig(num_labels=527)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = write_checkpoint(config, Path(name) / "model")
        report = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": dataclasses.asdict(describe_machine(device, with_reference=True)),
            "attentions": measure_attentions(folder, device, plan),
            "tf32": measure_tf32(folder, device, plan),
            "rates": measure_rates(folder, device, plan, with_compiled=not arguments.no_compile),
            "latency": measure_latency(folder, device, plan, with_compiled=not arguments.no_compile),
            "folder": measure_folder(folder, device, plan, Path(name)),
        }
    print_report(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--files", type=int, default=Plan.num_files)
    parser.add_argument("--no-compile", action="store_true", help="do not measure torch.compile, which takes a minute")
    parser.add_argument("--smoke", action="store_true", help="run all steps with a tiny model on the CPU")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def write_checkpoint(config: ASTConfig, folder: Path) -> Path:
    """Write a model with random weights, as the speed does not depend on the weights."""
    torch.manual_seed(0)
    ASTForAudioClassification(config).save_pretrained(folder)
    ASTFeatureExtractor(num_mel_bins=config.num_mel_bins, max_length=config.max_length).save_pretrained(folder)
    return folder


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def measure_attentions(folder: Path, device: torch.device, plan: Plan) -> dict[str, Any]:
    """Compare the logits, then time sdpa and eager attention of our model and of transformers."""
    options = BenchmarkOptions(
        model=str(folder),
        dtypes=("float32",) if device.type == "cpu" else ("float32", "float16"),
        batch_sizes=plan.small_batches,
        device=str(device),
        compare="transformers",
        num_repeats=plan.num_repeats,
    )
    return run_benchmark(options, say).to_dict()


def measure_tf32(folder: Path, device: torch.device, plan: Plan) -> list[dict[str, Any]]:
    """Time float32 with full precision and with TF32, which only CUDA devices support."""
    if device.type != "cuda":
        return []
    say("timing TF32")
    full, rounded = (TorchEngine.load(folder, device=str(device), dtype=dtype) for dtype in ("float32", "tf32"))
    rows = []
    for batch_size in plan.small_batches:
        values = random_input_values(full.config, batch_size, device, torch.float32)
        steps = {"float32": partial(full.forward, values), "tf32": partial(rounded.forward, values)}
        row = timed(steps, device, plan)
        row["max_abs_difference"] = difference(full.forward(values).logits, rounded.forward(values).logits)
        rows.append({"batch_size": batch_size, **row})
    return rows


def measure_rates(folder: Path, device: torch.device, plan: Plan, *, with_compiled: bool) -> list[dict[str, Any]]:
    """Time large batches and matrix products; return the rate of the model as a fraction of the largest product's."""
    rows = []
    for dtype_name in plan.half_dtypes:
        engine = TorchEngine.load(folder, device=str(device), dtype=dtype_name)
        for batch_size in plan.large_batches:
            say(f"timing {dtype_name}, batch size {batch_size}")
            values = random_input_values(engine.config, batch_size, device, engine.dtype)
            steps: dict[str, Callable[[], object]] = {"plain": partial(engine.forward, values)}
            if with_compiled and device.type == "cuda":
                steps["compiled"] = compiled(engine, values)
            products = matrix_products(engine, batch_size, plan, device)
            medians = timed({**steps, **{name: product for name, (product, _) in products.items()}}, device, plan)
            largest = max(flop / medians[name]["median_ms"] for name, (_, flop) in products.items()) * 1e3
            for name in steps:
                rate = batch_size * flop_per_window(engine.config) / medians[name]["median_ms"] * 1e3
                rows.append(
                    {
                        "dtype": dtype_name,
                        "batch_size": batch_size,
                        "run": name,
                        **medians[name],
                        "windows_per_s": batch_size / medians[name]["median_ms"] * 1e3,
                        "tflop_per_s": rate / 1e12,
                        "largest_product_tflop_per_s": largest / 1e12,
                        "share": rate / largest,
                    }
                )
    return rows


def measure_latency(folder: Path, device: torch.device, plan: Plan, *, with_compiled: bool) -> dict[str, Any]:
    """Time one window in half precision: plain, as a recorded CUDA graph, and compiled."""
    say("timing the latency of one window")
    engine = TorchEngine.load(folder, device=str(device), dtype="float16" if device.type == "cuda" else "float32")
    values = random_input_values(engine.config, 1, device, engine.dtype)
    steps: dict[str, Callable[[], object]] = {"plain": partial(engine.forward, values)}
    if device.type == "cuda":
        steps["CUDA graph"] = graphed(engine, values)
        if with_compiled:
            steps["compiled"] = compiled(engine, values)
    return timed(steps, device, plan)


def measure_folder(folder: Path, device: torch.device, plan: Plan, scratch: Path) -> dict[str, Any]:
    """Time the tagging of a folder of FLAC files, and the model alone on the same windows."""
    say("tagging a folder")
    tagger, options = Tagger.from_pretrained(folder, engine="torch", device=str(device)), ClassifyOptions()
    clips = scratch / "clips"
    clips.mkdir()
    audio_s = make_clips(clips, plan.num_files)
    paths = sorted(str(path) for path in clips.iterdir())
    windows = torch.cat([torch.from_numpy(tagger.extract(path, what="input-values").main) for path in paths])
    batches = [part.to(device, tagger.engine.dtype) for part in windows.split(tagger.engine.default_batch_size)]
    run_model(tagger, batches)  # warm-up
    run_folder(tagger, clips, options, default_num_workers())
    rounds = [
        (run_model(tagger, batches).elapsed_s, run_folder(tagger, clips, options, default_num_workers()).elapsed_s)
        for _ in range(3)
    ]
    return {
        "num_files": plan.num_files,
        "num_windows": len(windows),
        "audio_s": audio_s,
        "num_workers": default_num_workers(),
        "model_alone_s": statistics.median(model_s for model_s, _ in rounds),
        "folder_s": statistics.median(folder_s for _, folder_s in rounds),
        "share": statistics.median(model_s / folder_s for model_s, folder_s in rounds),
    }


def compiled(engine: TorchEngine, values: Tensor) -> Callable[[], Tensor]:
    """Return a pass of the compile engine over inputs of this shape, after checking its logits."""
    step = partial(CompileEngine(engine.model, engine.device, engine.dtype).device_logits, values)
    for _ in range(NUM_GRAPH_WARMUPS):
        step()
    check(engine, values, step())
    return step


def graphed(engine: TorchEngine, values: Tensor) -> Callable[[], Tensor]:
    """Return a pass that replays the recorded launches of a plain pass, after checking its logits."""
    stream = torch.cuda.Stream(engine.device)
    stream.wait_stream(torch.cuda.current_stream(engine.device))
    with torch.cuda.stream(stream):
        for _ in range(NUM_GRAPH_WARMUPS):
            engine.forward(values)
    torch.cuda.current_stream(engine.device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = engine.forward(values).logits

    def step() -> Tensor:
        graph.replay()
        return logits

    check(engine, values, step())
    return step


def check(engine: TorchEngine, values: Tensor, logits: Tensor) -> None:
    """Exit with an error if a pass computes other logits than the plain model."""
    apart = difference(engine.forward(values).logits, logits)
    if not apart <= AGREEMENT[engine.dtype]:
        sys.exit(f"error: the logits differ from the plain model's by {apart:.2g}, so the times do not compare")


def difference(first: Tensor, second: Tensor) -> float:
    return float((first.float() - second.float()).abs().max())


def matrix_products(
    engine: TorchEngine, batch_size: int, plan: Plan, device: torch.device
) -> dict[str, tuple[Callable[[], object], int]]:
    """Return the model's largest matrix product and square ones by name, each with its number of operations."""
    config = engine.config
    shapes = [(batch_size * config.num_tokens, config.hidden_size, config.intermediate_size)]
    shapes += [(size, size, size) for size in plan.matrix_sizes]
    products: dict[str, tuple[Callable[[], object], int]] = {}
    for m, k, n in shapes:
        a, b = (torch.randn(shape, device=device, dtype=engine.dtype) for shape in ((m, k), (n, k)))
        products[f"{m}x{k}x{n}"] = (partial(torch.mm, a, b.T), 2 * m * k * n)
    return products


def timed(steps: dict[str, Callable[[], object]], device: torch.device, plan: Plan) -> dict[str, Any]:
    """Time steps in turn, and return median and spread in milliseconds by name."""
    times_s = time_alternating(list(steps.values()), device, plan.num_repeats)
    summaries = {name: median_and_spread_ms(times) for name, times in zip(steps, times_s, strict=True)}
    return {name: {"median_ms": median, "spread_ms": spread} for name, (median, spread) in summaries.items()}


def print_report(report: dict[str, Any]) -> None:
    print(f"{report['machine']['device_name']}, {report['date']}, {report['machine']['versions']}\n")
    print_table(
        "Attention and reference: ms a batch (target: ours at most 0.9 of transformers sdpa)",
        ("dtype", "batch", "baseline", "peer", "baseline ms", "ms", "ratio"),
        [
            (s["dtype"], s["batch_size"], s["baseline"], s["contestant"], s["baseline_ms"], s["contestant_ms"], ratio)
            for s in report["attentions"]["speed_ups"]
            for ratio in [s["contestant_ms"] / s["baseline_ms"]]
        ],
    )
    print_table(
        "TF32 (--dtype tf32)",
        ("batch", "float32 ms", "tf32 ms", "largest difference"),
        [
            (row["batch_size"], row["float32"]["median_ms"], row["tf32"]["median_ms"], row["max_abs_difference"])
            for row in report["tf32"]
        ],
    )
    print_table(
        "Fraction of the largest matrix product's rate (target: at least 0.55)",
        RATE_KEYS,
        [[row[key] for key in RATE_KEYS] for row in report["rates"]],
    )
    print_table(
        "One window (target: at most 3 ms)",
        ("run", "ms", "spread"),
        [(name, row["median_ms"], row["spread_ms"]) for name, row in report["latency"].items()],
    )
    folder = report["folder"]
    print(
        f"Folder of {folder['num_files']} FLAC files, {folder['num_windows']} windows, {folder['num_workers']} workers:"
        f" {folder['folder_s']:.2f} s, model alone {folder['model_alone_s']:.2f} s; {folder['share']:.1%} (target 90 %)"
    )


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a Markdown table, unless it has no rows."""
    if not rows:
        return
    print(f"{title}\n\n| {' | '.join(header)} |\n|{' --- |' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(f'{cell:.4g}' if isinstance(cell, float) else str(cell) for cell in row)} |")
    print()


if __name__ == "__main__":
    main()
