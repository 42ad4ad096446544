"""Measure a pass of the model beside other busy programs: the median, and the 95th percentile, which shows stalls.

    python benchmarks/contended.py [--model base|builtin|FOLDER] [--threads N] [--busy N] [--rounds 20]
        [--spin-counts 0,1000,100000] [--engines onnxruntime,openvino] [--json FILE]

A thread that has finished its part of a matrix product spins until the others have finished. If another program takes a
core, the thread spins for a whole time slice, product after product. `OMP_WAIT_POLICY` sets whether threads may spin,
and `GOMP_SPINCOUNT` for how long. Both are read when torch is imported, so each setting runs in its own process. All
processes take turns, first on the machine as it is, then beside `--busy` processes that compute without end, by default
one per core. "ast" uses the setting of the command; "ast spinning" and transformers (sdpa) use the runtime's default.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ast_cli.engine.torch.waiting import SLEEPING, SPIN_COUNT, WAIT_POLICY

OURS, SPINNING, REFERENCE = "ast", "ast spinning", "transformers"
BUSY_LOOP = "while True: pass"
PERCENTILE = 95


def main() -> None:
    arguments = parse_arguments()
    if arguments.child:
        run_passes(arguments.child, arguments.model, arguments.threads)
        return
    from peers import describe_machine, make_checkpoint

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, contextlib.ExitStack() as stack:
        folder = make_checkpoint(arguments.model, Path(scratch))
        runners = {
            name: stack.enter_context(Runner(engine, folder, arguments.threads, variables))
            for name, (engine, variables) in peers(arguments).items()
        }
        idle_s = measure(runners, arguments.rounds)
        with busy(arguments.busy):
            contended_s = measure(runners, arguments.rounds)
    rows = [make_row(name, idle_s, contended_s) for name in idle_s]
    print(as_markdown(rows, arguments))
    if arguments.json:
        today = datetime.date.today().isoformat()
        report = {"machine": describe_machine(arguments.threads), "date": today, "model": arguments.model, "rows": rows}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="base")
    parser.add_argument("--threads", type=int, default=num_cores)
    parser.add_argument("--busy", type=int, default=num_cores, help="number of processes that compute without end")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--spin-counts", type=lambda text: text.split(","), default=[])
    parser.add_argument("--engines", type=lambda text: text.split(","), default=[])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)  # engine to run in this process
    return parser.parse_args()


def peers(arguments: argparse.Namespace) -> dict[str, tuple[str, dict[str, str]]]:
    """Return each peer's engine and environment variables, by name."""
    found: dict[str, tuple[str, dict[str, str]]] = {
        REFERENCE: (REFERENCE, {}),
        SPINNING: ("torch", {}),
        OURS: ("torch", dict(SLEEPING)),
    }
    for count in arguments.spin_counts:
        found[f"ast spin count {count}"] = ("torch", {SPIN_COUNT: count})
    for engine in arguments.engines:
        found[f"ast {engine}"] = (engine, {})
    return found


class Runner:
    """A process that runs one pass on request."""

    def __init__(self, engine: str, folder: Path, num_threads: int, variables: Mapping[str, str]) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in (WAIT_POLICY, SPIN_COUNT)}
        command = [sys.executable, __file__, "--child", engine, "--model", str(folder), "--threads", str(num_threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**environment, **variables}
        )
        self._answer()  # the model is loaded and warmed up

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def pass_s(self) -> float:
        """Run one pass, and return its time in seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit("error: the process of a peer has ended")
        return line


def run_passes(engine_name: str, folder: str, num_threads: int) -> None:
    """Load and warm up a model, then run a pass for each line on standard input and print its time in seconds."""
    import torch

    from ast_cli.benchmark.peers import random_input_values
    from ast_cli.engine.choice import load_engine
    from ast_cli.engine.options import EngineOptions
    from ast_cli.model.config import read_config

    torch.set_num_threads(num_threads)
    values = random_input_values(read_config(Path(folder)), 1, torch.device("cpu"), torch.float32)
    if engine_name == REFERENCE:
        from transformers import ASTForAudioClassification as ReferenceModel

        model = ReferenceModel.from_pretrained(folder, attn_implementation="sdpa", dtype=torch.float32).eval()
        step = torch.inference_mode()(lambda: model(values).logits)
    else:
        options = EngineOptions(engine_name, device="cpu", num_threads=num_threads)  # type: ignore[arg-type]
        engine, features = load_engine(folder, options), values.numpy()
        step = lambda: engine.logits(features)  # noqa: E731
    step()
    print(0, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        step()
        print(time.perf_counter() - start, flush=True)


@contextlib.contextmanager
def busy(num_processes: int) -> Iterator[None]:
    """Run processes that compute without end within a ``with`` block."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY_LOOP]) for _ in range(num_processes)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(runners: Mapping[str, Runner], num_rounds: int) -> dict[str, list[float]]:
    """Run passes of all peers in turn, round after round; return their times in seconds."""
    times_s: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(num_rounds):
        for name, runner in runners.items():
            times_s[name].append(runner.pass_s())
    return times_s


def make_row(name: str, idle_s: Mapping[str, list[float]], contended_s: Mapping[str, list[float]]) -> dict[str, object]:
    """Return the results of one peer; its ratio is the median of the idle rounds' ratios to spinning threads."""
    ratios = [own / spinning for own, spinning in zip(idle_s[name], idle_s[SPINNING], strict=True)]
    return {
        "peer": name,
        "idle_s": statistics.median(idle_s[name]),
        "idle_ratio": statistics.median(ratios),
        "contended_s": statistics.median(contended_s[name]),
        f"contended_p{PERCENTILE}_s": percentile(contended_s[name]),
        "contended_max_s": max(contended_s[name]),
    }


def percentile(values: list[float]) -> float:
    """Return the 95th percentile: the smallest value that 95 % of the values do not exceed."""
    return sorted(values)[max(0, -(-len(values) * PERCENTILE // 100) - 1)]


def as_markdown(rows: list[dict[str, object]], arguments: argparse.Namespace) -> str:
    lines = [
        f"{arguments.model}, {arguments.threads} threads, {arguments.busy} busy processes, {arguments.rounds} rounds\n",
        f"| | idle, s | ratio | beside others, s | {PERCENTILE} % within, s | longest, s |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        name, *numbers = row.values()
        lines.append(f"| {name} | {' | '.join(f'{number:.3f}' for number in numbers)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
