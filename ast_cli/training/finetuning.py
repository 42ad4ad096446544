"""Fine-tuning: from labelled recordings and a base model to a checkpoint folder with its card."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ast_cli.audio.feature_extractor import ASTFeatureExtractor
from ast_cli.engine.device import resolve_device
from ast_cli.errors import UsageError
from ast_cli.hub import checkpoint_digest
from ast_cli.model.config import ASTConfig
from ast_cli.model.transformer import ASTForAudioClassification
from ast_cli.training.adapt import is_scratch, start_config, start_feature_extractor, start_model
from ast_cli.training.batches import Clips
from ast_cli.training.examples import Example, ExampleSet, read_examples
from ast_cli.training.features import FeatureStore, compute_features
from ast_cli.training.history import draw_curves, write_history, write_text
from ast_cli.training.metrics import Metrics, multi_label_metrics, single_label_metrics
from ast_cli.training.objective import PROBLEM_TYPES, loss_name
from ast_cli.training.options import TrainOptions
from ast_cli.training.recipes import options_of, to_toml
from ast_cli.training.roles import Roles, assign_roles, data_digest
from ast_cli.training.run_output import CHECKPOINT_NAME, OPTIONS_NAME, begin, check_output, remove_checkpoint, writing
from ast_cli.training.statistics import mean_and_std
from ast_cli.training.trainer import Report, Task, Trainer, kept_weights
from ast_cli.training.training_state import StateFolder
from ast_cli.training.validation import Judge, metric_name

FEATURES_NAME = "features"
FRAMES_PER_S = 100
LONGEST_SCRATCH_INPUT = 1024  # frames; where nobody chose and the recordings are longer


@dataclass(frozen=True)
class RunSettings:
    """How a run is carried out; nothing here changes what is learnt.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda`` ...
        num_workers: Processes that decode; None for the cores.
        features: Folder that keeps the spectrograms for later runs; None for a place in the output, removed at the end.
        resume: Go on with an interrupted run.
        force: Replace an earlier output.
        keep_checkpoint: Leave the state for ``resume`` in the output.
        on_report: Called after every update and every epoch.
        on_note: Called with what a person should know.
        on_features: Called with clips read and clips in all.
    """

    device: str = "auto"
    num_workers: int | None = None
    features: Path | None = None
    resume: bool = False
    force: bool = False
    keep_checkpoint: bool = False
    on_report: Callable[[Report], None] = lambda _: None
    on_note: Callable[[str], None] = lambda _: None
    on_features: Callable[[int, int], None] | None = None


@dataclass(frozen=True)
class FinetuneResult:
    """What came of a run.

    Attributes:
        output: The checkpoint folder.
        roles: Which examples were used for what; those that could not be read are left out.
        failures: Examples that could not be read, with why.
        history: A row for each epoch.
        kept: Which weights were saved: ``best``, ``last`` or ``average``.
        validation: Of the saved weights; None where nothing was held out.
        test: Of the saved weights on the data's own test split; None where it has none.
    """

    output: Path
    roles: Roles
    failures: tuple[Any, ...]
    history: tuple[dict[str, Any], ...]
    kept: str
    validation: Metrics | None
    test: Metrics | None


def finetune(
    data: str | Path | ExampleSet,
    model: str,
    output: str | Path,
    options: TrainOptions | None = None,
    run: RunSettings | None = None,
) -> FinetuneResult:
    """Train a model on labelled recordings.

    Args:
        data: A folder per class, or a manifest; see `ast_cli.training.read_examples`.
        model: A checkpoint, ``scratch:192x6`` (hidden size and layers), or a ``config.json`` to start from nothing.
        output: Folder for the checkpoint, its card and its history.
        options: Of the recipe ``default`` if None.
        run: How to carry it out.

    Raises:
        UsageError: Data, model or options that cannot be; an output that exists.
        AstError: The run cannot go on; what it did is saved for ``resume``.
    """
    options = options or options_of()
    run = run or RunSettings()
    output = Path(output)
    sources = {"base model": model, "data": data.source if isinstance(data, ExampleSet) else str(data)}
    check_output(output, sources, resume=run.resume, force=run.force)
    examples = data if isinstance(data, ExampleSet) else read_examples(data)
    assign_roles(examples, options)  # before anything is read or written
    device = resolve_device(run.device)
    job = Job(examples, model, output, options, run, device)
    with writing(output):
        state = begin(output, run_facts(examples, model, options), resume=run.resume)
        result = job.carry_out(state)
        if not run.keep_checkpoint:
            remove_checkpoint(output)
    return result


def run_facts(examples: ExampleSet, model: str, options: TrainOptions) -> dict[str, Any]:
    """Return what has to be the same for a run to go on."""
    base = model if model.startswith("scratch:") else ""
    return {
        "settings": options.to_dict(),
        "labels": list(examples.labels),
        "data_digest": data_digest(examples),
        "scratch": base,
        "model_digest": "" if base else _model_digest(model),
    }


def _model_digest(model: str) -> str:
    if is_scratch(model):
        return hashlib.sha256(Path(model).read_bytes()).hexdigest()
    return checkpoint_digest(model)


@dataclass(frozen=True)
class Job:
    """One run, from examples to a checkpoint folder.

    Attributes:
        examples: All of the data.
        model: What to start from.
        output: Folder for the checkpoint.
        options: What to learn and how.
        run: How to carry it out.
        device: Where.
    """

    examples: ExampleSet
    model: str
    output: Path
    options: TrainOptions
    run: RunSettings
    device: torch.device

    def carry_out(self, state: StateFolder) -> FinetuneResult:
        """Read, train, judge and write."""
        store, extractor, config = self._read()
        readable = replace(self.examples, examples=tuple(store.examples))
        roles = assign_roles(readable, self.options)
        trainer, sets = self._trainer(store, roles, extractor, config, state)
        if self.run.resume and trainer.resume():
            done = trainer.progress
            self.run.on_note(f"going on after epoch {done.epoch}, update {done.update}")

        def on_report(report: Report) -> None:
            if report.row is not None:
                write_history(self.output, trainer.progress.history)
            self.run.on_report(report)

        trainer.run(on_report)
        return self._finish(trainer, sets, roles, store)

    def _read(self) -> tuple[FeatureStore, ASTFeatureExtractor, ASTConfig]:
        """Compute the spectrograms, and settle the length of the input where the data decides it."""
        options, is_new = self.options, self.model.startswith("scratch:")
        config = start_config(self.model, options, LONGEST_SCRATCH_INPUT)
        extractor = start_feature_extractor(self.model, config, options)
        max_frames = config.max_length
        if options.random_crop:
            max_frames = max(max_frames, round(options.max_clip_s * FRAMES_PER_S))
        folder = self.run.features or self.output / CHECKPOINT_NAME / FEATURES_NAME
        store = compute_features(
            self.examples.examples,
            extractor,
            max_frames=max_frames,
            folder=folder,
            num_workers=self.run.num_workers,
            on_progress=self.run.on_features,
        )
        if is_new and options.max_length is None:
            longest = min(max(store[i].shape[0] for i in range(len(store.examples))), LONGEST_SCRATCH_INPUT)
            config = start_config(self.model, options, math.ceil(longest / config.patch_size) * config.patch_size)
            extractor.max_length = config.max_length
        return store, extractor, config

    def _trainer(
        self,
        store: FeatureStore,
        roles: Roles,
        extractor: ASTFeatureExtractor,
        config: ASTConfig,
        state: StateFolder,
    ) -> tuple[Trainer, dict[str, Clips]]:
        """Put together what is trained, on what, and how it is judged."""
        targets = target_matrix(store.examples, self.examples.labels)
        places = {example: i for i, example in enumerate(store.examples)}
        sets = {
            name: Clips(store, targets, tuple(places[example] for example in getattr(roles, name).examples))
            for name in ("train", "validation", "test")
        }
        if self.options.normalise == "data":
            train = sets["train"]
            heard = (store[index][: extractor.max_length] for index in train.indices)
            extractor.mean, extractor.std = mean_and_std(heard)
        loss = loss_name(self.options, is_multi_label=self.examples.is_multi_label)
        autocast = autocast_for(self.options.precision, self.device)
        model = start_model(self.model, config, self.examples.labels, PROBLEM_TYPES[loss], self.options)
        judge = None
        if len(sets["validation"]):
            judge = self._judge(sets["validation"], extractor, loss, autocast)
        task = Task(sets["train"], extractor, self.options, loss, judge, autocast)
        return Trainer(model.to(self.device), task, state), sets

    def _judge(self, clips: Clips, extractor: ASTFeatureExtractor, loss: str, autocast: torch.dtype | None) -> Judge:
        return Judge(clips, extractor, loss, self.examples.is_multi_label, self.options.batch_size, autocast)

    def _finish(self, trainer: Trainer, sets: dict[str, Clips], roles: Roles, store: FeatureStore) -> FinetuneResult:
        """Judge the weights that are kept, and write all that a user finds."""
        model = trainer.finished_model()
        task = trainer.task
        found = {
            name: self._metrics(model, self._judge(sets[name], task.extractor, task.loss, task.autocast))
            for name in ("validation", "test")
            if len(sets[name])
        }
        history = trainer.progress.history
        model.save_pretrained(self.output)
        task.extractor.save_pretrained(self.output)
        write_text(self.output / OPTIONS_NAME, to_toml(self.options))
        write_history(self.output, history)
        draw_curves(self.output, history, metric_name(is_multi_label=self.examples.is_multi_label))
        return FinetuneResult(
            output=self.output,
            roles=roles,
            failures=tuple(store.failures),
            history=tuple(history),
            kept=kept_weights(self.options, has_validation=task.judge is not None),
            validation=found.get("validation"),
            test=found.get("test"),
        )

    def _metrics(self, model: ASTForAudioClassification, judge: Judge) -> Metrics:
        """Judge a model by all the numbers there are."""
        scores, _ = judge.scores(model)
        targets = judge.clips.own_targets()
        if self.examples.is_multi_label:
            return multi_label_metrics(scores, targets > 0, self.examples.labels)
        return single_label_metrics(scores, targets.argmax(axis=1), self.examples.labels)


def target_matrix(examples: Sequence[Example], labels: Sequence[str]) -> NDArray[np.float32]:
    """Return 1 where an example has a label: float32, shape (num_examples, num_labels)."""
    columns = {label: i for i, label in enumerate(labels)}
    targets = np.zeros((len(examples), len(labels)), np.float32)
    for row, example in zip(targets, examples, strict=True):
        row[[columns[label] for label in example.labels]] = 1
    return targets


def autocast_for(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the type of matrix products; None for float32.

    Raises:
        UsageError: fp16 off CUDA, where it has no use.
    """
    if precision == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if precision == "fp16" and device.type != "cuda":
        raise UsageError("--precision fp16 needs a CUDA device: use fp32 or bf16")
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
