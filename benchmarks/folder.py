"""Compare the end-to-end rate over a folder of files with the rate of the model alone; both take turns.

    python benchmarks/folder.py [--model base|builtin|FOLDER] [--files 8] [--rounds 3] [--device auto] [--workers N]
                                [--batch-size N]

The script writes FLAC clips of 5 to 30 s, 44.1 kHz, stereo, into a folder. End to end does what `ast classify` does:
decoding in worker processes, filter bank, windows, batches, scores. The model alone runs on the input_values of the
same windows, with the same engine and batch size. Starting the workers counts as end to end, which weighs more with few
files than in a long run. The target is a rate of 95 % of the model alone, on a CPU at base size.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch

from ast_cli import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, ClassifyOptions, Tagger
from ast_cli.engine.torch.device import resolve_device, resolve_dtype_for
from ast_cli.engine.torch.torch_engine import TorchEngine
from ast_cli.tagging.decode.pool import default_num_workers
from ast_cli.tagging.inputs import list_inputs
from ast_cli.tagging.options import DecodeOptions
from ast_cli.tagging.score.classify import classify_inputs

SAMPLING_RATE = 44_100


def make_tagger(name: str, device: str) -> Tagger:
    if name != "base":
        return Tagger.from_pretrained(name, engine="torch", device=device)
    on = resolve_device(device)
    torch.manual_seed(0)
    engine = TorchEngine(ASTForAudioClassification(ASTConfig(num_labels=527)), on, resolve_dtype_for("auto", on))
    return Tagger(engine, ASTFeatureExtractor(), "base, random weights")


def make_clips(folder: Path, num_files: int) -> float:
    """Write the clips, and return their total length in seconds."""
    rng = np.random.default_rng(0)
    total_s = 0.0
    for i in range(num_files):
        duration_s = float(rng.uniform(5, 30))
        noise = 0.1 * rng.standard_normal((round(duration_s * SAMPLING_RATE), 2))
        soundfile.write(folder / f"{i:05d}.flac", noise, SAMPLING_RATE)
        total_s += duration_s
    return total_s


class Cost(NamedTuple):
    """The wall time of a run and its CPU time, worker processes included, both in seconds."""

    elapsed_s: float
    cpu_s: float


def now() -> Cost:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return Cost(time.perf_counter(), sum(usage.ru_utime + usage.ru_stime for usage in usages))


def since(start: Cost) -> Cost:
    end = now()
    return Cost(end.elapsed_s - start.elapsed_s, end.cpu_s - start.cpu_s)


def run_model(tagger: Tagger, batches: list[torch.Tensor]) -> Cost:
    started = now()
    for batch in batches:
        tagger.engine.logits(batch)
    return since(started)


def run_folder(tagger: Tagger, folder: Path, options: ClassifyOptions, num_workers: int) -> Cost:
    started = now()
    results = list(classify_inputs(tagger, list_inputs([str(folder)]), options, DecodeOptions(num_workers)))
    cost = since(started)
    assert all(getattr(result, "error", None) is None for result in results)
    return cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="base")
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=default_num_workers())
    parser.add_argument("--batch-size", type=int)
    arguments = parser.parse_args()
    tagger = make_tagger(arguments.model, arguments.device)
    options = ClassifyOptions(batch_size=arguments.batch_size or tagger.engine.default_batch_size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        audio_s = make_clips(folder, arguments.files)
        paths = sorted(str(path) for path in folder.iterdir())
        windows = torch.cat([torch.from_numpy(tagger.extract(path, what="input-values").main) for path in paths])
        batches = list(windows.split(options.batch_size or 1))
        run_model(tagger, batches[:1])  # warm-up
        rounds = [
            (run_model(tagger, batches), run_folder(tagger, folder, options, arguments.workers))
            for _ in range(arguments.rounds)
        ]
    print(
        f"{tagger.name}: {arguments.files} files, {audio_s:.0f} s of audio, {len(windows)} windows in batches of "
        f"{options.batch_size}; {torch.get_num_threads()} threads, {arguments.workers} workers"
    )
    for what, costs in zip(("model alone", "end to end"), zip(*rounds, strict=True), strict=True):
        seconds, cpu_s = statistics.median(cost.elapsed_s for cost in costs), statistics.median(c.cpu_s for c in costs)
        rates = f"{len(windows) / seconds:8.2f} windows/s  {audio_s / seconds:8.1f} x real time"
        print(f"{what:12} {seconds:8.2f} s  {cpu_s:8.2f} s of processors  {rates}")
    for what, field in (("on the clock", 0), ("of processors' time, which other programs disturb less", 1)):
        rates = sorted(100 * model[field] / end_to_end[field] for model, end_to_end in rounds)
        print(f"model alone / end to end: {statistics.median(rates):.1f} % {what} ({rates[0]:.1f} to {rates[-1]:.1f})")


if __name__ == "__main__":
    main()
