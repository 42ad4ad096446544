"""Compare all installed ways to run AST on the same weights and inputs: time ratios, spread, fraction of the peak rate.

    python benchmarks/compare.py [--model base|maest|eat|birdset|builtin|FOLDER] [--dtype float32|bfloat16|int8]
        [--batch-size 1] [--rounds 5] [--threads N] [--peers "transformers sdpa,ast torch"] [--json FILE]
        [--markdown FILE]

The peers are those installed of transformers (sdpa, eager), ONNX Runtime and OpenVINO on the graph of transformers, and
our engines. With int8, our peers run the models that `ast export` writes for them. The logits are compared first, as
times of different computations do not compare. Then all peers take turns, round after round, so that a busy machine
slows all of them equally. A ratio is the median of the ratios to the baseline over the rounds, and its spread is their
interquartile range. The largest rate of a matrix product is measured in the same rounds (with int8, in float32). The
fraction of that rate that a peer reaches shows how close it is to the limit of the machine.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import (
    BUILDERS,
    CALIBRATION,
    INT8,
    TORCH_DTYPES,
    Peer,
    Setting,
    describe_machine,
    is_native,
    make_checkpoint,
    set_up,
)

from ast_cli import ASTFeatureExtractor, load_waveform
from ast_cli.benchmark.peers import random_input_values
from ast_cli.engine.torch import onednn
from ast_cli.model.config import read_config

TOLERANCES = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}  # for logits of about 1
LARGEST_INT8_ERROR = 2e-3  # error variance / logit variance, equal to a correlation of 0.999
MATRIX_SHAPES = (
    (1214, 768, 3072),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
)  # m, k, n: the largest of AST, and square ones
RECORDING = CALIBRATION / "rain.ogg"
SEED = 0


@dataclass(frozen=True)
class Row:
    """The result of one peer, a row of the table.

    Attributes:
        name: Name of the peer.
        median_ms: Median time of a pass over the batch, in milliseconds.
        spread_ms: Interquartile range of the times, in milliseconds.
        ratio: Median of the ratios to the baseline over the rounds; below 1 the peer is faster.
        ratio_spread: Interquartile range of these ratios.
        gflop_per_s: Rate, computed with the peer's own number of operations.
        share: Rate divided by the largest rate of a matrix product in the same run.
        max_abs_difference: Largest difference between the logits of the peer and the baseline.
    """

    name: str
    median_ms: float
    spread_ms: float
    ratio: float
    ratio_spread: float
    gflop_per_s: float
    share: float
    max_abs_difference: float


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = make_checkpoint(arguments.model, Path(scratch))
        config = read_config(folder)
        setting = Setting(folder, config, arguments.dtype, arguments.batch_size, arguments.threads, Path(scratch))
        peers, missing = set_up(setting, arguments.peers)
        if not peers:
            sys.exit(f"error: no peer is available: {missing}")
        differences = check_agreement(peers, setting)
        times_s, rates = measure(peers, setting, arguments.rounds)
    rows = make_rows(peers, times_s, max(rates.values()), differences, arguments.batch_size)
    report = make_report(arguments, rows, rates, missing)
    text = as_markdown(report)
    print(text)
    if arguments.markdown:
        arguments.markdown.write_text(text, encoding="utf-8")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="base")
    parser.add_argument("--dtype", choices=[*TORCH_DTYPES, INT8], default="float32")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--peers", type=lambda text: [name.strip() for name in text.split(",")])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    if unknown := set(arguments.peers or ()) - BUILDERS.keys():
        parser.error(f"unknown peers {sorted(unknown)}; there are {', '.join(BUILDERS)}")
    return arguments


def check_agreement(peers: Sequence[Peer], setting: Setting) -> dict[str, float]:
    """Return the largest difference of each peer's logits from the first peer's; exit if one exceeds the tolerance."""
    values = input_values(setting)
    expected = peers[0].run(values)
    differences = {}
    for peer in peers:
        logits = peer.run(values)
        differences[peer.name] = float(np.abs(logits - expected).max())
        if INT8 in peer.name:
            error = float(np.square(logits - expected).mean() / np.square(expected - expected.mean()).mean())
            agrees = error <= LARGEST_INT8_ERROR
        else:
            agrees = differences[peer.name] <= TOLERANCES[setting.float_dtype]
        if not agrees:  # also for NaN
            sys.exit(
                f"error: the logits of {peer.name} and {peers[0].name} differ by {differences[peer.name]:.2g}, "
                "so their times do not compare"
            )
    return differences


def input_values(setting: Setting) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return random features or, for int8, which is calibrated on audio, the features of a recording."""
    if setting.dtype == INT8:
        features = ASTFeatureExtractor.from_pretrained(setting.folder)
        window = features([load_waveform(RECORDING)], 16_000, "np").input_values
        return np.repeat(window, setting.batch_size, axis=0)
    values = random_input_values(setting.config, setting.batch_size, torch.device("cpu"), torch.float32)
    return values.numpy()


def measure(
    peers: Sequence[Peer], setting: Setting, num_rounds: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Time all peers and matrix products in turn; return times in seconds by peer, and rates in FLOP/s by product."""
    values = input_values(setting)
    steps: dict[str, Callable[[], object]] = {c.name: lambda c=c: c.run(values) for c in peers}  # type: ignore[misc]
    products = matrix_products(setting.torch_dtype)
    times_s: dict[str, list[float]] = {name: [] for name in [*steps, *products]}
    for step in (*steps.values(), *(product for product, _ in products.values())):
        step()  # warm-up, which builds kernels
    for number in range(num_rounds):
        order = list(steps) if number % 2 == 0 else list(reversed(steps))  # the order changes the state of the cache
        for name in order:
            times_s[name].append(timed(steps[name]))
        for name, (product, _) in products.items():
            times_s[name].append(timed(product))
        print(f"round {number + 1} of {num_rounds}", file=sys.stderr)
    rates = {name: flop / statistics.median(times_s[name]) for name, (_, flop) in products.items()}
    return {name: times_s[name] for name in steps}, rates


def timed(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def matrix_products(dtype: torch.dtype) -> dict[str, tuple[Callable[[], object], int]]:
    """Return matrix products of torch and oneDNN by name, each with its number of operations."""
    generator = torch.Generator().manual_seed(SEED)
    products: dict[str, tuple[Callable[[], object], int]] = {}
    for m, k, n in MATRIX_SHAPES:
        a, b = (torch.randn(shape, generator=generator).to(dtype) for shape in ((m, k), (n, k)))
        flop = 2 * m * k * n
        products[f"mm {m}x{k}x{n}"] = (lambda a=a, b=b: torch.mm(a, b.T), flop)  # type: ignore[misc]
        if onednn.is_available(dtype):
            products[f"oneDNN {m}x{k}x{n}"] = (lambda a=a, b=b: onednn.linear(a, b, None), flop)  # type: ignore[misc]
    return products


def make_rows(
    peers: Sequence[Peer],
    times_s: dict[str, list[float]],
    largest_rate: float,
    differences: dict[str, float],
    batch_size: int,
) -> list[Row]:
    baseline = times_s[peers[0].name]
    rows = []
    for peer in peers:
        times = times_s[peer.name]
        ratios = [mine / theirs for mine, theirs in zip(times, baseline, strict=True)]
        rate = batch_size * peer.flop_per_window / statistics.median(times)
        rows.append(
            Row(
                peer.name,
                statistics.median(times) * 1000,
                spread(times) * 1000,
                statistics.median(ratios),
                spread(ratios),
                rate / 1e9,
                rate / largest_rate,
                differences[peer.name],
            )
        )
    return rows


def spread(values: Sequence[float]) -> float:
    """Return the interquartile range."""
    if len(values) < 2:
        return 0.0
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return third - first


def make_report(
    arguments: argparse.Namespace, rows: Sequence[Row], rates: dict[str, float], missing: dict[str, str]
) -> dict[str, Any]:
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": describe_machine(arguments.threads),
        "model": arguments.model,
        "dtype": arguments.dtype,
        "is_native": is_native(arguments.dtype),
        "batch_size": arguments.batch_size,
        "num_rounds": arguments.rounds,
        "baseline": rows[0].name,
        "matrix_products_gflop_per_s": {name: round(rate / 1e9, 1) for name, rate in rates.items()},
        "rows": [vars(row) for row in rows],
        "missing": missing,
    }


def as_markdown(report: dict[str, Any]) -> str:
    """Return the report as a table, with machine and versions."""
    machine = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    rates = report["matrix_products_gflop_per_s"]
    best = max(rates, key=rates.get)
    lines = [
        f"{report['model']}, {report['dtype']}, batch of {report['batch_size']}, {report['num_rounds']} rounds, "
        f"{report['date']}. {machine['processor']} ({machine['instructions']}), {machine['num_threads']} threads; "
        f"{versions}. Largest matrix product: {rates[best]} GFLOP/s ({best}).",
        "",
        f"| Peer | ms | ratio to {report['baseline']} | GFLOP/s | of the largest product | largest difference |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row['name']} | {row['median_ms']:.0f} +- {row['spread_ms']:.0f} | {row['ratio']:.3f} +- "
        f"{row['ratio_spread']:.3f} | {row['gflop_per_s']:.1f} | {row['share']:.0%} | {row['max_abs_difference']:.1e} |"
        for row in report["rows"]
    ]
    lines += ["", *(f"Not here: {name} ({reason})." for name, reason in report["missing"].items())]
    if not report["is_native"]:
        lines.append(
            f"This processor has no {report['dtype']} instructions, so these times say nothing about {report['dtype']}."
        )
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    main()
