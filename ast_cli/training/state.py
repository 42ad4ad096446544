"""State of an interrupted run, from which it resumes exactly: written atomically, and loaded without executing code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ast_cli.about import default_flag
from ast_cli.errors import AstError, UsageError
from ast_cli.files.atomic import replacing, writing
from ast_cli.files.json_object import read_json_object, shown, write_json_object
from ast_cli.training.options import TrainOptions, with_current_names

STATE_NAME = "state.pt"
RUN_NAME = "run.json"
STATE_VERSION = 1


@dataclass
class TrainingProgress:
    """Progress of a run; with the tensors saved beside it, all that the next update depends on.

    Attributes:
        epoch: Current epoch, from 0; the number of epochs once all are done.
        update: Updates done in the current epoch.
        first_loss: Loss of the first update, before any weight changed; None before it.
        loss_sum: Sum of the losses over the clips of the current epoch so far.
        num_clips: Clips of the current epoch so far.
        seconds: Seconds spent on the current epoch.
        average_count: Number of states of the weights in their average.
        best_metric: Rank of the best validation (`ast_cli.training.validation.Evaluator.rank`); None before the first.
        best_epoch: Number of the epoch with the best validation, from 1; -1 before the first.
        num_worse: Validations since the best one.
        is_finished: Whether training is complete.
        history: One row per finished epoch; see `ast_cli.training.finetune_result`.
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
    """The folder with the state of a run and with the facts that must not change between its parts.

    Args:
        folder: Path of the folder, which is created by the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state_file = folder / STATE_NAME
        self.run_file = folder / RUN_NAME

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Write the facts of a new run.

        Raises:
            AstError: If the folder cannot be written.
        """
        write_json_object(self.run_file, dict(facts))

    def check(self, facts: Mapping[str, Any]) -> None:
        """Compare the facts of the saved run with those of the present one.

        Raises:
            UsageError: If they differ; the message states the differences.
        """
        before = read_json_object(self.run_file)
        if isinstance(settings := before.get("settings"), dict):  # settings added since then had their defaults
            before["settings"] = {**TrainOptions().to_dict(), **with_current_names(settings)}
        differences = _differences(before, facts)
        if differences:
            raise UsageError(
                f"--resume continues the run in {self.folder.parent}, but {'; '.join(differences)}: "
                "repeat the command of that run, or start over with --force"
            )

    def save(self, progress: TrainingProgress, tensors: Mapping[str, Any]) -> None:
        """Write the state atomically.

        Raises:
            AstError: If the file cannot be written, for example because the disk is full.
        """
        remedy = "; --resume continues from the previous state"
        with writing(self.state_file, remedy), replacing(self.state_file) as stream:
            try:
                torch.save({"version": STATE_VERSION, "progress": asdict(progress), **tensors}, stream)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):  # torch raises its own error over that of a failed write
                    raise error.__context__ from error
                raise AstError(
                    f"{self.state_file}: cannot be written ({str(error).splitlines()[0]}){remedy}"
                ) from error

    def load(self, device: torch.device) -> tuple[TrainingProgress, dict[str, Any]] | None:
        """Load the state; return None if none was saved yet.

        Raises:
            AstError: If the file is damaged or of another version.
        """
        if not self.state_file.is_file():
            return None
        try:
            state = torch.load(self.state_file, map_location=device, weights_only=True)
            if state.pop("version") != STATE_VERSION:
                raise ValueError("another version")
            if "optimiser" in state:  # its key in version 0.1
                state["optimizer"] = state.pop("optimiser")
            return TrainingProgress(**state.pop("progress")), state
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
            raise AstError(f"{self.state_file}: is damaged or of another version; start over with --force") from error


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe the differences of two sets of facts, one clause each; a setting is named by its flag."""
    found: list[str] = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            flags = ({default_flag(key): value for key, value in values.items()} for values in (old, new))
            found += _differences(*flags)
        elif old != new and name.endswith("digest"):
            what = name.removesuffix("_digest").replace("_", " ")
            found.append(f"the {what} {'have' if what.endswith('s') else 'has'} changed")
        elif old != new:
            found.append(f"{name} was {shown(old)} and is {shown(new)}")
    return found
