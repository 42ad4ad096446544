"""A model that runs through oneDNN gives the logits of the plain model and does not change it."""

from __future__ import annotations

import pytest
import torch
from tiny_models import small_config

from ast_cli import ASTForAudioClassification
from ast_cli.engine.torch import onednn
from ast_cli.engine.torch.onednn import OneDnnAttention, OneDnnMlp, with_onednn
from ast_cli.engine.torch.torch_engine import TorchEngine

TOLERANCE = 1e-5  # float32 logits of about 1; only the order of summation differs
BFLOAT16_TOLERANCE = 0.05

pytestmark = pytest.mark.skipif(
    not onednn.is_available(), reason="this torch, or this processor, has no oneDNN operator"
)


def small_model(dtype: torch.dtype = torch.float32, **fields: object) -> ASTForAudioClassification:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}
    config = small_config(**{**sizes, "max_length": 128, "num_mel_bins": 64, "num_labels": 5, **fields})
    model = ASTForAudioClassification(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval().to(dtype)


def features(model: ASTForAudioClassification, batch: int = 3) -> torch.Tensor:
    shape = (batch, model.config.max_length, model.config.num_mel_bins)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("min_tokens", [0, 10_000], ids=["own attention", "torch's attention"])
@pytest.mark.parametrize("query_block", [7, 1000])
@pytest.mark.parametrize("fields", [{}, {"hidden_act": "relu"}, {"qkv_bias": False}, {"num_attention_heads": 1}])
def test_logits_equal_the_plain_models(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, object], query_block: int, min_tokens: int
) -> None:
    monkeypatch.setattr(onednn, "MIN_TOKENS", min_tokens)
    monkeypatch.setattr(onednn, "attends_in_blocks", lambda: True)
    monkeypatch.setattr(onednn, "QUERY_BLOCK", query_block)
    model = small_model(**fields)
    x = features(model)
    with torch.inference_mode():
        torch.testing.assert_close(with_onednn(model)(x).logits, model(x).logits, rtol=0, atol=TOLERANCE)


@pytest.mark.skipif(not onednn.is_available(torch.bfloat16), reason="this processor has no bfloat16 in oneDNN")
def test_bfloat16_logits_equal_the_plain_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "MIN_TOKENS", 0)
    monkeypatch.setattr(onednn, "attends_in_blocks", lambda: True)
    model = small_model(torch.bfloat16)
    x = features(model)
    with torch.inference_mode():
        ours, plain = with_onednn(model)(x).logits, model(x).logits
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.float(), plain.float(), rtol=0, atol=BFLOAT16_TOLERANCE)


def test_head_mask_hidden_states_and_attentions_are_honored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "MIN_TOKENS", 0)
    monkeypatch.setattr(onednn, "attends_in_blocks", lambda: True)
    model = small_model()
    x, mask = features(model), torch.tensor([1.0, 0.0, 0.5, 1.0])
    wanted = {"head_mask": mask, "output_hidden_states": True, "output_attentions": True}
    with torch.inference_mode():
        torch.testing.assert_close(
            with_onednn(model)(x, head_mask=mask).logits, model(x, head_mask=mask).logits, rtol=0, atol=TOLERANCE
        )
        ours, plain = with_onednn(model)(x, **wanted), model(x, **wanted)
    for mine, theirs in zip(ours.hidden_states + ours.attentions, plain.hidden_states + plain.attentions, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=TOLERANCE)


def test_the_engine_uses_it_and_leaves_the_callers_model_trainable() -> None:
    model = small_model()
    engine = TorchEngine(model)
    assert {type(block.attn) for block in engine.model.audio_spectrogram_transformer.blocks} == {OneDnnAttention}
    assert not any(isinstance(module, OneDnnAttention | OneDnnMlp) for module in model.modules())
    model(features(model)).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(("capability", "expected"), [("AVX512", True), ("AVX2", False), ("DEFAULT", False)])
def test_attention_in_blocks_is_used_only_on_processors_with_avx512(
    monkeypatch: pytest.MonkeyPatch, capability: str, expected: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(onednn, "attends_in_blocks", onednn.attends_in_blocks.__wrapped__)
    monkeypatch.setattr(onednn, "MIN_TOKENS", 0)
    called = []
    attention = onednn.attention
    monkeypatch.setattr(onednn, "attention", lambda *qkv: called.append(1) or attention(*qkv))
    model = small_model()
    with torch.inference_mode():
        with_onednn(model)(features(model))
    assert bool(called) == expected


@pytest.mark.parametrize("min_tokens", [0, 10_000], ids=["own attention", "torch's attention"])
def test_dropout_is_off_in_evaluation_mode(monkeypatch: pytest.MonkeyPatch, min_tokens: int) -> None:
    monkeypatch.setattr(onednn, "MIN_TOKENS", min_tokens)
    model = small_model(attention_probs_dropout_prob=0.4, hidden_dropout_prob=0.4)
    engine = TorchEngine(model)
    assert not any(module.training for module in engine.model.modules())
    x = features(model)
    with torch.inference_mode():
        expected = model(x).logits
    torch.testing.assert_close(torch.from_numpy(engine.logits(x)), expected, rtol=0, atol=TOLERANCE)


def test_weights_are_shared_and_keep_their_names() -> None:
    model = small_model()
    shared = with_onednn(model)
    assert dict(shared.named_parameters()).keys() == dict(model.named_parameters()).keys()
    pairs = zip(shared.parameters(), model.parameters(), strict=True)
    assert all(mine is theirs for mine, theirs in pairs)


def test_without_the_operator_the_model_is_returned_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")

    monkeypatch.setattr(onednn, "linear", missing)
    monkeypatch.setattr(onednn, "is_available", onednn.is_available.__wrapped__)
    model = small_model()
    assert with_onednn(model) is model


def test_a_type_that_this_processor_does_not_support_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    linear = onednn.linear

    def float32_alone(x: torch.Tensor, *arguments: object) -> torch.Tensor:
        if x.dtype != torch.float32:
            raise RuntimeError("could not create a primitive descriptor")
        return linear(x, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(onednn, "linear", float32_alone)
    monkeypatch.setattr(onednn, "is_available", onednn.is_available.__wrapped__)
    model = small_model(torch.bfloat16)
    assert with_onednn(model) is model
    assert with_onednn(small_model()) is not model


def test_bfloat16_runs_on_every_processor() -> None:
    model = small_model(torch.bfloat16)
    assert TorchEngine(model, dtype=torch.bfloat16).logits(features(model)).shape == (3, 5)


def test_float16_is_left_to_torch() -> None:
    model = small_model(torch.float16)
    assert with_onednn(model) is model
