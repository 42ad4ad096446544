"""Compare the whole command with each engine, from start to exit: the measurements behind `--engine auto` on a CPU.

    python benchmarks/default_engine.py [--model builtin|base|FOLDER] [--engines torch,onnxruntime,openvino]
        [--cases file,first,unkept,folder,long] [--rounds 5] [--clips 40] [--long-s 600]
        [--json FILE]

Engines that run a converted model keep it in the user's cache folder, so their first use costs more than later ones.
The cases:

    file    one file of 5 s; the converted model is in the cache
    first   the same file with an empty cache folder: the model is converted and kept
    unkept  the same file with a cache folder that cannot be written: the model is converted at each run
    folder  many files of 5 s
    long    one long recording

Every run is a process of its own. In a round each case is run with each engine in turn, so a busy machine slows them
all; a ratio is the median of the rounds' ratios to the first engine. The processors' time is that of the process and
its children: where other programs take the cores, it says more than the clock. Peak memory comes from further runs and
is the sum of the proportional set sizes of the process and its children. The scores are compared first. The files are
in the system's cache: on a machine where they are not, torch also has the most to read.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from command import output_of, peak_bytes, tags_in
from compare import spread
from peers import describe_machine, make_checkpoint

SAMPLING_RATE = 16_000
CLIP_S = 5
SCORE_TOLERANCE = 1e-4
CASES = {
    "file": "one file",
    "first": "one file, first use",
    "unkept": "one file, nothing can be kept",
    "folder": "folder",
    "long": "long recording",
}

Times = dict[tuple[str, str], list[tuple[float, float]]]


@dataclass(frozen=True)
class Run:
    """One command.

    Attributes:
        case: One of `CASES`.
        engine: Value of ``--engine``.
        command: Program and arguments.
        cache: Cache folder to remove before the run; None to keep what is there.
    """

    case: str
    engine: str
    command: list[str]
    cache: Path | None

    def clear(self) -> None:
        if self.cache is not None:
            shutil.rmtree(self.cache, ignore_errors=True)


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        runs = make_runs(arguments, Path(scratch))
        check_agreement([run for run in runs if run.case == "file"] or runs[: len(arguments.engines)])
        times_s = time_alternating(runs, arguments.rounds)
        peaks = {(run.case, run.engine): peak_of(run) for run in runs}
    report = make_report(arguments, times_s, peaks)
    print(as_markdown(report))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--engines", type=lambda text: text.split(","), default=["torch", "onnxruntime"])
    parser.add_argument("--cases", type=lambda text: text.split(","), default=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--long-s", type=int, default=600)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def make_runs(arguments: argparse.Namespace, scratch: Path) -> list[Run]:
    """Write model and recordings; return each case with each engine."""
    model = make_checkpoint(arguments.model, scratch)
    clips = scratch / "clips"
    clips.mkdir()
    for number in range(arguments.clips if "folder" in arguments.cases else 1):
        write_noise(clips / f"clip-{number:03}.wav", CLIP_S, number)
    if "long" in arguments.cases:
        write_noise(scratch / "long.wav", arguments.long_s, arguments.clips)
    no_folder = scratch / "a-file"  # nothing can be created below a file, not even by root
    no_folder.touch()
    audio = dict.fromkeys(CASES, clips / "clip-000.wav") | {"folder": clips, "long": scratch / "long.wav"}
    runs = []
    for case in arguments.cases:
        for engine in arguments.engines:
            cache = scratch / "cache"
            if case == "first":
                cache = scratch / f"cache-{engine}"
            elif case == "unkept":
                cache = no_folder / "cache"
            ours = [sys.executable, "-m", "ast_cli", "classify", str(audio[case]), "--model", str(model)]
            ours += ["--json", "--quiet", "--top-k", str(num_labels(model)), "--engine", engine]
            command = ["env", f"AST_CACHE={cache}", *ours]
            runs.append(Run(case, engine, command, cache if case == "first" else None))
    return runs


def num_labels(model: Path) -> int:
    return len(json.loads((model / "config.json").read_text(encoding="utf-8"))["id2label"])


def write_noise(file: Path, duration_s: int, seed: int) -> None:
    noise = 0.1 * np.random.default_rng(seed).standard_normal(duration_s * SAMPLING_RATE)
    soundfile.write(file, noise.astype(np.float32), SAMPLING_RATE)


def check_agreement(runs: list[Run]) -> None:
    """Exit where the scores differ; the first use of each engine, which converts the model."""
    scores = [{tag["label"]: tag["score"] for tag in tags_in(json.loads(output_of(run.command)))} for run in runs]
    for run, found in zip(runs, scores, strict=True):
        difference = max(abs(found[label] - score) for label, score in scores[0].items())
        if difference > SCORE_TOLERANCE:
            sys.exit(f"error: scores of {run.engine} and {runs[0].engine} differ by {difference}")


def time_alternating(runs: list[Run], num_rounds: int) -> Times:
    """Return the seconds of each round on the clock and of the processors, by case and engine."""
    times_s: Times = {(run.case, run.engine): [] for run in runs}
    for _ in range(num_rounds):
        for run in runs:
            run.clear()
            start, cpu_start = time.perf_counter(), children_s()
            subprocess.run(run.command, stdout=subprocess.DEVNULL, check=True)
            times_s[run.case, run.engine].append((time.perf_counter() - start, children_s() - cpu_start))
    return times_s


def children_s() -> float:
    """Return the processors' time of all child processes so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def peak_of(run: Run) -> float:
    run.clear()
    return peak_bytes(run.command)


def make_report(
    arguments: argparse.Namespace,
    times_s: Times,
    peaks: dict[tuple[str, str], float],
) -> dict[str, Any]:
    rows = []
    for (case, engine), times in times_s.items():
        clock, cpu = zip(*times, strict=True)
        first_clock, first_cpu = zip(*times_s[case, arguments.engines[0]], strict=True)
        ratios = [mine / theirs for mine, theirs in zip(clock, first_clock, strict=True)]
        cpu_ratios = [mine / theirs for mine, theirs in zip(cpu, first_cpu, strict=True)]
        rows.append(
            {
                "case": case,
                "engine": engine,
                "median_s": statistics.median(clock),
                "spread_s": spread(clock),
                "ratio": statistics.median(ratios),
                "ratio_spread": spread(ratios),
                "cpu_s": statistics.median(cpu),
                "cpu_ratio": statistics.median(cpu_ratios),
                "cpu_ratio_spread": spread(cpu_ratios),
                "peak_mb": peaks[case, engine] / 1e6,
            }
        )
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": describe_machine(os.cpu_count() or 1),
        "model": arguments.model,
        "num_rounds": arguments.rounds,
        "num_clips": arguments.clips,
        "long_s": arguments.long_s,
        "rows": rows,
    }


def as_markdown(report: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report["machine"]["versions"].items())
    lines = [
        f"{report['model']}, {report['num_rounds']} rounds, {report['num_clips']} clips of {CLIP_S} s in the folder, "
        f"{report['long_s']} s in the long recording, "
        f"{report['date']}. {report['machine']['processor']} ({report['machine']['instructions']}); {versions}.",
        "",
        "| Case | Engine | s | ratio | processors' s | ratio | peak MB |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in report["rows"]:
        lines.append(
            f"| {CASES[row['case']]} | {row['engine']} | {row['median_s']:.2f} +- {row['spread_s']:.2f} | "
            f"{row['ratio']:.3f} +- {row['ratio_spread']:.3f} | {row['cpu_s']:.2f} | {row['cpu_ratio']:.3f} +- "
            f"{row['cpu_ratio_spread']:.3f} | {row['peak_mb']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
