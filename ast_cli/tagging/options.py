"""What can be asked of a run, as frozen data passed down whole. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from ast_cli.about import About
from ast_cli.audio.front_end import FbankBackend, FrontEndName, check_front_end_name
from ast_cli.engine.options import EngineOptions
from ast_cli.errors import UsageError

Aggregate = Literal["mean", "max"]
Activation = Literal["auto", "sigmoid", "softmax", "none"]
Extractable = Literal["fbank", "input-values", "embedding", "hidden-states", "attentions", "logits"]
DEFAULT_TOP_K = 5
DEFAULT_THRESHOLD = 0.5  # of events, and of labels without one of their own where others have one
# Fields that several sets of options have.
HopSeconds = Annotated[
    float | None,
    About("From one window's start to the next. [default: the window's length]", flag="--hop", metavar="SECONDS"),
]
BatchSize = Annotated[int | None, About("Windows given to the model at once. [default: by device and model]")]
ToAggregate = Annotated[Aggregate, About("From the windows' scores to the recording's.")]
MAX_WORKERS = 256  # processes that decode, however many cores there are


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value outside a closed list.

    Raises:
        UsageError: Naming the choices.
    """
    if value not in choices:
        raise UsageError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


def check_threshold(label: str, value: object) -> None:
    """Refuse a threshold that no score, or every score, would reach.

    Raises:
        UsageError: Naming the label.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UsageError(f"the threshold of {label!r} must be a number from 0 to 1, not {value!r}")


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """How inputs are decoded.

    Attributes:
        num_workers: Processes that decode, which a broken file may kill; 0 for none, None to let the machine decide.
        timeout_s: Until a file that yields nothing is given up.
    """

    num_workers: Annotated[
        int | None,
        About("Processes that decode; 0 to decode in this one. [default: half of the cores]", flag="--workers"),
    ] = None
    timeout_s: Annotated[
        float, About("Give up on a file that yields nothing for so long.", flag="--timeout", metavar="SECONDS")
    ] = 60.0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.num_workers is not None and not 0 <= self.num_workers <= MAX_WORKERS:
            raise UsageError(f"workers must be from 0 to {MAX_WORKERS}, not {self.num_workers}")
        if not self.timeout_s > 0:  # which NaN is not either; infinity is never
            raise UsageError(f"timeout must be above 0 s, not {self.timeout_s:g}")


@dataclass(frozen=True, slots=True)
class LoadOptions(EngineOptions):
    """How a checkpoint is loaded for tagging: its model, and the filter bank before it.

    Attributes:
        fbank_backend: ``native``, which is ``numpy`` with an engine that needs no torch; or ``torchaudio``.
        front_end: ``audioset`` or ``speech-commands``, where the checkpoint brings no ``preprocessor_config.json`` and
            its labels do not tell either.
    """

    fbank_backend: Annotated[
        FbankBackend,
        About("Whose filter bank. native: ours, with an engine without torch in NumPy.", flag="--fbank"),
    ] = "native"
    front_end: Annotated[
        FrontEndName | None,
        About("Of a checkpoint without preprocessor_config.json whose labels do not tell: the features it hears."),
    ] = None

    def __post_init__(self) -> None:
        """Refuse what cannot be; the filter bank's name is checked where it is made."""
        EngineOptions.__post_init__(self)
        check_front_end_name(self.front_end)


@dataclass(frozen=True, slots=True)
class WindowOptions:
    """Which part of each recording, cut into which windows.

    Attributes:
        start_s: Where to start, in seconds.
        duration_s: How much to read, in seconds; None for the rest.
        hop_s: Seconds from one window's start to the next; None for windows side by side.
        batch_size: Windows given to the model at once; None to let the device decide.
    """

    start_s: Annotated[float, About("Where to start in each recording.", flag="--start", metavar="SECONDS")] = 0.0
    duration_s: Annotated[
        float | None, About("How much of each recording to read.", flag="--duration", metavar="SECONDS")
    ] = None
    hop_s: HopSeconds = None
    batch_size: BatchSize = None

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not (math.isfinite(self.start_s) and self.start_s >= 0):
            raise UsageError(f"start must be at least 0 s, not {self.start_s:g}")
        for name in ("duration_s", "hop_s"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UsageError(f"{name.removesuffix('_s')} must be above 0 s, not {value:g}")
        if self.batch_size is not None and not 1 <= self.batch_size <= 65_536:
            raise UsageError(f"batch size must be from 1 to 65536, not {self.batch_size}")


@dataclass(frozen=True, slots=True)
class ClassifyOptions(WindowOptions):
    """How recordings are tagged.

    Attributes:
        top_k: How many labels to keep; None for 5, or for all of ``labels``, or all where ``thresholds`` are given.
        threshold: The lowest score to keep; None for any.
        thresholds: The lowest score to keep of single labels, as pairs of name and score from 0 to 1, or a mapping;
            all others then need ``threshold``, or 0.5 where it is None.
        labels: Only these labels, by name or AudioSet identifier.
        exclude_labels: Not these labels.
        aggregate: How the scores of a recording's windows become one: their mean or their largest.
        timestamps: Whether the result holds each window's labels too.
        events: Whether the result holds events: per label, consecutive windows whose score reaches the threshold (0.5
            where none is given) or the label's own, merged.
        stream: Whether windows and events are handed out as they close, and the result comes without them.
        activation: From logits to scores; ``auto`` is sigmoid for multi-label and softmax for single-label models.
    """

    top_k: Annotated[
        int | None, About("Labels to keep. [default: 5, or all with --labels or --thresholds]", short="-k")
    ] = None
    threshold: Annotated[float | None, About("The lowest score to keep.")] = None
    thresholds: tuple[tuple[str, float], ...] = ()
    labels: Annotated[
        tuple[str, ...], About("Only these labels, by name or /m/ id; commas or repeated.", metavar="NAMES")
    ] = ()
    exclude_labels: Annotated[tuple[str, ...], About("Not these labels.", metavar="NAMES")] = ()
    aggregate: ToAggregate = "mean"
    timestamps: Annotated[bool, About("Report each window too.")] = False
    events: Annotated[bool, About("Report events: consecutive windows over --threshold (0.5), merged per label.")] = (
        False
    )
    stream: Annotated[bool, About("Write windows and events as they close, as records of their own (jsonl).")] = False
    activation: Annotated[Activation, About("From logits to scores. auto: by the checkpoint.")] = "auto"

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        WindowOptions.__post_init__(self)
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top k must be at least 1, not {self.top_k}")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise UsageError(f"threshold must be a number, not {self.threshold}")
        pairs = self.thresholds.items() if isinstance(self.thresholds, Mapping) else self.thresholds
        object.__setattr__(self, "thresholds", tuple(sorted((str(label), value) for label, value in pairs)))
        for label, value in self.thresholds:
            check_threshold(label, value)
        for name in ("labels", "exclude_labels"):
            if isinstance(getattr(self, name), str):
                raise UsageError(f"{name} must be a sequence of names, not one string")
        check_choice("aggregate", self.aggregate, get_args(Aggregate))
        check_choice("activation", self.activation, get_args(Activation))


@dataclass(frozen=True, slots=True)
class ExtractOptions(WindowOptions):
    """What is extracted from recordings.

    Attributes:
        what: Which numbers; see `ast_cli.tagging.extract.extraction`.
        all_windows: For hidden states and attentions: every window, not the first alone. Attentions of one window
            take 849 MB at base size.
    """

    what: Annotated[Extractable, About("What to extract; fbank needs no model.")] = "embedding"
    all_windows: Annotated[bool, About("Hidden states and attentions of every window, not the first alone.")] = False

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        WindowOptions.__post_init__(self)
        check_choice("what", self.what, get_args(Extractable))


@dataclass(frozen=True, slots=True)
class RunOptions(DecodeOptions):
    """How a run over many inputs goes, apart from what it computes.

    Attributes:
        output: A file; None to take the records as they come.
        format_name: One of `ast_cli.report.FORMATS`.
        resume: Go on with an output that was begun.
        retry_errors: With ``resume``, redo inputs that failed.
        force: Replace an output that exists.
        shard: Which part of the inputs, from 0, and of how many.
        unordered: Write results as they come, not in input order.
        max_errors: Failed inputs at which to stop; None for never.
    """

    output: Annotated[Path | None, About("Write the results to a file, not to stdout.", short="-o", metavar="FILE")] = (
        None
    )
    format_name: str = "jsonl"
    resume: Annotated[bool, About("Go on with an --output that was begun: what is done is left out.")] = False
    retry_errors: Annotated[bool, About("With --resume, redo those of the inputs that failed.")] = False
    force: Annotated[bool, About("Replace an existing --output.")] = False
    shard: tuple[int, int] | None = None
    unordered: Annotated[bool, About("Write results as they come, not in the order of the inputs.")] = False
    max_errors: Annotated[int | None, About("Stop after so many failed inputs.")] = None

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        DecodeOptions.__post_init__(self)
        if self.output is None and self.resume:
            raise UsageError("--resume needs --output: what goes to standard output cannot be continued")
        if self.max_errors is not None and self.max_errors < 1:
            raise UsageError(f"max errors must be at least 1, not {self.max_errors}")
