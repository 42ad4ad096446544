"""Measure how time per file and memory of `ast classify` grow with the number of files, from 10 to 10,000.

    python benchmarks/growth.py [--counts 10,100,1000,10000] [--json FILE]

The model is tiny, so that the run time is that of everything around it: listing, decoding in worker processes, batches,
results, the journal. Each file contains different noise. Time per file is the time beyond that of a run over one file,
which covers the start-up. Memory is the peak of the proportional set sizes of the process and its children together.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from command import peak_bytes
from peers import describe_machine

from ast_cli import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

SAMPLING_RATE = 16_000
DURATION_S = 0.5
TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48, "max_length": 64}


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        scratch = Path(name)
        checkpoint = write_checkpoint(scratch / "tiny")
        write_clips(scratch / "clips", max(arguments.counts))
        rows = [measure(count, scratch, checkpoint) for count in (1, *arguments.counts)]
    start_up, *rows = rows
    for row in rows:
        row["ms_per_file"] = (row["seconds"] - start_up["seconds"]) / (row["num_files"] - 1) * 1000
    print("| files | s | ms a file beyond the first | peak MB |\n| ---: | ---: | ---: | ---: |")
    for row in rows:
        print(f"| {row['num_files']} | {row['seconds']:.1f} | {row['ms_per_file']:.2f} | {row['peak_mb']:.0f} |")
    report = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": describe_machine(torch.get_num_threads()),
        "start_up_s": start_up["seconds"],
        "rows": rows,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--counts", type=lambda text: [int(count) for count in text.split(",")], default=[10, 100, 1_000, 10_000]
    )
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def write_checkpoint(folder: Path) -> Path:
    torch.manual_seed(0)
    ASTForAudioClassification(ASTConfig(**TINY, id2label={0: "this", 1: "that"})).save_pretrained(folder)
    ASTFeatureExtractor(max_length=TINY["max_length"]).save_pretrained(folder)
    return folder


def write_clips(folder: Path, num_files: int) -> None:
    """Write clips of noise, a thousand per folder."""
    rng = np.random.default_rng(0)
    for number in range(num_files):
        file = folder / f"{number // 1_000:03d}" / f"{number:06d}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, 0.1 * rng.standard_normal(round(DURATION_S * SAMPLING_RATE)), SAMPLING_RATE)


def measure(num_files: int, scratch: Path, checkpoint: Path) -> dict[str, Any]:
    """Tag files into a JSON Lines file, check its records, and return time and peak memory."""
    clips = sorted((scratch / "clips").rglob("*.wav"))[:num_files]
    listing, output = scratch / "files.txt", scratch / f"{num_files}.jsonl"
    listing.write_text("".join(f"{clip}\n" for clip in clips), encoding="utf-8")
    options = [
        "--model",
        str(checkpoint),
        "--format",
        "jsonl",
        "--output",
        str(output),
        "--quiet",
        "--engine",
        "torch",
        "--batch-size",
        "16",
    ]
    command = [sys.executable, "-m", "ast_cli", "classify", "--files-from", str(listing), *options]
    start = time.perf_counter()
    peak = peak_bytes(command, interval_s=0.1)
    seconds = time.perf_counter() - start
    records = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    if [record["status"] for record in records if record["type"] == "file"] != ["ok"] * num_files:
        sys.exit(f"error: {output.name} does not contain {num_files} tagged files")
    return {"num_files": num_files, "seconds": seconds, "peak_mb": peak / 1e6}


if __name__ == "__main__":
    main()
