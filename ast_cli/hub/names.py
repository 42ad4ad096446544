"""Names of checkpoints and of their files: published checkpoints, aliases, hub ids. Standard library only."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from ast_cli.errors import UsageError

MODEL_VARIABLE = "AST_MODEL"  # the default model
BUILTIN = "builtin"
DEFAULT_ALIAS = "audioset"
CONFIG_NAME = "config.json"
PREPROCESSOR_NAME = "preprocessor_config.json"
LABELS_NAME = "labels.json"  # facts about single labels, see `ast_cli.label_list.read_unproven`
THRESHOLDS_NAME = "thresholds.json"  # optional: scores from which the labels count as present
WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = f"{WEIGHTS_NAME}.index.json"
PICKLE_NAME = "pytorch_model.bin"
ONNX_NAME = "model.onnx"  # written by `ast export`, as are OpenVINO's model.xml and model.bin
OPENVINO_NAME = "model.xml"
# Feature extractors that a ``preprocessor_config.json`` may name, and their modules in `ast_cli.audio.front_ends`.
FEATURE_EXTRACTORS = {"ASTFeatureExtractor": "kaldi", "BirdSetFeatureExtractor": "birdset"}
AST_EXTRACTOR = "ASTFeatureExtractor"  # of a file that names none
CODE_KEYS = (
    "auto_map",
    "custom_pipelines",
)  # keys that name code to import: ignored, and not written back
EXPORTED_NAMES = (ONNX_NAME, OPENVINO_NAME, "model.bin")
EXPORTED_SUFFIXES = (".onnx", ".xml")
DEFAULT_REVISION = "main"
# The hub's own rules for names: ASCII words, no "--" or "..", at most 96 characters.
HUB_ID = re.compile(r"(?!.*(?:--|\.\.))\w(?:[\w.-]{0,94}\w)?/\w(?:[\w.-]{0,94}\w)?(?<!\.git)", re.ASCII)


@dataclass(frozen=True, slots=True)
class PublishedCheckpoint:
    """One of the eight checkpoints that AST's authors published (BSD-3-Clause).

    Attributes:
        repo_id: Hub id.
        num_labels: Number of labels: 527 for AudioSet, 35 for Speech Commands.
        max_length: Length of a window in frames.
        stride: Stride of the patches in mel bins and in frames; a smaller stride is slower and more accurate.
        quality: Metric and value as the authors report them.
    """

    repo_id: str
    num_labels: int
    max_length: int
    stride: int
    quality: str


def _published(
    name: str, stride: int, quality: str, num_labels: int = 527, max_length: int = 1024
) -> PublishedCheckpoint:
    return PublishedCheckpoint(f"MIT/ast-finetuned-{name}", num_labels, max_length, stride, quality)


CHECKPOINTS = {
    "audioset-10-10-0.4593": _published("audioset-10-10-0.4593", 10, "mAP 0.4593"),
    "audioset-10-10-0.450": _published("audioset-10-10-0.450", 10, "mAP 0.450"),
    "audioset-10-10-0.448": _published("audioset-10-10-0.448", 10, "mAP 0.448"),
    "audioset-10-10-0.448-v2": _published("audioset-10-10-0.448-v2", 10, "mAP 0.448"),
    "audioset-12-12-0.447": _published("audioset-12-12-0.447", 12, "mAP 0.447"),
    "audioset-14-14-0.443": _published("audioset-14-14-0.443", 14, "mAP 0.443"),
    "audioset-16-16-0.442": _published("audioset-16-16-0.442", 16, "mAP 0.442"),
    "speech-commands": _published("speech-commands-v2", 10, "accuracy 98.12 %", num_labels=35, max_length=128),
}
SHORT_ALIASES = {DEFAULT_ALIAS: "audioset-10-10-0.4593", "fast": "audioset-16-16-0.442"}


def known_aliases() -> dict[str, str]:
    """Return the hub id of every alias, short aliases first."""
    full = {alias: checkpoint.repo_id for alias, checkpoint in CHECKPOINTS.items()}
    return {alias: full[name] for alias, name in SHORT_ALIASES.items()} | full


def repo_id_of(name: str) -> str:
    """Return the hub id of an alias; a hub id is returned as it is.

    Raises:
        UsageError: If the name is neither an alias nor a hub id; the message lists similar aliases.
    """
    aliases = known_aliases()
    if name in aliases:
        return aliases[name]
    if HUB_ID.fullmatch(name):
        return name
    if "://" in name:
        raise UsageError(f"{name!r} is a URL; use an alias or a hub id such as org/name")
    near = difflib.get_close_matches(name, [*aliases, BUILTIN], n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known names: {BUILTIN}, {', '.join(aliases)}"
    raise UsageError(f"no checkpoint folder or name {name!r}; {hint}")
