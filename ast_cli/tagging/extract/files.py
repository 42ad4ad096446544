"""Writing the arrays of one recording to a file, atomically."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors.numpy import save as save_safetensors

from ast_cli.files.atomic import replacing, writing
from ast_cli.tagging.extract.extraction import Extraction


def write_extraction(extraction: Extraction, target: Path, facts: dict[str, Any]) -> None:
    """Write the arrays of a recording to a file in the format of its suffix; an existing file is replaced atomically.

    ``npz`` contains every array and ``metadata``, a JSON string; ``safetensors`` has the same JSON in its own metadata;
    ``npy`` contains the main array alone.

    Args:
        extraction: The arrays.
        target: The file.
        facts: The metadata.

    Raises:
        AstError: If the file cannot be written.
    """
    with writing(target), replacing(target) as file:
        _write_arrays(extraction, file, target.suffix.lower(), json.dumps(facts))


def _write_arrays(extraction: Extraction, file: BinaryIO, suffix: str, metadata: str) -> None:
    if suffix == ".npy":
        np.save(file, extraction.main, allow_pickle=False)
    elif suffix == ".safetensors":
        arrays = {name: np.ascontiguousarray(array) for name, array in extraction.arrays.items()}
        file.write(save_safetensors(arrays, metadata={"ast": metadata}))
    else:
        named: dict[str, Any] = {**extraction.arrays, "metadata": np.array(metadata)}
        np.savez(file, **named)
