"""Extraction from many inputs, with one output file for each: a run that can be stopped and resumed."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ast_cli.audio.channels import MIX
from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.audio.front_ends.kaldi import ASTFeatureExtractor
from ast_cli.engine.interface import Engine
from ast_cli.errors import AudioError
from ast_cli.hub.folders import exported_file
from ast_cli.hub.licenses import license_of
from ast_cli.results import FileError, path_fields
from ast_cli.tagging.decode.opening import Turn, Workers, open_inputs
from ast_cli.tagging.extract.extraction import NEEDS_NO_MODEL, NEEDS_TORCH, Extraction, extract_features
from ast_cli.tagging.extract.files import write_extraction
from ast_cli.tagging.extract.targets import ExtractionPlan
from ast_cli.tagging.inputs import Input, RealPaths
from ast_cli.tagging.options import ExtractOptions, ExtractRunOptions, LoadOptions
from ast_cli.tagging.run.fingerprint import run_fingerprint
from ast_cli.tagging.run.journal_lines import Key
from ast_cli.tagging.run.tally import OnProgress, Tally
from ast_cli.tagging.score.batch import file_error
from ast_cli.tagging.score.recording import Recording, recordings_of
from ast_cli.tagging.tagger import Tagger, extractor_for


@dataclass(frozen=True, slots=True)
class ExtractedFile:
    """The outcome of one input.

    Attributes:
        path: Path of the input.
        target: File of the input.
        shapes: Shapes of the arrays in the file, by name.
        duration_s: Length of the audio that was decoded, in seconds.
        warnings: Codes of the warnings.
        error: The error of a failed input, which has no new file.
    """

    path: str
    target: Path
    shapes: dict[str, tuple[int, ...]] | None = None
    duration_s: float | None = None
    warnings: tuple[str, ...] = ()
    error: FileError | None = None

    @property
    def summary(self) -> str:
        """The arrays in one line: ``embedding 192, window_embeddings 1x192``."""
        return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in (self.shapes or {}).items())


@dataclass(frozen=True, slots=True)
class Extractor:
    """A feature extractor, a model where one is needed with its license, and the options of an extraction."""

    model: str | None
    feature_extractor: FeatureExtractor
    engine: Engine | None
    options: ExtractOptions
    license: str | None = None

    @classmethod
    def load(
        cls,
        model: str | None,
        options: ExtractOptions,
        load_options: LoadOptions,
        report_progress: Callable[[str], None] = lambda _what: None,
    ) -> Extractor:
        """Load the parts of a checkpoint that the extraction needs; without a model, the front end of AudioSet."""
        if model is None:
            return cls(None, ASTFeatureExtractor(fbank_backend=load_options.fbank_backend), None, options)
        if options.what in NEEDS_NO_MODEL:
            extractor = extractor_for(model, None, load_options.fbank_backend, load_options.front_end)
            return cls(model, extractor, None, options, license_of(model))
        if load_options.engine == "auto" and options.what in NEEDS_TORCH and exported_file(model) is None:
            load_options = dataclasses.replace(load_options, engine="torch")
        tagger = Tagger.load(model, load_options, report_progress)
        return cls(model, tagger.feature_extractor, tagger.engine, options, tagger.license)

    def recordings(self, turn: Turn) -> list[Recording]:
        """Open one input: its recording, or one for each channel.

        Raises:
            AudioError: If the input cannot be read.
        """
        if turn.item.error is not None:
            raise AudioError(turn.item.error.code, turn.item.error.message)
        return recordings_of(turn.open_stream(), self.feature_extractor, self.options)

    def extract(self, turn: Turn) -> Extraction:
        """Extract the arrays of one opened input.

        Raises:
            AudioError: If the input cannot be read.
        """
        return extract_features(self.recordings(turn), self.engine, self.options)

    def facts(self, item: Input, extraction: Extraction) -> dict[str, Any]:
        """Return the metadata of the file of an input."""
        facts: dict[str, Any] = {
            **path_fields(item.path),
            "what": extraction.what,
            "model": self.model,
            **({} if self.license is None else {"license": self.license}),
            "duration_s": extraction.duration_s,
            "sampling_rate": extraction.sampling_rate,
            "num_channels": extraction.num_channels,
        }
        if self.options.channels != MIX:
            facts["channels"] = self.options.channels
        if extraction.what == "logits" and self.engine is not None:
            facts["id2label"] = self.engine.config.id2label
        return facts

    def fingerprint(self) -> dict[str, Any]:
        """Return the settings that the files depend on: a run that is resumed must have the same."""
        return run_fingerprint(self.model, self.engine, self.feature_extractor, self.options)


class RunJournal(Protocol):
    """The journal of an extraction."""

    @property
    def exists(self) -> bool:
        """Whether a later run with ``resume`` can continue it."""

    @property
    def path(self) -> Path:
        """The journal's file."""


class ExtractionRun:
    """A run that has been opened; iterated once, it yields each outcome when its arrays are written.

    Attributes:
        tally: Counts of the finished inputs.
    """

    def __init__(self, outcomes: Iterator[ExtractedFile], tally: Tally, journal: RunJournal | None) -> None:
        self.tally = tally
        self._outcomes = outcomes
        self._journal = journal

    def __iter__(self) -> Iterator[ExtractedFile]:
        """Yield the outcomes in the order of the inputs; an outcome is counted when the next one is requested.

        Raises:
            AstError: If a file cannot be written, or if too many inputs failed.
        """
        return self._outcomes

    @property
    def journal_file(self) -> Path | None:
        """Journal in the output folder, or beside the output; None without one."""
        return None if self._journal is None or not self._journal.exists else self._journal.path

    @property
    def can_be_resumed(self) -> bool:
        """Whether the same run with ``resume`` continues this one."""
        return self.journal_file is not None


@contextlib.contextmanager
def open_extraction(
    extractor: Extractor,
    plan: ExtractionPlan,
    run_options: ExtractRunOptions,
    *,
    workers: Workers | None = None,
    on_progress: OnProgress = lambda _tally: None,
) -> Iterator[ExtractionRun]:
    """Open a run that extracts each input into its file.

    Args:
        extractor: The loaded model and the options.
        plan: The inputs and their files.
        run_options: Options of the run, the same that the plan was made with.
        workers: Decoding processes that run already; None to start them.
        on_progress: Called with the tally before each input and after each outcome; an exception ends the run.

    Raises:
        UsageError: If the folder was begun with another model or other options.
        AstError: If the folder cannot be created, or if another run writes to it.
    """
    tally = Tally(len(plan.inputs), run_options.max_errors)
    with contextlib.ExitStack() as stack:
        if plan.journal is not None:
            stack.enter_context(plan.journal.open(plan.format_name, extractor.fingerprint()))
        outcomes = _outcomes(extractor, plan, tally, workers or run_options, on_progress)
        stack.enter_context(contextlib.closing(outcomes))
        yield ExtractionRun(outcomes, tally, plan.journal)


def _outcomes(
    extractor: Extractor, plan: ExtractionPlan, tally: Tally, workers: Workers, on_progress: OnProgress
) -> Generator[ExtractedFile, None, None]:
    """Extract the inputs that have no file yet, and count all of them."""
    opened: dict[str, tuple[Key, Path]] = {}  # state and file of the inputs that are being decoded, by path
    pending = _pending(plan, tally, opened, on_progress)
    rate = extractor.feature_extractor.sampling_rate
    with open_inputs(pending, rate, extractor.options, workers, tally.watching) as turns:
        for turn in turns:
            outcome = _extract(extractor, turn, plan, *opened.pop(turn.item.path))
            yield outcome
            tally.add(outcome)
            on_progress(tally)
    tally.check()
    on_progress(tally)


def _pending(
    plan: ExtractionPlan, tally: Tally, opened: dict[str, tuple[Key, Path]], on_progress: OnProgress
) -> Iterator[Input]:
    """Yield the inputs that have no complete file, and count the others."""
    real_path = RealPaths()
    for item, target in zip(plan.inputs, plan.targets, strict=True):
        key = Key.of(real_path(item))
        if plan.journal is not None and plan.journal.has(key):
            tally.num_skipped += 1
        else:
            opened[item.path] = (key, target)
            yield item
        on_progress(tally)


def _extract(extractor: Extractor, turn: Turn, plan: ExtractionPlan, key: Key, target: Path) -> ExtractedFile:
    """Extract one input into its file."""
    item = turn.item
    try:
        extraction = extractor.extract(turn)
    except AudioError as error:
        return ExtractedFile(item.path, target, error=item.error or file_error(item, error))
    recording = contextlib.nullcontext() if plan.journal is None else plan.journal.recording(key, target)
    with recording:
        write_extraction(extraction, target, extractor.facts(item, extraction))
    shapes = {name: array.shape for name, array in extraction.arrays.items()}
    return ExtractedFile(item.path, target, shapes, extraction.duration_s, extraction.warnings)
