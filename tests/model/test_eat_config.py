"""The keys of EAT's ``config.json``: translated, written back, and refused by name where they are not understood."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from eat_checkpoints import CONFIG, ROWS, write_eat

from ast_cli import ASTConfig, ASTForAudioClassification, ASTModel
from ast_cli.errors import CheckpointError, UsageError
from ast_cli.model import weight_files
from ast_cli.model.arrays import load_arrays, load_config
from ast_cli.model.form import EAT

FIVE = {str(i): name for i, name in enumerate(("dog", "rain", "waves", "clock", "speech"))}


def test_every_key_becomes_the_field_of_the_same_meaning() -> None:
    rates = {"drop_rate": 0.1, "attn_drop_rate": 0.2, "norm_eps": 1e-5, "qkv_bias": False, "output_attentions": True}
    config = ASTConfig.from_dict(CONFIG | rates | {"num_classes": 5, "id2label": FIVE})
    assert config.form is EAT
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (24, 3, 4)
    assert (config.patch_size, config.frequency_stride, config.time_stride) == (8, 8, 8)
    assert (config.max_length, config.num_mel_bins, config.position_rows) == (56, 32, ROWS)
    assert (config.intermediate_size, config.num_labels, config.label2id["rain"]) == (60, 5, 1)
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob, config.layer_norm_eps) == (0.1, 0.2, 1e-5)
    assert not config.qkv_bias
    assert config.output_attentions
    assert config.hidden_act == "gelu"


def test_without_sizes_they_are_the_published_ones() -> None:
    config = ASTConfig.from_dict({"model_type": "eat"})
    assert (config.hidden_size, config.num_hidden_layers, config.intermediate_size) == (768, 12, 3072)
    assert (config.max_length, config.num_mel_bins, config.num_patches) == (1024, 128, (8, 64))
    assert (config.num_labels, config.layer_norm_eps, config.position_rows) == (527, 1e-6, 768)


def test_a_configuration_is_written_back_with_its_foreign_keys_and_without_the_names_of_code() -> None:
    config = ASTConfig.from_dict(CONFIG)
    written = json.loads(json.dumps(config.to_dict()))
    assert {key: written[key] for key in CONFIG.keys() & written.keys()} == {
        key: value for key, value in CONFIG.items() if key != "auto_map"
    }
    assert ASTConfig.from_dict(written) == config
    assert ASTConfig.from_dict(written).to_dict() == config.to_dict()
    assert "auto_map" not in written


def test_a_configuration_made_from_fields_is_written_in_the_keys_of_eat() -> None:
    made = ASTConfig(
        model_type="eat", hidden_size=12, intermediate_size=20, num_attention_heads=3, num_hidden_layers=1,
        patch_size=4, frequency_stride=4, time_stride=4, max_length=30, num_mel_bins=18, layer_norm_eps=1e-6,
        hidden_act="relu", initializer_range=0.5, id2label=FIVE,
    )  # fmt: skip
    written = made.to_dict()
    assert "hidden_size" not in written
    assert (written["embed_dim"], written["mel_bins"], written["img_size"], written["max_length"]) == (
        12,
        18,
        [30, 18],
        7,
    )
    again = ASTConfig.from_dict(written)
    for name in ("hidden_size", "intermediate_size", "hidden_act", "initializer_range", "id2label", "num_positions"):
        assert getattr(again, name) == getattr(made, name), name


def test_names_without_their_number_are_counted() -> None:
    assert ASTConfig.from_dict({"model_type": "eat", "id2label": FIVE}).num_labels == 5


def test_overrides_are_in_our_terms() -> None:
    config = ASTConfig.from_dict(CONFIG, id2label=FIVE, max_length=64)
    assert (config.num_labels, config.max_length, config.position_rows) == (5, 64, ROWS)


def test_an_ast_has_no_table_of_positions_whatever_its_file_says() -> None:
    config = ASTConfig.from_dict({"position_rows": "many", "model_variant": "pretrain"})
    assert config.num_positions == config.num_tokens == 1214
    assert not config.has_no_head


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"layer_norm_first": True}, "layer_norm_first must be false, as in the published models, not True"),
    ({"layer_norm_first": 0}, "layer_norm_first must be false, as in the published models, not 0"),
    ({"norm_affine": False}, "norm_affine must be true, as in the published models, not False"),
    ({"fixed_positions": False}, "fixed_positions must be true, as in the published models, not False"),
    ({"fixed_positions": None}, "fixed_positions must be true, as in the published models, not None"),
    ({"in_chans": 3}, "in_chans must be 1, as in the published models, not 3"),
    ({"in_chans": True}, "in_chans must be 1, as in the published models, not True"),
    ({"model_variant": "large"}, "model_variant must be finetune or pretrain, not 'large'"),
    ({"model_variant": ["finetune"]}, "model_variant must be finetune or pretrain, not ['finetune']"),
    (
        {"mlp_ratio": 2.51},
        "mlp_ratio 2.51 times embed_dim 24 must be a whole number from 1 to 131072, not 60.24",
    ),
    ({"mlp_ratio": 0}, "mlp_ratio 0 times embed_dim 24 must be a whole number from 1 to 131072, not 0"),
    ({"mlp_ratio": float("nan")}, "mlp_ratio must be a number from 0 to 131072, not nan"),
    ({"mlp_ratio": 10**400}, "mlp_ratio must be a number from 0 to 131072, not 1000"),
    ({"mlp_ratio": "4"}, "mlp_ratio must be a number from 0 to 131072, not '4'"),
    ({"embed_dim": 10**9}, "embed_dim must be a whole number from 1 to 16384, not 1000000000"),
    ({"embed_dim": "24"}, "embed_dim must be a whole number from 1 to 16384, not '24'"),
    ({"embed_dim": True}, "embed_dim must be a whole number from 1 to 16384, not True"),
    ({"depth": 0}, "depth must be a whole number from 1 to 512, not 0"),
    ({"depth": 10**6}, "depth must be a whole number from 1 to 512, not 1000000"),
    ({"num_heads": 5}, "embed_dim 24 is not divisible by num_heads 5"),
    ({"num_heads": None}, "num_heads must be a whole number from 1 to 1024, not None"),
    ({"patch_size": 33}, "patch_size 33 does not fit into img_size [56, 32]"),
    ({"stride": [8, 8]}, "stride must be a whole number from 1 to 1024, not [8, 8]"),
    ({"stride": 1}, "max_length 11 is less than the 49 patches along time of img_size"),
    ({"mel_bins": 64}, "img_size[1] must equal mel_bins 64, not 32"),
    ({"mel_bins": 10**6}, "mel_bins must be a whole number from 1 to 1024, not 1000000"),
    ({"img_size": 56}, "img_size must be two whole numbers, frames and mel bins, not 56"),
    ({"img_size": [56, 32, 1]}, "img_size must be two whole numbers, frames and mel bins, not [56, 32, 1]"),
    ({"img_size": [10**9, 32]}, "img_size[0] must be a whole number from 1 to 100000, not 1000000000"),
    ({"img_size": ["56", 32]}, "img_size[0] must be a whole number from 1 to 100000, not '56'"),
    ({"img_size": [56, 32.0]}, "img_size[1] must equal mel_bins 32, not 32.0"),
    ({"max_length": 6}, "max_length 6 is less than the 7 patches along time of img_size"),
    ({"max_length": 10**9}, "max_length must be a whole number from 1 to 100000, not 1000000000"),
    (
        {"max_length": 100_000, "patch_size": 2, "stride": 2},
        "max_length 100000 times 16 patches along frequency gives 1600000 positions; at most 1000000 are allowed",
    ),
    ({"num_classes": 0}, "num_classes must be a whole number from 1 to 100000, not 0"),
    ({"num_classes": 10**9}, "num_classes must be a whole number from 1 to 100000, not 1000000000"),
    ({"num_classes": 5, "id2label": {"0": "a"}}, "num_classes is 5 but id2label names 1 labels"),
    ({"norm_eps": -1}, "norm_eps must be a number from 0 to 1, not -1"),
    ({"drop_rate": 2}, "drop_rate must be a number from 0 to 1, not 2"),
    ({"attn_drop_rate": "0"}, "attn_drop_rate must be a number from 0 to 1, not '0'"),
    ({"post_mlp_drop": None}, "post_mlp_drop must be a number from 0 to 1, not None"),
    ({"start_drop_path_rate": [0]}, "start_drop_path_rate must be a number from 0 to 1, not [0]"),
    ({"qkv_bias": "yes"}, "qkv_bias must be true or false, not 'yes'"),
    ({"hidden_act": "swish"}, "hidden_act must be one of gelu, relu, selu, gelu_new, not 'swish'"),
    ({"model_type": "eat-large"}, "this is a 'eat-large' model, not an Audio Spectrogram Transformer"),
    ({"model_type": ["eat"]}, "this is a ['eat'] model, not an Audio Spectrogram Transformer"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=[str(changes)[:50] for changes, _ in REFUSED])
def test_what_is_not_understood_is_refused_by_name_before_anything_is_read_or_built(
    tmp_path: Path, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_eat(tmp_path)
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    for name in ("read_weights", "_read_safetensors", "_read_pickle"):
        monkeypatch.setattr(weight_files, name, lambda *_: pytest.fail("weights were read"))
    monkeypatch.setattr(torch.nn.Linear, "__init__", lambda *_, **__: pytest.fail("a layer was built"))
    loaders = (ASTForAudioClassification.from_pretrained, ASTModel.from_pretrained, ASTConfig.from_pretrained)
    for load in (*loaders, load_arrays, load_config):
        with pytest.raises(CheckpointError) as caught:
            load(folder)
        assert str(caught.value).startswith(f"{folder}: config.json: {message}")
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500


def test_strides_that_differ_are_refused() -> None:
    with pytest.raises(UsageError, match="frequency_stride 16 and time_stride 10 must be equal in a model of type eat"):
        ASTConfig(model_type="eat", frequency_stride=16, time_stride=10)


def test_bad_labels_are_forgotten_on_request(tmp_path: Path) -> None:
    for labels in ({"id2label": {"0": "a", "2": "b"}}, {"id2label": FIVE, "num_classes": 7}):
        folder = write_eat(tmp_path / str(len(labels)), num_classes=5, front_end=False)
        (folder / "config.json").write_text(json.dumps(CONFIG | labels))
        with pytest.raises(CheckpointError, match="id2label"):
            load_config(folder)
        assert load_config(folder, unnamed_labels=True).id2label == {i: f"LABEL_{i}" for i in range(5)}


def test_another_number_of_outputs_without_names_needs_a_flag(tmp_path: Path) -> None:
    folder = write_eat(tmp_path, num_classes=5)
    with pytest.raises(CheckpointError, match=r"config\.json names no labels for 5 outputs"):
        ASTForAudioClassification.from_pretrained(folder)
    model = ASTForAudioClassification.from_pretrained(folder, unnamed_labels=True)
    assert list(model.config.id2label.values()) == [f"LABEL_{i}" for i in range(5)]
