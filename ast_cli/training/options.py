"""All settings of a training run, as one frozen object. Standard library only.

Each field is also a key of a recipe (TOML) and a flag of ``ast finetune``. Its default, help text and range are defined
here, once.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_args

from ast_cli.about import About, default_flag, documented_fields
from ast_cli.audio.front_ends.unstated import FrontEndName
from ast_cli.errors import UsageError
from ast_cli.files.json_object import shown

Loss = Literal["auto", "cross-entropy", "bce"]
Optimizer = Literal["adamw", "muon"]
Schedule = Literal["cosine", "step", "constant"]
Average = Literal["none", "ema", "epochs"]
Keep = Literal["auto", "best", "last", "average"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
BASE_LEARNING_RATE = 5e-5  # for BASE_WIDTH; see `learning_rate_for`
BASE_WIDTH = 768
OLD_NAMES = {  # names of version 0.1
    "normalise": "normalize",
    "optimiser": "optimizer",
    "accumulate": "gradient_accumulation",
    "validation_share": "validation_fraction",
}


@dataclass(frozen=True, slots=True)
class Bounded(About):
    """Help text and range of a field of `TrainOptions`.

    Attributes:
        low: Smallest valid number.
        high: Largest valid number.
    """

    low: float = 0
    high: float = math.inf


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Settings of a training run; each field is documented by its help text.

    Raises:
        UsageError: If a value is invalid; the message names the flag.
    """

    # objective
    loss: Annotated[Loss, Bounded("auto: cross-entropy for single-label data, else bce (binary cross-entropy).")] = (
        "auto"
    )
    label_smoothing: Annotated[
        float, Bounded("Fraction of each target that is spread evenly over all labels.", low=0, high=0.9)
    ] = 0.0
    soft_weight: Annotated[
        float | None,
        Bounded(
            "With soft targets and labels: weight of the soft targets in their mean; 1 ignores the labels. "
            "[default: the larger of both]",
            low=0,
            high=1,
        ),
    ] = None
    new_head: Annotated[bool, Bounded("Replace the head even if the base model knows every label.")] = False
    freeze_encoder: Annotated[
        bool, Bounded("Train the head only (linear probe), on embeddings computed once, without augmentation.")
    ] = False

    # input
    max_length: Annotated[
        int | None,
        Bounded(
            "Length of the input in frames, of 10 ms with AST's front end. [default: the base model's; from scratch, "
            "enough for 95 % of the clips]",
            low=16,
            high=1e5,
        ),
    ] = None
    num_mel_bins: Annotated[
        int | None, Bounded("Mel bins of the input. [default: the base model's]", low=16, high=1024)
    ] = None
    frequency_stride: Annotated[
        int | None, Bounded("Step between patches in mel bins. [default: the base model's]", low=1, high=1024)
    ] = None
    time_stride: Annotated[
        int | None, Bounded("Step between patches in frames. [default: the base model's]", low=1, high=10_000)
    ] = None
    front_end: Annotated[
        FrontEndName | None, Bounded("Front end of a base model that has no preprocessor_config.json.")
    ] = None
    normalize: Annotated[
        str,
        Bounded(
            "Mean and standard deviation that normalize the input: base (the base model's), data (measured on the "
            "training clips), or MEAN,STD."
        ),
    ] = "base"
    random_crop: Annotated[
        bool, Bounded("Take a random part of each training clip longer than the input, instead of its beginning.")
    ] = False
    max_clip_s: Annotated[
        float, Bounded("With random crops: seconds of each recording that are stored.", low=1, high=36_000)
    ] = 60.0

    # augmentation
    frequency_mask: Annotated[
        int, Bounded("Widest mask along frequency, in mel bins (SpecAugment).", low=0, high=1024)
    ] = 0
    time_mask: Annotated[int, Bounded("Widest mask along time, in frames.", low=0, high=1e5)] = 0
    num_masks: Annotated[int, Bounded("Number of masks of each kind per clip.", low=0, high=20)] = 1
    mixup: Annotated[
        float, Bounded("Fraction of the clips that are mixed with another clip (mixup of powers).", low=0, high=1)
    ] = 0.0
    mixup_alpha: Annotated[
        float, Bounded("Parameter of the Beta distribution of the mixing weights.", low=0.01, high=1000)
    ] = 10.0
    gain_db: Annotated[float, Bounded("Largest random change of loudness, up or down, in dB.", low=0, high=60)] = 0.0
    time_shift: Annotated[int, Bounded("Largest random circular shift in time, in frames.", low=0, high=1e5)] = 0
    stretch: Annotated[
        float,
        Bounded("Largest random stretch or compression of time and of frequency: 0.2 for a fifth.", low=0, high=3),
    ] = 0.0
    filter_db: Annotated[
        float, Bounded("Largest gain of a random frequency response (FilterAugment), in dB.", low=0, high=60)
    ] = 0.0
    noise: Annotated[
        float, Bounded("Largest amplitude of uniform noise added to the normalized input.", low=0, high=10)
    ] = 0.0
    token_drop: Annotated[
        float, Bounded("Fraction of the patch tokens dropped in training (patchout).", low=0, high=0.95)
    ] = 0.0
    balanced: Annotated[bool, Bounded("Sample clips of rare labels as often as clips of common labels.")] = False

    # optimizer
    epochs: Annotated[int, Bounded("Passes over the training clips.", low=1, high=1e6)] = 25
    batch_size: Annotated[int, Bounded("Clips in one forward pass.", low=1, high=65_536)] = 16
    gradient_accumulation: Annotated[int, Bounded("Forward passes per update of the weights.", low=1, high=65_536)] = 1
    optimizer: Annotated[
        Optimizer,
        Bounded(
            "adamw, or muon: Muon for the matrices of the blocks, AdamW for the rest, which trains random weights much "
            "faster."
        ),
    ] = "adamw"
    muon_factor: Annotated[
        float, Bounded("With muon: factor of the learning rate for the matrices of the blocks.", low=0, high=1e5)
    ] = 1.0
    learning_rate: Annotated[
        float | None,
        Bounded(
            "Peak learning rate. [default: by the model's width, 5e-5 at 768, 2e-4 at 192; 3e-4 with --freeze-encoder]",
            low=0,
            high=10,
        ),
    ] = None
    head_factor: Annotated[float, Bounded("Factor of the learning rate for the head.", low=0, high=1e5)] = 1.0
    layer_decay: Annotated[
        float, Bounded("Factor of the learning rate per block, from the head down.", low=0.01, high=1)
    ] = 1.0
    weight_decay: Annotated[
        float, Bounded("Weight decay of all weights but biases, norms, tokens and position embeddings.", low=0, high=10)
    ] = 0.0
    beta1: Annotated[float, Bounded("First beta of AdamW.", low=0, high=0.9999)] = 0.9
    beta2: Annotated[float, Bounded("Second beta of AdamW.", low=0, high=0.999999)] = 0.999
    max_gradient_norm: Annotated[
        float, Bounded("Norm to which larger gradients are clipped; 0 disables clipping.", low=0, high=1e9)
    ] = 1.0
    schedule: Annotated[Schedule, Bounded("Schedule of the learning rate after the warm-up.")] = "cosine"
    warmup_epochs: Annotated[
        float, Bounded("Epochs over which the learning rate rises linearly from zero.", low=0, high=1e6)
    ] = 0.0
    warmup_steps: Annotated[
        int, Bounded("Warm-up in updates; the longer of the two warm-ups applies.", low=0, high=1e9)
    ] = 0
    step_start: Annotated[
        int, Bounded("With step: first epoch, counted from 0, with a lower learning rate.", low=0, high=1e6)
    ] = 5
    step_every: Annotated[int, Bounded("With step: epochs between two reductions.", low=1, high=1e6)] = 1
    step_factor: Annotated[float, Bounded("With step: factor of each reduction.", low=0, high=1)] = 0.85

    # weights to save
    average: Annotated[
        Average, Bounded("Average of the weights: ema (moving average over updates) or epochs (mean over epochs).")
    ] = "none"
    ema_decay: Annotated[
        float, Bounded("With ema: weight of the previous average in each update.", low=0, high=0.999999)
    ] = 0.999
    average_start: Annotated[
        int, Bounded("With epochs: first epoch, counted from 0, in the mean.", low=0, high=1e6)
    ] = 0
    keep: Annotated[
        Keep,
        Bounded(
            "Weights to save. auto: the average if there is one, else those with the best validation (with soft "
            "targets, the lowest loss)."
        ),
    ] = "auto"
    patience: Annotated[
        int, Bounded("Validations without improvement after which training stops; 0 for never.", low=0, high=1e6)
    ] = 0

    # validation
    validation_fraction: Annotated[
        float,
        Bounded(
            "Fraction of the clips held out for validation if the data has no validation split; 0 for none.",
            low=0,
            high=0.9,
        ),
    ] = 0.1
    fold: Annotated[int | None, Bounded("Fold held out for validation.", low=-(10**9), high=1e9)] = None
    validate_every: Annotated[int, Bounded("Epochs between two validations.", low=1, high=1e6)] = 1

    # execution
    precision: Annotated[
        Precision,
        Bounded(
            "Data type of matrix products. auto: bf16 on CUDA devices that have it, fp16 on older ones, else fp32."
        ),
    ] = "auto"
    checkpoint_gradients: Annotated[
        bool, Bounded("Recompute activations in the backward pass, which saves memory.")
    ] = False
    seed: Annotated[int, Bounded("Seed of all random numbers.", low=0, high=2**32 - 1)] = 0

    def __post_init__(self) -> None:
        """Validate the settings."""
        for name, setting in settings().items():
            setting.check(default_flag(name), getattr(self, name))
        self.fixed_statistics()
        if self.keep == "average" and self.average == "none":
            raise UsageError("--keep average needs an average of the weights: add --average ema or --average epochs")
        if self.average == "epochs" and self.average_start >= self.epochs:
            raise UsageError(f"--average-start must be below --epochs, {self.epochs}, not {self.average_start}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "") -> TrainOptions:
        """Build options from the content of a recipe, or from flags.

        Args:
            values: Values by field name.
            where: Source of the values, at the beginning of messages, which then name keys; flags if empty.

        Raises:
            UsageError: If a key is unknown or a value is invalid.
        """
        prefix = f"{where}: " if where else ""
        values = with_current_names(values)
        unknown = sorted(values.keys() - settings().keys())
        if unknown:
            raise UsageError(f"{prefix}there is no setting {shown(unknown[0])}; there are {', '.join(settings())}")
        values = {name: settings()[name].as_meant(value) for name, value in values.items()}
        try:
            if where:
                for name, value in values.items():
                    settings()[name].check(name, value)
            return cls(**values)
        except UsageError as error:
            raise UsageError(f"{prefix}{error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return all settings; `from_dict` is the inverse."""
        return dataclasses.asdict(self)

    def fixed_statistics(self) -> tuple[float, float] | None:
        """Return the mean and standard deviation if ``normalize`` is two numbers, None for ``base`` and ``data``.

        Raises:
            UsageError: If ``normalize`` is none of the three.
        """
        if self.normalize in ("base", "data"):
            return None
        try:
            mean, std = (float(number) for number in self.normalize.split(","))
        except ValueError:
            mean = std = math.nan
        if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
            raise UsageError(f"--normalize must be base, data, or two numbers as in -6.6,5.4, not {self.normalize!r}")
        return mean, std


def with_current_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the setting names of version 0.1 by the current ones, so that older recipes and runs can be read."""
    return {OLD_NAMES.get(name, name): value for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class Setting:
    """A field of `TrainOptions`, as the command line and recipes use it.

    Attributes:
        kind: Type of the value, without None; a Literal if there are choices.
        is_optional: Whether None, for "by default", is valid.
        about: Help text and range.
    """

    kind: Any
    is_optional: bool
    about: Bounded

    def as_meant(self, value: Any) -> Any:
        """Convert equivalent spellings of a value in TOML: 1 for 1.0, [mean, std] for normalize."""
        if self.kind is float and type(value) is int:
            return float(value)
        if self.kind is str and isinstance(value, list):
            return ",".join(str(number) for number in value)
        return value

    def check(self, name: str, value: Any) -> None:
        """Validate the type and range of a value.

        Args:
            name: Name of the setting in messages.
            value: Value to validate.

        Raises:
            UsageError: If the value has another type or is out of range; the message states what is valid.
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
    """Return the fields of `TrainOptions`, by name."""
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
    """Return the default peak learning rate for a model width.

    5e-5 is common for fine-tuning AST at base size. The rate is inversely proportional to the width, as in Yang et al.,
    2022 (https://arxiv.org/abs/2203.03466, table 3: Adam's rate goes with 1 / width).
    """
    return BASE_LEARNING_RATE * BASE_WIDTH / hidden_size
