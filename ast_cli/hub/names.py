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
README_NAME = "README.md"  # optional: the model card, which may state the license
WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = f"{WEIGHTS_NAME}.index.json"
PICKLE_NAME = "pytorch_model.bin"
ONNX_NAME = "model.onnx"  # written by `ast export`, as are OpenVINO's model.xml and model.bin
OPENVINO_NAME = "model.xml"
# Feature extractors that a ``preprocessor_config.json`` may name, and their modules in `ast_cli.audio.front_ends`.
FEATURE_EXTRACTORS = {
    "ASTFeatureExtractor": "kaldi",
    "BirdSetFeatureExtractor": "birdset",
    "MAESTFeatureExtractor": "maest",
}
AST_FRAME_S = 0.01  # of AST's front end, for lists that import no NumPy
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
class Family:
    """Checkpoints of the same authors, with what holds for all of them.

    Attributes:
        name: Short name, as in tables.
        model_type: Encoder, as named in ``config.json``.
        paper: Authors, year and address of the paper that reports the quality.
        license_id: SPDX identifier of the license of the weights; None if their authors state none.
    """

    name: str
    model_type: str
    paper: str
    license_id: str | None


AST_TYPE = "audio-spectrogram-transformer"
AST = Family("AST", AST_TYPE, "Gong, Chung and Glass, 2021, arXiv:2104.01778", "BSD-3-Clause")
EAT = Family("EAT", "eat", "Chen and others, 2024, arXiv:2401.03497", "MIT")
SSLAM = Family("SSLAM", "eat", "Alex and others, 2025, openreview.net/forum?id=odU59TxdiB", "MIT")
MAEST = Family("MAEST", AST_TYPE, "Alonso-Jiménez, Serra and Bogdanov, 2023, arXiv:2309.16418", "CC-BY-NC-SA-4.0")
BUILT_IN = Family(BUILTIN, AST_TYPE, "its card, ast_cli/assets/builtin/README.md", "Apache-2.0")
BIRDSET = Family("BirdSet", AST_TYPE, "Rauch and others, 2024, arXiv:2403.10380", None)


@dataclass(frozen=True, slots=True)
class PublishedCheckpoint:
    """A checkpoint that its authors published, 12 blocks of width 768, with patches of 16x16.

    Attributes:
        repo_id: Hub id.
        family: Authors, encoder and license.
        labels: Kind of the labels.
        num_labels: Number of labels.
        window_s: Length of the audio of a window, in seconds.
        max_length: Length of a window in frames, with padding.
        stride: Stride of the patches in mel bins and in frames; a smaller stride is slower and more accurate.
        metric: Kind of the quality: ``mAP`` of AudioSet's evaluation clips, ``accuracy`` on the test words of Speech
            Commands, ``cmAP``, the mean over BirdSet's test regions; None where no number is known.
        quality: Value as the authors report it; None where no number is known.
        num_mel_bins: Number of mel bins.
    """

    repo_id: str
    family: Family
    labels: str
    num_labels: int
    window_s: float
    max_length: int
    stride: int
    metric: str | None = None
    quality: float | None = None
    num_mel_bins: int = 128


SOUNDS, WORDS, STYLES, BIRDS = "sounds of AudioSet", "spoken words", "music styles", "bird species"


def _audioset(name: str, stride: int, quality: float) -> PublishedCheckpoint:
    return PublishedCheckpoint(
        f"MIT/ast-finetuned-audioset-{name}", AST, SOUNDS, 527, 10.24, 1024, stride, "mAP", quality
    )


def _eat(repo_id: str, family: Family, quality: float) -> PublishedCheckpoint:
    return PublishedCheckpoint(repo_id, family, SOUNDS, 527, 10.24, 1024, 16, "mAP", quality)


def _maest(window_s: float, max_length: int, ending: str = "129e", num_labels: int = 400) -> PublishedCheckpoint:
    repo_id = f"mtg-upf/discogs-maest-{window_s:g}s-pw-{ending}"
    return PublishedCheckpoint(repo_id, MAEST, STYLES, num_labels, window_s, max_length, 10, num_mel_bins=96)


def _birdset(name: str, num_labels: int, quality: float) -> PublishedCheckpoint:
    repo_id = f"DBD-research-group/AST-BirdSet-{name}"
    return PublishedCheckpoint(repo_id, BIRDSET, BIRDS, num_labels, 5.0, 1024, 10, "cmAP", quality)


CHECKPOINTS = {
    "audioset-10-10-0.4593": _audioset("10-10-0.4593", 10, 0.4593),
    "audioset-10-10-0.450": _audioset("10-10-0.450", 10, 0.450),
    "audioset-10-10-0.448": _audioset("10-10-0.448", 10, 0.448),
    "audioset-10-10-0.448-v2": _audioset("10-10-0.448-v2", 10, 0.448),
    "audioset-12-12-0.447": _audioset("12-12-0.447", 12, 0.447),
    "audioset-14-14-0.443": _audioset("14-14-0.443", 14, 0.443),
    "audioset-16-16-0.442": _audioset("16-16-0.442", 16, 0.442),
    "eat": _eat("worstchan/EAT-base_epoch30_finetune_AS2M", EAT, 0.489),
    "sslam": _eat("ta012/SSLAM_AS2M_Finetuned", SSLAM, 0.502),
    "speech-commands": PublishedCheckpoint(
        "MIT/ast-finetuned-speech-commands-v2", AST, WORDS, 35, 1.28, 128, 10, "accuracy", 0.9812
    ),
    "maest": _maest(30, 1876, "129e-519l", 519),
    "maest-400": _maest(30, 1876),
    "maest-20s": _maest(20, 1256),
    "maest-10s": _maest(10, 626),
    "maest-5s": _maest(5, 316),
    "birdset": _birdset("XCM", 411, 0.31),
    "birdset-xcl": _birdset("XCL", 9736, 0.34),
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
