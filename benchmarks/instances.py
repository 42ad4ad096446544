"""Compare one instance of the torch engine on all cores with several instances on a few cores each.

    python benchmarks/instances.py [--model base|builtin|FOLDER] [--cores N] [--windows 2] [--rounds 3] [--json FILE]

Each instance is a process with its own model and as many threads as its part of the cores. All instances start
together, and the time ends with the last one. The numbers of instances take turns. To use the fastest one, run `ast
classify` with `--threads` and `--shard`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from peers import describe_machine, make_checkpoint

from ast_cli.benchmark.peers import random_input_values
from ast_cli.engine.torch.torch_engine import TorchEngine


def main() -> None:
    arguments = parse_arguments()
    if arguments.child:
        run_instance(arguments)
        return
    ways = [number for number in (1, 2, 4, 8, 16) if arguments.cores % number == 0 and number <= arguments.cores]
    rates: dict[int, list[float]] = {number: [] for number in ways}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = make_checkpoint(arguments.model, Path(scratch))
        for _ in range(arguments.rounds):
            for number in ways:
                rates[number].append(windows_per_s(folder, number, arguments))
    print("| instances x threads | windows/s | latency of one window, s |\n| --- | ---: | ---: |")
    rows = []
    for number, values in rates.items():
        rate = statistics.median(values)
        rows.append({"instances": number, "threads": arguments.cores // number, "windows_per_s": rate})
        print(f"| {number} x {arguments.cores // number} | {rate:.3f} | {number / rate:.2f} |")
    if arguments.json:
        report = {"machine": describe_machine(arguments.cores), "model": arguments.model, "rows": rows}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="base")
    parser.add_argument("--cores", type=int, default=torch.get_num_threads())
    parser.add_argument("--windows", type=int, default=2, help="number of windows per instance, one after another")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)  # number of threads of this instance
    return parser.parse_args()


def windows_per_s(folder: Path, num_instances: int, arguments: argparse.Namespace) -> float:
    """Return the rate of this many instances that run at the same time."""
    own = ["--model", str(folder), "--windows", str(arguments.windows)]
    command = [sys.executable, __file__, *own, "--child", str(arguments.cores // num_instances)]
    instances = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(num_instances)
    ]
    for instance in instances:  # wait until its model is loaded and warmed up
        assert instance.stdout is not None
        instance.stdout.readline()
    start = time.perf_counter()
    for instance in instances:
        assert instance.stdin is not None
        instance.stdin.write("go\n")
        instance.stdin.flush()
    for instance in instances:
        instance.communicate()
    return num_instances * arguments.windows / (time.perf_counter() - start)


def run_instance(arguments: argparse.Namespace) -> None:
    """Load and warm up the model, wait for a line on standard input, and run."""
    torch.set_num_threads(arguments.child)
    engine = TorchEngine.load(arguments.model, device="cpu")
    values = random_input_values(engine.config, 1, torch.device("cpu"), torch.float32)
    engine.logits(values)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(arguments.windows):
        engine.logits(values)


if __name__ == "__main__":
    main()
