"""Makes the built-in model: gathers sounds, renders others, learns, judges, and writes the package's folder.

    python models/builtin/make.py CORPUS --teacher yamnet.tflite [--data DATA] [--minutes 100] [--package FOLDER]

Each step is a script that can be run by itself; a step whose result exists is not repeated, except the last three.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def run(script: str, *arguments: object) -> None:
    subprocess.run([sys.executable, str(HERE / f"{script}.py"), *map(str, arguments)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="folder for the sounds; 30 GB while packages are unpacked")
    parser.add_argument("--teacher", type=Path, required=True, help="yamnet.tflite, as published")
    parser.add_argument("--data", type=Path, help="folder with esc10 and speech_music and their meta.csv")
    parser.add_argument("--minutes", type=float, default=100.0, help="of training")
    parser.add_argument("--steps", type=int, help="updates of training, instead of a time")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the usual number of rendered clips; 0 renders none"
    )
    parser.add_argument("--from", dest="start", type=Path, help="model folder to go on from")
    parser.add_argument(
        "--no-download", dest="download", action="store_false", help="gather the packages that are there"
    )
    parser.add_argument("--package", type=Path, default=HERE.parents[1] / "ast_cli/assets/builtin")
    options = parser.parse_args()
    corpus, model = options.corpus, options.corpus / "model"
    weights = corpus / "yamnet.safetensors"
    corpus.mkdir(parents=True, exist_ok=True)
    if not weights.exists():
        run("teacher", options.teacher, weights)
    if options.download:
        run("download", corpus)
    run("gather", corpus)
    if options.share and not list((corpus / "pieces").glob("rendered-*.npz")):
        run("render", corpus, "--share", options.share)
    if not (corpus / "index.tsv").exists():
        run("corpus", corpus, *(["--data", options.data] if options.data else []))
    schedule = ["--steps", options.steps] if options.steps else ["--minutes", options.minutes]
    start = ["--from", options.start] if options.start else []
    how = [*schedule, *start, "--batch-size", options.batch_size]
    run("train", corpus, "--teacher", weights, "--output", model, *how)
    run("evaluate", corpus, model)
    run("card", corpus, model, options.package, *(["--data", options.data] if options.data else []))


if __name__ == "__main__":
    main()
