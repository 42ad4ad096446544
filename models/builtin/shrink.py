"""Copy a trained model into the package: weights as float16, in the hub's layout.

python models/builtin/shrink.py TRAINED ast_cli/assets/builtin
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ast_cli import ASTFeatureExtractor, ASTForAudioClassification

MAX_BYTES = 12_000_000  # of the wheel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", type=Path)
    parser.add_argument("package", type=Path)
    arguments = parser.parse_args()
    ASTForAudioClassification.from_pretrained(str(arguments.trained), dtype=torch.float16).save_pretrained(
        arguments.package
    )
    ASTFeatureExtractor.from_pretrained(str(arguments.trained)).save_pretrained(arguments.package)
    num_bytes = (arguments.package / "model.safetensors").stat().st_size
    if num_bytes > MAX_BYTES:
        raise SystemExit(f"{num_bytes:,} bytes are too many: the wheel may have {MAX_BYTES:,}")
    print(f"{arguments.package}: {num_bytes:,} bytes")


if __name__ == "__main__":
    main()
