"""What a run's results depend on, as plain data: two runs with the same fingerprint may share an output."""

from __future__ import annotations

import dataclasses
from typing import Any

from ast_cli.hub import PREPROCESSOR_NAME, checkpoint_digest, checkpoint_folder
from ast_cli.results import SCHEMA_VERSION
from ast_cli.tagging.options import ClassifyOptions
from ast_cli.tagging.tagger import Tagger

CHANGES_NO_RESULT = ("batch_size",)


def fingerprint(tagger: Tagger, options: ClassifyOptions) -> dict[str, Any]:
    """Return the facts that results depend on: the checkpoint's content, its front end, the numbers' type, the options.

    The device and the batch size are left out: they change scores by less than 1e-5.
    """
    values = dataclasses.asdict(options)
    brings_front_end = (checkpoint_folder(tagger.name) / PREPROCESSOR_NAME).is_file()  # then its content is known
    return {
        **({} if brings_front_end else {"front_end": tagger.feature_extractor.to_dict()}),
        "schema_version": SCHEMA_VERSION,
        "model": checkpoint_digest(tagger.name),
        "labels": list(tagger.config.id2label.values()),
        "dtype": tagger.engine.dtype_name,
        "fbank": tagger.feature_extractor.fbank_backend,
        "options": {name: value for name, value in values.items() if name not in CHANGES_NO_RESULT},
    }
