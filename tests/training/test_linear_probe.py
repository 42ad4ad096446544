from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import (
    plain_options,
    tiny_clips,
    tiny_extractor,
    tiny_head_trainer,
    tiny_model,
    tiny_trainer,
    weights_of,
)

from ast_cli.training import linear_probe
from ast_cli.training.linear_probe import HeadEvaluator, embedded
from ast_cli.training.validation import Evaluator


def embed(clips: Any, folder: Path, **config: Any) -> Any:
    return embedded(clips, tiny_model(**config).audio_spectrogram_transformer, tiny_extractor(), folder)


def test_training_the_head_equals_training_with_a_frozen_encoder(tmp_path: Path) -> None:
    options = plain_options(freeze_encoder=True, epochs=4, learning_rate=1e-2, weight_decay=0.1, label_smoothing=0.1)
    clips = tiny_clips()
    whole = tiny_trainer(options, tmp_path / "whole", clips)
    whole.model.audio_spectrogram_transformer.requires_grad_(False)
    whole.run()
    head = tiny_head_trainer(options, tmp_path / "head", embed(clips, tmp_path))
    head.run()
    for name, tensor in weights_of(whole).items():
        torch.testing.assert_close(weights_of(head)[name], tensor, atol=2e-5, rtol=0, msg=name)
    for first, second in zip(whole.progress.history, head.progress.history, strict=True):
        assert first["train_loss"] == pytest.approx(second["train_loss"], abs=1e-4)
    assert not torch.equal(weights_of(head)["head.fc.weight"], tiny_model().head.fc.weight)


def test_evaluating_the_head_equals_evaluating_the_model_on_several_windows(tmp_path: Path) -> None:
    clips, model = tiny_clips(9, longest=100), tiny_model()
    scores, loss = Evaluator(clips, tiny_extractor(), "cross-entropy", False, 4).scores(model)
    embedded_clips = embed(clips, tmp_path)
    assert len({len(each) for each in embedded_clips.fbanks}) > 1
    found, found_loss = HeadEvaluator(embedded_clips, tiny_extractor(), "cross-entropy", False, 4).scores(model)
    np.testing.assert_allclose(found, scores, atol=1e-5)
    assert found_loss == pytest.approx(loss, abs=1e-5)


def test_an_interruption_while_embedding_loses_one_file_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear_probe, "CLIPS_PER_FILE", 4)
    clips, computed = tiny_clips(11), []
    plain = linear_probe._compute

    def compute(part: Any, *arguments: Any) -> Any:
        if len(computed) == 2:
            raise KeyboardInterrupt
        computed.append(part.indices)
        return plain(part, *arguments)

    monkeypatch.setattr(linear_probe, "_compute", compute)
    with pytest.raises(KeyboardInterrupt):
        embed(clips, tmp_path)
    assert computed == [(0, 1, 2, 3), (4, 5, 6, 7)]
    computed.clear()
    seen: list[tuple[int, int]] = []
    encoder = tiny_model().audio_spectrogram_transformer
    found = embedded(clips, encoder, tiny_extractor(), tmp_path, lambda *counts: seen.append(counts))
    assert computed == [(8, 9, 10)]
    assert seen == [(4, 11), (8, 11), (11, 11)]
    monkeypatch.setattr(linear_probe, "CLIPS_PER_FILE", 64)
    computed.clear()
    for first, second in zip(found.fbanks, embed(clips, tmp_path / "other").fbanks, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)


@pytest.mark.parametrize("change", ["encoder", "clips", "statistics", "damage"])
def test_stored_embeddings_are_used_for_the_same_encoder_and_clips_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    clips, encoder, extractor = tiny_clips(), tiny_model().audio_spectrogram_transformer, tiny_extractor()
    embedded(clips, encoder, extractor, tmp_path)
    calls = []
    plain = linear_probe._compute
    monkeypatch.setattr(linear_probe, "_compute", lambda *arguments: calls.append(1) or plain(*arguments))
    embedded(clips, encoder, extractor, tmp_path)
    assert not calls
    if change == "encoder":
        torch.nn.init.normal_(encoder.norm.bias)
    elif change == "clips":
        clips = replace(clips, fbanks=[fbank + 1 for fbank in clips.fbanks])
    elif change == "statistics":
        extractor.mean = 1.0
    else:
        (file,) = tmp_path.glob("*.safetensors")
        file.write_bytes(file.read_bytes()[:100])
    embedded(clips, encoder, extractor, tmp_path)
    assert calls


def test_only_the_head_is_saved(tmp_path: Path) -> None:
    options = plain_options(freeze_encoder=True, average="ema", keep="best")
    trainer = tiny_head_trainer(options, tmp_path / "state", embed(tiny_clips(), tmp_path))
    trainer.run()
    saved = torch.load(tmp_path / "state" / "state.pt", weights_only=True)
    names = {"head.norm.weight", "head.norm.bias", "head.fc.weight", "head.fc.bias"}
    assert saved["model"].keys() == saved["average"].keys() == saved["best"].keys() == names
    again = tiny_head_trainer(options, tmp_path / "state", embed(tiny_clips(), tmp_path))
    assert again.resume()
    for name, tensor in weights_of(trainer).items():
        assert torch.equal(weights_of(again)[name], tensor)
