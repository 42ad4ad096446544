"""The settings that the results of a run depend on: a run that is resumed must have the same."""

from __future__ import annotations

import dataclasses
from typing import Any

from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.engine.interface import Engine
from ast_cli.hub.folders import checkpoint_digest, checkpoint_folder
from ast_cli.hub.names import PREPROCESSOR_NAME
from ast_cli.tagging.options import WindowOptions

CHANGES_NO_RESULT = ("batch_size",)


def run_fingerprint(
    model: str | None, engine: Engine | None, feature_extractor: FeatureExtractor, options: WindowOptions
) -> dict[str, Any]:
    """Return the settings that results depend on: the checkpoint's content, its front end, the data type, the options.

    The device and the batch size are left out: they change scores by less than 1e-5.

    Args:
        model: Name of the checkpoint; None for a run without one.
        engine: The loaded model; None for a run that needs no model.
        feature_extractor: The front end of the checkpoint.
        options: The options of the run.
    """
    # The digest of a checkpoint covers the front end that it brings; without a checkpoint it is that of AudioSet.
    is_known = model is None or (checkpoint_folder(model) / PREPROCESSOR_NAME).is_file()
    values = dataclasses.asdict(options)
    return {
        **({} if is_known else {"front_end": feature_extractor.to_dict()}),
        "model": None if model is None else checkpoint_digest(model),
        "labels": None if engine is None else list(engine.config.id2label.values()),
        "dtype": None if engine is None else engine.dtype_name,
        "fbank": feature_extractor.fbank_backend,
        "options": {name: value for name, value in values.items() if name not in CHANGES_NO_RESULT},
    }
