"""Folders saved by this package load in transformers, and the other way round."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import FIVE_LABELS, TINY, randomize, spectrograms
from torch import Tensor

from ast_cli import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, ASTModel
from ast_cli.errors import CheckpointError
from ast_cli.labels import audioset_id2label
from ast_cli.model.config import activation_of

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity
PARITY = {"rtol": 0.0, "atol": 1e-5}  # the same weights, another order of sums
# The reference computes its features with NumPy where torchaudio is missing: some 1e-5 apart after normalization, which
# the tiny model passes on to its scores a hundredfold weaker; measured 1.2e-7.
SAME_SCORES = {"rtol": 0.0, "atol": 1e-5}
# Long enough for the front end's real window, odd enough to catch a mistaken axis.
FRAMES, BINS = 61, 40
GEOMETRY = {**TINY, "max_length": FRAMES, "num_mel_bins": BINS, "patch_size": 7}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Disable the progress bars that transformers draws on stderr."""
    logging = transformers.utils.logging
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


def waveform() -> Any:
    generator = np.random.default_rng(0)
    tone = np.sin(2 * np.pi * 440 * np.arange(10_300) / 16_000)
    return (0.3 * tone + 0.1 * generator.standard_normal(10_300)).astype(np.float32)


def save_ours(folder: Path, **changes: Any) -> ASTForAudioClassification:
    config = ASTConfig(**{**GEOMETRY, "id2label": FIVE_LABELS, **changes})
    model = randomize(ASTForAudioClassification(config), scale=0.2)
    model.save_pretrained(folder)
    ASTFeatureExtractor(max_length=FRAMES, num_mel_bins=BINS).save_pretrained(folder)
    assert isinstance(model, ASTForAudioClassification)
    return model


def our_scores(model: ASTForAudioClassification) -> dict[str, float]:
    features = ASTFeatureExtractor(max_length=FRAMES, num_mel_bins=BINS)(
        waveform(), sampling_rate=16_000, return_tensors="pt"
    )
    with torch.no_grad():
        logits = model(**features).logits[0]
    activate = {"sigmoid": Tensor.sigmoid, "softmax": lambda x: x.softmax(dim=0), "none": lambda x: x}
    scores = activate[activation_of(model.config)](logits).tolist()
    return dict(zip(model.config.id2label.values(), scores, strict=True))


@pytest.mark.parametrize("given_as", ["array", "dictionary"])
@pytest.mark.parametrize(
    ("changes", "activation"),
    [
        ({}, "softmax"),
        ({"problem_type": "multi_label_classification"}, "sigmoid"),
        ({"id2label": audioset_id2label()}, "sigmoid"),
        ({"id2label": {0: "loudness"}}, "none"),
        ({"qkv_bias": False, "hidden_act": "gelu_new"}, "softmax"),
    ],
    ids=["single-label", "multi-label", "AudioSet", "regression", "odd"],
)
def test_a_folder_saved_here_gives_the_same_scores_in_the_pipeline_of_transformers(
    tmp_path: Path, changes: dict[str, Any], activation: str, given_as: str
) -> None:
    model = save_ours(tmp_path, **changes)
    assert activation_of(model.config) == activation
    pipeline = transformers.pipeline("audio-classification", model=str(tmp_path), device="cpu")
    audio = waveform() if given_as == "array" else {"raw": waveform(), "sampling_rate": 16_000}
    found = {entry["label"]: entry["score"] for entry in pipeline(audio, top_k=None)}
    expected = our_scores(model)
    assert found.keys() == expected.keys()
    scores = [torch.tensor([table[label] for label in expected]) for table in (found, expected)]
    torch.testing.assert_close(scores[0], scores[1], **SAME_SCORES)


def test_a_folder_saved_here_loads_in_transformers_without_missing_or_unexpected_tensors(tmp_path: Path) -> None:
    model = save_ours(tmp_path)
    theirs, report = transformers.ASTForAudioClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    x = spectrograms(model.config)
    torch.testing.assert_close(theirs(x).logits, model(x).logits, **PARITY)
    assert theirs.config.id2label == FIVE_LABELS
    assert {name: getattr(theirs.config, name) for name in GEOMETRY} == GEOMETRY


def test_an_encoder_saved_here_loads_in_transformers(tmp_path: Path) -> None:
    model = randomize(ASTModel(ASTConfig(**TINY)))
    model.save_pretrained(tmp_path)
    theirs, report = transformers.ASTModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    x = spectrograms(model.config)
    torch.testing.assert_close(theirs(x).pooler_output, model(x).pooler_output, **PARITY)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_folder_in_half_precision_loads_unchanged_in_transformers(tmp_path: Path, dtype: torch.dtype) -> None:
    model = save_ours(tmp_path).to(dtype)
    model.save_pretrained(tmp_path)
    theirs = transformers.ASTForAudioClassification.from_pretrained(tmp_path)
    assert theirs.dtype == dtype
    assert torch.equal(theirs.classifier.dense.weight, model.head.fc.weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shard_size", ["1GB", "5KB"], ids=["one file", "shards"])
def test_a_folder_saved_by_transformers_loads_here(tmp_path: Path, dtype: torch.dtype, shard_size: str) -> None:
    config = transformers.ASTConfig(**TINY, id2label=FIVE_LABELS, label2id={v: k for k, v in FIVE_LABELS.items()})
    theirs = randomize(transformers.ASTForAudioClassification(config)).to(dtype)
    theirs.save_pretrained(tmp_path, max_shard_size=shard_size)
    weights = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert (weights == ["model.safetensors"]) == (shard_size == "1GB")
    names = set().union(*(load_file(tmp_path / name) for name in weights))
    assert "audio_spectrogram_transformer.encoder.layer.0.attention.attention.query.weight" in names  # the v4 layout
    ours = ASTForAudioClassification.from_pretrained(tmp_path)
    assert (ours.dtype, ours.config.id2label) == (torch.float32, FIVE_LABELS)
    x = spectrograms(config)
    torch.testing.assert_close(ours(x).logits, theirs.float()(x).logits, **PARITY)


def test_an_encoder_saved_by_transformers_loads_here_and_is_refused_as_classifier(tmp_path: Path) -> None:
    theirs = randomize(transformers.ASTModel(transformers.ASTConfig(**TINY)))
    theirs.save_pretrained(tmp_path)
    x = spectrograms(theirs.config)
    ours = ASTModel.from_pretrained(tmp_path)
    torch.testing.assert_close(ours(x).pooler_output, theirs(x).pooler_output, **PARITY)
    with pytest.raises(CheckpointError, match=r"4 missing: head\.fc\.bias"):
        ASTForAudioClassification.from_pretrained(tmp_path)


def test_a_configuration_of_transformers_round_trips_unchanged(tmp_path: Path) -> None:
    label2id = {label: label_id for label_id, label in FIVE_LABELS.items()}
    theirs = transformers.ASTConfig(**TINY, id2label=FIVE_LABELS, label2id=label2id, foo="bar")
    theirs.save_pretrained(tmp_path / "theirs")
    ASTConfig.from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "ours")
    before, after = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("theirs", "ours"))
    assert {name: after[name] for name in before} == before
    assert {name: value for name, value in after.items() if name not in before} == {"problem_type": None}
    assert transformers.ASTConfig.from_pretrained(tmp_path / "ours").to_dict() == (
        transformers.ASTConfig.from_pretrained(tmp_path / "theirs").to_dict()
    )
