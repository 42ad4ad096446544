"""Every setting of a training run, as one frozen object. Standard library only.

A field is also a key of a recipe (TOML) and a flag of ``ast finetune``: default, help text and range stand here once.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_args

from ast_cli.about import About, documented_fields
from ast_cli.audio.front_end import FrontEndName
from ast_cli.errors import UsageError
from ast_cli.files.json_object import shown

Loss = Literal["auto", "cross-entropy", "bce"]
Optimizer = Literal["adamw", "muon"]
Schedule = Literal["cosine", "step", "constant"]
Average = Literal["none", "ema", "epochs"]
Keep = Literal["auto", "best", "last", "average"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
BASE_LEARNING_RATE = 5e-5  # for a width of 768; see `learning_rate_for`
BASE_WIDTH = 768
OLD_NAMES = {  # in version 0.1
    "normalise": "normalize",
    "optimiser": "optimizer",
    "accumulate": "gradient_accumulation",
    "validation_share": "validation_fraction",
}


@dataclass(frozen=True, slots=True)
class Bounded(About):
    """What is said of a field of `TrainOptions`.

    Attributes:
        low: Smallest number it may be.
        high: Largest likewise.
    """

    low: float = 0
    high: float = math.inf


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How a model is trained; what each field means is said beside it.

    Raises:
        UsageError: A value that cannot be; the message names the field.
    """

    # what is learned
    loss: Annotated[Loss, Bounded("auto: cross-entropy for single-label data, else bce (binary cross-entropy).")] = (
        "auto"
    )
    label_smoothing: Annotated[float, Bounded("Fraction of each target spread over all labels.", low=0, high=0.9)] = 0.0
    new_head: Annotated[bool, Bounded("Replace the head even where the base model knows every label.")] = False
    freeze_encoder: Annotated[
        bool, Bounded("Train the head alone, on embeddings computed once, without augmentation.")
    ] = False

    # the input
    max_length: Annotated[
        int | None,
        Bounded(
            "Frames of the input. [default: the base model's; from scratch, what 95 % of the clips fit]",
            low=16,
            high=1e5,
        ),
    ] = None
    num_mel_bins: Annotated[
        int | None, Bounded("Mel bins of the input. [default: the base model's]", low=16, high=1024)
    ] = None
    frequency_stride: Annotated[
        int | None, Bounded("Mel bins between patches. [default: the base model's]", low=1, high=1024)
    ] = None
    time_stride: Annotated[
        int | None, Bounded("Frames between patches. [default: the base model's]", low=1, high=10_000)
    ] = None
    front_end: Annotated[
        FrontEndName | None, Bounded("Whose features a base model hears that has no preprocessor_config.json.")
    ] = None
    normalize: Annotated[str, Bounded("Mean and standard deviation: base (model's), data (measured), or MEAN,STD.")] = (
        "base"
    )
    random_crop: Annotated[
        bool, Bounded("Cut a training clip longer than the input at random, not at its beginning.")
    ] = False
    max_clip_s: Annotated[
        float, Bounded("With random crops: how much of each recording is kept, in seconds.", low=1, high=36_000)
    ] = 60.0

    # augmentation
    frequency_mask: Annotated[
        int, Bounded("Widest mask along frequency, in mel bins (SpecAugment).", low=0, high=1024)
    ] = 0
    time_mask: Annotated[int, Bounded("Widest mask along time, in frames.", low=0, high=1e5)] = 0
    num_masks: Annotated[int, Bounded("Masks of each kind per clip.", low=0, high=20)] = 1
    mixup: Annotated[float, Bounded("Fraction of clips mixed with another, in the power domain.", low=0, high=1)] = 0.0
    mixup_alpha: Annotated[
        float, Bounded("Of the Beta distribution that mixing weights come from.", low=0.01, high=1000)
    ] = 10.0
    gain_db: Annotated[float, Bounded("Largest change of loudness, up or down, in dB.", low=0, high=60)] = 0.0
    time_shift: Annotated[int, Bounded("Farthest circular shift along time, in frames.", low=0, high=1e5)] = 0
    stretch: Annotated[
        float, Bounded("Most that time and frequencies are stretched or squeezed by: 0.2 for a fifth.", low=0, high=3)
    ] = 0.0
    filter_db: Annotated[
        float, Bounded("Largest gain of a random frequency response (FilterAugment), in dB.", low=0, high=60)
    ] = 0.0
    noise: Annotated[float, Bounded("Most uniform noise added to the normalized input.", low=0, high=10)] = 0.0
    token_drop: Annotated[float, Bounded("Fraction of patch tokens left out in training.", low=0, high=0.95)] = 0.0
    balanced: Annotated[bool, Bounded("Draw clips of rare labels as often as those of common ones.")] = False

    # the optimizer
    epochs: Annotated[int, Bounded("Passes over the training clips.", low=1, high=1e6)] = 25
    batch_size: Annotated[int, Bounded("Clips in one forward pass.", low=1, high=65_536)] = 16
    gradient_accumulation: Annotated[int, Bounded("Forward passes per update of the weights.", low=1, high=65_536)] = 1
    optimizer: Annotated[
        Optimizer, Bounded("muon: the blocks' matrices by Muon, the rest by AdamW; learns far faster from nothing.")
    ] = "adamw"
    muon_factor: Annotated[
        float, Bounded("With muon: times the learning rate, for the blocks' matrices.", low=0, high=1e5)
    ] = 1.0
    learning_rate: Annotated[
        float | None, Bounded("At its peak. [default: by the model's width, 5e-5 at 768, 2e-4 at 192]", low=0, high=10)
    ] = None
    head_factor: Annotated[float, Bounded("Times the learning rate, for the head.", low=0, high=1e5)] = 1.0
    layer_decay: Annotated[
        float, Bounded("Times the learning rate, for each block further from the head.", low=0.01, high=1)
    ] = 1.0
    weight_decay: Annotated[float, Bounded("Never on biases, norms, tokens and positions.", low=0, high=10)] = 0.0
    beta1: Annotated[float, Bounded("Of AdamW.", low=0, high=0.9999)] = 0.9
    beta2: Annotated[float, Bounded("Of AdamW.", low=0, high=0.999999)] = 0.999
    max_gradient_norm: Annotated[
        float, Bounded("Longer gradients are shortened to it; 0 for never.", low=0, high=1e9)
    ] = 1.0
    schedule: Annotated[Schedule, Bounded("How the learning rate falls after the warm-up.")] = "cosine"
    warmup_epochs: Annotated[float, Bounded("Over which the learning rate rises from zero.", low=0, high=1e6)] = 0.0
    warmup_steps: Annotated[int, Bounded("The same in updates; the longer of the two counts.", low=0, high=1e9)] = 0
    step_start: Annotated[int, Bounded("With step: the first epoch (from 0) with a lower rate.", low=0, high=1e6)] = 5
    step_every: Annotated[int, Bounded("With step: epochs from one fall to the next.", low=1, high=1e6)] = 1
    step_factor: Annotated[float, Bounded("With step: what the rate is multiplied by.", low=0, high=1)] = 0.85

    # which weights come out
    average: Annotated[Average, Bounded("Of the weights: ema (moving, by update) or epochs (mean over epochs).")] = (
        "none"
    )
    ema_decay: Annotated[float, Bounded("With ema: weight of the past in each update.", low=0, high=0.999999)] = 0.999
    average_start: Annotated[int, Bounded("With epochs: the first epoch (from 0) that counts.", low=0, high=1e6)] = 0
    keep: Annotated[Keep, Bounded("Weights to save. auto: the average if there is one, else best on validation.")] = (
        "auto"
    )
    patience: Annotated[
        int, Bounded("Stop after so many validations without a better one; 0 for never.", low=0, high=1e6)
    ] = 0

    # what is held out
    validation_fraction: Annotated[
        float, Bounded("Of the training clips, where the data names none; 0 for none.", low=0, high=0.9)
    ] = 0.1
    fold: Annotated[int | None, Bounded("Hold this fold out for validation.", low=-(10**9), high=1e9)] = None
    validate_every: Annotated[int, Bounded("Epochs from one validation to the next.", low=1, high=1e6)] = 1

    # how it is run
    precision: Annotated[
        Precision, Bounded("auto: bf16 on a CUDA device that has it, fp16 on older ones, else fp32.")
    ] = "auto"
    checkpoint_gradients: Annotated[bool, Bounded("Compute activations twice to save memory.")] = False
    seed: Annotated[int, Bounded("Of every random draw.", low=0, high=2**32 - 1)] = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for name, setting in settings().items():
            setting.check(name, getattr(self, name))
        self.fixed_statistics()
        if self.keep == "average" and self.average == "none":
            raise UsageError("keep = average needs an average: set average to ema or epochs")
        if self.average == "epochs" and self.average_start >= self.epochs:
            raise UsageError(f"average_start must be below epochs, {self.epochs}, not {self.average_start}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "options") -> TrainOptions:
        """Build from the content of a recipe.

        Raises:
            UsageError: An unknown key, or a value that cannot be; the message begins with ``where``.
        """
        values = with_current_names(values)
        unknown = sorted(values.keys() - settings().keys())
        if unknown:
            raise UsageError(f"{where}: there is no setting {shown(unknown[0])}; there are {', '.join(settings())}")
        try:
            return cls(**{name: settings()[name].as_meant(value) for name, value in values.items()})
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return every setting; `from_dict` is the inverse."""
        return dataclasses.asdict(self)

    def fixed_statistics(self) -> tuple[float, float] | None:
        """Return mean and standard deviation where ``normalize`` is two numbers; None for ``base`` and ``data``.

        Raises:
            UsageError: It is none of the three.
        """
        if self.normalize in ("base", "data"):
            return None
        try:
            mean, std = (float(number) for number in self.normalize.split(","))
        except ValueError:
            mean = std = math.nan
        if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
            raise UsageError(f"normalize must be base, data, or two numbers as in -6.6,5.4, not {self.normalize!r}")
        return mean, std


def with_current_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with the names of version 0.1 replaced by today's, so that older recipes and runs can be read."""
    return {OLD_NAMES.get(name, name): value for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class Setting:
    """A field of `TrainOptions` as the command line and recipes need it.

    Attributes:
        kind: Its type, without the None of ``is_optional``; a Literal where there are choices.
        is_optional: Whether it may be None, for "not chosen".
        about: Help and range.
    """

    kind: Any
    is_optional: bool
    about: Bounded

    def as_meant(self, value: Any) -> Any:
        """Take what TOML and people write for what is meant: 1 for 1.0, [mean, std] for normalize."""
        if self.kind is float and type(value) is int:
            return float(value)
        if self.kind is str and isinstance(value, list):
            return ",".join(str(number) for number in value)
        return value

    def check(self, name: str, value: Any) -> None:
        """Refuse a value of another type or outside the range.

        Raises:
            UsageError: Naming the field and what it may be.
        """
        if value is None and self.is_optional:
            return
        if choices := get_args(self.kind):
            if value not in choices:
                raise UsageError(f"{name} must be one of {', '.join(choices)}, not {shown(value)}")
            return
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        allowed = (int, float) if self.kind is float else self.kind
        if not isinstance(value, allowed) or (isinstance(value, bool) and self.kind is not bool):
            raise UsageError(f"{name} must be {names[self.kind]}, not {shown(value)}")
        low, high = self.about.low, self.about.high
        if self.kind in (int, float) and not (math.isfinite(value) and low <= value <= high):
            raise UsageError(f"{name} must be from {low:g} to {high:g}, not {shown(value)}")


@cache
def settings() -> dict[str, Setting]:
    """Return the fields of `TrainOptions` by name."""
    found = {}
    for field in documented_fields(TrainOptions):
        is_optional = types.NoneType in get_args(field.kind)
        kind = (
            next(member for member in get_args(field.kind) if member is not types.NoneType)
            if is_optional
            else field.kind
        )
        assert isinstance(field.about, Bounded)
        found[field.name] = Setting(kind, is_optional, field.about)
    return found


def learning_rate_for(hidden_size: int) -> float:
    """Return the peak learning rate for a width where nobody chose one.

    5e-5 is what AST fine-tunes of base size commonly use; it grows as the width falls, as in Yang et al., 2022
    (https://arxiv.org/abs/2203.03466, table 3: Adam's rate goes with 1 / width).
    """
    return BASE_LEARNING_RATE * BASE_WIDTH / hidden_size
