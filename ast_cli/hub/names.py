"""What checkpoints and their files are called: the published ones, aliases, hub ids. Standard library only."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from ast_cli.errors import UsageError

BUILTIN = "builtin"
DEFAULT_ALIAS = "audioset"
CONFIG_NAME = "config.json"
PREPROCESSOR_NAME = "preprocessor_config.json"
WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = f"{WEIGHTS_NAME}.index.json"
PICKLE_NAME = "pytorch_model.bin"
ONNX_NAME = "model.onnx"  # what `ast export` writes, and OpenVINO's two files
OPENVINO_NAME = "model.xml"
EXPORTED_NAMES = (ONNX_NAME, OPENVINO_NAME, "model.bin")
EXPORTED_SUFFIXES = (".onnx", ".xml")
DEFAULT_REVISION = "main"
# The hub's own rules for names: ASCII words, no "--" or "..", at most 96 characters.
HUB_ID = re.compile(r"(?!.*(?:--|\.\.))\w(?:[\w.-]{0,94}\w)?/\w(?:[\w.-]{0,94}\w)?(?<!\.git)", re.ASCII)


@dataclass(frozen=True, slots=True)
class PublishedCheckpoint:
    """One of the eight checkpoints its authors published (BSD-3-Clause).

    Attributes:
        repo_id: On the hub.
        num_labels: 527 for AudioSet, 35 for Speech Commands.
        max_length: Frames of a window.
        stride: Of the patches, in mel bins and frames: the smaller, the slower and the better.
        quality: As its authors report it.
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
    """Return every alias and the hub id it stands for, the short ones first."""
    full = {alias: checkpoint.repo_id for alias, checkpoint in CHECKPOINTS.items()}
    return {alias: full[name] for alias, name in SHORT_ALIASES.items()} | full


def repo_id_of(name: str) -> str:
    """Return the hub id that an alias stands for, or the hub id itself.

    Raises:
        UsageError: Neither; near aliases are offered.
    """
    aliases = known_aliases()
    if name in aliases:
        return aliases[name]
    if HUB_ID.fullmatch(name):
        return name
    if "://" in name:
        raise UsageError(f"{name!r} is an address; name a checkpoint by its alias or as org/name")
    near = difflib.get_close_matches(name, [*aliases, BUILTIN], n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known names: {BUILTIN}, {', '.join(aliases)}"
    raise UsageError(f"no checkpoint folder or name {name!r}; {hint}")
