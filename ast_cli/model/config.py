"""The configuration of a checkpoint, as stored in its ``config.json``. Does not import torch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ast_cli.errors import CheckpointError, UsageError
from ast_cli.files.json_object import read_json_object, shown, write_json_object
from ast_cli.hub.folders import checkpoint_folder
from ast_cli.hub.names import CODE_KEYS, CONFIG_NAME
from ast_cli.labels import (
    counts_as_audioset,
    is_ebird,
    is_plain,
    is_speech_commands,
    mostly_audioset,
    placeholder_labels,
)
from ast_cli.model import eat_config
from ast_cli.model.field_checks import (
    LIMITS,
    MAX_LABELS,
    MAX_TOKENS,
    check_flag,
    check_number,
    check_whole_number,
)
from ast_cli.model.form import AST, EAT, FORMS, EncoderForm
from ast_cli.styles import are_styles

HIDDEN_ACTS = ("gelu", "relu", "selu", "gelu_new")
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
LABEL_KEYS = ("id2label", "label2id", "num_labels")


class ASTConfig:
    """Architecture and labels of an AST, or of a model of another form that is described in the same terms.

    The defaults are those of the AudioSet checkpoints of AST with strides of 10.

    Args:
        hidden_size: Width of the encoder, in features.
        num_hidden_layers: Number of blocks.
        num_attention_heads: Number of attention heads per block; must divide ``hidden_size``.
        intermediate_size: Width of the hidden layer of the MLP in a block.
        hidden_act: Activation of the MLP: ``gelu``, ``relu``, ``selu``, ``gelu_new``, or a function of a tensor.
        hidden_dropout_prob: Dropout rate after the embeddings, the attention and the MLP, in training.
        attention_probs_dropout_prob: Dropout rate of the attention probabilities, in training.
        initializer_range: Standard deviation of the truncated normal distribution of initial weights.
        layer_norm_eps: Epsilon of every layer normalization.
        patch_size: Side length of the square patches, in mel bins and frames.
        qkv_bias: Whether queries, keys and values have biases.
        frequency_stride: Distance between patches along frequency, in mel bins.
        time_stride: Distance between patches along time, in frames.
        max_length: Length of the input, in frames.
        num_mel_bins: Number of mel bins of the input.
        **kwargs: ``id2label``, ``label2id``, ``num_labels``, ``problem_type``, ``output_attentions``,
            ``output_hidden_states`` and ``return_dict``; ``model_type``, which chooses the form of the encoder;
            ``position_rows``, the length along time of a fixed table of positions, in patches. Any other key is kept
            in ``extra`` and written back, unless it names code to import.

    Raises:
        UsageError: If a value is invalid; the message names the field.
    """

    def __init__(
        self,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        hidden_act: str | Callable[..., Any] = "gelu",
        hidden_dropout_prob: float = 0.0,
        attention_probs_dropout_prob: float = 0.0,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12,
        patch_size: int = 16,
        qkv_bias: bool = True,
        frequency_stride: int = 10,
        time_stride: int = 10,
        max_length: int = 1024,
        num_mel_bins: int = 128,
        **kwargs: Any,
    ) -> None:
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.patch_size = patch_size
        self.qkv_bias = qkv_bias
        self.frequency_stride = frequency_stride
        self.time_stride = time_stride
        self.max_length = max_length
        self.num_mel_bins = num_mel_bins

        self.problem_type: str | None = kwargs.pop("problem_type", None)
        self.output_attentions: bool = kwargs.pop("output_attentions", False)
        self.output_hidden_states: bool = kwargs.pop("output_hidden_states", False)
        self.return_dict: bool = kwargs.pop("return_dict", True)
        id2label, label2id, num_labels = (kwargs.pop(key, None) for key in LABEL_KEYS)
        self.id2label = named_labels(id2label, label2id, num_labels)
        self.has_own_labels = id2label is not None or label2id is not None
        self.form: EncoderForm = FORMS.get(kwargs.pop("model_type", None), AST)
        self.position_rows: int | None = kwargs.pop("position_rows", None) if self.form.fixed_positions else None
        for key in CODE_KEYS:
            kwargs.pop(key, None)
        self.extra: dict[str, Any] = kwargs
        self.validate()

    @property
    def model_type(self) -> str:
        """Name of the form of the encoder in ``config.json``."""
        return self.form.model_type

    @property
    def has_no_head(self) -> bool:
        """Whether ``config.json`` says that the weights are those of a pretrained encoder, without a head."""
        return self.form == EAT and self.extra.get("model_variant") == eat_config.PRETRAINED

    @property
    def num_labels(self) -> int:
        """Number of outputs of the classification head."""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, num_labels: int) -> None:
        if num_labels != len(self.id2label):  # as in transformers: placeholder names replace the labels
            self.id2label = placeholder_labels(num_labels)

    @property
    def label2id(self) -> dict[str, int]:
        """Mapping from label to class index."""
        return {label: label_id for label_id, label in self.id2label.items()}

    @property
    def num_patches(self) -> tuple[int, int]:
        """Number of patches along frequency and along time; (12, 101) by default."""
        frequency = (self.num_mel_bins - self.patch_size) // self.frequency_stride + 1
        time = (self.max_length - self.patch_size) // self.time_stride + 1
        return frequency, time

    @property
    def num_tokens(self) -> int:
        """Length of the sequence: the prefix tokens and the patches; 1214 by default."""
        frequency, time = self.num_patches
        return self.form.num_prefix_tokens + frequency * time

    @property
    def num_positions(self) -> int:
        """Number of position embeddings: one per token, or the rows of a fixed table."""
        frequency, time = self.num_patches
        return (self.position_rows or time) * frequency if self.form.fixed_positions else self.num_tokens

    def validate(self) -> None:
        """Validate every value before a model is built from it.

        Raises:
            UsageError: If a value is invalid; the message names the field, its value and the allowed values.
        """
        for name, limit in LIMITS.items():
            check_whole_number(name, getattr(self, name), limit)
        for name, low, high in (
            ("hidden_dropout_prob", 0.0, 1.0),
            ("attention_probs_dropout_prob", 0.0, 1.0),
            ("initializer_range", 0.0, 10.0),
            ("layer_norm_eps", 0.0, 1.0),
        ):
            check_number(name, getattr(self, name), low, high)
        for name in ("qkv_bias", "output_attentions", "output_hidden_states", "return_dict"):
            check_flag(name, getattr(self, name))
        if not callable(self.hidden_act) and self.hidden_act not in HIDDEN_ACTS:
            raise UsageError(f"hidden_act must be one of {', '.join(HIDDEN_ACTS)}, not {shown(self.hidden_act)}")
        if self.problem_type not in (None, *PROBLEM_TYPES):
            raise UsageError(f"problem_type must be one of {', '.join(PROBLEM_TYPES)}, not {shown(self.problem_type)}")
        if self.hidden_size % self.num_attention_heads:
            raise UsageError(
                f"hidden_size {self.hidden_size} is not divisible by num_attention_heads {self.num_attention_heads}"
            )
        if self.patch_size > min(self.num_mel_bins, self.max_length):
            raise UsageError(
                f"patch_size {self.patch_size} does not fit into num_mel_bins {self.num_mel_bins} "
                f"and max_length {self.max_length}"
            )
        if self.num_tokens > MAX_TOKENS:
            raise UsageError(
                f"these strides and lengths give {self.num_tokens} tokens; at most {MAX_TOKENS} are allowed"
            )
        if self.form.fixed_positions:
            self._validate_positions()

    def _validate_positions(self) -> None:
        """Validate the size of a fixed table of positions."""
        if self.position_rows is not None:
            check_whole_number("position_rows", self.position_rows, LIMITS["max_length"])
            _, time = self.num_patches
            if time > self.position_rows:
                raise UsageError(
                    f"max_length {self.max_length} gives {time} patches along time, and the model has positions for "
                    f"{self.position_rows}"
                )
        if self.num_positions > MAX_TOKENS:
            raise UsageError(
                f"{self.position_rows} rows along time give {self.num_positions} positions; at most {MAX_TOKENS} are "
                "allowed"
            )
        if self.frequency_stride != self.time_stride:
            raise UsageError(
                f"frequency_stride {self.frequency_stride} and time_stride {self.time_stride} must be equal in a model "
                f"of type {self.model_type}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``config.json``.

        Raises:
            UsageError: If ``hidden_act`` is a function, which JSON cannot represent.
        """
        if callable(self.hidden_act):
            raise UsageError(
                f"hidden_act is a function and cannot be written to JSON; set it to one of {', '.join(HIDDEN_ACTS)}"
            )
        return {
            **self.extra,
            "model_type": self.model_type,
            **(eat_config.keys_of(self) if self.form == EAT else self._architecture()),
            "id2label": {str(label_id): label for label_id, label in self.id2label.items()},
            "label2id": self.label2id,
            "problem_type": self.problem_type,
            **self._output_flags(),
        }

    def _architecture(self) -> dict[str, Any]:
        """Return the keys of AST's ``config.json`` that state the architecture."""
        return {
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "intermediate_size": self.intermediate_size,
            "hidden_act": self.hidden_act,
            "hidden_dropout_prob": self.hidden_dropout_prob,
            "attention_probs_dropout_prob": self.attention_probs_dropout_prob,
            "initializer_range": self.initializer_range,
            "layer_norm_eps": self.layer_norm_eps,
            "patch_size": self.patch_size,
            "qkv_bias": self.qkv_bias,
            "frequency_stride": self.frequency_stride,
            "time_stride": self.time_stride,
            "max_length": self.max_length,
            "num_mel_bins": self.num_mel_bins,
        }

    def _output_flags(self) -> dict[str, bool]:
        """Return the output flags that differ from their defaults; transformers leaves out the others too."""
        flags = {"output_attentions": False, "output_hidden_states": False, "return_dict": True}
        return {name: getattr(self, name) for name, default in flags.items() if getattr(self, name) != default}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **overrides: Any) -> ASTConfig:
        """Build a configuration from the content of ``config.json``.

        An override of ``id2label``, ``label2id`` or ``num_labels`` replaces all three values of the file.

        Raises:
            CheckpointError: If the content describes another kind of model or contains an invalid value.
        """
        kind = values.get("model_type", AST.model_type)
        if not isinstance(kind, str) or kind not in FORMS:
            raise CheckpointError(f"{CONFIG_NAME}: this is a {shown(kind)} model, not an Audio Spectrogram Transformer")
        try:
            fields = eat_config.fields_of(values) if kind == EAT.model_type else values
            if not overrides.keys().isdisjoint(LABEL_KEYS):
                fields = {name: value for name, value in fields.items() if name not in LABEL_KEYS}
            return cls(**{**fields, **overrides})
        except (UsageError, TypeError) as error:
            raise CheckpointError(f"{CONFIG_NAME}: {error}") from error

    @classmethod
    def from_pretrained(cls, model: str | Path, **overrides: Any) -> ASTConfig:
        """Read the configuration of a checkpoint: a folder, an alias or a hub id.

        Raises:
            CheckpointError: If the file is missing or is not a valid AST configuration.
            HubError: If the checkpoint is not on this machine and cannot be downloaded.
        """
        return read_config(checkpoint_folder(model), **overrides)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` into a folder, creating the folder if needed.

        Raises:
            CheckpointError: If the folder cannot be written, or JSON cannot represent a value of ``extra``.
        """
        write_json_object(Path(folder) / CONFIG_NAME, self.to_dict())

    def __eq__(self, other: object) -> bool:
        """Compare field by field; it makes no difference where the label names came from."""
        if not isinstance(other, ASTConfig):
            return NotImplemented
        return vars(self) | {"has_own_labels": None} == vars(other) | {"has_own_labels": None}

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        """Show the fields that differ from the defaults."""
        default = {} if type(self) is not ASTConfig else vars(_DEFAULT)
        changed = [f"{name}={value!r}" for name, value in vars(self).items() if value != default.get(name)]
        return f"ASTConfig({', '.join(changed)})"


def read_config(folder: Path, *, forget_bad_labels: bool = False, **overrides: Any) -> ASTConfig:
    """Read the ``config.json`` of a folder.

    Args:
        folder: Folder of the checkpoint.
        forget_bad_labels: Whether to ignore a label map with gaps, duplicates or other errors.
        **overrides: Values that replace those of the file.

    Raises:
        CheckpointError: If the file is not a valid AST configuration; the message begins with the path.
    """
    values = read_json_object(folder / CONFIG_NAME)
    return config_from(values, str(folder), forget_bad_labels=forget_bad_labels, **overrides)


def config_from(
    values: Mapping[str, Any], where: str, *, forget_bad_labels: bool = False, **overrides: Any
) -> ASTConfig:
    """Build a configuration from the content of a ``config.json``, wherever it was stored.

    The other arguments and the errors are those of `read_config`; ``where`` begins the error messages.
    """
    if forget_bad_labels:
        keys = ("id2label", "label2id", "num_classes" if values.get("model_type") == EAT.model_type else "num_labels")
        try:
            named_labels(*(values.get(key) for key in keys))
        except UsageError:
            values = {name: value for name, value in values.items() if name not in keys}
    try:
        return ASTConfig.from_dict(values, **overrides)
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from error


def named_labels(
    id2label: Mapping[Any, Any] | None, label2id: Mapping[Any, Any] | None, num_labels: int | None
) -> dict[int, str]:
    """Return the mapping from class index to label, in index order, from the label fields of a configuration.

    Indices may be integers or, as in JSON, strings, in any order.

    Raises:
        UsageError: If there are gaps or duplicates, an index is not an integer, a label is not plain text, or the
            number of labels differs from ``num_labels``.
    """
    if num_labels is not None and (type(num_labels) is not int or not 1 <= num_labels <= MAX_LABELS):
        raise UsageError(f"num_labels must be a whole number from 1 to {MAX_LABELS}, not {shown(num_labels)}")
    if id2label is None and label2id is None:
        return placeholder_labels(2 if num_labels is None else num_labels)  # 2 is the default of transformers
    field, labels = ("label2id", label2id) if id2label is None else ("id2label", id2label)
    if not isinstance(labels, Mapping) or not 1 <= len(labels) <= MAX_LABELS:
        raise UsageError(f"{field} must map 1 to {MAX_LABELS} labels, not {shown(labels)}")
    pairs = [(index, label) if field == "id2label" else (label, index) for index, label in labels.items()]
    indices = [_class_index(index, field) for index, _ in pairs]
    names = [_label_name(label, field) for _, label in pairs]
    if sorted(indices) != list(range(len(pairs))):
        raise UsageError(f"{field} must name every class from 0 to {len(pairs) - 1} once")
    if len(set(names)) != len(names):
        twice, _ = Counter(names).most_common(1)[0]
        raise UsageError(f"{field} names {shown(twice)} twice")
    if num_labels is not None and num_labels != len(pairs):
        raise UsageError(f"num_labels is {num_labels} but {field} names {len(pairs)} labels")
    return dict(sorted(zip(indices, names, strict=True)))


def _class_index(value: Any, field: str) -> int:
    """Return a class index given as a whole number or, as in the keys of JSON, as decimal digits."""
    if type(value) is int:
        return value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        return int(value)
    raise UsageError(f"the class indices of {field} must be whole numbers, not {shown(value)}")


def _label_name(value: Any, field: str) -> str:
    """Return a label given as text or as a number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UsageError(f"the labels of {field} must be text, not {shown(value)}")
    name = str(value)
    if not is_plain(name):
        raise UsageError(
            f"{field} names {shown(name)}: a label with characters that control a terminal or turn text around; "
            "correct it, or use --unnamed-labels"
        )
    return name


def activation_of(config: ASTConfig) -> str:
    """Return the activation that turns logits into scores: ``sigmoid``, ``softmax`` or ``none``."""
    by_problem_type = {
        "regression": "none",
        "single_label_classification": "softmax",
        "multi_label_classification": "sigmoid",
    }
    return by_problem_type[implied_problem_type(config)]


def implied_problem_type(config: ASTConfig) -> str:
    """Return the problem type; if it is unknown, single-label classification, the default of transformers."""
    return known_problem_type(config) or "single_label_classification"


def known_problem_type(config: ASTConfig) -> str | None:
    """Return the problem type of a configuration, inferred from the labels if the field is empty; None if unknown.

    AudioSet is multi-label: its published checkpoints leave ``problem_type`` empty, and a softmax over 527 classes that
    occur together is a well-known mistake. The same holds for most of these classes, such as the 521 that YAMNet knows.
    527 labels without names count as AudioSet's. Styles of music by genre (MAEST) and eBird's species codes (BirdSet)
    are multi-label: their authors used sigmoids and left the field empty too. The words of Speech Commands are
    single-label. A single label is a regression, as in the loss.
    """
    if config.problem_type is not None:
        return config.problem_type
    if counts_as_audioset(config.id2label) or mostly_audioset(config.id2label):
        return "multi_label_classification"
    if config.num_labels > 1 and (are_styles(config.id2label.values()) or is_ebird(config.id2label)):
        return "multi_label_classification"
    if is_speech_commands(config.id2label):
        return "single_label_classification"
    return "regression" if config.num_labels == 1 else None


_DEFAULT = ASTConfig()
