"""The training loop, which can be interrupted at any update and resumed with identical results."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.errors import AstError, DeviceError
from ast_cli.model.transformer import ASTForAudioClassification
from ast_cli.training.data.batches import (
    BATCH_DRAWS,
    Clips,
    augmented,
    chunks,
    epoch_order,
    generator_for,
    training_input,
)
from ast_cli.training.objective import diverged_epoch, reference_loss, remedies, training_logits, training_loss
from ast_cli.training.optimizer import (
    WeightAverage,
    learning_rate_factor,
    make_optimizer,
    num_warmup_updates,
    set_learning_rate,
)
from ast_cli.training.options import TrainOptions
from ast_cli.training.state import StateFolder, TrainingProgress
from ast_cli.training.stop_request import StopRequest
from ast_cli.training.validation import Evaluator

SAVE_INTERVAL_S = 600.0  # between saves within an epoch, since an epoch may take hours
MOVING_RATE = 0.9  # weight of the previous average in the moving average of the rate


@dataclass(frozen=True, slots=True)
class Report:
    """Progress of training, for a display.

    Attributes:
        epoch: Number of the current epoch, from 1.
        num_epochs: Number of epochs of the run.
        update: Updates done in this epoch.
        num_updates: Updates per epoch.
        loss: Mean training loss of this epoch so far.
        clips_per_s: Moving average of the clips per second.
        left_s: Estimated seconds until the last epoch ends.
        row: Row of the history if the epoch has just ended, else None.
        is_best: Whether the epoch has just ended with the best validation so far.
        is_last: Whether training has ended with this epoch.
    """

    epoch: int
    num_epochs: int
    update: int
    num_updates: int
    loss: float
    clips_per_s: float
    left_s: float
    row: dict[str, Any] | None = None
    is_best: bool = False
    is_last: bool = False


@dataclass(frozen=True)
class Task:
    """Data, objective and evaluation of a run.

    Attributes:
        clips: Training clips.
        extractor: Feature extractor that pads and normalizes.
        options: Options of the run.
        loss: Name of the loss: ``cross-entropy`` or ``bce``.
        evaluator: Evaluator on the validation clips; None if there are none.
        autocast: Data type of matrix products; None for float32.
    """

    clips: Clips
    extractor: FeatureExtractor
    options: TrainOptions
    loss: str
    evaluator: Evaluator | None
    autocast: torch.dtype | None


class Trainer:
    """Trains one model.

    Args:
        model: Model to train, in place.
        task: Data, objective and evaluation.
        state: Folder for the state that `resume` reads.

    Attributes:
        progress: Progress of the run.
        trained: Prefix of the names of the trained parameters; only these are saved in the state.
    """

    trained = ""

    def __init__(self, model: ASTForAudioClassification, task: Task, state: StateFolder) -> None:
        self.model = model
        self.task = task
        self.options = task.options
        self.state = state
        self.progress = TrainingProgress()
        self.average = None
        if self.options.average != "none":
            self.average = WeightAverage(copy.deepcopy(model), self.options)
        self.best: dict[str, Tensor] | None = None
        self.optimizer = make_optimizer(model, self.options)
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=task.autocast == torch.float16)
        self.num_updates = math.ceil(len(task.clips) / (self.options.batch_size * self.options.gradient_accumulation))
        self._rate = 0.0  # clips per second, moving average

    @property
    def evaluated_model(self) -> ASTForAudioClassification:
        """The model to validate: the average of the weights once there is one, else the model itself."""
        return self.average.model if self.average and self.average.count else self.model

    def resume(self) -> bool:
        """Load the saved state; return False if there is none.

        Raises:
            AstError: If the state is damaged, or other clips can be read now than when the run started.
        """
        loaded = self.state.load(self.model.device)
        if loaded is None:
            return False
        self.progress, tensors = loaded
        if tensors["clips"] != self._clips_digest():
            raise AstError(
                f"{self.state.state_file}: other clips can be read now than when this run started, so it cannot be "
                "continued; start over with --force"
            )
        self._load(self.model, tensors["model"])
        self.optimizer.load_state_dict(tensors["optimizer"])
        self.scaler.load_state_dict(tensors["scaler"])
        if self.average is not None:
            self._load(self.average.model, tensors["average"])
            self.average.count = self.progress.average_count
        self.best = tensors["best"]
        return True

    def save(self) -> None:
        """Save all that `resume` needs."""
        self.progress.average_count = self.average.count if self.average else 0
        self.state.save(
            self.progress,
            {
                "clips": self._clips_digest(),
                "model": self._tensors(self.model),
                "average": self._tensors(self.average.model) if self.average else None,
                "best": self.best,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
            },
        )

    def _tensors(self, model: ASTForAudioClassification) -> dict[str, Tensor]:
        """Return the tensors of a model that training changes."""
        return {name: tensor for name, tensor in model.state_dict().items() if name.startswith(self.trained)}

    def _load(self, model: ASTForAudioClassification, tensors: dict[str, Tensor]) -> None:
        """Load tensors that `_tensors` returned into a model."""
        model.load_state_dict({**model.state_dict(), **tensors})

    def _clips_digest(self) -> str:
        """Return a digest of the indices of training and validation clips."""
        evaluator = self.task.evaluator
        numbers = [self.task.clips.indices, evaluator.clips.indices if evaluator else ()]
        return hashlib.sha256(str(numbers).encode()).hexdigest()

    def run(self, on_report: Callable[[Report], None] = lambda _: None) -> None:
        """Train until the last epoch, or until ``patience`` ends the run; save the state after every epoch.

        Raises:
            AstError: If the loss becomes NaN or infinite, or the state cannot be written.
            DeviceError: If the memory of the device does not suffice.
            KeyboardInterrupt: After Ctrl-C or SIGTERM, once the state is saved and the caller's own handler has run.
        """
        stop = StopRequest()
        with stop.watched(), torch.random.fork_rng(), _explained_memory(self.options):
            self.model.train()
            while not self.progress.is_finished:
                self._run_epoch(stop, on_report)
                if stop.signal is not None:
                    self.save()
                    break
        if stop.signal is not None:  # the caller's handler did not raise
            raise KeyboardInterrupt
        self.model.eval()

    def _run_epoch(self, stop: StopRequest, on_report: Callable[[Report], None]) -> None:
        """Train the rest of the current epoch, or until a signal stops the run."""
        progress, started = self.progress, time.monotonic()
        seconds_before, saved_at = progress.seconds, started
        batches = chunks(epoch_order(self.task.clips, self.options, progress.epoch), self.options.batch_size)
        while progress.update < self.num_updates:
            first = progress.update * self.options.gradient_accumulation
            if not self._update(first, batches[first : first + self.options.gradient_accumulation], stop):
                return
            progress.update += 1
            progress.seconds = seconds_before + time.monotonic() - started
            on_report(self._report())
            if stop.signal is not None and progress.update < self.num_updates:
                return
            if time.monotonic() - saved_at > SAVE_INTERVAL_S:
                self.save()
                saved_at = time.monotonic()
        self._end_epoch(started, seconds_before)
        on_report(self._report(progress.history[-1]))

    def _update(self, first: int, batches: list[NDArray[Any]], stop: StopRequest) -> bool:
        """Update the weights once, from one or several batches; return False if a signal came between batches."""
        began = time.monotonic()
        factor = learning_rate_factor(
            self.progress.epoch * self.num_updates + self.progress.update, self.num_updates, self.options
        )
        set_learning_rate(self.optimizer, factor)
        num_clips = sum(map(len, batches))
        losses = []
        for i, chosen in enumerate(batches):
            if i and stop.signal is not None:
                self.optimizer.zero_grad()
                return False
            loss = self._loss(first + i, chosen) * (len(chosen) / num_clips)
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        loss_value = float(sum(loss.item() for loss in losses))
        if not math.isfinite(loss_value):
            raise AstError(self._no_number())
        if self.progress.epoch == self.progress.update == 0:
            self.progress.first_loss = loss_value
        self._step()
        if self.average is not None:
            self.average.after_update(self.model)
        self.progress.loss_sum += loss_value * num_clips
        self.progress.num_clips += num_clips
        rate = num_clips / max(time.monotonic() - began, 1e-9)
        self._rate = MOVING_RATE * self._rate + (1 - MOVING_RATE) * rate if self._rate else rate
        return True

    def _loss(self, number: int, chosen: NDArray[Any]) -> Tensor:
        """Compute the loss of one batch of the epoch; its number determines all random draws."""
        rng = generator_for(self.options, self.progress.epoch, BATCH_DRAWS, number)
        torch.manual_seed(int(rng.integers(2**63)))  # dropout
        crop_rng, extractor = rng if self.options.random_crop else None, self.task.extractor
        batch = self.task.clips.batch(
            chosen.tolist(), extractor.max_length, crop_rng, extractor.scaled_window_frames
        ).to(self.model.device)
        batch = augmented(batch, extractor, self.options, rng)
        input_values = training_input(batch, extractor, self.options, rng)
        with torch.autocast(self.model.device.type, self.task.autocast, enabled=self.task.autocast is not None):
            logits = training_logits(self.model, input_values, self.options, rng)
        return training_loss(logits, batch.targets, self.task.loss, self.options.label_smoothing)

    def _step(self) -> None:
        """Clip the gradients, apply them, and set them to zero."""
        if self.options.max_gradient_norm:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.max_gradient_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()

    @property
    def reference_loss(self) -> float | None:
        """The loss that the epochs are compared with, to detect divergence; None before the first update."""
        first = self.progress.first_loss
        return None if first is None else reference_loss(first, self.task.loss, self.model.config.num_labels)

    @property
    def diverged_epoch(self) -> int | None:
        """The first epoch in which training diverged, from 1; None if there is none so far."""
        num_warmup = num_warmup_updates(self.num_updates, self.options)
        return (
            None
            if self.reference_loss is None
            else diverged_epoch(self.progress.history, self.reference_loss, num_warmup)
        )

    @property
    def remedies(self) -> str:
        """Advice for a loss that grows or becomes NaN."""
        return remedies(self.options, is_half_precision=self.task.autocast is not None)

    def _no_number(self) -> str:
        epoch, update = self.progress.epoch + 1, self.progress.update + 1
        return f"the loss became NaN or infinite in epoch {epoch}, update {update}: try {self.remedies}"

    def _end_epoch(self, started: float, seconds_before: float) -> None:
        """Average, validate, append a row to the history, and save the state."""
        progress, options = self.progress, self.options
        if self.average is not None:
            self.average.after_epoch(self.model, progress.epoch)
        is_last = progress.epoch + 1 == options.epochs
        found = None
        if self.task.evaluator is not None and (is_last or (progress.epoch + 1) % options.validate_every == 0):
            found = self.task.evaluator.evaluate(self.evaluated_model)
            self._compare(self.task.evaluator.rank(found))
        progress.history.append(
            {
                "epoch": progress.epoch + 1,
                "update": (progress.epoch + 1) * self.num_updates,
                "learning_rate": max(group["lr"] for group in self.optimizer.param_groups),
                "train_loss": progress.loss_sum / progress.num_clips,
                "validation_loss": found.loss if found else None,
                "validation_metric": found.metric if found else None,
                "seconds": round(seconds_before + time.monotonic() - started, 3),
            }
        )
        progress.epoch += 1
        progress.update, progress.loss_sum, progress.num_clips, progress.seconds = 0, 0.0, 0, 0.0
        enough = options.patience > 0 and progress.num_worse >= options.patience
        progress.is_finished = is_last or enough
        self.save()

    def _compare(self, rank: float) -> None:
        """Keep the weights of the best validation so far; among equal ones the first."""
        if self.progress.best_metric is not None and not rank > self.progress.best_metric:
            self.progress.num_worse += 1
            return
        self.progress.best_metric, self.progress.best_epoch = rank, self.progress.epoch + 1
        self.progress.num_worse = 0
        if kept_weights(self.options, has_validation=True) == "best":
            self.best = {name: tensor.clone() for name, tensor in self._tensors(self.evaluated_model).items()}

    def _report(self, row: dict[str, Any] | None = None) -> Report:
        """Return the progress after an update, or, with its row of the history, after an epoch."""
        progress = self.progress
        epochs_left = 0 if progress.is_finished else self.options.epochs - progress.epoch
        updates_left = epochs_left * self.num_updates - progress.update  # `_end_epoch` sets `update` back to 0
        clips_left = updates_left * len(self.task.clips) / self.num_updates
        return Report(
            epoch=progress.epoch + (row is None),
            num_epochs=self.options.epochs,
            update=progress.update if row is None else self.num_updates,
            num_updates=self.num_updates,
            loss=progress.loss_sum / progress.num_clips if row is None else row["train_loss"],
            clips_per_s=self._rate,
            left_s=clips_left / max(self._rate, 1e-9),
            row=row,
            is_best=row is not None and progress.best_epoch == progress.epoch,
            is_last=progress.is_finished,
        )

    def finished_model(self) -> ASTForAudioClassification:
        """Return the model with the weights that the options select, in evaluation mode."""
        kept = kept_weights(self.options, has_validation=self.task.evaluator is not None)
        if kept == "average" and self.average is not None:
            return self.average.model
        if kept == "best" and self.best is not None:
            self._load(self.model, self.best)
        return self.model.eval()


def kept_weights(options: TrainOptions, *, has_validation: bool) -> str:
    """Return which weights are saved, with ``auto`` resolved: ``best``, ``last`` or ``average``."""
    if options.keep != "auto":
        return options.keep
    if options.average != "none":
        return "average"
    return "best" if has_validation else "last"


@contextlib.contextmanager
def _explained_memory(options: TrainOptions) -> Iterator[None]:
    """Turn an out-of-memory error into one that states which options to change."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error):
            raise DeviceError(
                f"out of memory with --batch-size {options.batch_size}: halve it and double --gradient-accumulation "
                f"(now {options.gradient_accumulation}) for the same training, or add --checkpoint-gradients"
            ) from error
        raise
