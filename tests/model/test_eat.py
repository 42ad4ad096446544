"""EAT's files give the logits of a computation in NumPy, load without their code, and are written back as they came."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eat_checkpoints import (
    BINS,
    CONFIG,
    DEPTH,
    FRAMES,
    HEADS,
    PATCH,
    ROWS,
    WIDTH,
    eat_features,
    eat_logits,
    eat_tokens,
    eat_weights,
    write_eat,
)
from safetensors.numpy import load_file, save_file

from ast_cli import ASTConfig, ASTForAudioClassification, ASTModel
from ast_cli.errors import CheckpointError, UsageError
from ast_cli.labels import audioset_id2label
from ast_cli.model.arrays import load_arrays, load_config
from ast_cli.model.config import activation_of
from ast_cli.model.layout import expected_shapes

TOLERANCE = 1e-4  # float32 logits of about 1, three blocks deep
TOLERANCE_64 = 2e-6  # in float64, where the softmax of attention is in float32 as for AST; measured 3e-7
NUM_TOKENS = 1 + (FRAMES // PATCH) * (BINS // PATCH)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_eat(tmp_path / "eat")


def classifier(folder: Path, **options: Any) -> ASTForAudioClassification:
    return ASTForAudioClassification.from_pretrained(folder, **options)


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, TOLERANCE), (torch.float64, TOLERANCE_64)], ids=["float32", "float64"]
)
@pytest.mark.parametrize("changes", [{}, {"depth": 1}, {"qkv_bias": False}, {"max_length": 7}], ids=str)
def test_logits_equal_the_computation_in_numpy(
    tmp_path: Path, attn: str, dtype: torch.dtype, tolerance: float, changes: dict[str, Any]
) -> None:
    model = classifier(write_eat(tmp_path, **changes), attn_implementation=attn, dtype=dtype)
    x = eat_features()
    expected = eat_logits(x, eat_weights(CONFIG | changes))
    with torch.inference_mode():
        logits = model(torch.from_numpy(x).to(dtype)).logits.numpy()
    assert logits.shape == (3, 527)
    assert expected.std() > 0.5
    np.testing.assert_allclose(logits, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
def test_a_batch_equals_single_windows(folder: Path, attn: str) -> None:
    model = classifier(folder, attn_implementation=attn)
    x = torch.from_numpy(eat_features())
    with torch.inference_mode():
        singles = torch.cat([model(x[i : i + 1]).logits for i in range(3)])
        torch.testing.assert_close(model(x).logits, singles, rtol=0, atol=5e-6)


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
def test_hidden_states_and_attentions_are_those_of_each_block(folder: Path, attn: str) -> None:
    model = classifier(folder, attn_implementation=attn, dtype=torch.float64)
    x = eat_features()
    states, attentions = eat_tokens(x, eat_weights())
    with torch.inference_mode():
        output = model(torch.from_numpy(x).double(), output_hidden_states=True, output_attentions=True)
        encoded = model.audio_spectrogram_transformer(torch.from_numpy(x).double())
        plain = model(torch.from_numpy(x).double()).logits
    assert [state.shape for state in output.hidden_states] == [(3, NUM_TOKENS, WIDTH)] * (DEPTH + 1)
    assert [attention.shape for attention in output.attentions] == [(3, HEADS, NUM_TOKENS, NUM_TOKENS)] * DEPTH
    for mine, expected in zip((*output.hidden_states, *output.attentions), (*states, *attentions), strict=True):
        np.testing.assert_allclose(mine.numpy(), expected, rtol=0, atol=TOLERANCE_64)
    np.testing.assert_allclose(encoded.last_hidden_state.numpy(), states[-1], rtol=0, atol=TOLERANCE_64)  # no last norm
    np.testing.assert_allclose(encoded.pooler_output.numpy(), states[-1][:, 0], rtol=0, atol=TOLERANCE_64)
    torch.testing.assert_close(output.logits, plain, rtol=0, atol=TOLERANCE_64)  # of one query in the last block


def test_outputs_without_names_are_audiosets_labels_with_a_sigmoid(folder: Path) -> None:
    for config in (classifier(folder).config, load_config(folder)):
        assert config.id2label == audioset_id2label()
        assert activation_of(config) == "sigmoid"
        assert (config.max_length, config.num_mel_bins, config.num_patches) == (FRAMES, BINS, (4, 7))
        assert config.num_tokens == NUM_TOKENS
        assert config.num_positions == ROWS * 4


def test_arrays_and_torch_read_the_same(folder: Path) -> None:
    model = classifier(folder)
    weights, config = load_arrays(folder)
    assert config == model.config
    assert {name: array.shape for name, array in weights.items()} == expected_shapes(config)
    state = model.state_dict()
    assert weights.keys() == state.keys()
    assert all(np.array_equal(array, state[name].numpy()) for name, array in weights.items())


def test_a_published_model_has_as_many_numbers_as_its_file() -> None:
    config = ASTConfig.from_dict({"model_type": "eat", "num_classes": 527})
    assert sum(int(np.prod(shape)) for shape in expected_shapes(config).values()) == 90_379_535
    assert (config.num_tokens, config.intermediate_size, config.max_length) == (513, 3072, 1024)


def test_the_table_of_positions_is_not_trained(folder: Path) -> None:
    encoder = classifier(folder).audio_spectrogram_transformer
    assert "pos_embed" in dict(encoder.named_buffers())
    assert {"pos_embed", "dist_token"}.isdisjoint(dict(encoder.named_parameters()))


# --- writing ------------------------------------------------------------------------------------------------------


def test_a_saved_model_has_the_published_names_and_bytes_and_loads_again(folder: Path, tmp_path: Path) -> None:
    model = classifier(folder)
    first, second = tmp_path / "first", tmp_path / "second"
    model.save_pretrained(first)
    saved, published = load_file(first / "model.safetensors"), load_file(folder / "model.safetensors")
    assert saved.keys() == published.keys()
    assert all(np.array_equal(saved[name], published[name]) for name in saved)
    again = classifier(first)
    again.save_pretrained(second)
    assert (second / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()
    assert json.loads((second / "config.json").read_text()) == json.loads((first / "config.json").read_text())
    assert again.config == ASTConfig.from_pretrained(second)
    x = torch.from_numpy(eat_features())
    assert torch.equal(again(x).logits, model(x).logits)


def test_a_saved_config_has_the_published_keys_and_the_labels(folder: Path, tmp_path: Path) -> None:
    classifier(folder).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    added = {"id2label", "label2id", "problem_type", "dtype", "hidden_act", "initializer_range"}
    assert saved.keys() == (CONFIG.keys() | added) - {"auto_map", "torch_dtype"}
    assert {key: saved[key] for key in CONFIG.keys() & saved.keys()} == {
        key: value for key, value in CONFIG.items() if key in saved
    }


def test_the_encoder_alone_is_saved_as_a_pretrained_model(folder: Path, tmp_path: Path) -> None:
    encoder = ASTModel.from_pretrained(folder)
    encoder.save_pretrained(tmp_path)
    names = load_file(tmp_path / "model.safetensors").keys()
    assert names == eat_weights(CONFIG | {"model_variant": "pretrain"}).keys()
    x = torch.from_numpy(eat_features())
    assert torch.equal(ASTModel.from_pretrained(tmp_path)(x).pooler_output, encoder(x).pooler_output)
    with pytest.raises(CheckpointError, match="pretrain"):
        classifier(tmp_path)


# --- the pretrained variant ----------------------------------------------------------------------------------------


def test_a_pretrained_model_loads_as_encoder_and_is_refused_as_classifier(tmp_path: Path) -> None:
    folder = write_eat(tmp_path, model_variant="pretrain")
    message = (
        f"{folder}: by its model_variant, pretrain, this is an encoder without a classification head; train one with "
        "`ast finetune`, or use a model of the variant finetune"
    )
    for load in (classifier, load_arrays, load_config):
        with pytest.raises(CheckpointError) as caught:
            load(folder)
        assert str(caught.value) == message
    x = eat_features()
    encoder = ASTModel.from_pretrained(folder, dtype=torch.float64)
    states, _ = eat_tokens(x, eat_weights(CONFIG | {"model_variant": "pretrain"}))
    pooled = encoder(torch.from_numpy(x)).pooler_output.detach().numpy()
    np.testing.assert_allclose(pooled, states[-1][:, 0], rtol=0, atol=TOLERANCE_64)


# --- hostile files -------------------------------------------------------------------------------------------------


def test_a_pickle_of_the_same_weights_gives_the_same_model(folder: Path, tmp_path: Path) -> None:
    pickled = write_eat(tmp_path / "pickled", as_pickle=True)
    x = torch.from_numpy(eat_features())
    assert torch.equal(classifier(pickled)(x).logits, classifier(folder)(x).logits)
    state, expected = load_arrays(pickled)[0], load_arrays(folder)[0]
    assert all(np.array_equal(state[name], array) for name, array in expected.items())


def test_a_single_file_takes_the_configuration_beside_it(folder: Path) -> None:
    x = torch.from_numpy(eat_features())
    assert torch.equal(classifier(folder / "model.safetensors")(x).logits, classifier(folder)(x).logits)
    assert load_arrays(folder / "model.safetensors")[1] == load_config(folder)


def test_code_beside_the_weights_is_never_opened(folder: Path) -> None:
    for name in ("modeling_eat", "configuration_eat", "eat_model", "model_core"):
        (folder / f"{name}.py").write_text("raise SystemExit('the code of the checkpoint ran')\n")
    program = f"""
import sys
folder, opened = {str(folder)!r}, []
def note(event, arguments):
    if event in ("open", "import", "exec", "compile"):
        opened.extend(str(each) for each in arguments)
sys.addaudithook(note)
sys.path.insert(0, folder)  # so that an import would find it
from ast_cli import ASTForAudioClassification
from ast_cli.model.arrays import load_arrays
ASTForAudioClassification.from_pretrained(folder)
load_arrays(folder)
assert any(each.endswith("model.safetensors") for each in opened)
assert not [each for each in opened if each.endswith(".py") and each.startswith(folder)]
assert not [name for name in sys.modules if "eat" in name.split(".")[-1].split("_") and not name.startswith("ast_cli")]
print("done")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("model.pre_norm.bias"), "1 missing: audio_spectrogram_transformer.pre_norm.bias"),
        (lambda w: w.pop("model.fc_norm.weight"), "1 missing: head.norm.weight"),
        (lambda w: w.update({"model.norm.weight": np.ones(WIDTH, np.float32)}), "1 unexpected: audio_.*r.norm.weight"),
        (lambda w: w.update({"cls_token": w["model.extra_tokens"]}), r"1 unexpected: .*model.extra_tokens \(twice\)"),
        (
            lambda w: w.update({"model.extra_tokens": np.zeros((1, 2, WIDTH), np.float32)}),
            r"cls_token \(1, 2, 24\) instead of \(1, 1, 24\)",
        ),
        (
            lambda w: w.update({"model.fixed_positional_encoder.positions": np.zeros((1, 28, WIDTH), np.float32)}),
            r"pos_embed \(1, 28, 24\) instead of \(1, 44, 24\)",
        ),
    ],
)
def test_tensors_that_do_not_match_are_named(folder: Path, change: Any, message: str) -> None:
    weights = eat_weights()
    change(weights)
    save_file(weights, folder / "model.safetensors")
    for load in (classifier, load_arrays):
        with pytest.raises(CheckpointError, match=message):
            load(folder)


def test_the_weights_of_an_ast_under_the_config_of_an_eat_are_refused(folder: Path, tmp_path: Path) -> None:
    from tiny_models import tiny_config

    ASTForAudioClassification(tiny_config()).save_pretrained(tmp_path / "ast")
    (folder / "model.safetensors").write_bytes((tmp_path / "ast" / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="do not match its configuration; 46 missing"):
        classifier(folder)


def test_an_input_of_another_length_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"input_values must have shape \(batch, 56, 32\)"):
        classifier(folder)(torch.zeros(1, FRAMES + PATCH, BINS))


def test_a_longer_window_takes_more_rows_of_the_table(folder: Path) -> None:
    weights = eat_weights()
    config = ASTConfig.from_pretrained(folder, max_length=ROWS * PATCH)
    model = classifier(folder, config=config, dtype=torch.float64)
    x = eat_features(2, ROWS * PATCH)
    logits = model(torch.from_numpy(x)).logits.detach().numpy()
    np.testing.assert_allclose(logits, eat_logits(x, weights), rtol=0, atol=TOLERANCE_64)
    with pytest.raises(CheckpointError, match="gives 12 patches along time, and the model has positions for 11"):
        ASTConfig.from_pretrained(folder, max_length=(ROWS + 1) * PATCH)
