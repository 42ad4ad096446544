"""Fine-tuning: train a base model on labeled recordings and write a checkpoint folder with a model card."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.dataset.examples import ExampleSet
from ast_cli.dataset.soft_targets import SoftTargets
from ast_cli.engine.torch.device import resolve_device
from ast_cli.errors import UsageError
from ast_cli.evaluation.agreement import agreement
from ast_cli.evaluation.metrics import Metrics, multi_label_metrics, single_label_metrics
from ast_cli.files.atomic import write_whole
from ast_cli.files.json_object import shown, write_json_object
from ast_cli.hub.folders import checkpoint_digest
from ast_cli.hub.licenses import LICENSE_KEY, is_noncommercial, license_of
from ast_cli.labels import is_plain
from ast_cli.model.config import ASTConfig
from ast_cli.report.text import counted
from ast_cli.tagging.options import DecodeOptions
from ast_cli.training.adapt import SCRATCH_PREFIX, is_scratch, start_config, start_feature_extractor, start_model
from ast_cli.training.data.batches import Clips, target_matrix
from ast_cli.training.data.features import FeatureStore, compute_features
from ast_cli.training.data.soft_targets import (
    MatchedTargets,
    match_soft_targets,
    num_uncovered,
    soft_clips,
    training_data,
    unused_note,
)
from ast_cli.training.data.spectrograms import UnreadExample
from ast_cli.training.data.splits import Splits, assign_splits, data_digest
from ast_cli.training.data.statistics import mean_and_std
from ast_cli.training.finetune_result import (
    FinetuneResult,
    TaughtResult,
    device_description,
    draw_curves,
    write_history,
)
from ast_cli.training.linear_probe import HeadEvaluator, HeadTrainer, embedded
from ast_cli.training.model_card import model_card
from ast_cli.training.objective import PROBLEM_TYPES, autocast_for, loss_name
from ast_cli.training.options import TrainOptions
from ast_cli.training.output_folder import (
    CARD_NAME,
    CHECKPOINT_NAME,
    OPTIONS_NAME,
    RESULTS_NAME,
    begin,
    check_output,
    remove_checkpoint,
    writing,
)
from ast_cli.training.recipes import options_of, to_toml
from ast_cli.training.state import StateFolder
from ast_cli.training.trainer import Report, Task, Trainer, kept_weights
from ast_cli.training.validation import Evaluator, metric_name, present_labels

FEATURES_NAME = "features"
LONGEST_SCRATCH_INPUT = 1024  # frames; upper limit of the default input length of a model from random weights
# The default input length fits this fraction of the clips: a few long clips would make all others pay for padding.
FITTING_SHARE = 0.95
MAX_NAMED = 5  # labels listed in a note


@dataclass(frozen=True)
class RunSettings:
    """Settings that do not change the trained weights: device, files and callbacks.

    Attributes:
        device: Device name: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        num_workers: Processes that decode audio; None for half of the cores, at most 16.
        features: Folder that keeps the spectrograms for later runs; None for a folder in the output, removed at the
            end.
        resume: Whether to continue an interrupted run.
        force: Whether to replace an earlier output.
        keep_checkpoint: Whether to keep the training state in the output.
        on_report: Callback after every update and every epoch.
        on_note: Callback for notes and warnings to the user.
        on_failures: Callback for the clips that cannot be read; called once if there are any.
        on_progress: Callback before training, with the name of the step, the clips done, and the number of clips.
    """

    device: str = "auto"
    num_workers: int | None = None
    features: Path | None = None
    resume: bool = False
    force: bool = False
    keep_checkpoint: bool = False
    on_report: Callable[[Report], None] = lambda _: None
    on_note: Callable[[str], None] = lambda _: None
    on_failures: Callable[[Sequence[UnreadExample]], None] = lambda _: None
    on_progress: Callable[[str, int, int], None] = lambda *_: None


def finetune(
    data: str | Path | ExampleSet,
    model: str,
    output: str | Path,
    options: TrainOptions | None = None,
    run: RunSettings | None = None,
    soft_targets: str | Path | SoftTargets | None = None,
) -> FinetuneResult:
    """Train a model on labeled recordings, or on the scores of a teacher.

    Args:
        data: A folder per class, or a manifest; see `ast_cli.dataset.examples.read_examples`. With soft targets
            recordings need no labels.
        model: A checkpoint; ``scratch:192x6`` (hidden size and layers) or a ``config.json`` for random weights.
        output: Folder for the checkpoint, its model card and its history.
        options: Options of training; None for those of the recipe ``default``.
        run: Settings that do not change the weights; None for the defaults.
        soft_targets: Scores of a teacher, or a file of them; see `ast_cli.dataset.soft_targets.read_soft_targets`. None
            for those in the manifest, if it has any.

    Raises:
        UsageError: If data, soft targets, model or options are invalid, or the output exists.
        AstError: If the run fails; its state is saved for ``resume``.
    """
    options = options or options_of()
    run = run or RunSettings()
    output = Path(output)
    sources = {"base model": model, "data": data.source if isinstance(data, ExampleSet) else str(data)}
    check_output(output, sources, resume=run.resume, force=run.force)
    examples, soft = training_data(data, soft_targets)
    matched = matched_targets(examples, soft, options)
    examples = matched.examples if matched else examples
    facts = run_facts(examples, model, options, matched)
    assign_splits(examples, options, needs_labels=matched is None)  # raises before anything is written
    job = Job(examples, model, output, options, run, resolve_device(run.device), matched)
    with writing(output):
        result = job.run_to_end(begin(output, facts, resume=run.resume))
        if not run.keep_checkpoint:
            remove_checkpoint(output)
    return result


def matched_targets(examples: ExampleSet, soft: SoftTargets | None, options: TrainOptions) -> MatchedTargets | None:
    """Find the soft targets of the clips; None without soft targets.

    Raises:
        UsageError: If a clip has none, or the options need some that are not there.
    """
    if soft is not None:
        return match_soft_targets(examples, soft, options)
    if options.soft_weight is not None:
        raise UsageError(f"--soft-weight {options.soft_weight:g} needs soft targets: add --soft-targets")
    return None


def run_facts(
    examples: ExampleSet, model: str, options: TrainOptions, matched: MatchedTargets | None = None
) -> dict[str, Any]:
    """Return the facts that must not change for a run to be resumed: settings, labels, and digests of data and model.

    Args:
        examples: All examples.
        model: Name of the base model.
        options: Options of the run.
        matched: Soft targets of the examples; None without soft targets.

    Raises:
        UsageError: If the options do not suit the base model, or a label is invalid.
        AstError: If the base model cannot be read.
    """
    _check_labels(examples.labels, matched.soft.source if matched else examples.source)
    start_feature_extractor(model, start_config(model, options, LONGEST_SCRATCH_INPUT), options)
    base = model if model.startswith(SCRATCH_PREFIX) else ""
    return {
        "settings": options.to_dict(),
        "labels": list(examples.labels),
        "data_digest": data_digest(examples),
        "base": base,
        "folds": False,
        "model_digest": "" if base else _model_digest(model),
        **({"soft_targets_digest": matched.digest()} if matched else {}),
    }


def _check_labels(labels: Sequence[str], source: str) -> None:
    """Check the labels before training: a checkpoint with control characters in a label cannot be loaded."""
    for label in labels:
        if not is_plain(label):
            raise UsageError(
                f"{source}: the label {shown(label)} contains control characters or characters that reverse "
                "text: correct it"
            )


def _model_digest(model: str) -> str:
    if is_scratch(model):
        return hashlib.sha256(Path(model).read_bytes()).hexdigest()
    return checkpoint_digest(model)


@dataclass(frozen=True)
class Job:
    """One training run, from examples to a checkpoint folder.

    Attributes:
        examples: All examples of the data.
        model: Name of the base model.
        output: Folder for the checkpoint.
        options: Options of training.
        run: Settings that do not change the weights.
        device: Device to train on.
        matched: Soft targets of the examples; None without soft targets.
    """

    examples: ExampleSet
    model: str
    output: Path
    options: TrainOptions
    run: RunSettings
    device: torch.device
    matched: MatchedTargets | None = None

    def run_to_end(self, state: StateFolder) -> FinetuneResult:
        """Compute spectrograms, train, evaluate, and write the checkpoint."""
        store, extractor, config = self._read()
        trainer, sets, splits = self._trainer(store, extractor, config, state)
        if self.run.resume and trainer.resume():
            done = trainer.progress
            self.run.on_note(f"resuming after epoch {done.epoch}, update {done.update}")

        def on_report(report: Report) -> None:
            if report.row is not None:
                write_history(self.output, trainer.progress.history)
            self.run.on_report(report)
            if report.row is not None and report.epoch == trainer.diverged_epoch:
                self._report_divergence(trainer, report.loss)

        trainer.run(on_report)
        return self._finish(trainer, sets, splits, store)

    @property
    def cache(self) -> Path:
        """The folder of spectrograms and embeddings."""
        return self.run.features or self.output / CHECKPOINT_NAME / FEATURES_NAME

    def _read(self) -> tuple[FeatureStore, FeatureExtractor, ASTConfig]:
        """Compute the spectrograms, and set the input length of a ``scratch:`` model by the lengths of the clips."""
        options, is_new = self.options, self.model.startswith(SCRATCH_PREFIX)
        config = start_config(self.model, options, LONGEST_SCRATCH_INPUT)
        extractor = start_feature_extractor(self.model, config, options)
        max_frames = extractor.frames_per_window
        if options.random_crop:
            of_clip = round(options.max_clip_s * extractor.frames_per_s)
            if window := extractor.scaled_window_frames:
                of_clip -= of_clip % window  # whole windows
            max_frames = max(max_frames, of_clip)
        store = compute_features(
            self.examples.examples,
            extractor,
            max_frames=max_frames,
            folder=self.cache,
            workers=DecodeOptions(self.run.num_workers),
            on_progress=partial(self.run.on_progress, "reading clips"),
        )
        if failures := self._failures(store):
            self.run.on_failures(failures)
        if self.matched and self.matched.num_unused:
            self.run.on_note(unused_note(self.matched))
        if is_new and options.max_length is None:
            typical = int(np.quantile([len(fbank) for fbank in store], FITTING_SHARE, method="higher"))
            frames = min(typical, LONGEST_SCRATCH_INPUT)
            config = start_config(self.model, options, math.ceil(frames / config.patch_size) * config.patch_size)
            extractor.max_length = config.max_length
        self._report_cut_clips(
            store, max_frames, max_frames if options.random_crop else extractor.frames_per_window, extractor
        )
        return store, extractor, config

    def _failures(self, store: FeatureStore) -> tuple[UnreadExample, ...]:
        """Return the clips that the teacher or this run could not read."""
        return (*(self.matched.failures if self.matched else ()), *store.failures)

    def _report_cut_clips(
        self, store: FeatureStore, most_stored: int, max_frames: int, extractor: FeatureExtractor
    ) -> None:
        """Note how many clips are longer than the frames in use; one that fills the stored frames may be longer."""
        num_cut = sum(len(fbank) > max_frames or len(fbank) == most_stored for fbank in store)
        if num_cut:
            remedy = "a larger --max-clip-s" if self.options.random_crop else "--random-crop"
            clips = f"{num_cut} of {len(store)} clips last {max_frames / extractor.frames_per_s:g} s or more"
            self.run.on_note(f"note: {clips}; audio after that is not used without {remedy}")

    def _trainer(
        self, store: FeatureStore, extractor: FeatureExtractor, config: ASTConfig, state: StateFolder
    ) -> tuple[Trainer, dict[str, Clips], Splits]:
        """Build the trainer with its model, clips and evaluator; also return clips and examples of each split."""
        options, labels = self.options, self.examples.labels
        readable = replace(self.examples, examples=store.examples)
        splits = assign_splits(readable, options, needs_labels=self.matched is None)
        places = {example: i for i, example in enumerate(store.examples)}
        clips = self._clips(store, extractor)
        sets = {
            name: replace(clips, indices=tuple(places[example] for example in getattr(splits, name).examples))
            for name in ("train", "validation", "test")
        }
        self._report_missing_labels(sets["train"])
        if options.normalize == "data":
            fbanks = (store[index][: extractor.max_length] for index in sets["train"].indices)
            extractor.mean, extractor.std = mean_and_std(fbanks)
        loss = loss_name(options, is_multi_label=self.examples.is_multi_label)
        model = start_model(self.model, config, labels, PROBLEM_TYPES[loss], options).to(self.device)
        if options.freeze_encoder:
            encoder = model.audio_spectrogram_transformer
            progress = partial(self.run.on_progress, "running the encoder over clips")
            embedded_clips = embedded(clips, encoder, extractor, self.cache, progress)
            sets = {name: replace(embedded_clips, indices=each.indices) for name, each in sets.items()}
        autocast = autocast_for(options.precision, self.device)
        task = Task(sets["train"], extractor, options, loss, None, autocast)
        task = replace(task, evaluator=self._evaluator(sets["validation"], task) if len(sets["validation"]) else None)
        kind = HeadTrainer if options.freeze_encoder else Trainer
        return kind(model, task, state), sets, splits

    def _clips(self, store: FeatureStore, extractor: FeatureExtractor) -> Clips:
        """Return all clips with their targets."""
        if self.matched is None:
            return Clips(store, target_matrix(store.examples, self.examples.labels), tuple(range(len(store))))
        num_frames = [len(fbank) for fbank in store]
        clips = soft_clips(
            store, num_frames, store.examples, self.matched, self.options.soft_weight, extractor.frames_per_s
        )
        if count := num_uncovered(clips, num_frames):
            self.run.on_note(
                f"note: {counted(count, 'clip')} last longer than their windows in {self.matched.soft.source}; the "
                "targets of the last window stand for the rest"
            )
        return clips

    def _report_divergence(self, trainer: Trainer, loss: float) -> None:
        """Warn that training has diverged; the run continues, because it may recover."""
        self.run.on_note(
            f"warning: training diverged: the loss of epoch {trainer.diverged_epoch} is {loss:.3g}, far above the "
            f"initial {trainer.reference_loss:.3g}; try {trainer.remedies}"
        )

    def _report_missing_labels(self, train: Clips) -> None:
        """Note which labels have no training clip."""
        counts = self._label_counts(train)
        missing = [label for label, count in counts.items() if not count]
        if missing:
            named = ", ".join(missing[:MAX_NAMED]) + (" ..." if len(missing) > MAX_NAMED else "")
            if self.matched is None:
                self.run.on_note(f"note: the model cannot learn labels without training clips: {named}")
            else:
                clip = "with a target of 0.5 or more" if self.examples.is_multi_label else "where they come first"
                self.run.on_note(
                    f"note: {len(missing)} of {len(counts)} labels have no training clip {clip}, so the model hardly "
                    f"learns them: {named}"
                )

    def _label_counts(self, clips: Clips) -> dict[str, int]:
        """Return the number of clips with each label."""
        counts = present_labels(clips.own_truth(), is_multi_label=self.examples.is_multi_label).sum(axis=0)
        return dict(zip(self.examples.labels, counts.tolist(), strict=True))

    def _evaluator(self, clips: Clips, task: Task) -> Evaluator:
        kind = HeadEvaluator if self.options.freeze_encoder else Evaluator
        is_multi_label, batch_size = self.examples.is_multi_label, self.options.batch_size
        by_loss = self.matched is not None
        return kind(clips, task.extractor, task.loss, is_multi_label, batch_size, task.autocast, by_loss)

    def _finish(self, trainer: Trainer, sets: dict[str, Clips], splits: Splits, store: FeatureStore) -> FinetuneResult:
        """Evaluate the weights to save, and write the files of the output folder."""
        model, task, history = trainer.finished_model(), trainer.task, trainer.progress.history
        _carry_license(self.model, model.config)
        held_out = {name: clips for name, clips in sets.items() if name != "train" and len(clips)}
        scores = {name: self._evaluator(clips, task).scores(model)[0] for name, clips in held_out.items()}
        metrics = {name: self._metrics(scores[name], clips) for name, clips in held_out.items()}
        result = FinetuneResult(
            output=self.output,
            config=model.config,
            feature_extractor=task.extractor,
            base=self.model,
            options=self.options,
            splits=splits,
            failures=self._failures(store),
            history=tuple(history),
            diverged_epoch=trainer.diverged_epoch,
            kept=kept_weights(self.options, has_validation=task.evaluator is not None),
            validation=metrics.get("validation"),
            test=metrics.get("test"),
            device=device_description(self.device),
            taught=self._taught(scores, sets),
        )
        task.extractor.save_pretrained(self.output)
        write_whole(self.output / OPTIONS_NAME, to_toml(self.options).encode())
        write_history(self.output, history)
        draw_curves(self.output, history, metric_name(is_multi_label=self.examples.is_multi_label))
        write_json_object(self.output / RESULTS_NAME, result.to_dict())
        write_whole(self.output / CARD_NAME, model_card(result).encode("utf-8", "replace"))
        model.save_pretrained(self.output)
        return result

    def _metrics(self, scores: NDArray[np.float32], clips: Clips) -> Metrics | None:
        """Compute all metrics of the scores of clips; None if no clip has a label, so that none is defined."""
        truth, is_multi_label = clips.own_truth(), self.examples.is_multi_label
        if not is_multi_label:
            return single_label_metrics(scores, truth.argmax(axis=1), self.examples.labels)
        has_label = present_labels(truth, is_multi_label=True)
        return multi_label_metrics(scores, has_label, self.examples.labels) if has_label.any() else None

    def _taught(self, scores: Mapping[str, NDArray[np.float32]], sets: Mapping[str, Clips]) -> TaughtResult | None:
        """Compare the model with its soft targets; None without soft targets."""
        if self.matched is None:
            return None
        is_multi_label = self.examples.is_multi_label
        return TaughtResult(
            source=self.matched.soft.source,
            teacher=self.matched.soft.teacher,
            has_labels=self.matched.has_labels,
            agreement={
                name: agreement(scores[name], sets[name].own_targets(), is_multi_label=is_multi_label)
                for name in scores
            },
            label_counts={name: self._label_counts(clips) for name, clips in sets.items()},
        )


def _carry_license(base: str, config: ASTConfig) -> None:
    """Write the license of the base model into the configuration if it forbids commercial use, as it then does here.

    Any other license leaves open how the new weights are licensed.
    """
    stated = license_of(base)
    config.extra.pop(LICENSE_KEY, None)
    if is_noncommercial(stated):
        config.extra[LICENSE_KEY] = stated
