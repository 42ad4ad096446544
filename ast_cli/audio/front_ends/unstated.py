"""The front end of a checkpoint without a ``preprocessor_config.json``. Standard library only.

There are checkpoints without this file that were trained on other sampling rates and spectrograms, which their weights
do not show. A front end is therefore chosen only by the labels, by a type of model that has one front end, or by the
user.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ast_cli.errors import AstWarning, CheckpointError, UsageError
from ast_cli.files.json_object import read_json_object, shown
from ast_cli.hub.names import AST_EXTRACTOR, CONFIG_NAME, PREPROCESSOR_NAME
from ast_cli.labels import SPEECH_COMMANDS, counts_as_audioset, is_ebird, is_speech_commands, placeholder_labels

FrontEndName = Literal["audioset", "speech-commands", "birdset"]
AUDIOSET_MEAN = -4.2677393  # mean and standard deviation of the log-mel energies of AudioSet (Gong et al., 2021)
AUDIOSET_STD = 4.5689974


@dataclass(frozen=True, slots=True)
class FrontEnd:
    """A front end as the authors of a checkpoint used it for one data set.

    Attributes:
        title: Name of the data set.
        sampling_rate: Sampling rate in Hz.
        mean: Mean of the log-mel energies.
        std: Standard deviation of the log-mel energies.
        max_length: Length of the model's input in frames.
        feature_extractor_type: Name of the feature extractor.
    """

    title: str
    sampling_rate: int
    mean: float
    std: float
    max_length: int
    feature_extractor_type: str = AST_EXTRACTOR


FRONT_ENDS: dict[FrontEndName, FrontEnd] = {
    "audioset": FrontEnd("AudioSet", 16000, AUDIOSET_MEAN, AUDIOSET_STD, 1024),
    "speech-commands": FrontEnd("Speech Commands", 16000, -6.845978, 5.5654526, 128),
    "birdset": FrontEnd("BirdSet", 32000, -4.268, 4.569, 1024, "BirdSetFeatureExtractor"),
}
BIRDSET_LABELS = (411, 9736)  # of the checkpoints for XCM and XCL
BIRDSET_INPUT = {"max_length": 1024, "num_mel_bins": 128, "patch_size": 16, "time_stride": 10, "frequency_stride": 10}
EAT_TYPE = "eat"  # model type of EAT and SSLAM, which have AST's front end, with these statistics
EAT_STATISTICS = {"mean": -4.268, "std": 4.569}


def check_front_end_name(name: str | None) -> None:
    """Validate the name of a front end; with None, the labels determine the front end.

    Raises:
        UsageError: If there is no such front end; the message lists the valid names.
    """
    if name not in (None, *get_args(FrontEndName)):
        raise UsageError(f"front end must be one of {', '.join(get_args(FrontEndName))}, not {name!r}")


def is_original(model: str | Path) -> bool:
    """Return whether a checkpoint is a file of weights without a configuration, as AST's authors publish them."""
    path = Path(model).expanduser()
    return path.is_file() and not (path.parent / CONFIG_NAME).is_file()


def warn_of_unused_front_end(front_end: FrontEndName | None, file: Path) -> None:
    """Warn if the user chose a front end but the checkpoint has its own.

    Raises:
        UsageError: If there is no such front end.
    """
    check_front_end_name(front_end)
    if front_end is not None:
        warnings.warn(
            f"--front-end {front_end} is ignored, because {file} defines the front end",
            AstWarning,
            stacklevel=3,
        )


def front_end_parameters(
    model: str | Path, folder: Path, front_end: FrontEndName | None, config: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the parameters of the feature extractor for a checkpoint without a ``preprocessor_config.json``.

    Args:
        model: Name of the checkpoint as the user gave it.
        folder: Folder of the checkpoint.
        front_end: Front end chosen by the user; None to choose by the labels.
        config: Content of ``config.json``; None to read the file.

    Raises:
        UsageError: If there is no such front end.
        CheckpointError: If neither the user nor the labels determine the front end.
    """
    check_front_end_name(front_end)
    file = folder / CONFIG_NAME
    is_alone = is_original(model)
    if config is None:
        config = read_json_object(file) if file.is_file() else {}
    if config.get("model_type") == EAT_TYPE and front_end is None:
        return {**EAT_STATISTICS, **_eat_sizes(config, str(file))}
    name = front_end or _front_end_of(config, is_alone=is_alone)
    if name is None:
        raise CheckpointError(
            f"{model}: there is no {PREPROCESSOR_NAME}, so the sampling rate and the spectrogram that the model needs "
            f"are unknown; put that file beside its {CONFIG_NAME}, or, if the model was trained on the features of "
            "AudioSet's, Speech Commands' or BirdSet's AST, add --front-end audioset, speech-commands or birdset "
            "(front_end= in Python)"
        )
    known = FRONT_ENDS[name]
    if front_end is None and not (is_alone and name == "audioset"):
        warnings.warn(
            f"{model}: there is no {PREPROCESSOR_NAME}; by its {'sizes' if is_alone else 'labels'} this is an AST for "
            f"{known.title}, so the front end for {known.title} is used ({known.sampling_rate} Hz, mean {known.mean}, "
            f"std {known.std})",
            AstWarning,
            stacklevel=3,
        )
    sizes = {key: config[key] for key in ("max_length", "num_mel_bins") if key in config}
    default = (
        {} if config else {"max_length": known.max_length}
    )  # a configuration without max_length means AST's default, 1024
    statistics = {"mean": known.mean, "std": known.std}
    return {"feature_extractor_type": known.feature_extractor_type, **statistics, **default, **sizes}


def _front_end_of(config: Mapping[str, Any], *, is_alone: bool) -> FrontEndName | None:
    """Return the front end by the labels of a configuration, or by the sizes of an original ``.pth`` without labels."""
    labels = _labels_of(config)
    if counts_as_audioset(labels):
        return "audioset"
    has_sizes = labels == placeholder_labels(len(SPEECH_COMMANDS)) and config.get("max_length") == 128
    if is_speech_commands(labels) or (is_alone and has_sizes):
        return "speech-commands"
    is_birdset = len(labels) in BIRDSET_LABELS and is_ebird(labels)
    # AST's own defaults are BirdSet's sizes, and a configuration may leave defaults out.
    has_its_input = all(config.get(key, size) == size for key, size in BIRDSET_INPUT.items())
    return "birdset" if is_birdset and has_its_input else None


def _eat_sizes(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the input size of an unvalidated configuration of EAT, whose ``img_size`` is in frames and mel bins.

    Raises:
        CheckpointError: If it is not a pair.
    """
    size = config.get("img_size", (1024, 128))
    if not isinstance(size, list | tuple) or len(size) != 2:
        raise CheckpointError(f"{where}: img_size must be the numbers of frames and mel bins, not {shown(size)}")
    return {"max_length": size[0], "num_mel_bins": size[1]}


def _labels_of(config: Mapping[str, Any]) -> dict[int, str]:
    """Return the labels of an unvalidated ``config.json``, numbered in the order of the file."""
    id2label, label2id = config.get("id2label"), config.get("label2id")
    names = id2label.values() if isinstance(id2label, Mapping) else label2id if isinstance(label2id, Mapping) else ()
    return dict(enumerate(str(name) for name in names))
