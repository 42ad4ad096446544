"""Write a manifest of ESC-10 for ``ast finetune``: one label a clip, in the author's five folds.

    python models/esc10/make_manifest.py DATA/esc10 manifest.jsonl

The folder holds ``meta.csv`` (filename, fold, audioset_label, licence) and ``audio``. Clips under CC-Sampling+ are left
out.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

UNWANTED_LICENSE = "Sampling+"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("manifest", type=Path)
    arguments = parser.parse_args()
    with open(arguments.folder / "meta.csv", newline="", encoding="utf-8") as file:
        clips = [clip for clip in csv.DictReader(file) if UNWANTED_LICENSE not in clip["licence"]]
    with open(arguments.manifest, "w", encoding="utf-8") as file:
        for clip in clips:
            path = (arguments.folder / "audio" / clip["filename"]).resolve()
            row = {"label": clip["audioset_label"], "path": str(path), "fold": int(clip["fold"])}
            file.write(json.dumps(row) + "\n")
    print(f"{len(clips)} clips")


if __name__ == "__main__":
    main()
