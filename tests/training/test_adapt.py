from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import tiny_config, tiny_extractor, tiny_model

from ast_cli import ASTForAudioClassification
from ast_cli.errors import AstError, UsageError
from ast_cli.training.adapt import (
    adapt_pos_embed,
    first_positions,
    is_scratch,
    start_config,
    start_feature_extractor,
    start_model,
)
from ast_cli.training.options import TrainOptions

PLAIN = TrainOptions()


@pytest.fixture
def base(tmp_path: Path) -> str:
    folder = tmp_path / "base"
    tiny_model().save_pretrained(folder)
    tiny_extractor().save_pretrained(folder)
    return str(folder)


def original_rule(patches: np.ndarray, new_frequency: int, new_time: int) -> np.ndarray:
    """Restate `ast_models.py` for a grid (frequency, time, hidden_size): cut the middle, or interpolate linearly."""
    for axis, size in ((1, new_time), (0, new_frequency)):
        old = patches.shape[axis]
        if size < old:
            start = int(old / 2) - int(size / 2)
            patches = np.take(patches, range(start, start + size), axis)
        else:
            places = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
            low = np.floor(places).astype(int)
            high = np.minimum(low + 1, old - 1)
            shape = [1, 1, 1]
            shape[axis] = size
            fraction = (places - low).reshape(shape)
            patches = np.take(patches, low, axis) * (1 - fraction) + np.take(patches, high, axis) * fraction
    return patches


@pytest.mark.parametrize("new_grid", [(12, 50), (12, 101), (12, 200), (5, 101), (16, 30), (1, 1), (9, 7), (25, 103)])
def test_position_embeddings_are_adapted_by_the_rule_of_the_original(new_grid: tuple[int, int]) -> None:
    pos_embed = torch.randn(1, 2 + 12 * 101, 5, generator=torch.Generator().manual_seed(0))
    adapted = adapt_pos_embed(pos_embed, (12, 101), new_grid).numpy()
    expected = original_rule(pos_embed[0, 2:].reshape(12, 101, 5).double().numpy(), *new_grid)
    np.testing.assert_array_equal(adapted[:, :2], pos_embed[:, :2].numpy())
    np.testing.assert_allclose(adapted[0, 2:].reshape(*new_grid, 5), expected, atol=5e-5)  # places up to 100 in float32


def test_another_input_size_keeps_all_other_weights(base: str) -> None:
    options = TrainOptions(max_length=40, num_mel_bins=24, time_stride=4)
    config = start_config(base, options, 0)
    model = start_model(base, config, ["Cat", "Dog", "Rain"], "single_label_classification", options)
    before, after = tiny_model().state_dict(), model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after.get(name, torch.empty(0)))}
    assert changed == {"audio_spectrogram_transformer.pos_embed"}
    assert model(torch.zeros(2, 40, 24)).logits.shape == (2, 3)
    assert (config.max_length, config.num_mel_bins, config.time_stride, config.frequency_stride) == (40, 24, 4, 8)


def test_a_head_is_kept_for_labels_it_knows_in_the_order_of_the_data(base: str) -> None:
    config = start_config(base, PLAIN, 0)
    model = start_model(base, config, ["Rain", "Cat"], "multi_label_classification", PLAIN)
    assert torch.equal(model.head.fc.weight, tiny_model().head.fc.weight[[2, 0]])
    assert torch.equal(model.head.fc.bias, tiny_model().head.fc.bias[[2, 0]])
    assert model.config.id2label == {0: "Rain", 1: "Cat"}
    assert model.config.problem_type == "multi_label_classification"


@pytest.mark.parametrize(
    ("labels", "options"), [(["Cat", "Wind"], PLAIN), (["Cat", "Dog", "Rain"], TrainOptions(new_head=True))]
)
def test_new_labels_or_new_head_give_a_head_that_depends_on_the_seed(
    base: str, labels: list[str], options: TrainOptions
) -> None:
    config = start_config(base, options, 0)
    first, again = (start_model(base, config, labels, "single_label_classification", options) for _ in range(2))
    assert first.head.fc.weight.shape == (len(labels), 16)
    assert torch.equal(first.head.fc.weight, again.head.fc.weight)
    assert not first.head.fc.bias.any()  # as a head begins
    other = TrainOptions(**{**options.to_dict(), "seed": 1})
    third = start_model(base, config, labels, "single_label_classification", other)
    assert not torch.equal(first.head.fc.weight, third.head.fc.weight)
    name = "audio_spectrogram_transformer.blocks.1.mlp.fc1.weight"
    assert torch.equal(first.state_dict()[name], tiny_model().state_dict()[name])


def test_a_scratch_model_has_the_requested_sizes_and_sinusoidal_positions() -> None:
    options = TrainOptions(num_mel_bins=64, time_stride=16, frequency_stride=16)
    config = start_config("scratch:128x3", options, 256)
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (128, 3, 2)
    assert (config.intermediate_size, config.max_length, config.num_mel_bins) == (512, 256, 64)
    before = torch.get_rng_state()
    model = start_model("scratch:128x3", config, ["A", "B"], "single_label_classification", options)
    assert torch.equal(torch.get_rng_state(), before)  # the global random state is unchanged
    positions = model.audio_spectrogram_transformer.pos_embed[0]
    assert positions[:2].std().item() == pytest.approx(0.02, rel=0.2)
    assert config.num_patches == (4, 16)
    assert torch.equal(positions[2:], first_positions((4, 16), 128))


def test_first_positions_are_sines_and_cosines_along_both_axes() -> None:
    positions = first_positions((3, 40), 64).numpy().reshape(3, 40, 4, 16)
    rates = 100.0 ** (-np.arange(16) / 15)
    for frequency, time in ((0, 0), (2, 0), (1, 39)):
        waves = [np.sin(frequency * rates), np.cos(frequency * rates), np.sin(time * rates), np.cos(time * rates)]
        np.testing.assert_allclose(positions[frequency, time], 0.2 * np.array(waves), atol=1e-5)
    narrow = first_positions((2, 3), 34)
    assert narrow.shape == (6, 34)
    assert not narrow[:, 32:].any()


def test_a_scratch_model_can_have_the_sizes_of_a_configuration(base: str) -> None:
    file = str(Path(base) / "config.json")
    assert is_scratch(file)
    assert not is_scratch(base)
    config = start_config(file, TrainOptions(max_length=48), 0)
    model = start_model(file, config, ["A", "B"], "single_label_classification", PLAIN)
    assert config.hidden_size == 16
    assert model(torch.zeros(1, 48, 16)).logits.shape == (1, 2)
    assert not torch.equal(
        model.audio_spectrogram_transformer.patch_embed.proj.weight,
        tiny_model().audio_spectrogram_transformer.patch_embed.proj.weight,
    )


@pytest.mark.parametrize(
    "model", ["scratch:", "scratch:192", "scratch:0x6", "scratch:100x6", "scratch:192x0", "scratch:-1x2"]
)
def test_invalid_sizes_are_usage_errors(model: str) -> None:
    with pytest.raises(UsageError, match="write scratch:HIDDENxLAYERS"):
        start_config(model, PLAIN, 64)


@pytest.mark.parametrize(
    "absurd",
    [
        {"hidden_size": 10_000_000},
        {"num_attention_heads": 0},
        {"time_stride": 0},
        {"max_length": 1_000_000_000},
        {"layer_norm_eps": float("nan")},
        {"num_hidden_layers": -1},
    ],
)
def test_an_absurd_configuration_is_refused_before_anything_is_built(tmp_path: Path, absurd: dict[str, float]) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**tiny_config().to_dict(), **absurd}))
    with pytest.raises(AstError, match=next(iter(absurd))):
        start_config(str(file), PLAIN, 0)


def test_an_input_smaller_than_a_patch_is_refused(base: str) -> None:
    file = Path(base) / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "patch_size": 32}))
    with pytest.raises(AstError, match="max_length"):
        start_config(base, TrainOptions(max_length=16, num_mel_bins=16), 0)


def test_the_front_end_is_that_of_the_base_with_other_sizes_and_fixed_statistics(base: str) -> None:
    options = TrainOptions(max_length=40)
    config = start_config(base, options, 0)
    extractor = start_feature_extractor(base, config, options)
    assert (extractor.max_length, extractor.num_mel_bins, extractor.mean, extractor.std) == (40, 16, -6.0, 2.0)
    fixed = start_feature_extractor(base, config, TrainOptions(normalize="-5.5,3.25"))
    assert (fixed.mean, fixed.std) == (-5.5, 3.25)
    new = start_feature_extractor("scratch:64x1", config, options)
    assert (new.mean, new.std) == (-4.2677393, 4.5689974)


def test_a_base_model_without_label_names_can_be_fine_tuned(tmp_path: Path) -> None:
    folder = tmp_path / "unnamed"
    tiny_model(id2label={0: "LABEL_0", 1: "LABEL_1"}).save_pretrained(folder)
    config = start_config(str(folder), PLAIN, 0)
    model = start_model(str(folder), config, ["A", "B"], "single_label_classification", PLAIN)
    model.save_pretrained(tmp_path / "tuned")
    assert ASTForAudioClassification.from_pretrained(tmp_path / "tuned").config.id2label == {0: "A", 1: "B"}
