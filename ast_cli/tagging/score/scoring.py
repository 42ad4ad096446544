"""Turn logits into scores, and choose the tags to report."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ast_cli.about import flag_of
from ast_cli.errors import AstWarning, UsageError
from ast_cli.files.json_object import shown
from ast_cli.labels import mid_of, select_label_ids
from ast_cli.model.config import ASTConfig, activation_of, known_problem_type
from ast_cli.results import Tag
from ast_cli.styles import genre_and_style, styles_by_genre
from ast_cli.tagging.options import (
    DEFAULT_THRESHOLD,
    DEFAULT_TOP_K,
    ClassifyOptions,
    check_specific,
    check_threshold_range,
)
from ast_cli.tagging.score.specific import SpecificLabels
from ast_cli.tagging.thresholds import thresholds_by_id

Scores = NDArray[np.float32]
GUESSED = (
    "config.json of the checkpoint has no problem_type, so scores are a softmax, as if each recording had one label; "
    'if several labels may be right, use --activation sigmoid, or write "problem_type": "multi_label_classification" '
    "into the file"
)


def scores_of(logits: Scores, activation: str) -> Scores:
    """Apply ``sigmoid``, ``softmax`` or ``none`` to logits of shape (batch, num_labels), in double precision."""
    if activation == "none":
        return logits
    exact = logits.astype(np.float64)
    if activation == "sigmoid":
        small = np.exp(-np.abs(exact))  # never overflows
        return np.asarray(np.where(exact >= 0, 1, small) / (1 + small), np.float32)
    powers = np.exp(exact - exact.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)


def chosen_activation(config: ASTConfig) -> str:
    """Return the activation for a checkpoint; warn if the configuration does not determine it."""
    if known_problem_type(config) is None:
        warnings.warn(GUESSED, AstWarning, stacklevel=2)
    return activation_of(config)


def _checked_genres(id2label: Mapping[int, str]) -> dict[str, list[int]]:
    """Return the class indices of the styles of each genre.

    Raises:
        UsageError: If not every label is a style of a genre.
    """
    other = next((label for label in id2label.values() if genre_and_style(label) is None), None)
    if other is not None:
        raise UsageError(
            f"{flag_of(ClassifyOptions, 'by_genre')} needs a model whose labels are all of the form Genre---Style, "
            f"such as maest; this one has the label {shown(other)}"
        )
    return styles_by_genre(id2label)


class TagChooser:
    """Chooses the tags to report from the scores of all labels.

    Args:
        config: Configuration of the model, with its labels and problem type.
        options: Labels to report, their greatest number, and their thresholds.
        model_thresholds: Thresholds of events that come with the model, by label; none if the options set thresholds.

    Raises:
        UsageError: If the model does not have a label, its scores cannot reach the threshold, they are logits and
            general labels are to be left out, or its labels have no genres.

    Attributes:
        id2label: Labels by class index: those of the model, or its genres by their number.
        label_ids: Class indices of the labels that may be reported, shape (num_chosen,).
        thresholds: Lowest score to report of each label, float64, shape (num_chosen,); None to report any score.
        specific: What leaves out general labels; None to report them.
        event_thresholds: Lowest score of each label that belongs to an event, float64, shape (num_chosen,).
        num_model_thresholds: Number of the labels whose events use the threshold that comes with the model.
    """

    def __init__(
        self, config: ASTConfig, options: ClassifyOptions, model_thresholds: Mapping[str, float] = MappingProxyType({})
    ) -> None:
        self.id2label: Mapping[int, str] = config.id2label
        self._styles: list[list[int]] | None = None  # by genre, the class indices of its styles
        if options.by_genre:
            by_genre = _checked_genres(config.id2label)
            self.id2label, self._styles = dict(enumerate(by_genre)), list(by_genre.values())
        self.activation = chosen_activation(config) if options.activation == "auto" else options.activation
        check_threshold_range(options.threshold, self.activation)
        check_specific(options.specific, self.activation)
        chosen = select_label_ids(options.labels, self.id2label) if options.labels else list(self.id2label)
        excluded = set(select_label_ids(options.exclude_labels, self.id2label))
        if set(chosen) <= excluded:
            raise UsageError("no label is left: --labels and --exclude-labels contradict each other")
        self.label_ids = np.array([label_id for label_id in chosen if label_id not in excluded], np.int64)
        takes_all = bool(options.labels or options.thresholds)
        wanted = options.top_k or (len(self.label_ids) if takes_all else DEFAULT_TOP_K)
        self.top_k = min(wanted, len(self.label_ids))
        self.thresholds = self._thresholds(options)
        self.specific = SpecificLabels(self.id2label, self.label_ids) if options.specific else None
        names = self.labels
        self.num_model_thresholds = sum(name in model_thresholds for name in names)
        if self.thresholds is None:
            self.event_thresholds = np.array([model_thresholds.get(name, DEFAULT_THRESHOLD) for name in names])
        else:
            self.event_thresholds = self.thresholds

    @property
    def labels(self) -> list[str]:
        """Labels that may be reported, in the order of ``label_ids``."""
        return [self.id2label[label_id] for label_id in self.label_ids.tolist()]

    def scores(self, logits: Scores) -> Scores:
        """Return the scores for logits of shape (batch, num_labels): as many, or one for each genre."""
        scores = scores_of(logits, self.activation)
        if self._styles is None:
            return scores
        return np.stack([scores[:, label_ids].max(axis=1) for label_ids in self._styles], axis=1)

    def choose(self, scores: Scores) -> tuple[Tag, ...]:
        """Return the tags for scores of shape (num_labels,), best first; equal scores in the order of class indices."""
        candidates = scores[self.label_ids]
        order = np.argsort(-candidates, kind="stable")
        over = np.ones(len(order), np.bool_) if self.thresholds is None else candidates >= self.thresholds
        if self.specific is not None:
            over = self.specific(candidates, over)
        order = order[over[order]]
        tags = []
        for position in order[: self.top_k].tolist():
            label_id, score = int(self.label_ids[position]), float(candidates[position])
            label = self.id2label[label_id]
            tags.append(Tag(label, label_id, mid_of(label), score))
        return tuple(tags)

    def _thresholds(self, options: ClassifyOptions) -> NDArray[np.float64] | None:
        """Return a threshold for each chosen label; None for no thresholds.

        They stay float64, as in the options: rounded to float32, a threshold could let a lower score pass.
        """
        if not options.thresholds and options.threshold is None:
            return None
        default = DEFAULT_THRESHOLD if options.threshold is None else options.threshold
        try:
            own = thresholds_by_id(options.thresholds, self.id2label)
        except UsageError as error:
            raise UsageError(f"--thresholds: {error}") from error
        values = [own.get(label_id, default) for label_id in self.label_ids.tolist()]
        return np.array(values, np.float64)
