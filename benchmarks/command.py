"""Compare `ast classify` on one file of 5 s, started cold, with a script that uses the pipeline of transformers.

    python benchmarks/command.py [--model base|builtin|FOLDER] [--rounds 5] [--engines torch] [--json FILE]

Every run is a process from start to exit. The files are in the system's cache, as they are after a first use. Wall time
is measured in rounds in which all commands take turns. Peak memory is measured in further runs: the proportional set
sizes (PSS) of the process and its children are added up every few milliseconds, so that memory shared by two processes
counts once. The tags are compared first. The pipeline processes only one window of a file, so a model whose window is
shorter than the clip cannot be compared.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from compare import spread
from peers import describe_machine, make_checkpoint

PIPELINE = """\
import json
import sys

import soundfile
from transformers import pipeline

classifier = pipeline("audio-classification", model=sys.argv[1])
waveform, sampling_rate = soundfile.read(sys.argv[2], dtype="float32")
tags = classifier({"raw": waveform, "sampling_rate": sampling_rate}, top_k=5, function_to_apply=sys.argv[3])
print(json.dumps([[tag["label"], tag["score"]] for tag in tags]))
"""
BASELINE = "transformers pipeline"
DURATION_S, SAMPLING_RATE = 5, 16_000
SCORE_TOLERANCE = 2e-3  # the pipeline computes its features with NumPy, ours equal torchaudio's up to rounding
NUM_MEMORY_RUNS = 3
SAMPLING_INTERVAL_S = 0.005


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = make_checkpoint(arguments.model, Path(scratch))
        commands = make_commands(Path(scratch), folder, arguments.engines)
        check_agreement(commands)  # also converts models and fills the system's cache
        times_s = time_alternating(commands, arguments.rounds)
        peaks = {
            name: statistics.median(peak_bytes(command) for _ in range(min(NUM_MEMORY_RUNS, arguments.rounds)))
            for name, command in commands.items()
        }
    report = make_report(arguments, times_s, peaks)
    print(as_markdown(report))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engines", type=lambda text: text.split(","), default=["torch"])
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def make_commands(scratch: Path, folder: Path, engines: list[str]) -> dict[str, list[str]]:
    """Write the clip and the script of the pipeline; return the commands to run, with the baseline first."""
    clip, script = scratch / "clip.wav", scratch / "pipeline.py"
    noise = 0.1 * np.random.default_rng(0).standard_normal(DURATION_S * SAMPLING_RATE)
    soundfile.write(clip, noise.astype(np.float32), SAMPLING_RATE)
    script.write_text(PIPELINE, encoding="utf-8")
    is_multi_label = '"multi_label_classification"' in (folder / "config.json").read_text(encoding="utf-8")
    activation = "sigmoid" if is_multi_label else "softmax"
    commands = {BASELINE: [sys.executable, str(script), str(folder), str(clip), activation]}
    for engine in engines:
        ours = ["-m", "ast_cli", "classify", str(clip), "--model", str(folder), "--json", "--quiet"]
        commands[f"ast classify ({engine})"] = [sys.executable, *ours, "--engine", engine]
    return commands


def check_agreement(commands: dict[str, list[str]]) -> None:
    """Exit with an error if the tags differ."""
    expected = dict(json.loads(output_of(commands[BASELINE])))
    for name, command in commands.items():
        if name == BASELINE:
            continue
        ours = {tag["label"]: tag["score"] for tag in tags_in(json.loads(output_of(command)))}
        if not same_scores(expected, ours):
            sys.exit(f"error: the tags differ, so the times do not compare: {name} {ours}, {BASELINE} {expected}")


def same_scores(expected: dict[str, float], ours: dict[str, float]) -> bool:
    """Return whether both have the same scores; labels may differ if their scores are within the tolerance."""
    if any(abs(score - expected.get(label, score)) > SCORE_TOLERANCE for label, score in ours.items()):
        return False
    pairs = zip(sorted(expected.values()), sorted(ours.values()), strict=True)
    return all(abs(theirs - mine) <= SCORE_TOLERANCE for theirs, mine in pairs)


def tags_in(report: Any) -> list[dict[str, Any]]:
    """Return the tags of the one file in a JSON report."""
    record = report
    while "tags" not in record:
        record = record[0] if isinstance(record, list) else record["files"]
    tags: list[dict[str, Any]] = record["tags"]
    return tags


def output_of(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def time_alternating(commands: dict[str, list[str]], num_rounds: int) -> dict[str, list[float]]:
    """Return the times of each command in seconds, one per round."""
    times_s: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(num_rounds):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
            times_s[name].append(time.perf_counter() - start)
    return times_s


def peak_bytes(command: list[str], interval_s: float = SAMPLING_INTERVAL_S) -> float:
    """Return the peak memory of a command and its children together, in bytes."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    is_over = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_over.wait(interval_s):
            peak = max(peak, sum(proportional_bytes(number) for number in family(process.pid)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    is_over.set()
    watcher.join()
    if code:
        sys.exit(f"error: {' '.join(command)} failed with exit code {code}")
    return peak


def family(number: int) -> list[int]:
    """Return the process IDs of a process and all its descendants."""
    children: list[int] = []
    for task in Path(f"/proc/{number}/task").glob("*/children"):
        try:
            children += [int(child) for child in task.read_text().split()]
        except OSError:  # the process has ended
            continue
    return [number, *(member for child in children for member in family(child))]


def proportional_bytes(number: int) -> int:
    """Return the proportional set size of a process in bytes: its own memory and its share of shared memory."""
    try:
        for line in Path(f"/proc/{number}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def make_report(
    arguments: argparse.Namespace, times_s: dict[str, list[float]], peaks: dict[str, float]
) -> dict[str, Any]:
    rows = []
    for name, times in times_s.items():
        ratios = [mine / theirs for mine, theirs in zip(times, times_s[BASELINE], strict=True)]
        rows.append(
            {
                "name": name,
                "median_s": statistics.median(times),
                "spread_s": spread(times),
                "ratio": statistics.median(ratios),
                "ratio_spread": spread(ratios),
                "peak_mb": peaks[name] / 1e6,
                "peak_ratio": peaks[name] / peaks[BASELINE] if peaks[BASELINE] else None,
            }
        )
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": describe_machine(os.cpu_count() or 1),
        "model": arguments.model,
        "num_rounds": arguments.rounds,
        "baseline": BASELINE,
        "rows": rows,
    }


def as_markdown(report: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report["machine"]["versions"].items())
    lines = [
        f"{report['model']}, one file of {DURATION_S} s, {report['num_rounds']} rounds, {report['date']}. "
        f"{report['machine']['processor']} ({report['machine']['instructions']}); {versions}.",
        "",
        "| Command | s | ratio | peak MB | ratio |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in report["rows"]:
        peak_ratio = "" if row["peak_ratio"] is None else f"{row['peak_ratio']:.2f}"
        lines.append(
            f"| {row['name']} | {row['median_s']:.2f} +- {row['spread_s']:.2f} | {row['ratio']:.3f} +- "
            f"{row['ratio_spread']:.3f} | {row['peak_mb']:.0f} | {peak_ratio} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
