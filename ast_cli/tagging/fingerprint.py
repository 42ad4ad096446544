"""What a run's results depend on, as plain data: two runs with the same fingerprint may share an output."""

from __future__ import annotations

import dataclasses
from typing import Any

from ast_cli.hub import checkpoint_digest
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
