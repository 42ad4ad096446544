from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, average_precision_score
from tiny_training import MAX_LENGTH, tiny_clips, tiny_extractor, tiny_model

from ast_cli import Tagger
from ast_cli.engine.torch.torch_engine import TorchEngine
from ast_cli.training.validation import Evaluator, metric_name, metric_of


def test_scores_equal_those_of_classify() -> None:
    """The scores are the mean softmax over windows, for recordings shorter and longer than the window."""
    clips, model, extractor = tiny_clips(9, longest=100), tiny_model(), tiny_extractor()
    scores, loss = Evaluator(clips, extractor, "cross-entropy", False, 4).scores(model)
    losses = []
    for i, fbank in enumerate(clips.fbanks):
        last = max(0, len(fbank) - MAX_LENGTH)
        windows = [torch.from_numpy(fbank[s : s + MAX_LENGTH]) for s in sorted({*range(0, last + 1, MAX_LENGTH), last})]
        with torch.no_grad():
            logits = model(extractor.input_values(windows)).logits
        np.testing.assert_allclose(scores[i], logits.softmax(dim=1).mean(dim=0), atol=1e-6)
        losses += torch.nn.functional.cross_entropy(
            logits, torch.full((len(windows),), i % 3), reduction="none"
        ).tolist()
    assert loss == pytest.approx(np.mean(losses), abs=1e-6)
    assert len(losses) > 9


def test_scores_of_a_waveform_equal_those_of_the_tagger(rng: np.random.Generator) -> None:
    model, extractor = tiny_model(), tiny_extractor()
    waveform = rng.normal(0, 0.1, 16000).astype(np.float32)
    tagged = Tagger(TorchEngine(tiny_model()), extractor, "tiny").classify(waveform, sampling_rate=16000, top_k=3)
    fbank = extractor.fbank(torch.from_numpy(waveform)[None])[0].numpy()
    clips = tiny_clips(1)
    scores, _ = Evaluator(type(clips)([fbank], clips.targets, (0,)), extractor, "cross-entropy", False, 2).scores(model)
    assert {tag.label_id: tag.score for tag in tagged.tags} == pytest.approx(dict(enumerate(scores[0])), abs=1e-5)


def test_evaluation_restores_the_mode_of_the_model() -> None:
    model = tiny_model(hidden_dropout_prob=0.5).train()
    evaluator = Evaluator(tiny_clips(), tiny_extractor(), "cross-entropy", False, 4)
    first, second = evaluator.evaluate(model), evaluator.evaluate(model)
    assert first == second  # without dropout
    assert model.training


def test_metrics_equal_those_of_scikit_learn(rng: np.random.Generator) -> None:
    scores, targets = rng.random((40, 5)), (rng.random((40, 5)) < 0.3).astype(np.float32)
    targets[:, 3] = 0  # a label without examples is not included in the means
    present = [0, 1, 2, 4]
    expected = average_precision_score(targets[:, present], scores[:, present], average="macro")
    assert metric_of(scores, targets, is_multi_label=True) == pytest.approx(expected)
    single = np.eye(5, dtype=np.float32)[rng.integers(5, size=40)]
    expected = accuracy_score(single.argmax(axis=1), scores.argmax(axis=1))
    assert metric_of(scores, single, is_multi_label=False) == pytest.approx(expected)
    assert np.isnan(metric_of(scores, np.zeros((40, 5), np.float32), is_multi_label=True))
    assert (metric_name(is_multi_label=True), metric_name(is_multi_label=False)) == ("mAP", "accuracy")
