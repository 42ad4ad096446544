"""From logits to scores to tags."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ast_cli.errors import UsageError
from ast_cli.labels import mid_of, select_label_ids
from ast_cli.model.config import ASTConfig, activation_of
from ast_cli.results import Tag
from ast_cli.tagging.options import DEFAULT_TOP_K, ClassifyOptions


def scores_of(logits: Tensor, activation: str) -> Tensor:
    """Apply ``sigmoid``, ``softmax`` or ``none`` to logits (batch, num_labels)."""
    if activation == "sigmoid":
        return logits.sigmoid()
    return logits.softmax(dim=-1) if activation == "softmax" else logits


class TagChooser:
    """Chooses the tags to report from the scores of all labels.

    Args:
        config: Whose labels and problem type count.
        options: Which labels, how many, from which score on.

    Raises:
        UsageError: A label the model does not have.
    """

    def __init__(self, config: ASTConfig, options: ClassifyOptions) -> None:
        self.id2label: Mapping[int, str] = config.id2label
        self.activation = activation_of(config) if options.activation == "auto" else options.activation
        chosen = select_label_ids(options.labels, self.id2label) if options.labels else list(self.id2label)
        excluded = set(select_label_ids(options.exclude_labels, self.id2label))
        if set(chosen) <= excluded:
            raise UsageError("no label is left: --labels and --exclude-labels contradict each other")
        self.label_ids = torch.tensor([label_id for label_id in chosen if label_id not in excluded], dtype=torch.long)
        wanted = options.top_k or (len(self.label_ids) if options.labels else DEFAULT_TOP_K)
        self.top_k = min(wanted, len(self.label_ids))
        self.threshold = options.threshold

    def scores(self, logits: Tensor) -> Tensor:
        """Return the scores of logits (batch, num_labels)."""
        return scores_of(logits, self.activation)

    def choose(self, scores: Tensor) -> tuple[Tag, ...]:
        """Return the best labels of scores (num_labels,), best first; of equal scores the lower index first."""
        candidates = scores[self.label_ids]
        order = candidates.argsort(descending=True, stable=True)[: self.top_k]
        tags = []
        for position in order.tolist():
            label_id, score = int(self.label_ids[position]), float(candidates[position])
            if self.threshold is None or score >= self.threshold:
                label = self.id2label[label_id]
                tags.append(Tag(label, label_id, mid_of(label), score))
        return tuple(tags)
