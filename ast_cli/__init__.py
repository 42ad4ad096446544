"""Tag audio with the Audio Spectrogram Transformer.

The names below are imported on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ast_cli.audio.decode import load_waveform, open_audio
    from ast_cli.audio.fbank.mel_bank import FbankConfig
    from ast_cli.audio.fbank.torch_fbank import log_mel_fbank
    from ast_cli.audio.feature_extractor import FeatureExtractor
    from ast_cli.audio.front_ends.kaldi import ASTFeatureExtractor
    from ast_cli.errors import AstError, AudioError, CheckpointError, DeviceError, HubError, UsageError
    from ast_cli.model.config import ASTConfig
    from ast_cli.model.transformer import ASTForAudioClassification, ASTModel
    from ast_cli.report.data_frame import results_to_dataframe
    from ast_cli.report.reading import read_results
    from ast_cli.results import Event, Tag, TaggingResult, Window
    from ast_cli.tagging.options import ClassifyOptions, DecodeOptions
    from ast_cli.tagging.run.tag_files import tag_files
    from ast_cli.tagging.tagger import Tagger

_HOMES = {
    "ASTConfig": "model.config",
    "ASTFeatureExtractor": "audio.front_ends.kaldi",
    "ASTForAudioClassification": "model.transformer",
    "ASTModel": "model.transformer",
    "AstError": "errors",
    "AudioError": "errors",
    "CheckpointError": "errors",
    "DeviceError": "errors",
    "HubError": "errors",
    "ClassifyOptions": "tagging.options",
    "DecodeOptions": "tagging.options",
    "Event": "results",
    "FbankConfig": "audio.fbank.mel_bank",
    "FeatureExtractor": "audio.feature_extractor",
    "Tag": "results",
    "Tagger": "tagging.tagger",
    "TaggingResult": "results",
    "UsageError": "errors",
    "Window": "results",
    "load_waveform": "audio.decode",
    "log_mel_fbank": "audio.fbank.torch_fbank",
    "open_audio": "audio.decode",
    "read_results": "report.reading",
    "results_to_dataframe": "report.data_frame",
    "tag_files": "tagging.run.tag_files",
}

__all__ = [
    "ASTConfig",
    "ASTFeatureExtractor",
    "ASTForAudioClassification",
    "ASTModel",
    "AstError",
    "AudioError",
    "CheckpointError",
    "ClassifyOptions",
    "DecodeOptions",
    "DeviceError",
    "Event",
    "FbankConfig",
    "FeatureExtractor",
    "HubError",
    "Tag",
    "Tagger",
    "TaggingResult",
    "UsageError",
    "Window",
    "__version__",
    "load_waveform",
    "log_mel_fbank",
    "open_audio",
    "read_results",
    "results_to_dataframe",
    "tag_files",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ast_cli' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"ast_cli.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted(__all__)
