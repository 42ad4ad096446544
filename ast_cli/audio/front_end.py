"""The front end of a checkpoint that brings no ``preprocessor_config.json``. Standard library only.

Real checkpoints without that file were trained on other sampling rates and spectrograms, and nothing in their weights
says so. So a front end is taken only where the labels, or the user, tell which.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ast_cli.errors import AstWarning, CheckpointError, UsageError
from ast_cli.files.json_object import read_json_object
from ast_cli.hub.names import CONFIG_NAME, PREPROCESSOR_NAME
from ast_cli.labels import SPEECH_COMMANDS, counts_as_audioset, is_speech_commands, placeholder_labels

FrontEndName = Literal["audioset", "speech-commands"]
FbankBackend = Literal["native", "numpy", "torchaudio"]  # whose filter bank computes it
AUDIOSET_MEAN = -4.2677393  # of the log-mel energies over AudioSet (Gong et al., 2021)
AUDIOSET_STD = 4.5689974


@dataclass(frozen=True, slots=True)
class FrontEnd:
    """AST's filter bank as its authors used it on one data set.

    Attributes:
        title: Of the data set.
        mean: Of its log-mel energies.
        std: Their standard deviation.
        max_length: Frames of a window.
    """

    title: str
    mean: float
    std: float
    max_length: int


FRONT_ENDS: dict[FrontEndName, FrontEnd] = {
    "audioset": FrontEnd("AudioSet", AUDIOSET_MEAN, AUDIOSET_STD, 1024),
    "speech-commands": FrontEnd("Speech Commands", -6.845978, 5.5654526, 128),
}


def check_front_end_name(name: str | None) -> None:
    """Refuse what names no front end; None leaves the choice to the labels.

    Raises:
        UsageError: Naming the choices.
    """
    if name not in (None, *get_args(FrontEndName)):
        raise UsageError(f"front end must be one of {', '.join(get_args(FrontEndName))}, not {name!r}")


def is_original(model: str | Path) -> bool:
    """Tell whether a checkpoint is one file of weights without a configuration, as AST's authors publish them."""
    path = Path(model).expanduser()
    return path.is_file() and not (path.parent / CONFIG_NAME).is_file()


def warn_of_unused_front_end(front_end: FrontEndName | None, file: Path) -> None:
    """Say that a checkpoint brings its own front end where the user asked for another.

    Raises:
        UsageError: There is no such front end.
    """
    check_front_end_name(front_end)
    if front_end is not None:
        warnings.warn(
            f"{file} says which front end is used; --front-end {front_end} is for checkpoints without that file",
            AstWarning,
            stacklevel=3,
        )


def front_end_parameters(
    model: str | Path, folder: Path, front_end: FrontEndName | None, config: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the parameters of the feature extractor of a checkpoint that brings none.

    Args:
        model: What the user called the checkpoint.
        folder: Where it lies.
        front_end: The front end asked for; None to go by the labels.
        config: The content of its ``config.json``; None to read that.

    Raises:
        UsageError: There is no such front end.
        CheckpointError: Neither the user nor the labels tell which front end is meant.
    """
    check_front_end_name(front_end)
    file = folder / CONFIG_NAME
    is_alone = is_original(model)
    if config is None:
        config = read_json_object(file) if file.is_file() else {}
    name = front_end or _front_end_of(config, is_alone=is_alone)
    if name is None:
        raise CheckpointError(
            f"{model}: there is no {PREPROCESSOR_NAME}, so nothing says which sampling rate and spectrogram it hears; "
            f"put that file beside its {CONFIG_NAME}, or, if it was trained on the features of AudioSet's or Speech "
            "Commands' AST, say --front-end audioset or --front-end speech-commands (front_end= in Python)"
        )
    known = FRONT_ENDS[name]
    if front_end is None and not (is_alone and name == "audioset"):
        warnings.warn(
            f"{model}: there is no {PREPROCESSOR_NAME}; by its {'sizes' if is_alone else 'labels'} this is an AST of "
            f"{known.title}, and it is given that front end (16000 Hz, mean {known.mean}, std {known.std})",
            AstWarning,
            stacklevel=3,
        )
    sizes = {key: config[key] for key in ("max_length", "num_mel_bins") if key in config}
    default = {} if config else {"max_length": known.max_length}  # AST's own 1024 where a configuration is silent
    return {"mean": known.mean, "std": known.std, **default, **sizes}


def _front_end_of(config: Mapping[str, Any], *, is_alone: bool) -> FrontEndName | None:
    """Tell the front end from a configuration's labels; of an original ``.pth``, which has none, from its sizes."""
    labels = _labels_of(config)
    if counts_as_audioset(labels):
        return "audioset"
    looks_alike = labels == placeholder_labels(len(SPEECH_COMMANDS)) and config.get("max_length") == 128
    return "speech-commands" if is_speech_commands(labels) or (is_alone and looks_alike) else None


def _labels_of(config: Mapping[str, Any]) -> dict[int, str]:
    """Return the labels of a ``config.json`` as it stands in the file, numbered as they come."""
    id2label, label2id = config.get("id2label"), config.get("label2id")
    names = id2label.values() if isinstance(id2label, Mapping) else label2id if isinstance(label2id, Mapping) else ()
    return dict(enumerate(str(name) for name in names))
