"""Pictures of many recordings, one file each: lanes from the model or from results that exist."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ast_cli.audio.channels import MIX
from ast_cli.audio.fbank.kaldi_bank import KaldiBank
from ast_cli.audio.overview import Overview, OverviewBuilder, WatchedStream
from ast_cli.audio.sample_stream import SampleStream
from ast_cli.errors import AstError, AudioError, NoInputsError, UsageError
from ast_cli.files.atomic import write_whole
from ast_cli.labels import select_label_ids
from ast_cli.report.lanes import lanes_of, result_end_s, result_start_s
from ast_cli.report.panels import PICTURE_FORMATS
from ast_cli.report.picture import Picture, characters_without_font, draw_picture
from ast_cli.report.reading import read_results
from ast_cli.report.text import clock, printable
from ast_cli.results import Event, FileError, Tag, TaggingResult
from ast_cli.tagging.decode.opening import OpenStream, Workers, open_inputs
from ast_cli.tagging.inputs import Input, RealPaths, merged
from ast_cli.tagging.options import PlotOptions
from ast_cli.tagging.run.tally import OnProgress, Tally
from ast_cli.tagging.score.batch import file_error
from ast_cli.tagging.score.classify import classify_inputs
from ast_cli.tagging.tagger import Tagger

MIN_LENGTH_S = 0.01  # of a time axis

# Results that exist by the real path of their recording.
KnownResults: TypeAlias = Mapping[str, TaggingResult]


@dataclass(frozen=True, slots=True)
class PlottedFile:
    """The outcome of one input.

    Attributes:
        path: Path of the input.
        target: File of the picture.
        duration_s: Length of the recording, in seconds.
        warnings: Codes of the warnings.
        error: The error of a failed input, which has no picture.
        labels: Labels of its lanes, from top to bottom.
        missing_characters: Characters of its texts that no installed font has.
    """

    path: str
    target: Path
    duration_s: float | None = None
    warnings: tuple[str, ...] = ()
    error: FileError | None = None
    labels: tuple[str, ...] = ()
    missing_characters: str = ""


def results_to_plot(
    file: str | Path, inputs: Sequence[Input] | None, options: PlotOptions
) -> tuple[list[Input], KnownResults]:
    """Read the results of recordings to plot; only theirs are kept in memory.

    Args:
        file: File that ``ast classify`` wrote as JSON Lines or JSON; ``-`` for standard input.
        inputs: The recordings; None for all that have a result.
        options: Options of the pictures.

    Returns:
        The recordings that have a result, in their order, and the results by real path.

    Raises:
        UsageError: If a label of the options is not in the results.
        NoInputsError: If none of the recordings has a result.
        AstError: If the file cannot be read, or its scores are logits.
    """
    if options.specific:
        raise UsageError("--specific is for tagging: make results with ast convert --specific, and plot those")
    real_path = RealPaths()
    wanted = None if inputs is None else {real_path(item) for item in inputs}
    channel = None if options.channels == MIX else options.channels
    results: dict[str, TaggingResult] = {}
    found: list[Input] = []
    for whole in read_results(file):
        for record in whole.records:
            item = Input(record.path or "")
            key = real_path(item)
            if record.path is None or (record.error is None and record.channel != channel):
                continue
            if wanted is None or key in wanted:
                if record.activation == "none" and record.error is None:
                    raise AstError(f"{printable(str(file))}: the scores are logits (activation none), without a scale")
                results[key] = record
                found.append(item)
    chosen = list(merged(found)) if inputs is None else [item for item in inputs if real_path(item) in results]
    if not chosen:
        which = "" if channel is None else f" of channel {channel}"
        raise NoInputsError(f"{printable(str(file))} has no result{which} for these recordings: name paths as in it")
    return chosen, results


class PlotRun:
    """A run that yields each outcome when the picture is written; iterated once.

    Args:
        inputs: The inputs.
        targets: The file of each of them; its suffix is the format.
        options: Options of the pictures.
        tagger: Model that gives the lanes; None where results give them, or there are none.
        results: Results that give the lanes, by real path.

    Attributes:
        tally: Counts of the finished inputs.
        journal_file: None: pictures that exist are not drawn again, so a run is not continued.
        can_be_resumed: False.
    """

    journal_file: Path | None = None
    can_be_resumed = False

    def __init__(
        self,
        inputs: Sequence[Input],
        targets: Sequence[Path],
        options: PlotOptions,
        *,
        tagger: Tagger | None = None,
        results: KnownResults | None = None,
        max_errors: int | None = None,
    ) -> None:
        self.tally = Tally(len(inputs), max_errors)
        self._inputs = inputs
        self._targets = {item.path: target for item, target in zip(inputs, targets, strict=True)}
        self._options = options
        self._tagger = tagger
        self._results = results
        self._needs_audio = options.panels != ("timeline",)
        self._label_ids = self._chosen_labels(results)

    def plot(
        self, workers: Workers | None = None, on_progress: OnProgress = lambda _tally: None
    ) -> Generator[PlottedFile, None, None]:
        """Draw the pictures.

        Args:
            workers: Decoding processes that run already, or the options to start them.
            on_progress: Called with the tally after each outcome; an exception ends the run.

        Raises:
            AstError: If a file cannot be written, or too many inputs failed.
        """
        if self._tagger is not None:
            outcomes = self._with_model(self._tagger, workers)
        elif self._needs_audio:
            outcomes = self._with_audio(workers)
        else:
            outcomes = self._of_results()
        with closing(outcomes):
            for outcome in outcomes:
                yield outcome
                self.tally.add(outcome)
                on_progress(self.tally)
        self.tally.check()

    def _with_model(self, tagger: Tagger, workers: Workers | None) -> Generator[PlottedFile, None, None]:
        """Tag the inputs; their overviews are made of the same samples, on their way to the model."""
        watched: dict[str, tuple[SampleStream, OverviewBuilder]] = {}
        config = KaldiBank(tagger.feature_extractor.sampling_rate)

        def watching(path: str, open_stream: OpenStream) -> OpenStream:
            def open_watched() -> SampleStream:
                stream, builder = open_stream(), OverviewBuilder(config)
                watched[path] = (stream, builder)
                return WatchedStream(stream, builder)

            return self.tally.watching(path, open_watched if self._needs_audio else open_stream)

        records = classify_inputs(tagger, self._inputs, self._options.tagging(), workers, watching=watching)
        with closing(records):
            for result in records:
                assert isinstance(result, TaggingResult)
                path = result.path or ""
                stream, builder = watched.pop(path, (None, None))
                if result.error is not None:
                    yield PlottedFile(path, self._targets[path], error=result.error)
                    continue
                overview = None
                if stream is not None and builder is not None:
                    overview = builder.overview(stream.start_s, stream.duration_s)
                yield self._drawn(path, overview, result, result.warnings)

    def _with_audio(self, workers: Workers | None) -> Generator[PlottedFile, None, None]:
        """Read the inputs, and take their lanes from results if there are any."""
        config, real_path = KaldiBank(), RealPaths()
        rate, options = config.sampling_rate, self._options
        with open_inputs(self._inputs, rate, options, workers, self.tally.watching) as turns:
            for turn in turns:
                path = turn.item.path
                try:
                    if turn.item.error is not None:
                        raise AudioError(turn.item.error.code, turn.item.error.message)
                    stream, builder = turn.open_stream(), OverviewBuilder(config)
                    with closing(stream):
                        for block in stream:
                            builder.add(block)
                except AudioError as error:
                    problem = turn.item.error or file_error(turn.item, error)
                    yield PlottedFile(path, self._targets[path], error=problem)
                    continue
                result = None if self._results is None else self._results[real_path(turn.item)]
                if result is not None and result.error is not None:
                    yield PlottedFile(path, self._targets[path], error=result.error)
                    continue
                overview = builder.overview(stream.start_s, stream.duration_s)
                yield self._drawn(path, overview, result, tuple(sorted(map(str, stream.warnings))))

    def _of_results(self) -> Generator[PlottedFile, None, None]:
        """Draw lanes alone: no recording is read."""
        real_path = RealPaths()
        for item in self._inputs:
            assert self._results is not None
            result = self._results[real_path(item)]
            if result.error is not None:
                yield PlottedFile(item.path, self._targets[item.path], error=result.error)
            else:
                yield self._drawn(item.path, None, result, result.warnings)

    def _drawn(
        self, path: str, overview: Overview | None, result: TaggingResult | None, warnings: tuple[str, ...]
    ) -> PlottedFile:
        """Draw and write one picture."""
        picture = self._picture(path, overview, result)
        target = self._targets[path]
        (format_name,) = (name for name in PICTURE_FORMATS if target.suffix.lower() == f".{name}")
        write_whole(target, draw_picture(picture, format_name))
        duration_s = overview.duration_s if overview is not None else None if result is None else result.duration_s
        labels = tuple(lane.label for lane in picture.lanes)
        missing = characters_without_font("".join((picture.title, *labels)))
        return PlottedFile(path, target, duration_s, warnings, labels=labels, missing_characters=missing)

    def _picture(self, path: str, overview: Overview | None, result: TaggingResult | None) -> Picture:
        """Return what the picture of a recording shows."""
        options = self._options
        if overview is not None:
            start_s, end_s = overview.start_s, overview.start_s + overview.duration_s
        elif result is not None and self._tagger is not None:
            start_s, end_s = options.start_s, options.start_s + (result.duration_s or 0.0)
        elif result is not None:
            start_s = max(result_start_s(result), options.start_s)
            end_s = result_end_s(result) if options.duration_s is None else start_s + options.duration_s
        lanes = []
        if result is not None and "timeline" in options.panels:
            # The model's results have been selected already, events by their own thresholds.
            threshold = options.threshold if self._tagger is None else None
            lanes = lanes_of(result, threshold=threshold, label_ids=self._label_ids, of_events=options.events)
        shown = lanes[: options.top_k]
        return Picture(
            title=path,
            subtitle=_subtitle(end_s - start_s, result if shown else None, len(lanes), len(shown), options),
            start_s=start_s,
            end_s=max(end_s, start_s + MIN_LENGTH_S),
            panels=options.panels,
            overview=overview,
            lanes=shown,
        )

    def _chosen_labels(self, results: KnownResults | None) -> set[int] | None:
        """Return the class indices that the options select among those of results; None for all."""
        names, excluded = self._options.labels, self._options.exclude_labels
        if results is None or not (names or excluded):
            return None
        id2label = dict(sorted(_labels_in(results.values())))
        chosen = set(select_label_ids(names, id2label)) if names else set(id2label)
        return chosen - set(select_label_ids(excluded, id2label))


def _labels_in(results: Iterable[TaggingResult]) -> Iterator[tuple[int, str]]:
    for result in results:
        parts: list[Sequence[Tag | Event]] = [
            result.tags,
            *(window.tags for window in result.windows or ()),
            result.events or (),
        ]
        yield from ((tag.label_id, tag.label) for tags in parts for tag in tags)


def _subtitle(
    length_s: float, result: TaggingResult | None, num_lanes: int, num_shown: int, options: PlotOptions
) -> str:
    """Return length, model and meaning of the lanes."""
    parts = [clock(length_s)]
    if options.channels != MIX:
        parts.append(f"channel {options.channels}")
    if result is not None:
        parts.append(f"model {result.model}")
        of_events = result.events is not None and (options.events or result.windows is None)
        if of_events:
            parts.append("events, mean score")
        elif result.windows is None:
            parts.append("scores of the whole recording")
        else:
            parts.append(f"windows of {result.windows[0].end_s - result.windows[0].start_s:.2f} s")
        if num_shown < num_lanes:
            parts.append(f"the best {num_shown} of {num_lanes} labels")
    return " · ".join(parts)
