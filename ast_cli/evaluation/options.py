"""How models are evaluated, as frozen data. Standard library only."""

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
    """How models are evaluated.

    Attributes:
        only_data_labels: Whether the data's labels alone may be predicted, and not all of the model's.
        ignore_unknown_labels: Whether labels of the data that a model does not know are left out, and examples that
            have no other label with them; else they are an error.
        hop_s: Seconds from one window's start to the next; None for windows side by side.
        aggregate: How the scores of a recording's windows become one: their mean or their largest.
        batch_size: Windows given to the model at once; None to let the device decide.
    """

    only_data_labels: Annotated[bool, About("Choose among the data's labels, not all of the model's.")] = False
    ignore_unknown_labels: Annotated[bool, About("Leave out labels that the model does not know.")] = False
    hop_s: HopSeconds = None
    aggregate: ToAggregate = "mean"
    batch_size: BatchSize = None

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        DecodeOptions.__post_init__(self)
        check_choice("--aggregate", self.aggregate, get_args(Aggregate))
        WindowOptions(hop_s=self.hop_s, batch_size=self.batch_size)
