"""ASTConfig: the content of a checkpoint's ``config.json``. No torch here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ast_cli import labels as audioset
from ast_cli.errors import CheckpointError, UsageError
from ast_cli.json_object import read_json_object

CONFIG_NAME = "config.json"
MODEL_TYPE = "audio-spectrogram-transformer"
HIDDEN_ACTS = ("gelu", "relu", "selu", "gelu_new")
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
NUM_PREFIX_TOKENS = 2  # the classification and the distillation token
MAX_TOKENS = 1_000_000  # position embeddings above this are no model but an attack on the memory
# Far above every published AST (hidden 768, 12 layers); a configuration beyond is refused before anything is built.
LIMITS = {
    "hidden_size": 16_384,
    "num_hidden_layers": 512,
    "num_attention_heads": 1_024,
    "intermediate_size": 131_072,
    "patch_size": 1_024,
    "frequency_stride": 1_024,
    "time_stride": 10_000,
    "max_length": 100_000,
    "num_mel_bins": 1_024,
}


class ASTConfig:
    """The architecture and the labels of an AST; the defaults are those of the 10-10 AudioSet checkpoints.

    Args:
        hidden_size: Width of the encoder.
        num_hidden_layers: Number of blocks.
        num_attention_heads: Heads per block; divides ``hidden_size``.
        intermediate_size: Width of the MLP inside a block.
        hidden_act: Activation of the MLP: ``gelu``, ``relu``, ``selu``, ``gelu_new``, or a function of a tensor.
        hidden_dropout_prob: Dropout after the embeddings, the attention and the MLP, in training.
        attention_probs_dropout_prob: Dropout of the attention probabilities, in training.
        initializer_range: Standard deviation of the truncated normal that weights start from.
        layer_norm_eps: Epsilon of every layer normalisation.
        patch_size: Side of the square patches, in mel bins and frames.
        qkv_bias: Whether queries, keys and values have biases.
        frequency_stride: Mel bins from one patch to the next.
        time_stride: Frames from one patch to the next.
        max_length: Frames of the input.
        num_mel_bins: Mel bins of the input.
        **kwargs: ``id2label``, ``label2id``, ``num_labels``, ``problem_type``, ``output_attentions``,
            ``output_hidden_states`` and ``return_dict``; any other key is kept in ``extra`` and written back.

    Raises:
        UsageError: A value that cannot be; the message names it.
    """

    model_type = MODEL_TYPE

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
        self.output_attentions = bool(kwargs.pop("output_attentions", False))
        self.output_hidden_states = bool(kwargs.pop("output_hidden_states", False))
        self.return_dict = bool(kwargs.pop("return_dict", True))
        num_labels, label2id = kwargs.pop("num_labels", None), kwargs.pop("label2id", None)
        id2label = kwargs.pop("id2label", None)
        self.id2label = named_labels(id2label, label2id, num_labels)
        self.has_own_labels = id2label is not None or label2id is not None
        kwargs.pop("model_type", None)
        self.extra: dict[str, Any] = kwargs
        self.validate()

    @property
    def num_labels(self) -> int:
        """Number of outputs of the classification head."""
        return len(self.id2label)

    @property
    def label2id(self) -> dict[str, int]:
        """Label to class index."""
        return {label: label_id for label_id, label in self.id2label.items()}

    @property
    def num_patches(self) -> tuple[int, int]:
        """Patches along frequency and along time: (12, 101) by default."""
        frequency = (self.num_mel_bins - self.patch_size) // self.frequency_stride + 1
        time = (self.max_length - self.patch_size) // self.time_stride + 1
        return frequency, time

    @property
    def num_tokens(self) -> int:
        """Length of the sequence: two tokens and the patches; 1214 by default."""
        frequency, time = self.num_patches
        return NUM_PREFIX_TOKENS + frequency * time

    def validate(self) -> None:
        """Check every value, before anything is built from it.

        Raises:
            UsageError: Naming the field, its value and what it may be.
        """
        for name, limit in LIMITS.items():
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= limit:
                raise UsageError(f"{name} must be a whole number from 1 to {limit}, not {value!r}")
        for name, low, high in (
            ("hidden_dropout_prob", 0.0, 1.0),
            ("attention_probs_dropout_prob", 0.0, 1.0),
            ("initializer_range", 0.0, 10.0),
            ("layer_norm_eps", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise UsageError(f"{name} must be a number from {low:g} to {high:g}, not {value!r}")  # NaN fails too
        if type(self.qkv_bias) is not bool:
            raise UsageError(f"qkv_bias must be true or false, not {self.qkv_bias!r}")
        if not callable(self.hidden_act) and self.hidden_act not in HIDDEN_ACTS:
            raise UsageError(f"hidden_act must be one of {', '.join(HIDDEN_ACTS)}, not {self.hidden_act!r}")
        if self.problem_type not in (None, *PROBLEM_TYPES):
            raise UsageError(f"problem_type must be one of {', '.join(PROBLEM_TYPES)}, not {self.problem_type!r}")
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
            raise UsageError(f"these strides and lengths give {self.num_tokens} tokens; at most {MAX_TOKENS} can be")

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``config.json``.

        Raises:
            UsageError: ``hidden_act`` is a function, which JSON cannot hold.
        """
        if callable(self.hidden_act):
            raise UsageError(
                f"hidden_act is a function: name one of {', '.join(HIDDEN_ACTS)} to write the configuration"
            )
        return {
            "architectures": ["ASTForAudioClassification"],
            **self.extra,
            "model_type": MODEL_TYPE,
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
            "id2label": {str(label_id): label for label_id, label in self.id2label.items()},
            "label2id": self.label2id,
            "problem_type": self.problem_type,
            **self._output_flags(),
        }

    def _output_flags(self) -> dict[str, bool]:
        """Return the flags that differ from the reference's defaults, which it leaves out too."""
        flags = {"output_attentions": False, "output_hidden_states": False, "return_dict": True}
        return {name: getattr(self, name) for name, default in flags.items() if getattr(self, name) != default}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **overrides: Any) -> ASTConfig:
        """Build from the content of ``config.json``.

        Raises:
            CheckpointError: It describes another kind of model, or holds what cannot be.
        """
        kind = values.get("model_type", MODEL_TYPE)
        if kind != MODEL_TYPE:
            raise CheckpointError(f"{CONFIG_NAME}: this is a {kind!r} model, not an Audio Spectrogram Transformer")
        try:
            return cls(**{**values, **overrides})
        except (UsageError, TypeError) as error:
            raise CheckpointError(f"{CONFIG_NAME}: {error}") from error

    @classmethod
    def from_pretrained(cls, model: str | Path, **overrides: Any) -> ASTConfig:
        """Read the configuration of a checkpoint: a folder, an alias or a hub id.

        Raises:
            CheckpointError: No valid AST configuration.
            HubError: The checkpoint is not on this machine and cannot be fetched.
        """
        from ast_cli.hub import checkpoint_folder

        return cls.from_dict(read_json_object(checkpoint_folder(model) / CONFIG_NAME), **overrides)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` into a folder, which is made if needed."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False)
        (folder / CONFIG_NAME).write_text(text + "\n", encoding="utf-8")

    def __eq__(self, other: object) -> bool:
        """Compare field by field."""
        return isinstance(other, ASTConfig) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        """Show the fields that differ from the defaults."""
        default = {} if type(self) is not ASTConfig else vars(_DEFAULT)
        changed = [f"{name}={value!r}" for name, value in vars(self).items() if value != default.get(name)]
        return f"ASTConfig({', '.join(changed)})"


def named_labels(
    id2label: Mapping[Any, str] | None, label2id: Mapping[str, Any] | None, num_labels: int | None
) -> dict[int, str]:
    """Return class index to label, in index order, from whatever a configuration holds.

    Keys may be integers or, as in JSON, strings, in any order.

    Raises:
        UsageError: Gaps, duplicates, keys that are no integers, or a count at odds with ``num_labels``.
    """
    if id2label is None and label2id is not None:
        id2label = {label_id: label for label, label_id in label2id.items()}
        if len(id2label) != len(label2id):
            raise UsageError("label2id gives one index to several labels")
    if id2label is None:
        num_labels = 2 if num_labels is None else num_labels  # the reference's default
        if type(num_labels) is not int or not 1 <= num_labels <= 100_000:
            raise UsageError(f"num_labels must be a whole number from 1 to 100000, not {num_labels!r}")
        return {label_id: f"LABEL_{label_id}" for label_id in range(num_labels)}
    if not isinstance(id2label, Mapping) or not id2label:
        raise UsageError("id2label must name at least one label")
    try:
        by_id = {int(label_id): str(label) for label_id, label in id2label.items()}
    except (TypeError, ValueError) as error:
        raise UsageError(f"the keys of id2label must be whole numbers ({error})") from error
    if sorted(by_id) != list(range(len(id2label))):
        raise UsageError(f"id2label must name every class from 0 to {len(id2label) - 1} once")
    if len(set(by_id.values())) != len(by_id):
        twice = sorted({label for label in by_id.values() if list(by_id.values()).count(label) > 1})
        raise UsageError(f"id2label names {twice[0]!r} twice")
    if num_labels is not None and num_labels != len(by_id):
        raise UsageError(f"num_labels is {num_labels} but id2label names {len(by_id)} labels")
    return {label_id: by_id[label_id] for label_id in range(len(by_id))}


def activation_of(config: ASTConfig) -> str:
    """Return which activation turns this checkpoint's logits into scores: ``sigmoid``, ``softmax`` or ``none``.

    AudioSet is multi-label, whatever the configuration says: the published checkpoints leave ``problem_type`` empty,
    and a softmax over 527 classes that occur together is a well-known mistake.
    """
    if audioset.is_audioset(config.id2label) or config.problem_type == "multi_label_classification":
        return "sigmoid"
    if config.problem_type == "regression" or config.num_labels == 1:
        return "none"
    return "softmax"


_DEFAULT = ASTConfig()
