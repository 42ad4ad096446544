"""How models are evaluated, as frozen data. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from ast_cli.tagging.options import Aggregate, DecodeOptions, PartOptions, check_choice

PREDICTION_SUFFIXES = (".jsonl", ".csv")


@dataclass(frozen=True, slots=True)
class EvaluationOptions(DecodeOptions):
    """How models are evaluated.

    Attributes:
        aggregate: How the scores of a recording's windows become one: their mean or their largest.
        hop_s: Seconds from one window's start to the next; None for windows side by side.
        batch_size: Windows given to the model at once; None to let the device decide.
        only_data_labels: Whether the data's labels alone may be predicted, and not all of the model's.
        ignore_unknown_labels: Whether labels of the data that a model does not know are left out, and examples that
            have no other label with them; else they are an error.
    """

    aggregate: Aggregate = "mean"
    hop_s: float | None = None
    batch_size: int | None = None
    only_data_labels: bool = False
    ignore_unknown_labels: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        DecodeOptions.__post_init__(self)
        check_choice("aggregate", self.aggregate, get_args(Aggregate))
        PartOptions(hop_s=self.hop_s, batch_size=self.batch_size)
