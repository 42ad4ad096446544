"""Comparison with transformers at run time: the same weights and inputs give the same numbers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny_models import TINY, randomize, spectrograms
from torch import Tensor

from ast_cli import ASTConfig, ASTForAudioClassification, ASTModel
from ast_cli.model.layout import rename

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

# Both are the same mathematics in float32; they differ in the order of sums alone (queries, keys and values are one
# product here), which is some 1e-6 on numbers around 1.
PARITY = {"rtol": 0.0, "atol": 1e-5}
ATTENTION_PATHS = pytest.mark.parametrize("attn", ["eager", "sdpa"])
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "odd sizes": {},
    "one of everything": {
        "hidden_size": 3,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 1,
        "patch_size": 1,
        "num_labels": 2,
    },
    "no bias of queries, keys and values": {"qkv_bias": False},
    "relu": {"hidden_act": "relu"},
    "selu": {"hidden_act": "selu"},
    "gelu_new": {"hidden_act": "gelu_new"},
    "one label": {"num_labels": 1},
    "many labels": {"num_labels": 71},
    "a large epsilon": {"layer_norm_eps": 0.1},
    "no overlap, and frames left over": {"patch_size": 5, "frequency_stride": 5, "time_stride": 7, "max_length": 50},
    "strides larger than the patch": {"patch_size": 2, "frequency_stride": 7, "time_stride": 3},
    "one patch": {"patch_size": 18, "num_mel_bins": 18, "max_length": 19},
    "as many heads as dimensions": {"num_attention_heads": 12},
    "deep and narrow": {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 9, "intermediate_size": 5},
}


@pytest.fixture(params=CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def reference(request: pytest.FixtureRequest) -> Any:
    return tiny_reference(**request.param)


def tiny_reference(**changes: Any) -> Any:
    config = transformers.ASTConfig(**{**TINY, "num_labels": 5, **changes})
    is_selu = config.hidden_act == "selu"  # documented, but this version does not know the name
    config.hidden_act = "relu" if is_selu else config.hidden_act
    model = transformers.ASTForAudioClassification(config)
    if is_selu:
        config.hidden_act = "selu"
        for layer in model.audio_spectrogram_transformer.layers:
            layer.mlp.activation_fn = torch.nn.SELU()
    return randomize(model, scale=0.2)


def our_copy(reference: Any, attn: str) -> ASTForAudioClassification:
    """Build our model from the configuration and the in-memory tensor names of transformers."""
    model = ASTForAudioClassification(ASTConfig.from_dict(reference.config.to_dict()), attn)
    model.load_state_dict(with_our_names(reference.state_dict()))
    return model.eval()


def with_our_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = "audio_spectrogram_transformer."
    return {n if n.startswith("head.") else prefix + n: tensor for n, tensor in rename(tensors).items()}


def with_attention(reference: Any, attn: str) -> Any:
    reference.set_attn_implementation(attn)
    return reference


@ATTENTION_PATHS
def test_logits_hidden_states_and_attentions_equal_the_references(reference: Any, attn: str) -> None:
    ours, x = our_copy(reference, attn), spectrograms(reference.config)
    flags = {"output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        expected = with_attention(reference, "eager")(x, **flags)  # its sdpa has no attentions to show
        found = ours(x, **flags)
        assert list(found) == ["logits", "hidden_states", "attentions"]
        torch.testing.assert_close(found.logits, expected.logits, **PARITY)
        torch.testing.assert_close(found.hidden_states, tuple(expected.hidden_states), **PARITY)
        torch.testing.assert_close(found.attentions, tuple(expected.attentions), **PARITY)
        torch.testing.assert_close(ours(x).logits, with_attention(reference, attn)(x).logits, **PARITY)


@ATTENTION_PATHS
def test_the_bare_encoder_equals_the_references(reference: Any, attn: str) -> None:
    ours = our_copy(reference, attn).audio_spectrogram_transformer
    theirs = with_attention(reference, attn).audio_spectrogram_transformer
    x = spectrograms(reference.config)
    with torch.no_grad():
        expected, found = theirs(x, output_hidden_states=True), ours(x, output_hidden_states=True)
        as_tuple, their_tuple = ours(x, return_dict=False), theirs(x, return_dict=False)
    assert list(found) == list(expected) == ["last_hidden_state", "pooler_output", "hidden_states"]
    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state, **PARITY)
    torch.testing.assert_close(found.pooler_output, expected.pooler_output, **PARITY)
    torch.testing.assert_close(found.hidden_states, tuple(expected.hidden_states), **PARITY)
    torch.testing.assert_close(as_tuple, tuple(their_tuple), **PARITY)


@ATTENTION_PATHS
@pytest.mark.parametrize("whole", [False, True], ids=["trimmed", "untrimmed"])
def test_gradients_of_every_parameter_equal_the_references(reference: Any, attn: str, whole: bool) -> None:
    ours, x = our_copy(reference, attn).train(), spectrograms(reference.config)
    num_labels = reference.config.num_labels
    labels = torch.tensor([0, num_labels - 1, num_labels // 2])
    labels = labels.float() if num_labels == 1 else labels
    expected = with_attention(reference, attn).train()(x, labels=labels)
    found = ours(x, labels=labels, output_hidden_states=whole)
    torch.testing.assert_close(found.loss, expected.loss, **PARITY)
    expected.loss.backward()
    found.loss.backward()
    theirs = with_our_names({name: parameter.grad for name, parameter in reference.named_parameters()})
    mine = {name: parameter.grad for name, parameter in ours.named_parameters()}
    assert theirs.keys() == mine.keys()
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, theirs[name], **PARITY, msg=lambda text, name=name: f"{name}: {text}")


MULTI_HOT = torch.tensor([[1.0, 0, 0, 1, 0], [0, 0, 0, 0, 0], [0, 1, 1, 1, 0]])


@pytest.mark.parametrize(
    ("num_labels", "problem_type", "labels"),
    [
        (5, None, torch.tensor([0, 4, 2])),
        (5, None, MULTI_HOT),
        (5, "single_label_classification", torch.tensor([0, 4, 2])),
        (5, "single_label_classification", torch.tensor([[0], [4], [2]])),
        (5, "multi_label_classification", MULTI_HOT),
        (5, "regression", MULTI_HOT - 0.3),
        (1, None, torch.tensor([0.5, -1.0, 2.0])),
        (1, None, torch.tensor([[0.5], [-1.0], [2.0]])),
        (1, "regression", torch.tensor([0.5, -1.0, 2.0])),
        (1, "multi_label_classification", torch.tensor([[0.0], [1.0], [1.0]])),
        (2, None, torch.tensor([1, 0, 1])),
    ],
)
def test_losses_equal_the_references(num_labels: int, problem_type: str | None, labels: Tensor) -> None:
    reference = tiny_reference(num_labels=num_labels, problem_type=problem_type)
    ours, x = our_copy(reference, "sdpa"), spectrograms(reference.config)
    assert ours.config.problem_type == problem_type
    torch.testing.assert_close(ours(x, labels=labels).loss, reference(x, labels=labels).loss, **PARITY)


@pytest.mark.parametrize("field", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_dropout_drops_the_same_elements_as_the_references(field: str) -> None:
    """With one seed, the logits are equal only if dropout draws in the same order at the same places."""
    reference = with_attention(tiny_reference(**{field: 0.4}), "eager").train()
    ours, x = our_copy(reference, "eager").train(), spectrograms(reference.config)
    torch.manual_seed(7)
    expected = reference(x).logits
    torch.manual_seed(7)
    found = ours(x, output_hidden_states=True).logits  # untrimmed: the last block draws for every row, as theirs does
    assert (expected - copy.deepcopy(reference).eval()(x).logits).abs().max() > 0.01
    torch.testing.assert_close(found, expected, **PARITY)


@ATTENTION_PATHS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_close_to_float32_as_the_references(attn: str, dtype: torch.dtype) -> None:
    """Both round at mostly the same places: the error was 0.93 to 1.07 times the reference's; twice is allowed."""
    reference = with_attention(tiny_reference(), attn)
    ours, x = our_copy(reference, attn), spectrograms(reference.config, batch=32)
    with torch.no_grad():
        exact = reference(x).logits
        theirs = (copy.deepcopy(reference).to(dtype)(x.to(dtype)).logits - exact).norm()
        mine = (ours.to(dtype)(x.to(dtype)).logits - exact).norm()
    assert 0 < mine < 2 * theirs


@pytest.fixture(scope="module")
def base_reference() -> Any:
    """Return a model of the published size, 768 x 12 over 1214 tokens, with random weights of the published scale."""
    config = transformers.ASTConfig(num_labels=527)
    return randomize(transformers.ASTForAudioClassification(config), scale=0.02)


@ATTENTION_PATHS
def test_the_base_size_equals_the_reference(base_reference: Any, attn: str) -> None:
    ours, x = our_copy(base_reference, attn), spectrograms(base_reference.config, batch=1)
    with torch.inference_mode():
        expected = with_attention(base_reference, attn)(x, output_hidden_states=True)
        found = ours(x, output_hidden_states=True)
        if attn == "sdpa":
            torch.testing.assert_close(ours(x).logits, expected.logits, **PARITY)  # with the trimmed last block
    torch.testing.assert_close(found.logits, expected.logits, **PARITY)
    torch.testing.assert_close(found.hidden_states, tuple(expected.hidden_states), **PARITY)


def test_the_base_sizes_gradients_equal_the_references() -> None:
    """Compare all blocks at full width over the 146 tokens of Speech Commands; 1214 would take a minute and 5 GB."""
    config = transformers.ASTConfig(num_labels=527, max_length=128)
    reference = with_attention(randomize(transformers.ASTForAudioClassification(config), scale=0.02), "sdpa")
    ours, x = our_copy(reference, "sdpa"), spectrograms(config, batch=1)
    labels = (torch.arange(527)[None] % 7 == 0).float()
    reference(x, labels=labels).loss.backward()
    ours(x, labels=labels).loss.backward()
    theirs = with_our_names({name: parameter.grad for name, parameter in reference.named_parameters()})
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name], **PARITY)


def test_attentions_of_a_base_sized_block_equal_the_references() -> None:
    """Compare a single block; the attentions of twelve would be 849 MB on either side."""
    config = transformers.ASTConfig(num_labels=10, num_hidden_layers=1)
    reference = with_attention(randomize(transformers.ASTForAudioClassification(config), scale=0.02), "eager")
    ours, x = our_copy(reference, "sdpa"), spectrograms(config, batch=1)
    with torch.inference_mode():
        expected, found = reference(x, output_attentions=True), ours(x, output_attentions=True)
    assert found.attentions[0].shape == (1, 12, 1214, 1214)
    torch.testing.assert_close(found.attentions, tuple(expected.attentions), rtol=0, atol=1e-7)  # each is about 1/1214


def test_fields_and_defaults_equal_the_references() -> None:
    theirs = transformers.ASTConfig().to_dict()
    ours = ASTConfig().to_dict()
    assert {name: theirs[name] for name in ours if name in theirs and name not in ("id2label", "label2id")} == {
        name: value for name, value in ours.items() if name in theirs and name not in ("id2label", "label2id")
    }
    fields = vars(ASTConfig()).keys()
    assert {name for name in transformers.ASTConfig.__annotations__ if name != "model_type"} <= fields


def test_initialization_has_the_references_deviations() -> None:
    """Compare tensors of the same size: standard deviations within 5 %, constant tensors equal."""
    torch.manual_seed(0)
    config = transformers.ASTConfig(
        hidden_size=96, num_hidden_layers=1, num_attention_heads=2, intermediate_size=200, max_length=64, num_labels=150
    )
    theirs = with_our_names(transformers.ASTForAudioClassification(config).state_dict())
    ours = ASTForAudioClassification(ASTConfig.from_dict(config.to_dict())).state_dict()
    for name, tensor in theirs.items():
        assert ours[name].std().item() == pytest.approx(tensor.std().item(), rel=0.05), name
        if not tensor.std():
            assert torch.equal(ours[name], tensor), name


def test_the_tensors_of_the_references_encoder_match_ours() -> None:
    config = transformers.ASTConfig(**TINY)
    reference = randomize(transformers.ASTModel(config))
    ours = ASTModel(ASTConfig.from_dict(config.to_dict()))
    ours.load_state_dict(rename(reference.state_dict()))
    x = spectrograms(config)
    torch.testing.assert_close(ours.eval()(x).pooler_output, reference(x).pooler_output, **PARITY)
