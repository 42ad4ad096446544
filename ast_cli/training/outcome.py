"""What came of a training run, and its record ``results.json``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ast_cli.evaluation.metrics import Metrics
from ast_cli.model.config import ASTConfig
from ast_cli.report.text import counted
from ast_cli.results import SCHEMA_VERSION, path_fields
from ast_cli.training.data.roles import Roles
from ast_cli.training.data.spectrograms import Failure
from ast_cli.training.options import TrainOptions


@dataclass(frozen=True)
class FinetuneResult:
    """What came of a run.

    Attributes:
        output: The checkpoint folder.
        config: Of the finished model.
        base: What training started from, as it was named.
        options: Of the run.
        roles: Which examples were used for what; those that could not be read are left out.
        failures: Examples that could not be read, with why.
        history: A row for each epoch; see `ast_cli.training.history`.
        diverged_epoch: The first in which training diverged, from 1; None where it did not.
        kept: Which weights were saved: ``best``, ``last`` or ``average``.
        validation: Of the saved weights; None where nothing was held out.
        test: Of the saved weights on the data's own test split; None where it has none.
        device: Where it was trained, in words.
    """

    output: Path
    config: ASTConfig
    base: str
    options: TrainOptions
    roles: Roles
    failures: tuple[Failure, ...]
    history: tuple[dict[str, Any], ...]
    diverged_epoch: int | None
    kept: str
    validation: Metrics | None
    test: Metrics | None
    device: str

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``results.json``."""
        roles = {"train": self.roles.train, "validation": self.roles.validation, "test": self.roles.test}
        return {
            "schema_version": SCHEMA_VERSION,
            "type": "finetune",
            "base": self.base,
            "data": self.roles.train.source,
            "num_examples": {name: len(examples) for name, examples in roles.items()},
            "held_out": self.roles.how,
            "num_epochs": len(self.history),
            "diverged_epoch": self.diverged_epoch,
            "kept": self.kept,
            "validation": self.validation.to_dict() if self.validation else None,
            "test": self.test.to_dict() if self.test else None,
            "failures": [
                {**path_fields(example.path), "error": {"code": str(error.code), "message": error.message}}
                for example, error in self.failures
            ],
        }


def in_words(device: torch.device) -> str:
    """Return what to call a device in a report: the GPU's name, or how many threads of the CPU are used."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"a CPU ({counted(torch.get_num_threads(), 'thread')})"
    return str(device)
