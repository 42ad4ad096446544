"""A model, clips and runs small enough to train in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_models import small_config

from ast_cli import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from ast_cli.training.data.batches import Clips
from ast_cli.training.finetuning import RunSettings
from ast_cli.training.linear_probe import HeadEvaluator, HeadTrainer
from ast_cli.training.options import TrainOptions
from ast_cli.training.state import StateFolder
from ast_cli.training.trainer import Task, Trainer
from ast_cli.training.validation import Evaluator

LABELS = ("Cat", "Dog", "Rain")
MAX_LENGTH, NUM_MEL_BINS = 32, 16


SCRATCH = "scratch:32x1"  # a whole run of `finetune` from random weights
HERE = RunSettings(num_workers=0, device="cpu")


def options_for(**changes: Any) -> TrainOptions:
    """Return the options of such a run."""
    values = {
        "epochs": 2,
        "batch_size": 4,
        "learning_rate": 5e-3,
        "num_mel_bins": 32,
        "max_length": 48,
        "time_stride": 16,
        "frequency_stride": 16,
        "validation_fraction": 0.25,
    }
    return TrainOptions(**{**values, **changes})


def tiny_config(**changes: Any) -> ASTConfig:
    values = {
        "patch_size": 8,
        "frequency_stride": 8,
        "time_stride": 8,
        "max_length": MAX_LENGTH,
        "num_mel_bins": NUM_MEL_BINS,
        "id2label": dict(enumerate(LABELS)),
        "problem_type": "single_label_classification",
    }
    return small_config(**{**values, **changes})


def tiny_model(**changes: Any) -> ASTForAudioClassification:
    torch.manual_seed(1)
    model = ASTForAudioClassification(tiny_config(**changes))
    for name, parameter in model.named_parameters():
        is_norm_weight = "norm" in name and name.endswith("weight")
        torch.nn.init.normal_(parameter, mean=float(is_norm_weight), std=0.2)
    return model


def tiny_extractor() -> ASTFeatureExtractor:
    return ASTFeatureExtractor(num_mel_bins=NUM_MEL_BINS, max_length=MAX_LENGTH, mean=-6.0, std=2.0)


def tiny_clips(num_clips: int = 12, longest: int = MAX_LENGTH, seed: int = 0) -> Clips:
    """Return clips of each label in turn; every label has more energy in mel bins of its own."""
    rng = np.random.default_rng(seed)
    fbanks, targets = [], np.zeros((num_clips, len(LABELS)), np.float32)
    for number in range(num_clips):
        label = number % len(LABELS)
        fbank = rng.normal(-6, 2, (int(rng.integers(longest // 2, longest + 1)), NUM_MEL_BINS)).astype(np.float32)
        fbank[:, 5 * label : 5 * label + 5] += 4
        fbanks.append(fbank)
        targets[number, label] = 1
    return Clips(fbanks, targets, tuple(range(num_clips)))


def plain_options(**changes: Any) -> TrainOptions:
    values = {"epochs": 3, "batch_size": 4, "learning_rate": 1e-3, "keep": "last"}
    return TrainOptions(**{**values, **changes})


def tiny_trainer(options: TrainOptions, folder: Path, clips: Clips | None = None, **config: Any) -> Trainer:
    """Return a trainer that evaluates on other clips than it trains on."""
    evaluator = Evaluator(tiny_clips(6, seed=7), tiny_extractor(), "cross-entropy", False, 4)
    task = Task(clips or tiny_clips(), tiny_extractor(), options, "cross-entropy", evaluator, None)
    return Trainer(tiny_model(**config), task, StateFolder(folder))


def tiny_head_trainer(options: TrainOptions, folder: Path, embedded_clips: Clips) -> HeadTrainer:
    """Return a trainer of the head that evaluates on its training clips."""
    evaluator = HeadEvaluator(embedded_clips, tiny_extractor(), "cross-entropy", False, 4)
    task = Task(embedded_clips, tiny_extractor(), options, "cross-entropy", evaluator, None)
    return HeadTrainer(tiny_model(), task, StateFolder(folder))


def weights_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.finished_model().state_dict().items()}
