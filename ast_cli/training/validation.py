"""Evaluation during training: loss and metric of a model on held-out clips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.evaluation.metrics import METRIC_NAMES, MultiLabelMetrics, SingleLabelMetrics
from ast_cli.model.transformer import ASTForAudioClassification
from ast_cli.tagging.options import DEFAULT_THRESHOLD
from ast_cli.training.data.batches import Clips, evaluation_windows
from ast_cli.training.objective import predicted_scores, training_loss


@dataclass(frozen=True, slots=True)
class Validation:
    """Result of one validation.

    Attributes:
        loss: Mean loss over the windows of all clips, without label smoothing.
        metric: Accuracy for single-label data, mean average precision for multi-label data; NaN if it is undefined.
    """

    loss: float
    metric: float


def metric_name(*, is_multi_label: bool) -> str:
    """Return the name of the metric that `Validation` holds."""
    return METRIC_NAMES[(MultiLabelMetrics if is_multi_label else SingleLabelMetrics).headline_key]


@dataclass(frozen=True)
class Evaluator:
    """Evaluates models on one set of clips.

    Attributes:
        clips: Clips to evaluate on.
        extractor: Feature extractor that pads and normalizes.
        loss: Name of the loss; scores are a softmax for ``cross-entropy``, a sigmoid for ``bce``.
        is_multi_label: Whether the metric is mean average precision, not accuracy.
        batch_size: Windows per batch.
        autocast: Data type of matrix products; None for float32.
        by_loss: Whether the best validation is that with the lowest loss, not with the highest metric. With soft
            targets the loss is how far the model is from its teacher, while few clips may have a label at all.
    """

    clips: Clips
    extractor: FeatureExtractor
    loss: str
    is_multi_label: bool
    batch_size: int
    autocast: torch.dtype | None = None
    by_loss: bool = False

    def rank(self, found: Validation) -> float:
        """Return the number by which validations are compared: the higher, the better."""
        return -found.loss if self.by_loss else found.metric

    def evaluate(self, model: ASTForAudioClassification) -> Validation:
        """Compute the loss and metric of a model."""
        scores, loss = self.scores(model)
        return Validation(loss, metric_of(scores, self.clips.own_truth(), is_multi_label=self.is_multi_label))

    @torch.inference_mode()
    def scores(self, model: ASTForAudioClassification) -> tuple[NDArray[np.float32], float]:
        """Compute the mean scores over the windows of each clip, shape (num_clips, num_labels), and the loss."""
        was_training = model.training
        model.eval()
        sums = np.zeros((len(self.clips), model.config.num_labels), np.float64)
        counts = np.zeros(len(self.clips), np.int64)
        losses: list[Tensor] = []
        extractor = self.extractor
        windows = evaluation_windows(self.clips, extractor.max_length, self.batch_size, extractor.scaled_window_frames)
        for owners, batch in windows:
            batch = batch.to(model.device)
            fbank = torch.where(batch.frame_mask, batch.fbank, self.extractor.padding_value)
            with torch.autocast(model.device.type, self.autocast, enabled=self.autocast is not None):
                logits = model(self.extractor.normalized(fbank), return_dict=True).logits
            np.add.at(sums, owners, predicted_scores(logits, self.loss))
            np.add.at(counts, owners, 1)
            losses.append(training_loss(logits, batch.targets, self.loss) * len(owners))
        model.train(was_training)
        scores = (sums / counts[:, None]).astype(np.float32)
        return scores, float(sum(loss.item() for loss in losses) / counts.sum())


def metric_of(scores: NDArray[np.float32], targets: NDArray[np.float32], *, is_multi_label: bool) -> float:
    """Return the accuracy, or the mean average precision over the labels that occur (NaN if none does).

    Args:
        scores: Scores, shape (num_clips, num_labels).
        targets: 1 if a clip has a label, else 0, or soft targets, shape (num_clips, num_labels).
        is_multi_label: Whether to return the mean average precision.
    """
    if not is_multi_label:
        return float((scores.argmax(axis=1) == targets.argmax(axis=1)).mean())
    from sklearn.metrics import average_precision_score

    has_label = present_labels(targets, is_multi_label=True)
    occurring = np.flatnonzero(has_label.any(axis=0))
    if not len(occurring):
        return float("nan")
    return float(np.mean([average_precision_score(has_label[:, i], scores[:, i]) for i in occurring]))


def present_labels(targets: NDArray[np.float32], *, is_multi_label: bool) -> NDArray[np.bool_]:
    """Return which labels clips have: those with the highest target, in multi-label data with a target of 0.5 or more.

    Labels have a target of 1; with soft targets the result is what the teacher would answer.

    Args:
        targets: Targets, shape (num_clips, num_labels).
        is_multi_label: Whether a clip may have several labels, or none.
    """
    if is_multi_label:
        return np.asarray(targets >= DEFAULT_THRESHOLD)
    return np.asarray(np.arange(targets.shape[1]) == targets.argmax(axis=1)[:, None])
