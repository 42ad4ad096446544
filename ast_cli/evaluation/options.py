"""Options of an evaluation, as frozen data. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, get_args

from ast_cli.about import About
from ast_cli.tagging.options import (
    Aggregate,
    BatchSize,
    DecodeOptions,
    HopSeconds,
    ToAggregate,
    WindowOptions,
    check_choice,
)

PREDICTION_SUFFIXES = (".jsonl", ".csv")


@dataclass(frozen=True, slots=True)
class EvaluationOptions(DecodeOptions):
    """Options of an evaluation.

    Attributes:
        only_data_labels: Whether only labels of the data can be predicted, not all labels of the model.
        ignore_unknown_labels: Whether to leave out labels of the data that a model does not know, and examples without
            any other label; if False, they are an error.
        hop_s: Seconds from the start of one window to the next; None for windows that do not overlap.
        aggregate: Combination of the scores of a recording's windows: ``mean`` or ``max``.
        batch_size: Windows per batch; None for a size by device and model.
    """

    only_data_labels: Annotated[bool, About("Predict labels of the data only, not all labels of the model.")] = False
    ignore_unknown_labels: Annotated[bool, About("Leave out labels of the data that the model does not know.")] = False
    hop_s: HopSeconds = None
    aggregate: ToAggregate = "mean"
    batch_size: BatchSize = None

    def __post_init__(self) -> None:
        """Validate the options."""
        DecodeOptions.__post_init__(self)
        check_choice("--aggregate", self.aggregate, get_args(Aggregate))
        WindowOptions(hop_s=self.hop_s, batch_size=self.batch_size)
