"""Evaluation of models on labeled recordings, with the scores that ``ast classify`` gives."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ast_cli.dataset.examples import Example, ExampleSet
from ast_cli.errors import AstError, AstWarning, UsageError
from ast_cli.evaluation.calibration import Reliability, reliability
from ast_cli.evaluation.label_match import LabelMatch, match_labels
from ast_cli.evaluation.metrics import Metrics, multi_label_metrics, single_label_metrics
from ast_cli.evaluation.options import EvaluationOptions
from ast_cli.evaluation.thresholds import LabelThreshold, best_thresholds
from ast_cli.results import SCHEMA_VERSION, FileError, TaggingResult, path_fields
from ast_cli.tagging.options import ClassifyOptions
from ast_cli.tagging.score.classify import classify_inputs, tag_chooser
from ast_cli.tagging.tagger import Tagger

# Function that passes results through, for progress. Arguments: the results, their number, and the name of the model.
Watch = Callable[[Iterable[TaggingResult], int, str], Iterable[TaggingResult]]


@dataclass(frozen=True, slots=True)
class ModelResult:
    """The metrics of one model alone, and the license of its weights where it is known."""

    name: str
    metrics: Metrics
    license: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; ``license`` only where it is known."""
        stated = {} if self.license is None else {"license": self.license}
        return {
            "name": self.name,
            **stated,
            "num_examples": self.metrics.num_examples,
            "metrics": self.metrics.summary(),
        }


@dataclass(frozen=True, slots=True)
class FailedExample:
    """An example that could not be scored, with the error."""

    example: Example
    error: FileError

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**path_fields(self.example.path), "code": str(self.error.code), "message": self.error.message}


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Result of an evaluation of one model, or of an ensemble.

    Attributes:
        data: Path of the data.
        models: Metrics of each model alone, over the examples that it could score.
        metrics: Metrics of the only model, or of the mean of the models' scores.
        examples: Examples in the metrics, in the order of ``scores`` and ``targets``.
        failures: Examples that could not be scored; no metric counts them.
        num_left_out: Number of examples left out because the models do not know their labels.
        labels: Labels that could be predicted.
        scores: Mean of the models' scores, float32, shape (num_examples, num_labels).
        targets: Index of the label, shape (num_examples,); for multi-label data whether an example has a label, shape
            (num_examples, num_labels).
    """

    data: str
    models: tuple[ModelResult, ...]
    metrics: Metrics
    examples: tuple[Example, ...]
    failures: tuple[FailedExample, ...]
    num_left_out: int
    labels: tuple[str, ...]
    scores: NDArray[np.float32]
    targets: NDArray[Any]

    def thresholds(self) -> tuple[LabelThreshold, ...]:
        """Find the threshold of each label with the largest F1 on these examples."""
        is_multi_label = self.targets.ndim == 2
        has_label = self.targets if is_multi_label else self.targets[:, None] == np.arange(len(self.labels))
        return best_thresholds(self.scores, has_label, self.labels)

    def reliability(self) -> Reliability:
        """Compare the scores with how often they are right: for single-label data those of the predicted labels."""
        if self.targets.ndim == 2:
            return reliability(self.scores, self.targets)
        return reliability(self.scores.max(axis=1), self.scores.argmax(axis=1) == self.targets)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; the order of its keys is part of the format."""
        return {
            "schema_version": SCHEMA_VERSION,
            "type": "evaluation",
            "data": path_fields(self.data)["path"],
            "models": [model.to_dict() for model in self.models],
            **self.metrics.to_dict(),
            "calibration": self.reliability().to_dict(),
            "num_failed": len(self.failures),
            "num_left_out": self.num_left_out,
            "failures": [failure.to_dict() for failure in self.failures],
        }


def evaluate(
    examples: ExampleSet,
    taggers: Sequence[Tagger],
    options: EvaluationOptions | None = None,
    watch: Watch = lambda results, _num_examples, _model: results,
) -> Evaluation:
    """Evaluate one model, or an ensemble by the mean of its scores, on labeled recordings.

    Args:
        examples: Examples to evaluate on.
        taggers: Loaded models; several form an ensemble, and all must know the labels.
        options: Options of the evaluation; None for the defaults.
        watch: Function that all results pass through, for progress.

    Raises:
        UsageError: If a model does not know a label, or predicts numbers instead of labels.
        AstError: If no example could be scored.
    """
    options = options or EvaluationOptions()
    match = match_labels(examples, [(tagger.name, tagger.config.id2label) for tagger in taggers], options)
    _check_activations(taggers)
    ensemble = _Ensemble(match, options, watch)
    results = [ensemble.add(tagger, label_ids) for tagger, label_ids in zip(taggers, match.label_ids, strict=True)]
    kept = ensemble.rows_left()
    mean = ensemble.total[kept] / np.float32(len(taggers))
    return Evaluation(
        data=examples.source,
        models=tuple(results),
        metrics=results[0].metrics if len(results) == 1 else _metrics(mean, match.targets[kept], match.labels),
        examples=tuple(match.examples[row] for row in kept),
        failures=tuple(FailedExample(match.examples[row], error) for row, error in sorted(ensemble.errors.items())),
        num_left_out=match.num_left_out,
        labels=match.labels,
        scores=mean,
        targets=match.targets[kept],
    )


class _Ensemble:
    """Sums the scores of several models, with one matrix for the sum and one for the current model in memory."""

    def __init__(self, match: LabelMatch, options: EvaluationOptions, watch: Watch) -> None:
        self.match = match
        self.options = options
        self.watch = watch
        self.total = np.zeros((len(match.examples), len(match.labels)), np.float32)
        self.errors: dict[int, FileError] = {}  # by row of the match

    def rows_left(self) -> list[int]:
        """Return the rows that all models so far could score."""
        return [row for row in range(len(self.total)) if row not in self.errors]

    def add(self, tagger: Tagger, label_ids: Sequence[int]) -> ModelResult:
        """Score the examples with one more model; return its own metrics.

        Raises:
            AstError: If no example could be scored.
        """
        scores = np.zeros_like(self.total)
        rows = self.rows_left()  # a file that failed once would fail again
        for row, result in zip(rows, self._results(tagger, rows), strict=True):
            if result.error is not None:
                self.errors[row] = result.error
            else:
                scores[row] = _row(result, tagger)[list(label_ids)]
        rows = self.rows_left()
        if not rows:
            raise AstError(
                f"none of {len(self.errors)} examples could be scored; first error: {self.errors[0].message}"
            )
        self.total += scores
        metrics = _metrics(scores[rows], self.match.targets[rows], self.match.labels)
        return ModelResult(tagger.name, metrics, tagger.license)

    def _results(self, tagger: Tagger, rows: Sequence[int]) -> Iterator[TaggingResult]:
        """Yield the result of the example of each row, with all labels."""
        inputs = [self.match.examples[row].input for row in rows]
        options = ClassifyOptions(
            hop_s=self.options.hop_s,
            batch_size=self.options.batch_size,
            top_k=tagger.config.num_labels,
            aggregate=self.options.aggregate,
        )
        records = classify_inputs(tagger, inputs, options, self.options)
        results = (record for record in records if isinstance(record, TaggingResult))
        with contextlib.closing(records):
            yield from self.watch(results, len(rows), tagger.name)


def _row(result: TaggingResult, tagger: Tagger) -> NDArray[np.float32]:
    """Return the scores of a result by class index, shape (num_labels,)."""
    scores = np.zeros(tagger.config.num_labels, np.float32)
    for tag in result.tags:
        scores[tag.label_id] = tag.score
    return scores


def _metrics(scores: NDArray[np.float32], targets: NDArray[Any], labels: tuple[str, ...]) -> Metrics:
    return (single_label_metrics if targets.ndim == 1 else multi_label_metrics)(scores, targets, labels)


def _check_activations(taggers: Sequence[Tagger]) -> None:
    """Check that all models have scores from 0 to 1; warn of an ensemble with different kinds of scores."""
    kinds = {tagger.name: tag_chooser(tagger, ClassifyOptions()).activation for tagger in taggers}
    for name, kind in kinds.items():
        if kind == "none":
            raise UsageError(
                f"{name}: predicts a number (a regression), so labels cannot evaluate it; name another model"
            )
    if len(set(kinds.values())) > 1:
        listed = ", ".join(f"{name}: {kind}" for name, kind in kinds.items())
        text = f"the models have different kinds of scores ({listed}): sigmoid scores are larger and dominate the mean"
        warnings.warn(text, AstWarning, stacklevel=3)
