"""What does it gain to measure the batch size on a CPU, over taking it from the model's size?

    python benchmarks/batch_size.py [--engines torch,onnxruntime] [--threads 1,2] [--rounds 5] [--json FILE]

Ten models with random weights, from a thousandth of base size to base size, each on one and on two threads. The sizes
1 to 16 take turns, round after round. For each setting: the time of a window at the formula's size
(`ast_cli.engine.interface.cpu_batch_size`) and at the size that was fastest in the first rounds, both as medians over
the other rounds, so that noise is not counted as gain, and their ratio. Runs did measure once; this is why they do not.
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

# Width, blocks, frames of a window, stride of the patches.
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
NUM_ROUNDS = 3  # that choose
TIE = 1.05  # times that are so close are equal: then the smaller size has it
LONGEST_PASS_S = 2.0  # larger batches of a model are not tried: neither is it the search's way to go on with slow ones


class Row(NamedTuple):
    """One setting."""

    model: str
    engine: str
    num_threads: int
    formula: int
    chosen: int
    formula_ms: float
    chosen_ms: float

    @property
    def gain(self) -> float:
        """How much faster the chosen size is."""
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
    """Time all sizes in turn; choose on the first rounds, judge on the others."""
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
    judged = {size: statistics.median(of_size[NUM_ROUNDS:]) * 1000 for size, of_size in times.items()}
    formula = engine.default_batch_size
    return Row(model, engine.name, num_threads, formula, chosen, judged[formula], judged[chosen])


def time_of(engine: Engine, values: np.ndarray[Any, Any]) -> float:
    started = time.perf_counter()
    engine.logits(values)
    return time.perf_counter() - started


def search(times: dict[int, list[float]]) -> int:
    """Return the smallest size that is nearly as fast as the fastest, each by its best round: noise only adds."""
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
        help="which, from 1",
    )
    parser.add_argument("--rounds", type=int, default=5, help="that judge, after those that choose")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
