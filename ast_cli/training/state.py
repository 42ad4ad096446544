"""What an interrupted run needs to go on exactly: saved whole or not at all, and read without running anything."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ast_cli.errors import AstError, UsageError
from ast_cli.files.atomic import replacing, writing
from ast_cli.files.json_object import read_json_object, shown, write_json_object
from ast_cli.training.options import TrainOptions, with_current_names

STATE_NAME = "state.pt"
RUN_NAME = "run.json"
STATE_VERSION = 1


@dataclass
class TrainingProgress:
    """How far a run is; with the tensors saved beside it, all that the next update depends on.

    Attributes:
        epoch: Being worked on, from 0; the number of epochs once all are done.
        update: Updates done in that epoch.
        first_loss: Of the first update, before any weight had changed; None before it.
        loss_sum: Sum of the losses of the clips of that epoch.
        num_clips: Clips of that epoch so far.
        seconds: Spent on that epoch.
        average_count: Weights in the average.
        best_metric: On validation; None before the first.
        best_epoch: Of it.
        num_worse: Validations since.
        is_finished: Whether there is nothing left to train.
        history: A row for each finished epoch; see `ast_cli.training.finetune_result`.
    """

    epoch: int = 0
    update: int = 0
    first_loss: float | None = None
    loss_sum: float = 0.0
    num_clips: int = 0
    seconds: float = 0.0
    average_count: int = 0
    best_metric: float | None = None
    best_epoch: int = -1
    num_worse: int = 0
    is_finished: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)


class StateFolder:
    """The folder that holds a run's state and what the run was asked for.

    Args:
        folder: Made when something is first written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state_file = folder / STATE_NAME
        self.run_file = folder / RUN_NAME

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Write down what this run is.

        Raises:
            AstError: The folder cannot be written.
        """
        write_json_object(self.run_file, dict(facts))

    def check(self, facts: Mapping[str, Any]) -> None:
        """Compare what the run was asked for with what is asked for now.

        Raises:
            UsageError: They differ; the message names what.
        """
        before = read_json_object(self.run_file)
        if isinstance(settings := before.get("settings"), dict):  # what there was not yet had its default
            before["settings"] = {**TrainOptions().to_dict(), **with_current_names(settings)}
        told = _differences(before, facts)
        if told:
            raise UsageError(
                f"--resume goes on with the run in {self.folder.parent}, but {'; '.join(told)}: "
                "ask for the same again, or start anew with --force"
            )

    def save(self, progress: TrainingProgress, tensors: Mapping[str, Any]) -> None:
        """Write the state; the file is old or new, never half.

        Raises:
            AstError: The disk is full, for example.
        """
        remedy = "; --resume goes on from the last"
        with writing(self.state_file, remedy), replacing(self.state_file) as stream:
            try:
                torch.save({"version": STATE_VERSION, "progress": asdict(progress), **tensors}, stream)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):  # torch raises over a write's
                    raise error.__context__ from error
                raise AstError(
                    f"{self.state_file}: cannot be written ({str(error).splitlines()[0]}){remedy}"
                ) from error

    def load(self, device: torch.device) -> tuple[TrainingProgress, dict[str, Any]] | None:
        """Read the state; None where none was saved yet.

        Raises:
            AstError: It is damaged.
        """
        if not self.state_file.is_file():
            return None
        try:
            state = torch.load(self.state_file, map_location=device, weights_only=True)
            if state.pop("version") != STATE_VERSION:
                raise ValueError("another version's")
            if "optimiser" in state:  # its key in version 0.1
                state["optimizer"] = state.pop("optimiser")
            return TrainingProgress(**state.pop("progress")), state
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
            raise AstError(f"{self.state_file}: is damaged or of another version; --force starts anew") from error


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Say what changed between two sets of facts, a sentence each."""
    told: list[str] = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            told += _differences(old, new, prefix)
        elif old != new and name.endswith("digest"):
            told.append(f"the {name.removesuffix('_digest')} is another")
        elif old != new:
            told.append(f"{name} was {shown(old)} and is {shown(new)}")
    return told
