"""TF32 is used only on request; otherwise CUDA devices multiply float32 exactly, whatever the defaults of torch."""

from __future__ import annotations

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ast_cli import ASTConfig, ASTForAudioClassification
from ast_cli.engine.torch.device import float32_products
from ast_cli.engine.torch.torch_engine import TorchEngine
from ast_cli.errors import DeviceError

CUDA = torch.device("cuda")  # a name: nothing runs there


def settings() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(("tf32", "expected"), [(False, ("highest", False)), (True, ("high", True))])
def test_precision_is_set_within_the_block_and_restored_afterwards(tf32: bool, expected: tuple[str, bool]) -> None:
    before = settings()
    with contextlib.suppress(KeyError), float32_products(CUDA, tf32=tf32):
        assert settings() == expected
        raise KeyError
    assert settings() == before


def test_the_settings_of_a_cpu_are_not_changed() -> None:
    before = settings()
    with float32_products(torch.device("cpu"), tf32=True):
        assert settings() == before


def test_tf32_is_refused_without_a_cuda_device() -> None:
    with pytest.raises(DeviceError, match="--dtype tf32 needs a CUDA device"):
        TorchEngine.load("builtin", device="cpu", dtype="tf32")


def test_queries_keys_and_values_have_the_layout_of_flash_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, object]] = []
    sdpa = F.scaled_dot_product_attention

    def watched(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: object) -> torch.Tensor:
        seen.append({"strides": [x.stride(-1) for x in (q, k, v)], "head_dim": q.shape[-1], **options})
        return sdpa(q, k, v, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    model = ASTForAudioClassification(ASTConfig(num_hidden_layers=2, max_length=64)).eval()
    model(torch.zeros(2, 64, 128))
    # No mask, no dropout, numbers of a head beside each other, a head of a multiple of 8: what flash attention needs.
    assert seen == [
        {"strides": [1, 1, 1], "head_dim": 64, "dropout_p": 0.0}
    ]  # of the first block; the last has few queries


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_flash_attention_accepts_queries_keys_and_values(dtype: torch.dtype) -> None:
    engine = TorchEngine(ASTForAudioClassification(ASTConfig(num_hidden_layers=2)), "cuda", dtype)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # raises where the kernel refuses
        assert torch.isfinite(torch.as_tensor(engine.logits(torch.zeros(2, 1024, 128)))).all()
