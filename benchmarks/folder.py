"""End-to-end rate over a folder against the rate of the model alone, in one run, alternating.

    python benchmarks/folder.py [--model base|builtin|FOLDER] [--files 8] [--rounds 3] [--device auto] [--workers N]
                                [--batch-size N]

The folder holds FLAC clips of 5 to 30 s, 44.1 kHz, stereo, made for the run. End to end is what `ast classify` does:
decoding in worker processes, filter bank, windows, batches, scores. Model alone is the same windows, ready as
input_values, through the same engine in batches of the same size. Starting the workers counts as end to end: with few
files it weighs more than in a long run. The target is 95 % on a CPU with the base size.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

from ast_cli import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, ClassifyOptions, Tagger
from ast_cli.engine.device import resolve_device, resolve_dtype_for
from ast_cli.engine.torch_engine import TorchEngine
from ast_cli.tagging.decode_pool import DecodePool, default_num_workers
from ast_cli.tagging.inputs import list_inputs

SAMPLING_RATE = 44_100


def make_tagger(name: str, device: str) -> Tagger:
    if name != "base":
        return Tagger.from_pretrained(name, device=device)
    on = resolve_device(device)
    torch.manual_seed(0)
    engine = TorchEngine(ASTForAudioClassification(ASTConfig(num_labels=527)), on, resolve_dtype_for("auto", on))
    return Tagger(engine, ASTFeatureExtractor(), "base, random weights")


def make_clips(folder: Path, num_files: int) -> float:
    """Write the clips; return their length in seconds."""
    rng = np.random.default_rng(0)
    total_s = 0.0
    for i in range(num_files):
        duration_s = float(rng.uniform(5, 30))
        noise = 0.1 * rng.standard_normal((round(duration_s * SAMPLING_RATE), 2))
        soundfile.write(folder / f"{i:05d}.flac", noise, SAMPLING_RATE)
        total_s += duration_s
    return total_s


def time_model(tagger: Tagger, batches: list[torch.Tensor]) -> float:
    started = time.perf_counter()
    for batch in batches:
        tagger.engine.logits(batch)
    return time.perf_counter() - started


def time_folder(tagger: Tagger, folder: Path, options: ClassifyOptions, num_workers: int) -> float:
    started = time.perf_counter()
    with DecodePool(num_workers, tagger.feature_extractor.sampling_rate, options) as pool:
        results = list(tagger.classify_sources(pool.open_streams(list_inputs([str(folder)])), options))
    elapsed_s = time.perf_counter() - started
    assert all(getattr(result, "error", None) is None for result in results)
    return elapsed_s


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
        time_model(tagger, batches[:1])  # warm-up
        rounds = [
            (time_model(tagger, batches), time_folder(tagger, folder, options, arguments.workers))
            for _ in range(arguments.rounds)
        ]
    model_s, folder_s = (statistics.median(times) for times in zip(*rounds, strict=True))
    shares = sorted(model / end_to_end for model, end_to_end in rounds)
    print(
        f"{tagger.name}: {arguments.files} files, {audio_s:.0f} s of audio, {len(windows)} windows in batches of "
        f"{options.batch_size}; {torch.get_num_threads()} threads, {arguments.workers} workers"
    )
    for what, seconds in (("model alone", model_s), ("end to end", folder_s)):
        rate = len(windows) / seconds
        print(f"{what:12} {seconds:8.2f} s  {rate:8.2f} windows/s  {audio_s / seconds:8.1f} x real time")
    share, low, high = (100 * value for value in (statistics.median(shares), shares[0], shares[-1]))
    print(f"end to end / model alone: {share:.1f} % ({low:.1f} to {high:.1f})")


if __name__ == "__main__":
    main()
