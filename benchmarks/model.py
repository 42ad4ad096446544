"""Compare our torch engine with transformers at base size, one window: ``ast benchmark --compare transformers``.

python benchmarks/model.py
"""

from __future__ import annotations

from ast_cli.benchmark.options import BenchmarkOptions
from ast_cli.benchmark.run import run_benchmark
from ast_cli.cli.benchmark import render

NUM_REPEATS = 9

if __name__ == "__main__":
    render(run_benchmark(BenchmarkOptions(batch_sizes=(1,), compare="transformers", num_repeats=NUM_REPEATS)))
