"""Compare the batch size that follows from the model's size with the one that is fastest when measured, on a CPU.

    python benchmarks/batch_size.py [--engines torch,onnxruntime] [--threads 1,2] [--rounds 5] [--json FILE]

The script runs ten models with random weights, from a thousandth of base size to base size, on one and on two threads.
Batch sizes from 1 to 16 take turns, round after round. For each setting it prints the time of a window at the batch
size of the formula (`ast_cli.engine.interface.cpu_batch_size`), the time at the batch size that was fastest in the
first rounds, and their ratio. Both times are medians over the other rounds, so that noise does not count as a gain.
Runs of `ast classify` used to measure the batch size; the results of this script are the reason why they no longer do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from peers import describe_machine

from ast_cli import ASTConfig
from ast_cli.benchmark.peers import engines_of, random_input_values, random_model
from ast_cli.engine.interface import Engine
from ast_cli.engine.options import EngineOptions

# hidden_size, number of blocks, frames of a window, stride of the patches.
MODELS = (
    (64, 4, 256, 10),
    (192, 4, 128, 10),
    (192, 6, 512, 10),
    (192, 12, 1024, 10),
    (256, 8, 1024, 16),
    (384, 6, 512, 10),
    (384, 12, 1024, 10),
    (512, 8, 512, 10),
    (768, 12, 128, 10),
    (768, 12, 1024, 16),
)
CANDIDATES = (1, 2, 4, 8, 16)
NUM_ROUNDS = 3  # rounds that choose a batch size
TIE = 1.05  # times within this factor count as equal, and the smaller batch size is chosen
LONGEST_PASS_S = 2.0  # after a pass that takes longer, larger batches are not tried


class Row(NamedTuple):
    """The result for one model, engine and number of threads."""

    model: str
    engine: str
    num_threads: int
    formula: int
    chosen: int
    formula_ms: float
    chosen_ms: float

    @property
    def gain(self) -> float:
        """Speed-up of the chosen batch size over that of the formula."""
        return self.formula_ms / self.chosen_ms


def main() -> None:
    arguments = parse_arguments()
    rows: list[Row] = []
    print("| model | engine | threads | formula | measured | ms a window, formula | measured | gain |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for number in arguments.models:
        width, layers, frames, stride = MODELS[number - 1]
        config = ASTConfig(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            intermediate_size=4 * width,
            max_length=frames,
            time_stride=stride,
            frequency_stride=stride,
        )
        model = random_model(config)
        for num_threads in arguments.threads:
            torch.set_num_threads(num_threads)
            for name in arguments.engines:
                options = EngineOptions(name, "cpu", "float32", num_threads=num_threads)
                (engine,) = engines_of(model, ("sdpa" if name == "torch" else None,), options).values()
                row = measure(engine, config, f"{width}x{layers}, {config.num_tokens} tokens", num_threads, arguments)
                rows.append(row)
                print(
                    f"| {row.model} | {name} | {num_threads} | {row.formula} | {row.chosen} | {row.formula_ms:.2f} "
                    f"| {row.chosen_ms:.2f} | {row.gain:.3f} |",
                    flush=True,
                )
    gains = [row.gain for row in rows]
    mean = statistics.geometric_mean(gains)
    print(f"\ngeometric mean of the gains {mean:.3f}, least {min(gains):.3f}, largest {max(gains):.3f}")
    if arguments.json:
        report = {
            "machine": describe_machine(max(arguments.threads)),
            "rows": [{**row._asdict(), "gain": row.gain} for row in rows],
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def measure(engine: Engine, config: ASTConfig, model: str, num_threads: int, arguments: argparse.Namespace) -> Row:
    """Time all batch sizes in turn; choose one by the first rounds, and report the times of the others."""
    batches: dict[int, Any] = {}
    for size in sorted({*CANDIDATES, engine.default_batch_size}):
        values = random_input_values(config, size, torch.device("cpu"), torch.float32).numpy()
        if batches and size > engine.default_batch_size and time_of(engine, values) > LONGEST_PASS_S:
            break
        engine.logits(values)  # builds its kernels
        batches[size] = values
    times: dict[int, list[float]] = {size: [] for size in batches}
    for _ in range(NUM_ROUNDS + arguments.rounds):
        for size, values in batches.items():
            times[size].append(time_of(engine, values) / size)
    chosen = search({size: times[size] for size in CANDIDATES if size in times})
    medians_ms = {size: statistics.median(of_size[NUM_ROUNDS:]) * 1000 for size, of_size in times.items()}
    formula = engine.default_batch_size
    return Row(model, engine.name, num_threads, formula, chosen, medians_ms[formula], medians_ms[chosen])


def time_of(engine: Engine, values: np.ndarray[Any, Any]) -> float:
    started = time.perf_counter()
    engine.logits(values)
    return time.perf_counter() - started


def search(times: dict[int, list[float]]) -> int:
    """Return the smallest size that is nearly as fast as the fastest, by the best round, as noise only adds time."""
    least = {size: min(of_size[:NUM_ROUNDS]) for size, of_size in times.items()}
    return min(size for size, seconds in least.items() if seconds <= min(least.values()) * TIE)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", type=lambda text: text.split(","), default=["torch", "onnxruntime"])
    parser.add_argument("--threads", type=lambda text: [int(number) for number in text.split(",")], default=[1, 2])
    parser.add_argument(
        "--models",
        type=lambda text: [int(number) for number in text.split(",")],
        default=range(1, len(MODELS) + 1),
        help="numbers of models to run, from 1",
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds to report, after those that choose")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
