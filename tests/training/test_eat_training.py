"""Training from EAT: its positions stay fixed, and what it writes is again an EAT that every command takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eat_checkpoints import BINS, CONFIG, FRAMES, PATCH, ROWS, eat_features, eat_logits, eat_tokens, write_eat
from safetensors.numpy import load_file
from tiny_training import HERE
from tone_folders import write_tone_folders

from ast_cli import ASTForAudioClassification, Tagger
from ast_cli.errors import UsageError
from ast_cli.training.adapt import first_positions, start_config, start_model
from ast_cli.training.finetuning import finetune
from ast_cli.training.objective import training_logits
from ast_cli.training.optimizer import layer_of, parameter_groups
from ast_cli.training.options import TrainOptions

POSITIONS = "model.fixed_positional_encoder.positions"
TOLERANCE = 1e-4  # float32 logits, as in tests/model/test_eat.py


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_tone_folders(tmp_path / "data")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_eat(tmp_path / "base")


def options_for(**changes: Any) -> TrainOptions:
    values = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3, "validation_fraction": 0.25, "keep": "last"}
    return TrainOptions(**(values | changes))


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "fewer tokens": {"token_drop": 0.5, "checkpoint_gradients": True, "layer_decay": 0.7},
    "frozen": {"freeze_encoder": True},
    "muon and average": {"optimizer": "muon", "average": "ema", "keep": "average"},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_training_writes_a_checkpoint_in_the_published_layout_that_tags(
    data: Path, base: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    output = tmp_path / "out"
    result = finetune(data, str(base), output, options_for(**changes), HERE)
    before, after = load_file(base / "model.safetensors"), load_file(output / "model.safetensors")
    assert after.keys() == before.keys()
    assert after["model.head.weight"].shape == (2, CONFIG["embed_dim"])
    np.testing.assert_array_equal(after[POSITIONS], before[POSITIONS])
    is_frozen = changes.get("freeze_encoder", False)
    for name in ("model.extra_tokens", "model.pre_norm.weight", "model.blocks.2.attn.qkv.weight"):
        assert np.array_equal(after[name], before[name]) == is_frozen, name
    config = json.loads((output / "config.json").read_text())
    assert {key: config[key] for key in ("model_type", "model_variant", "num_classes", "max_length")} == {
        "model_type": "eat",
        "model_variant": "finetune",
        "num_classes": 2,
        "max_length": ROWS,
    }
    x = eat_features()
    reloaded = ASTForAudioClassification.from_pretrained(output)
    np.testing.assert_allclose(
        reloaded(torch.from_numpy(x)).logits.detach().numpy(), eat_logits(x, after), rtol=0, atol=TOLERANCE
    )
    assert set(result.config.id2label.values()) == {"Low", "High, very"}
    tags = Tagger.from_pretrained(str(output), engine="onnxruntime").classify(data / "Low" / "0.wav").tags
    assert sum(tag.score for tag in tags) == pytest.approx(1, abs=1e-5)  # one label per clip: softmax


def test_the_model_card_says_what_it_is(data: Path, base: Path, tmp_path: Path) -> None:
    finetune(data, str(base), tmp_path / "out", options_for(), HERE)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- eat\n" in card
    assert "An Efficient Audio Transformer (EAT) (3 layers, 24 wide)" in card
    assert "transformers" not in card


def test_a_pretrained_encoder_gets_a_head(data: Path, tmp_path: Path) -> None:
    base = write_eat(tmp_path / "base", model_variant="pretrain")
    output = tmp_path / "out"
    finetune(data, str(base), output, options_for(freeze_encoder=True), HERE)
    before, after = load_file(base / "model.safetensors"), load_file(output / "model.safetensors")
    assert after.keys() - before.keys() == {
        f"model.{name}.{part}" for name in ("fc_norm", "head") for part in ("weight", "bias")
    }
    assert all(np.array_equal(after[name], array) for name, array in before.items())
    assert json.loads((output / "config.json").read_text())["model_variant"] == "finetune"
    assert json.loads((base / "config.json").read_text())["model_variant"] == "pretrain"
    assert len(Tagger.from_pretrained(str(output)).classify(data / "Low" / "0.wav").tags) == 2


def test_training_logits_are_those_of_the_model(base: Path) -> None:
    model = ASTForAudioClassification.from_pretrained(base)
    x, rng = eat_features(), np.random.default_rng(0)
    expected = eat_logits(x, load_file(base / "model.safetensors"))
    for options in (TrainOptions(), TrainOptions(checkpoint_gradients=True)):
        logits = training_logits(model, torch.from_numpy(x), options, rng).detach().numpy()
        np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE)


def test_dropped_patches_leave_the_classification_token_and_their_positions(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ASTForAudioClassification.from_pretrained(base)
    x = torch.from_numpy(eat_features(2))
    kept = torch.tensor([[1, 5, 6], [0, 2, 27]])
    monkeypatch.setattr("ast_cli.training.objective.kept_tokens", lambda *_: kept)
    logits = training_logits(model, x, TrainOptions(token_drop=0.9), np.random.default_rng(0))
    states, _ = eat_tokens(x.numpy(), load_file(base / "model.safetensors"))
    encoder = model.audio_spectrogram_transformer
    for i in range(2):
        tokens = torch.from_numpy(states[0][i : i + 1, [0, *(1 + kept[i]).tolist()]]).float()
        last, _, _ = encoder.run_blocks(tokens)
        torch.testing.assert_close(logits[i], model.head(last[:, 0])[0], rtol=0, atol=TOLERANCE)


def test_layers_decay_from_the_head_to_the_embeddings(base: Path) -> None:
    model = ASTForAudioClassification.from_pretrained(base)
    depths = {name: layer_of(name, 3) for name, _ in model.named_parameters()}
    prefix = "audio_spectrogram_transformer."
    assert {depths[f"{prefix}{name}"] for name in ("cls_token", "patch_embed.proj.bias", "pre_norm.weight")} == {0}
    assert depths[f"{prefix}blocks.2.norm2.bias"] == 3
    assert depths["head.norm.weight"] == depths["head.fc.weight"] == 4
    groups = parameter_groups(model, TrainOptions(layer_decay=0.5, learning_rate=1.0))
    decayed = [parameter for group in groups if group["weight_decay"] for parameter in group["params"]]
    assert not any(parameter is model.audio_spectrogram_transformer.cls_token for parameter in decayed)
    assert sum(len(group["params"]) for group in groups) == len(depths)


# --- other inputs --------------------------------------------------------------------------------------------------


def test_a_longer_or_shorter_window_takes_the_first_rows_of_the_table(base: Path) -> None:
    for max_length in (3 * PATCH, ROWS * PATCH):
        options = options_for(max_length=max_length)
        config = start_config(str(base), options, 0)
        assert (config.max_length, config.num_patches) == (max_length, (4, max_length // PATCH))
        model = start_model(str(base), config, ["a", "b"], "single_label_classification", options)
        weights = load_file(base / "model.safetensors")
        x = eat_features(2, max_length)
        pooled = model.audio_spectrogram_transformer.eval()(torch.from_numpy(x)).pooler_output.detach().numpy()
        expected = eat_tokens(x, weights)[0][-1][:, 0]
        np.testing.assert_allclose(pooled, expected, rtol=0, atol=TOLERANCE)
        assert model.config.to_dict()["img_size"] == [max_length, BINS]
        assert model.config.to_dict()["max_length"] == ROWS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"max_length": (ROWS + 1) * PATCH},
            "max_length 96 gives 12 patches along time, and the model has positions for 11",
        ),
        ({"num_mel_bins": 64}, "this base model has fixed positions, for 4 patches along frequency with strides of 8"),
        ({"frequency_stride": 4, "time_stride": 8}, "must be equal in a model of type eat"),
        ({"frequency_stride": 7, "time_stride": 7}, "this base model has fixed positions, for 4 patches"),
    ],
)
def test_inputs_without_positions_are_refused_before_anything_is_written(
    data: Path, base: Path, tmp_path: Path, changes: dict[str, int], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        finetune(data, str(base), tmp_path / "out", options_for(**changes), HERE)
    assert not (tmp_path / "out").exists()


def test_random_weights_get_sines_and_cosines_in_the_order_of_the_patches(base: Path) -> None:
    model = str(base / "config.json")
    config = start_config(model, options_for(max_length=40), 0)
    fresh = start_model(model, config, ["a", "b"], "single_label_classification", options_for())
    table = fresh.audio_spectrogram_transformer.pos_embed[0].reshape(ROWS, 4, -1)
    expected = first_positions((4, ROWS), 24).reshape(4, ROWS, -1)
    for time in range(ROWS):
        for frequency in range(4):
            assert torch.equal(table[time, frequency], expected[frequency, time])
    assert fresh.audio_spectrogram_transformer.cls_token.std() > 0


def test_known_labels_keep_their_rows_of_the_head(base: Path) -> None:
    config = start_config(str(base), options_for(), 0)
    model = start_model(str(base), config, ["Dog", "Speech"], "multi_label_classification", options_for())
    rows = [74, 0]  # of Dog and Speech among AudioSet's 527 labels
    head = load_file(base / "model.safetensors")["model.head.weight"][rows]
    np.testing.assert_array_equal(model.head.fc.weight.detach().numpy(), head)


# --- commands ------------------------------------------------------------------------------------------------------


def test_the_commands_train_evaluate_export_and_tag(
    data: Path, base: Path, tmp_path: Path, run_ast: Callable[..., Any]
) -> None:
    output, exported = tmp_path / "out", tmp_path / "exported"
    assert run_ast("stats", str(data), "--model", str(base)).returncode == 0
    trained = run_ast("finetune", str(data), "--model", str(base), "--output", str(output), "--epochs", "1")
    assert trained.returncode == 0, trained.stderr
    evaluated = run_ast("evaluate", str(data), "--model", str(output), "--format", "json")
    assert evaluated.returncode == 0, evaluated.stderr
    measured = run_ast("benchmark", "--model", str(output), "--repeats", "1", "--json")
    assert json.loads(measured.stdout)["model"]["num_tokens"] == 1 + FRAMES // PATCH * 4
    assert run_ast("export", "--model", str(output), "--output", str(exported)).returncode == 0
    sample = str(data / "Low" / "0.wav")
    (ours,) = json.loads(run_ast("classify", sample, "--model", str(exported), "--format", "json").stdout)
    (theirs,) = json.loads(run_ast("classify", sample, "--model", str(output), "--format", "json").stdout)
    for mine, expected in zip(ours["tags"], theirs["tags"], strict=True):
        assert mine["label"] == expected["label"]
        assert mine["score"] == pytest.approx(expected["score"], abs=1e-4)
