"""What a run's results depend on, as plain data: two runs with the same fingerprint may share an output."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from ast_cli import hub
from ast_cli.results import SCHEMA_VERSION
from ast_cli.tagging.options import ClassifyOptions
from ast_cli.tagging.tagger import Tagger

CHANGES_NO_RESULT = ("batch_size",)


def fingerprint(tagger: Tagger, options: ClassifyOptions) -> dict[str, Any]:
    """Return the facts that results depend on: the checkpoint's content, the numbers' type, and the options.

    The device and the batch size are left out: they change scores by less than 1e-5.
    """
    values = dataclasses.asdict(options)
    return {
        "schema_version": SCHEMA_VERSION,
        "model": checkpoint_digest(tagger.name),
        "labels": list(tagger.config.id2label.values()),
        "dtype": tagger.engine.dtype_name,
        "fbank": tagger.feature_extractor.fbank_backend,
        "options": {name: value for name, value in values.items() if name not in CHANGES_NO_RESULT},
    }


def checkpoint_digest(name: str) -> str:
    """Return the SHA-256 of all files of a checkpoint that its scores depend on, wherever it lies."""
    path = Path(name).expanduser()
    files = [path] if path.is_file() and name != hub.BUILTIN else []
    folder = hub.checkpoint_folder(name)
    fixed = (hub.CONFIG_NAME, hub.PREPROCESSOR_NAME, hub.PICKLE_NAME)
    files += [folder / file for file in fixed if (folder / file).is_file()]
    files += sorted(folder.glob("model*.safetensors"))
    whole = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            whole.update(hashlib.file_digest(opened, "sha256").digest())
    return whole.hexdigest()
