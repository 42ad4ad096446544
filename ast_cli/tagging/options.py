"""Options of a run, as frozen data that is passed down whole. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from ast_cli.about import TIME, About, flag_of
from ast_cli.audio.channels import EACH, MIX, Channels, parsed_channels
from ast_cli.audio.fbank.filter_bank import FbankBackend
from ast_cli.audio.front_ends.unstated import FrontEndName, check_front_end_name
from ast_cli.engine.options import EngineOptions
from ast_cli.errors import UsageError
from ast_cli.files.json_object import shown
from ast_cli.report import parsed_formats
from ast_cli.report.panels import ALL_PANELS, PANELS, Panel

Aggregate = Literal["mean", "max"]
Activation = Literal["auto", "sigmoid", "softmax", "none"]
Extractable = Literal["fbank", "input-values", "embedding", "hidden-states", "attentions", "logits"]
DEFAULT_TOP_K = 5
DEFAULT_THRESHOLD = 0.5  # of events, and of labels without a threshold of their own where other labels have one
# Fields that several sets of options share.
HopSeconds = Annotated[
    float | None,
    About(
        "Step from the start of one window to the start of the next. [default: the window's length]",
        flag="--hop",
        metavar=TIME,
    ),
]
BatchSize = Annotated[int | None, About("Windows per batch. [default: by device and model]")]
ToAggregate = Annotated[Aggregate, About("How the scores of a recording's windows are combined.")]
LabelNames = Annotated[
    tuple[str, ...],
    About(
        "Labels to report, by name or /m/ id, separated by commas or repeated; 'Animal/*' is a class with all "
        "below it, 'Rock/*' are all styles of a genre. [default: all]",
        metavar="NAMES",
    ),
]
ExcludedNames = Annotated[tuple[str, ...], About("Labels to leave out.", metavar="NAMES")]
OnlySpecific = Annotated[
    bool,
    About(
        "Leave out a label if one below it in AudioSet's hierarchy has at least 0.8 of its score: Dog instead of "
        "Animal, Domestic animals and Dog."
    ),
]
MaxErrors = Annotated[int | None, About("Stop after this number of failed inputs.")]
MIN_TAGS_OF_LANES = 20  # of a window: of more labels than a picture has, so that each lane has its scores
MAX_WORKERS = 256  # decoding processes, however many cores there are
MAX_SPREAD_WINDOWS = 1000  # memory holds four times as many where a recording does not state its length
MAX_BATCH_SIZE = 65_536


def check_choice(flag: str, value: str, choices: tuple[str, ...]) -> None:
    """Check that a value is one of a closed list.

    Raises:
        UsageError: If it is not; the message names the flag and the choices.
    """
    if value not in choices:
        raise UsageError(f"{flag} must be one of {', '.join(choices)}, not {value!r}")


def check_threshold(label: str, value: object) -> None:
    """Check that the threshold of a single label is a number from 0 to 1.

    Raises:
        UsageError: If it is not; the message names the label.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UsageError(f"the threshold of {shown(label)} must be a number from 0 to 1, not {shown(value)}")


def check_threshold_range(threshold: float | None, activation: str) -> None:
    """Check that scores after an activation can reach a threshold; without an activation they have no bounds.

    Raises:
        UsageError: If the threshold is outside the range of the scores.
    """
    if threshold is not None and activation != "none" and not 0 <= threshold <= 1:
        flag = flag_of(ClassifyOptions, "threshold")
        raise UsageError(f"{flag} must be from 0 to 1, as scores after {activation} are, not {threshold:g}")


def check_specific(specific: bool, activation: str) -> None:
    """Check that scores after an activation can be compared as fractions; logits may be negative.

    Raises:
        UsageError: If general labels are to be left out of logits.
    """
    if specific and activation == "none":
        flag = flag_of(ClassifyOptions, "specific")
        raise UsageError(f"{flag} compares scores from 0 to 1, and without an activation they have no bounds")


def check_max_errors(max_errors: int | None) -> None:
    """Check the number of failed inputs after which a run stops.

    Raises:
        UsageError: If the number is below 1.
    """
    if max_errors is not None and max_errors < 1:
        raise UsageError(f"{flag_of(RunOptions, 'max_errors')} must be at least 1, not {max_errors}")


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """Options of decoding.

    Attributes:
        num_workers: Decoding processes, so that a broken file can only crash one of them; 0 decodes in the calling
            process, None takes half of the cores.
        timeout_s: Seconds without any decoded audio after which a file counts as failed.
    """

    num_workers: Annotated[
        int | None,
        About("Decoding processes; 0 decodes in the main process. [default: half of the cores]", flag="--workers"),
    ] = None
    timeout_s: Annotated[
        float,
        About(
            "Time without any decoded audio after which a file counts as failed.", flag="--timeout", metavar="SECONDS"
        ),
    ] = 60.0

    def __post_init__(self) -> None:
        """Validate the options."""
        if self.num_workers is not None and not 0 <= self.num_workers <= MAX_WORKERS:
            flag = flag_of(DecodeOptions, "num_workers")
            raise UsageError(f"{flag} must be from 0 to {MAX_WORKERS}, not {self.num_workers}")
        if not self.timeout_s > 0:  # also false for NaN; infinity disables the timeout
            raise UsageError(f"{flag_of(DecodeOptions, 'timeout_s')} must be above 0 s, not {self.timeout_s:g}")


@dataclass(frozen=True, slots=True)
class LoadOptions(EngineOptions):
    """Options of loading a checkpoint for tagging.

    Attributes:
        fbank_backend: ``native`` or ``torchaudio``; ``native`` runs in NumPy with an engine that does not need torch.
        front_end: ``audioset`` or ``speech-commands``; needed only for a checkpoint that has no
            ``preprocessor_config.json`` and whose labels do not identify its front end.
    """

    fbank_backend: Annotated[
        FbankBackend,
        About("Filter bank. native: this package's own, in NumPy with an engine without torch.", flag="--fbank"),
    ] = "native"
    front_end: Annotated[
        FrontEndName | None,
        About("Input features of a checkpoint without preprocessor_config.json whose labels do not identify them."),
    ] = None

    def __post_init__(self) -> None:
        """Validate the options; the filter bank's name is checked where the filter bank is made."""
        EngineOptions.__post_init__(self)
        check_front_end_name(self.front_end)


@dataclass(frozen=True, slots=True)
class WindowOptions:
    """The part of each recording that is read, and how it is cut into windows.

    Attributes:
        start_s: Start of the part, in seconds.
        duration_s: Length of the part, in seconds; None for the rest of the recording.
        channels: ``mix`` for the mean of all channels, ``each`` for every channel by itself, or the number of one
            channel, from 1.
        hop_s: Seconds from the start of one window to the start of the next; None for windows side by side.
        batch_size: Windows per batch; None for a size that suits the device and the model.
    """

    start_s: Annotated[
        float,
        About(
            "Start of the part of each recording that is read, in seconds or [H:]MM:SS.", flag="--start", metavar=TIME
        ),
    ] = 0.0
    duration_s: Annotated[
        float | None, About("Length of that part. [default: the rest]", flag="--duration", metavar=TIME)
    ] = None
    channels: Annotated[
        Channels,
        About(
            "Channels to read: mix (their mean), each (every one by itself), or one by its number, from 1.",
            metavar="mix|each|N",
            choices=str,
        ),
    ] = MIX
    hop_s: HopSeconds = None
    batch_size: BatchSize = None

    def __post_init__(self) -> None:
        """Validate the options."""
        object.__setattr__(self, "channels", parsed_channels(self.channels))
        if not (math.isfinite(self.start_s) and self.start_s >= 0):
            raise UsageError(f"{flag_of(WindowOptions, 'start_s')} must be at least 0 s, not {self.start_s:g}")
        for name in ("duration_s", "hop_s"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UsageError(f"{flag_of(WindowOptions, name)} must be above 0 s, not {value:g}")
        if self.batch_size is not None and not 1 <= self.batch_size <= MAX_BATCH_SIZE:
            flag = flag_of(WindowOptions, "batch_size")
            raise UsageError(f"{flag} must be from 1 to {MAX_BATCH_SIZE}, not {self.batch_size}")


@dataclass(frozen=True, slots=True)
class ClassifyOptions(WindowOptions):
    """Options of tagging.

    Attributes:
        top_k: Maximum number of labels to keep; None for 5, or for all where ``labels`` or ``thresholds`` are given.
        threshold: Lowest score to keep; None for any. See ``events``.
        thresholds: Lowest score to keep of single labels: a mapping or pairs of a label and a score from 0 to 1. All
            other labels then have the threshold ``threshold``, or 0.5 where that is None.
        labels: Labels to report, by name or AudioSet identifier; ``Animal/*`` is a class of AudioSet's hierarchy with
            all labels below it. Empty for all labels.
        exclude_labels: Labels to leave out, named in the same ways.
        specific: Whether a label is left out if one below it in AudioSet's hierarchy has at least 0.8 of its score and
            would be reported too. ``top_k`` counts the labels that remain.
        num_windows: Number of windows to score of each recording, spread evenly over it; None for all of them.
        by_genre: Whether labels are the genres of a model all of whose labels have the form ``Genre---Style``, instead
            of its styles. A genre's score of a window is the highest of its styles; all other options are then about
            genres.
        aggregate: How the scores of a recording's windows are combined: their mean or their maximum.
        timestamps: Whether the result contains the labels of each window too.
        events: Whether the result contains events: for each label, consecutive windows whose score reaches the label's
            threshold, merged. That is its own in ``thresholds`` or else ``threshold``. Where neither is given, it is
            the one that comes with the model, or 0.5 for a label without one.
        stream: Whether windows and events are yielded as they close; the result then comes without them.
        activation: Function from logits to scores; ``auto`` is sigmoid for multi-label and softmax for single-label
            models.
    """

    top_k: Annotated[
        int | None,
        About("Maximum number of labels. [default: 5, or all with --labels or --thresholds]", short="-k"),
    ] = None
    threshold: Annotated[
        float | None,
        About("Lowest score to report. [default: any; for --events as in the model's thresholds.json, else 0.5]"),
    ] = None
    thresholds: tuple[tuple[str, float], ...] = ()
    labels: LabelNames = ()
    exclude_labels: ExcludedNames = ()
    specific: OnlySpecific = False
    num_windows: Annotated[
        int | None,
        About(
            "Score N windows spread evenly over each recording, instead of all of them.", flag="--windows", metavar="N"
        ),
    ] = None
    by_genre: Annotated[
        bool,
        About("Report genres instead of styles, for models of music styles (MAEST): each with its best style's score."),
    ] = False
    aggregate: ToAggregate = "mean"
    timestamps: Annotated[bool, About("Report each window too.")] = False
    events: Annotated[bool, About("Report events: consecutive windows over the threshold of a label, merged.")] = False
    stream: Annotated[bool, About("Write windows and events as records of their own as they close (jsonl).")] = False
    activation: Annotated[
        Activation, About("Function from logits to scores. auto: the one that the checkpoint was trained with.")
    ] = "auto"

    def __post_init__(self) -> None:
        """Validate the options."""
        WindowOptions.__post_init__(self)
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"{flag_of(ClassifyOptions, 'top_k')} must be at least 1, not {self.top_k}")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise UsageError(f"{flag_of(ClassifyOptions, 'threshold')} must be a number, not {self.threshold}")
        pairs = self.thresholds.items() if isinstance(self.thresholds, Mapping) else self.thresholds
        object.__setattr__(self, "thresholds", tuple(sorted((str(label), value) for label, value in pairs)))
        for label, value in self.thresholds:
            check_threshold(label, value)
        self._check_num_windows()
        for name in ("labels", "exclude_labels"):
            if isinstance(getattr(self, name), str):
                raise UsageError(f"{name} must be a sequence of names, not one string")
            if not all(label.strip() for label in getattr(self, name)):
                raise UsageError(f"{flag_of(ClassifyOptions, name)} is empty: name labels, separated by commas")
        check_choice(flag_of(ClassifyOptions, "aggregate"), self.aggregate, get_args(Aggregate))
        check_choice(flag_of(ClassifyOptions, "activation"), self.activation, get_args(Activation))
        if self.activation != "auto":  # else the range of the scores is known only with the model
            check_threshold_range(self.threshold, self.activation)
            check_specific(self.specific, self.activation)

    def _check_num_windows(self) -> None:
        flag = flag_of(ClassifyOptions, "num_windows")
        if self.num_windows is None:
            return
        if not 1 <= self.num_windows <= MAX_SPREAD_WINDOWS:
            raise UsageError(f"{flag} must be from 1 to {MAX_SPREAD_WINDOWS}, not {self.num_windows}")
        if self.hop_s is not None:
            raise UsageError(f"{flag} and {flag_of(WindowOptions, 'hop_s')} contradict each other: choose one")
        if self.events:
            raise UsageError(f"events are found in all windows: leave out {flag}")

    @property
    def leave_events_to_model(self) -> bool:
        """Whether events use the thresholds that come with the model: the options have none, and are for its labels."""
        return self.events and self.threshold is None and not self.thresholds and not self.by_genre


@dataclass(frozen=True, slots=True)
class ExtractOptions(WindowOptions):
    """Options of extraction.

    Attributes:
        what: Kind of numbers; see `ast_cli.tagging.extract.extraction`.
        all_windows: Whether hidden states and attentions of every window are extracted, not of the first window alone.
            Attentions of one window take 849 MB at base size.
    """

    what: Annotated[Extractable, About("Numbers to extract; fbank needs no model.")] = "embedding"
    all_windows: Annotated[
        bool, About("Extract hidden states and attentions of every window, not the first alone.")
    ] = False

    def __post_init__(self) -> None:
        """Validate the options."""
        WindowOptions.__post_init__(self)
        check_choice(flag_of(ExtractOptions, "what"), self.what, get_args(Extractable))


@dataclass(frozen=True, slots=True)
class PlotOptions(WindowOptions):
    """Options of pictures.

    Attributes:
        what: Parts of a picture, from top to bottom, with commas between them; ``all`` for every part.
        top_k: Maximum number of lanes.
        threshold: Lowest score that is drawn; None for any. See ``events``.
        labels: Labels that may have a lane, as in `ClassifyOptions`.
        exclude_labels: Labels that have none.
        specific: Whether general labels are left out, window by window, as in `ClassifyOptions`.
        events: Whether lanes show events, with the thresholds that `ClassifyOptions` describes, not windows.
    """

    what: Annotated[
        str,
        About(
            "Parts of the picture, one or several with commas between them. The timeline has a lane for each label.",
            metavar="waveform|spectrogram|timeline|all",
        ),
    ] = ALL_PANELS
    top_k: Annotated[int, About("Maximum number of lanes.", short="-k")] = 8
    threshold: Annotated[
        float | None,
        About("Lowest score to draw. [default: any; for --events as in the model's thresholds.json, else 0.5]"),
    ] = None
    labels: LabelNames = ()
    exclude_labels: ExcludedNames = ()
    specific: OnlySpecific = False
    events: Annotated[bool, About("Draw events: consecutive windows over the threshold of a label, merged.")] = False

    def __post_init__(self) -> None:
        """Validate the options."""
        WindowOptions.__post_init__(self)
        if not self.panels:
            flag = flag_of(PlotOptions, "what")
            raise UsageError(f"{flag} must be {', '.join(PANELS)} or {ALL_PANELS}, not {shown(self.what)}")
        if self.channels == EACH:
            flag = flag_of(WindowOptions, "channels")
            raise UsageError(f"{flag} {EACH} gives several results, and a picture shows one: choose {MIX} or a number")
        self.tagging()  # validates the others

    @property
    def panels(self) -> tuple[Panel, ...]:
        """The parts of a picture, from top to bottom; none where ``what`` names something else."""
        names = [name.strip() for name in self.what.split(",")]
        if not set(names) <= {*PANELS, ALL_PANELS}:
            return ()
        return tuple(panel for panel in PANELS if panel in names or ALL_PANELS in names)

    def tagging(self) -> ClassifyOptions:
        """Return the options of the tagging that gives the lanes.

        Windows keep more labels than there are lanes: those of the lanes should have a score in every window.
        """
        return ClassifyOptions(
            start_s=self.start_s,
            duration_s=self.duration_s,
            channels=self.channels,
            hop_s=self.hop_s,
            batch_size=self.batch_size,
            top_k=self.top_k if self.top_k < 1 else max(self.top_k, MIN_TAGS_OF_LANES),
            threshold=self.threshold,
            labels=self.labels,
            exclude_labels=self.exclude_labels,
            specific=self.specific,
            timestamps=not self.events,
            events=self.events,
        )


@dataclass(frozen=True, slots=True)
class RunOptions(DecodeOptions):
    """Options of a run over many inputs, apart from those that change its results.

    Attributes:
        output: File to write; None to only yield the records, or to write to ``output_dir``.
        output_dir: Folder in which each input gets a file of its own in each format; None for no such folder.
        format_name: One of `ast_cli.report.FORMATS`; with ``output_dir`` also several, separated by commas.
        resume: Whether to continue an output, or an output folder, that exists.
        retry_errors: Whether inputs that failed are tried again, with ``resume``; in a folder they always are.
        force: Whether to replace an output, or files in the folder, that exist.
        shard: Index of the part of the inputs to process, from 0, and the number of parts; None for all inputs.
        unordered: Whether results are written as they are complete, not in the order of the inputs.
        max_errors: Number of failed inputs after which the run stops; None for no limit.
        matches_only: Whether only inputs with a tag or, with ``events``, with an event are reported, besides those that
            failed; all inputs count as done.
    """

    output: Annotated[
        Path | None,
        About(
            "Write the results to a file, not to stdout, with FILE.ast-journal beside it for --resume and ast merge.",
            short="-o",
            metavar="FILE",
        ),
    ] = None
    output_dir: Annotated[
        Path | None,
        About(
            "Write a file for each input, and for each of several formats, into a folder with the sub-folders of the "
            "inputs.",
            metavar="DIR",
        ),
    ] = None
    format_name: str = "jsonl"
    resume: Annotated[bool, About("Continue an existing output: inputs that are done are skipped.")] = False
    retry_errors: Annotated[bool, About("With --resume, try inputs that failed again.")] = False
    force: Annotated[bool, About("Replace an existing --output, or files in --output-dir.")] = False
    shard: tuple[int, int] | None = None
    unordered: Annotated[bool, About("Write results as they are complete, not in the order of the inputs.")] = False
    max_errors: MaxErrors = None
    matches_only: Annotated[
        bool,
        About("Report only inputs with a tag over the threshold (with --events: an event), and those that failed."),
    ] = False

    def __post_init__(self) -> None:
        """Validate the options."""
        DecodeOptions.__post_init__(self)
        if self.output is not None and self.output_dir is not None:
            raise UsageError("--output names one file and --output-dir a folder of files: choose one")
        if self.destination is None and self.resume:
            raise UsageError("--resume needs --output: results on standard output cannot be continued")
        check_max_errors(self.max_errors)

    @property
    def destination(self) -> Path | None:
        """File or folder to write; None for neither."""
        return self.output_dir if self.output is None else self.output

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats of ``format_name``.

        Raises:
            UsageError: If there is no such format.
        """
        return parsed_formats(self.format_name)


@dataclass(frozen=True, slots=True)
class ExtractRunOptions(DecodeOptions):
    """Options of an extraction from many inputs, apart from those that change its arrays.

    Attributes:
        resume: Whether to continue an output folder that exists: inputs whose file is complete are skipped, failed
            inputs are tried again.
        force: Whether to replace files that exist, and to start an output folder over.
        max_errors: Number of failed inputs after which the run stops; None for no limit.
    """

    resume: Annotated[
        bool,
        About("Continue an existing --output folder: inputs whose file is complete are skipped, failed ones repeated."),
    ] = False
    force: Annotated[bool, About("Replace existing files; start an --output folder over.")] = False
    max_errors: MaxErrors = None

    def __post_init__(self) -> None:
        """Validate the options."""
        DecodeOptions.__post_init__(self)
        if self.resume and self.force:
            raise UsageError("--resume continues an output and --force replaces it: choose one")
        check_max_errors(self.max_errors)
