"""Tag inputs with a loaded model: open them, score their windows in batches, yield results."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Protocol

from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.engine.batch_size import BatchSize, choose_batch_size
from ast_cli.engine.interface import Engine
from ast_cli.errors import CheckpointError
from ast_cli.model.config import activation_of
from ast_cli.results import StreamedPart, TaggingResult
from ast_cli.tagging.decode.opening import Turn, Watching, Workers, open_as_ready, open_inputs, unwatched
from ast_cli.tagging.inputs import Input
from ast_cli.tagging.options import ClassifyOptions
from ast_cli.tagging.score import batch
from ast_cli.tagging.score.batch import ModelName
from ast_cli.tagging.score.scoring import TagChooser


class LoadedModel(Protocol):
    """A loaded checkpoint, such as a `ast_cli.tagging.tagger.Tagger`.

    Attributes:
        engine: The loaded model.
        feature_extractor: Feature extractor of the checkpoint.
        name: Name of the checkpoint, repeated in results.
        license: License of the checkpoint, repeated in results; None if it is not known.
    """

    engine: Engine
    feature_extractor: FeatureExtractor
    name: str
    license: str | None

    @property
    def thresholds(self) -> Mapping[str, float]:
        """Thresholds that come with the checkpoint, by label; empty if it has none."""


def own_thresholds(model: LoadedModel, options: ClassifyOptions) -> Mapping[str, float]:
    """Return the thresholds of the model that its events use; empty if they use none.

    They are for the scores that the model gives by itself: another activation gives others.

    Raises:
        CheckpointError: If the model's file of thresholds is damaged.
    """
    are_its_scores = options.activation in ("auto", activation_of(model.engine.config))
    if not (options.leave_events_to_model and are_its_scores):
        return {}
    try:
        return model.thresholds
    except CheckpointError as error:
        raise CheckpointError(f"{error}; with --threshold this file is not used") from error


def tag_chooser(model: LoadedModel, options: ClassifyOptions) -> TagChooser:
    """Return the function that chooses tags, after checking that the options fit the model.

    Raises:
        UsageError: If the hop is longer than a window, the model does not have a label, or its scores cannot reach the
            threshold.
        CheckpointError: If the model's file of thresholds is needed and damaged.
    """
    model.feature_extractor.hop_frames(options.hop_s)
    return TagChooser(model.engine.config, options, own_thresholds(model, options))


def classify_inputs(
    model: LoadedModel,
    inputs: Iterable[Input],
    options: ClassifyOptions,
    workers: Workers | None = None,
    *,
    in_order: bool = True,
    batch_size: BatchSize | None = None,
    watching: Watching = unwatched,
) -> Generator[TaggingResult | StreamedPart, None, None]:
    """Tag inputs; with ``options.stream`` the windows and events of an input precede its result.

    Args:
        model: The loaded checkpoint.
        inputs: Inputs, which are taken lazily.
        options: Options of the tagging.
        workers: Workers that are running, or the options to start them; None for the default options.
        in_order: Whether results come in the order of the inputs, or each as soon as it is complete.
        batch_size: Number of windows per batch; None to follow the options.
        watching: Wrapper of the function that opens an input; see `ast_cli.tagging.decode.opening.open_inputs`.
    """
    opened = open_inputs if in_order else open_as_ready
    with opened(inputs, model.feature_extractor.sampling_rate, options, workers, watching) as turns:
        yield from classify_turns(model, turns, options, batch_size, in_order=in_order)


def classify_turns(
    model: LoadedModel,
    turns: Iterable[Turn | None],
    options: ClassifyOptions,
    batch_size: BatchSize | None = None,
    *,
    in_order: bool = True,
) -> Iterator[TaggingResult | StreamedPart]:
    """Tag inputs that are already being opened; the other arguments are those of `classify_inputs`."""
    batcher = batch.Batcher(
        model.engine,
        model.feature_extractor,
        tag_chooser(model, options),
        batch_size or choose_batch_size(model.engine, options.batch_size),
    )
    return batch.classify_turns(turns, batcher, options, ModelName(model.name, model.license), in_order=in_order)
