from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_models import randomize, spectrograms, tiny_config
from torch import Tensor

from ast_cli import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, ASTModel
from ast_cli.errors import UsageError
from ast_cli.model.attention import eager_attention, pooled_query_attention

# Two orders of summation in float32 on numbers around 1, some 20 layers deep: measured 1e-6.
ROUNDING = {"rtol": 0.0, "atol": 5e-6}
ATTENTION_PATHS = pytest.mark.parametrize("attn", ["eager", "sdpa"])


def classifier(attn: str = "sdpa", seed: int = 0, **changes: Any) -> ASTForAudioClassification:
    model = randomize(ASTForAudioClassification(tiny_config(**changes), attn), seed)
    assert isinstance(model, ASTForAudioClassification)
    return model


def encode_by_formula(model: ASTModel, x: Tensor, head_masks: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Compute the last hidden state and the attentions explicitly: probabilities times mask, head by head."""
    x, attentions = model.embed(x), []
    for block, masks in zip(model.blocks, head_masks, strict=True):
        y = block.norm1(x)
        q, k, v = (part.chunk(model.config.num_attention_heads, dim=-1) for part in block.attn.qkv(y).chunk(3, dim=-1))
        heads, probabilities = [], []
        for head, mask in enumerate(masks):
            scores = torch.einsum("bqd,bkd->bqk", q[head], k[head]) / math.sqrt(q[head].shape[-1])
            probabilities.append(scores.softmax(dim=-1) * mask)
            heads.append(probabilities[-1] @ v[head])
        attentions.append(torch.stack(probabilities, dim=1))
        x = x + block.attn.proj(torch.cat(heads, dim=-1))
        x = x + block.mlp(block.norm2(x))
    return model.norm(x), attentions


# --- outputs -----------------------------------------------------------------------------------------------------


@ATTENTION_PATHS
def test_the_encoder_returns_what_its_documentation_says(attn: str) -> None:
    model = randomize(ASTModel(tiny_config(), attn))
    output = model(spectrograms(model.config))
    assert list(output) == ["last_hidden_state", "pooler_output"]
    assert output.last_hidden_state.shape == (3, model.config.num_tokens, 12)
    assert output["pooler_output"] is output.pooler_output is output[1]
    torch.testing.assert_close(output.pooler_output, output.last_hidden_state[:, :2].mean(dim=1))
    assert (output.hidden_states, output.attentions) == (None, None)


@ATTENTION_PATHS
def test_the_classifier_returns_what_its_documentation_says(attn: str) -> None:
    model = classifier(attn)
    x = spectrograms(model.config)
    output = model(x)
    assert list(output) == ["logits"]
    assert output["logits"] is output.logits is output[0]
    assert output.logits.shape == (3, 5)
    assert (output.loss, output.hidden_states, output.attentions) == (None, None, None)
    pooled = model.audio_spectrogram_transformer(x).pooler_output
    torch.testing.assert_close(output.logits, model.head(pooled), **ROUNDING)


@ATTENTION_PATHS
@pytest.mark.parametrize("by_config", [False, True], ids=["by argument", "by configuration"])
def test_hidden_states_and_attentions_are_returned_on_request(attn: str, by_config: bool) -> None:
    flags = {"output_hidden_states": True, "output_attentions": True}
    model = classifier(attn, **(flags if by_config else {}))
    x = spectrograms(model.config)
    output = model(x, labels=torch.tensor([0, 1, 2]), **({} if by_config else flags))
    assert list(output) == ["loss", "logits", "hidden_states", "attentions"]
    N = model.config.num_tokens
    assert [state.shape for state in output.hidden_states] == [(3, N, 12)] * 3
    assert [attention.shape for attention in output.attentions] == [(3, 3, N, N)] * 2
    encoder = model.audio_spectrogram_transformer
    assert torch.equal(output.hidden_states[0], encoder.embed(x))
    last = encoder(x).last_hidden_state
    torch.testing.assert_close(encoder.norm(output.hidden_states[-1]), last, **ROUNDING)
    for attention in output.attentions:  # probabilities
        torch.testing.assert_close(attention.sum(dim=-1), torch.ones(3, 3, N))


def test_an_argument_overrides_the_configuration() -> None:
    model = classifier(output_hidden_states=True, output_attentions=True, return_dict=False)
    x = spectrograms(model.config)
    output = model(x, output_hidden_states=False, output_attentions=False, return_dict=True)
    assert list(output) == ["logits"]


@pytest.mark.parametrize("kind", [ASTModel, ASTForAudioClassification])
def test_without_return_dict_the_output_is_a_tuple_in_the_same_order(kind: Any) -> None:
    model = randomize(kind(tiny_config()))
    x = spectrograms(model.config)
    full = model(x, output_hidden_states=True, output_attentions=True)
    as_tuple = model(x, output_hidden_states=True, output_attentions=True, return_dict=False)
    assert type(as_tuple) is tuple
    for mine, expected in zip(as_tuple, full.values(), strict=True):
        assert torch.equal(mine[0], expected[0])
    model.config.return_dict = False
    assert type(model(x)) is tuple
    assert len(model(x)) == len(full) - 2


# --- attention ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"qkv_bias": False}, {"num_attention_heads": 1}, {"hidden_act": "relu"}])
def test_eager_equals_sdpa(changes: dict[str, Any]) -> None:
    eager, sdpa = classifier("eager", **changes), classifier("sdpa", **changes)
    x = spectrograms(eager.config)
    torch.testing.assert_close(eager(x).logits, sdpa(x).logits, **ROUNDING)


def test_output_attentions_with_sdpa_returns_those_of_eager() -> None:
    eager, sdpa = classifier("eager"), classifier("sdpa")
    x = spectrograms(eager.config)
    expected, found = eager(x, output_attentions=True), sdpa(x, output_attentions=True)
    for mine, theirs in zip(found.attentions, expected.attentions, strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(found.logits, expected.logits)


def test_sdpa_uses_the_fused_kernel_and_eager_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []
    fused = F.scaled_dot_product_attention

    def counted(q: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        calls.append(tuple(q.shape))
        return fused(q, *args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    model = classifier("sdpa")
    N = model.config.num_tokens
    model(spectrograms(model.config))
    assert calls == [(3, 3, N, 4)]  # two blocks, of which the last has few queries and attends in a way of its own
    model.attn_implementation = "eager"
    model(spectrograms(model.config))
    assert len(calls) == 1


def test_the_attention_implementation_can_be_chosen_and_a_wrong_one_is_refused() -> None:
    model = classifier("eager")
    assert model.attn_implementation == "eager"
    model.attn_implementation = "sdpa"
    assert model.audio_spectrogram_transformer.attn_implementation == "sdpa"
    for wrong in ("flash_attention_2", "", None):
        with pytest.raises(UsageError, match="attn_implementation must be one of sdpa, eager, not"):
            model.attn_implementation = wrong  # type: ignore[assignment]
        with pytest.raises(UsageError, match="attn_implementation must be one of sdpa, eager, not"):
            ASTModel(tiny_config(), wrong)  # type: ignore[arg-type]


@ATTENTION_PATHS
@pytest.mark.parametrize(
    ("shape", "mask"),
    [
        ("by head", torch.tensor([1.0, 0.0, 1.0])),
        ("by head", torch.tensor([0.25, 1.0, 0.0])),
        ("by layer and head", torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.5, 0.0]])),
        ("by layer and head", torch.tensor([[False, True, True], [True, True, False]])),
        ("by layer and head", torch.zeros(2, 3)),
    ],
)
def test_a_head_mask_multiplies_the_probabilities(attn: str, shape: str, mask: Tensor) -> None:
    model = classifier(attn)
    encoder = model.audio_spectrogram_transformer
    x = spectrograms(model.config)
    rows = mask.float().expand(2, 3) if shape == "by head" else mask.float()
    last, attentions = encode_by_formula(encoder, x, rows)
    unmasked, _ = encode_by_formula(encoder, x, torch.ones(2, 3))
    assert (last - unmasked).abs().max() > 0.01  # the mask matters
    torch.testing.assert_close(encoder(x, mask).last_hidden_state, last, **ROUNDING)
    logits = model.head(last[:, :2].mean(dim=1))
    torch.testing.assert_close(model(x, head_mask=mask).logits, logits, **ROUNDING)
    output = model(x, mask, output_attentions=True)
    torch.testing.assert_close(output.logits, logits, **ROUNDING)
    for found, expected in zip(output.attentions, attentions, strict=True):
        torch.testing.assert_close(found, expected, **ROUNDING)


@ATTENTION_PATHS
def test_a_head_mask_of_ones_changes_nothing(attn: str) -> None:
    model = classifier(attn)
    x = spectrograms(model.config)
    assert torch.equal(model(x, head_mask=torch.ones(3)).logits, model(x).logits)


@ATTENTION_PATHS
def test_gradients_reach_the_head_mask(attn: str) -> None:
    model = classifier(attn)
    mask = torch.ones(2, 3, requires_grad=True)
    model(spectrograms(model.config), head_mask=mask).logits.square().sum().backward()
    assert mask.grad is not None
    assert (mask.grad.abs() > 1e-4).all()


@pytest.mark.parametrize("shape", [(2,), (3, 2), (1, 3), (2, 3, 1), ()])
def test_a_head_mask_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    model = classifier()
    with pytest.raises(UsageError, match=r"head_mask must have shape \(3,\) or \(2, 3\), not "):
        model(spectrograms(model.config), head_mask=torch.ones(shape))


# --- the trimmed last block --------------------------------------------------------------------------------------


@ATTENTION_PATHS
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_the_trimmed_last_block_gives_the_logits_and_gradients_of_the_whole_one(
    attn: str, layers: int, qkv_bias: bool
) -> None:
    model = classifier(attn, num_hidden_layers=layers, qkv_bias=qkv_bias)
    x, labels = spectrograms(model.config), torch.tensor([0, 3, 4])
    mask = torch.tensor([1.0, 0.3, 0.0])
    found, gradients = [], []
    for whole in (False, True):
        model.zero_grad()
        output = model(x, mask, labels, output_hidden_states=whole)
        output.loss.backward()
        found.append(output.logits)
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    torch.testing.assert_close(found[0], found[1], **ROUNDING)
    for name in gradients[0]:
        torch.testing.assert_close(gradients[0][name], gradients[1][name], **ROUNDING)


@pytest.mark.parametrize("dropout_p", [0.0, 0.4])
@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("is_biased", [False, True])
def test_pooled_query_attention_equals_attention_with_keys_and_values(
    dropout_p: float, is_masked: bool, is_biased: bool
) -> None:
    def random(*shape: int) -> Tensor:
        return torch.randn(
            *shape, generator=torch.Generator().manual_seed(len(shape) * sum(shape)), dtype=torch.float64
        )

    q, x = random(3, 4, 2, 5), random(3, 7, 20)  # 3 clips, 4 heads of 5, 2 queries, 7 tokens
    key_weight, value_weight = random(2, 4, 5, 20)
    key_bias, value_bias = random(2, 4, 1, 5) if is_biased else (torch.zeros(()), torch.zeros(()))
    mask = torch.tensor([1.0, 0.5, 0.0, 2.0], dtype=torch.float64) if is_masked else None
    k = torch.einsum("bnc,hdc->bhnd", x, key_weight) + key_bias
    v = torch.einsum("bnc,hdc->bhnd", x, value_weight) + value_bias

    torch.manual_seed(1)
    expected = eager_attention(q, k, v, mask, dropout_p)
    torch.manual_seed(1)
    bias = value_bias[:, 0] if is_biased else None
    found = pooled_query_attention(q, x, key_weight, value_weight, bias, mask, dropout_p)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)  # softmax is in float32


@pytest.mark.parametrize(("flags", "rows"), [({}, 2), ({"output_hidden_states": True}, 32)])
def test_the_last_block_computes_two_rows_unless_more_outputs_are_requested(flags: dict[str, bool], rows: int) -> None:
    model = classifier()
    seen: list[int] = []
    for block in model.audio_spectrogram_transformer.blocks:
        block.mlp.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[1]))
    model(spectrograms(model.config), **flags)
    assert model.config.num_tokens == 32
    assert seen == [32, rows]


# --- inputs ------------------------------------------------------------------------------------------------------


@ATTENTION_PATHS
def test_a_batch_gives_the_same_logits_as_single_inputs(attn: str) -> None:
    model = classifier(attn)
    x = spectrograms(model.config, batch=4)
    alone = torch.cat([model(row[None]).logits for row in x])
    torch.testing.assert_close(model(x).logits, alone, **ROUNDING)


def test_frequency_and_time_are_not_confused() -> None:
    model = ASTModel(tiny_config(patch_size=2, frequency_stride=2, time_stride=2, max_length=4, num_mel_bins=6))
    with torch.no_grad():
        model.patch_embed.proj.weight.zero_()
        model.patch_embed.proj.weight[0, 0, 1, 0] = 1  # kernel (frequency, time): second mel bin, first frame
    x = torch.arange(24.0).view(1, 4, 6)  # 6 * frame + bin
    assert model.patch_embed(x)[0, :, 0].tolist() == [1, 13, 3, 15, 5, 17]  # frequency-major


def test_the_model_accepts_the_output_of_the_feature_extractor() -> None:
    model = classifier()
    extractor = ASTFeatureExtractor(num_mel_bins=18, max_length=31, return_attention_mask=True)
    waveform = torch.randn(3000, generator=torch.Generator().manual_seed(0)).numpy() * 0.1
    features = extractor(waveform, sampling_rate=16000, return_tensors="pt")
    assert set(features) == {"input_values", "attention_mask"}
    assert torch.equal(model(**features).logits, model(features.input_values).logits)
    assert torch.equal(
        model.audio_spectrogram_transformer(**features).pooler_output,
        model.audio_spectrogram_transformer(features["input_values"]).pooler_output,
    )


@pytest.mark.parametrize("shape", [(31, 18), (1, 18, 31), (1, 30, 18), (1, 31, 17), (1, 1, 31, 18), ()])
def test_an_input_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    for model in (classifier(), ASTModel(tiny_config())):
        with pytest.raises(UsageError, match=r"input_values must have shape \(batch, 31, 18\), not "):
            model(torch.zeros(shape))


def test_an_empty_batch_gives_no_logits() -> None:
    assert classifier()(torch.zeros(0, 31, 18)).logits.shape == (0, 5)


# --- data types --------------------------------------------------------------------------------------------------


@ATTENTION_PATHS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_within_sixteen_roundings_of_float32(attn: str, dtype: torch.dtype) -> None:
    """Weights, inputs and every layer's result are rounded to ``eps / 2``; errors add up like a random walk.

    Measured on this model: 2 to 6 roundings in both types, relative to the norm of all logits.
    """
    model = classifier(attn)
    x = spectrograms(model.config, batch=8)
    expected = model(x).logits
    half = copy.deepcopy(model).to(dtype)
    assert half.dtype == dtype
    logits = half(x).logits  # float32 features are cast
    assert logits.dtype == dtype
    error = ((logits.float() - expected).norm() / expected.norm()).item()
    assert 0 < error < 16 * torch.finfo(dtype).eps / 2


def test_float64_equals_float32_within_rounding() -> None:
    model = classifier()
    x = spectrograms(model.config)
    torch.testing.assert_close(copy.deepcopy(model).double()(x).logits.float(), model(x).logits, **ROUNDING)


# --- loss --------------------------------------------------------------------------------------------------------

LOGITS_SEED = 3
INDICES = torch.tensor([4, 0, 2])
MULTI_HOT = torch.tensor([[1.0, 0, 0, 1, 0], [0, 0, 0, 0, 0], [0, 1, 1, 1, 0]])
VALUES = torch.tensor([[0.5, -1.0, 0.0, 2.0, 0.1]] * 3)


@pytest.mark.parametrize(
    ("problem_type", "labels", "formula"),
    [
        (None, INDICES, "cross-entropy"),
        (None, INDICES.int(), "cross-entropy"),
        (None, MULTI_HOT, "binary cross-entropy"),
        ("single_label_classification", INDICES, "cross-entropy"),
        ("single_label_classification", INDICES[:, None], "cross-entropy"),
        ("multi_label_classification", MULTI_HOT, "binary cross-entropy"),
        ("multi_label_classification", MULTI_HOT.long(), "binary cross-entropy"),
        ("regression", VALUES, "squared error"),
    ],
)
def test_the_loss_follows_the_problem_type_else_the_labels(
    problem_type: str | None, labels: Tensor, formula: str
) -> None:
    model = classifier(seed=LOGITS_SEED, problem_type=problem_type)
    output = model(spectrograms(model.config), labels=labels)
    logits = output.logits
    if formula == "cross-entropy":
        expected = -logits.log_softmax(dim=1)[torch.arange(3), labels.flatten().long()].mean()
    elif formula == "binary cross-entropy":
        p = logits.sigmoid()
        expected = -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()
    else:
        expected = (logits - labels).square().mean()
    torch.testing.assert_close(output.loss, expected, **ROUNDING)
    assert output[0] is output.loss
    assert model.config.problem_type == problem_type  # the reference writes its guess into the configuration


@pytest.mark.parametrize(
    "labels", [torch.tensor([0.5, -1.0, 2.0]), torch.tensor([[0.5], [-1.0], [2.0]]).double(), torch.tensor([1, -1, 2])]
)
def test_one_label_is_a_regression(labels: Tensor) -> None:
    model = classifier(num_labels=1)
    output = model(spectrograms(model.config), labels=labels)
    torch.testing.assert_close(output.loss, (output.logits[:, 0] - labels.flatten().float()).square().mean())
    output.loss.backward()  # whole numbers as labels are values too
    assert model.head.fc.bias.grad is not None


# --- training ----------------------------------------------------------------------------------------------------


@ATTENTION_PATHS
@pytest.mark.parametrize("field", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_dropout_acts_in_training_by_the_seed_and_never_in_evaluation(attn: str, field: str) -> None:
    model, without = classifier(attn, **{field: 0.3}), classifier(attn)
    x = spectrograms(model.config)
    assert torch.equal(model(x).logits, without(x).logits)
    model.train()
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(model(x).logits)
    assert torch.equal(drawn[0], drawn[1])
    assert (drawn[0] - drawn[2]).abs().max() > 1e-3
    torch.testing.assert_close(without.train()(x).logits, without.eval()(x).logits, rtol=0, atol=0)


def test_every_parameter_gets_a_gradient() -> None:
    model = classifier(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1).train()
    model(spectrograms(model.config), labels=INDICES).loss.backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("std", [0.02, 0.1])
def test_initialization_is_as_documented(std: float) -> None:
    """Weights: truncated normal. 128 x 128 draws and more: mean within 4 standard errors, deviation within 3 %."""
    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=128, num_hidden_layers=1, num_attention_heads=2, intermediate_size=256, initializer_range=std,
        max_length=64, num_labels=130,
    )  # fmt: skip
    parameters = dict(ASTForAudioClassification(config).named_parameters())
    for name, parameter in parameters.items():
        values = parameter.detach()
        if "norm" in name and name.endswith("weight"):
            assert torch.equal(values, torch.ones_like(values)), name
        elif name.endswith(("bias", "token", "pos_embed")):
            assert torch.equal(values, torch.zeros_like(values)), name
        else:
            assert abs(values.mean()) < 4 * std / values.numel() ** 0.5, name
            assert values.std().item() == pytest.approx(std, rel=0.03), name
            assert values.abs().max() <= 2, name  # where the reference truncates
            assert values.abs().max() > 3 * std, name  # a normal distribution, not a uniform one
    assert {name.rsplit(".", 1)[-1] for name in parameters} == {
        "weight",
        "bias",
        "cls_token",
        "dist_token",
        "pos_embed",
    }


def test_initialization_depends_on_the_seed() -> None:
    def fresh(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in ASTForAudioClassification(tiny_config()).parameters()])

    assert torch.equal(fresh(1), fresh(1))
    assert not torch.equal(fresh(1), fresh(2))


def test_weights_can_be_initialized_again_and_with_zeros() -> None:
    model = classifier()
    torch.manual_seed(1)
    model.init_weights()
    assert model.head.fc.weight.std().item() == pytest.approx(0.02, rel=0.4)  # 60 draws
    assert not model.audio_spectrogram_transformer.pos_embed.any()
    assert not ASTModel(tiny_config(initializer_range=0.0)).patch_embed.proj.weight.any()


# --- the rest ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hidden_act", "function"),
    [
        ("gelu", lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))),
        ("relu", lambda x: x.clamp(min=0)),
        (
            "selu",
            lambda x: 1.0507009873554805 * torch.where(x > 0, x, 1.6732632423543772 * (x.exp() - 1)),
        ),
        ("gelu_new", lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
        (F.silu, F.silu),
    ],
    ids=["gelu", "relu", "selu", "gelu_new", "a function"],
)
def test_the_activation_is_the_one_named_or_given(hidden_act: Any, function: Any) -> None:
    model = ASTModel(tiny_config(hidden_act=hidden_act))
    x = torch.linspace(-6, 6, 101)
    torch.testing.assert_close(model.blocks[0].mlp.act(x), function(x), rtol=0, atol=1e-6)  # float32 rounding near 6


@pytest.mark.parametrize("hidden_act", ["gelu", "relu", "selu", "gelu_new"])
def test_models_can_be_copied_and_pickled(hidden_act: str) -> None:
    model = classifier(hidden_act=hidden_act)
    x = spectrograms(model.config)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(again(x).logits, model(x).logits)


def test_device_and_dtype_are_those_of_the_weights() -> None:
    model = classifier()
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)
    moved = model.to("meta", torch.bfloat16)
    assert (moved.device, moved.dtype) == (torch.device("meta"), torch.bfloat16)


def test_a_configuration_made_invalid_after_construction_is_refused() -> None:
    config = tiny_config()
    config.hidden_size = 13
    for kind in (ASTModel, ASTForAudioClassification):
        with pytest.raises(UsageError, match="hidden_size 13 is not divisible"):
            kind(config)


def test_building_and_running_do_not_change_the_configuration() -> None:
    config = tiny_config()
    ASTForAudioClassification(config)(spectrograms(config), labels=INDICES)
    assert config == tiny_config()
