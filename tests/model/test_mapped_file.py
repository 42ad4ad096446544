from __future__ import annotations

import copy
import ctypes
import re
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import randomize, spectrograms, tiny_config
from torch import Tensor

from ast_cli import ASTForAudioClassification
from ast_cli.engine.torch import mapped_weights
from ast_cli.engine.torch.torch_engine import TorchEngine
from ast_cli.model.mapped_file import give_back
from ast_cli.model.weight_files import read_weights

linux = pytest.mark.skipif(sys.platform != "linux", reason="pages are given back on Linux alone")


def resident_kb(file: Path) -> int:
    """Return how much of a mapped file is in this process's memory."""
    parts = re.split(r"^[0-9a-f]+-[0-9a-f]+ ", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    sizes = [re.search(r"^Rss: +(\d+) kB", part, re.MULTILINE) for part in parts if str(file) in part]
    return sum(int(size[1]) for size in sizes if size)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Return a checkpoint whose blocks span many pages."""
    model = randomize(ASTForAudioClassification(tiny_config(hidden_size=384, intermediate_size=1536)))
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped_weights, "MIN_BYTES", 1)
    monkeypatch.setattr(mapped_weights, "MAX_BYTES_PER_S", 1e18)


@linux
def test_pages_that_were_given_back_are_read_again_with_the_same_values(tmp_path: Path) -> None:
    file = tmp_path / "some.safetensors"
    tensors = {"a": torch.randn(3), "b": torch.randn(300, 100), "none": torch.zeros(0, 2), "c": torch.randn(7, 1000)}
    save_file(tensors, file)
    mapped = read_weights(file)
    torch.testing.assert_close(mapped, tensors, rtol=0, atol=0)
    assert resident_kb(file) >= 140
    num_bytes = give_back(mapped.values())
    assert 148_000 - 4 * 4096 <= num_bytes <= 148_000
    assert resident_kb(file) <= 16
    torch.testing.assert_close(mapped, tensors, rtol=0, atol=0)
    assert give_back(tensors.values()) == 0  # these lie in no file
    torch.testing.assert_close(mapped, tensors, rtol=0, atol=0)


def test_writing_to_a_mapped_tensor_does_not_change_the_file(tmp_path: Path) -> None:
    file = tmp_path / "some.safetensors"
    save_file({"a": torch.ones(5000)}, file)
    before = file.read_bytes()
    read_weights(file)["a"].zero_()
    assert file.read_bytes() == before
    assert read_weights(file)["a"].sum() == 5000


@linux
def test_loading_keeps_hardly_any_page_of_the_weights_in_memory(checkpoint: Path) -> None:
    model = ASTForAudioClassification.from_pretrained(checkpoint)
    # What is looked at brings its neighbors along, 16 pages or more at once.
    assert resident_kb(checkpoint) * 1024 < 0.1 * sum(weight.nbytes for weight in model.parameters())


@linux
@pytest.mark.usefixtures("any_size")
def test_a_block_that_has_run_gives_back_its_weights(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ASTForAudioClassification.from_pretrained(checkpoint)
    x = spectrograms(plain.config)
    expected = TorchEngine(plain).logits(x)
    whole_kb = resident_kb(checkpoint)
    del plain
    engine = TorchEngine.load(checkpoint)
    for _ in range(2):
        assert (engine.logits(x) == expected).all()
        assert resident_kb(checkpoint) < 0.1 * whole_kb
    monkeypatch.setattr(mapped_weights, "MAX_BYTES_PER_S", 0.0)  # it would cost too much
    assert (engine.logits(x) == expected).all()
    assert resident_kb(checkpoint) > 0.8 * whole_kb


def by_operator(weight: Tensor) -> None:
    with torch.no_grad():
        weight.mul_(1.5)


def by_data(weight: Tensor) -> None:
    weight.data.mul_(1.5)


def by_numpy(weight: Tensor) -> None:
    weight.detach().numpy()[0] += 1


def by_optimizer(weight: Tensor) -> None:
    weight.grad = torch.ones_like(weight)
    torch.optim.AdamW([weight], lr=0.1, fused=True).step()


@linux
@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("change", [by_operator, by_data, by_numpy, by_optimizer])
def test_weights_that_were_changed_are_not_given_back(checkpoint: Path, change: Callable[[Tensor], None]) -> None:
    engine = TorchEngine.load(checkpoint)
    x = spectrograms(engine.config)
    before = engine.logits(x)
    changed = copy.deepcopy(engine.model)
    for model in (engine.model, changed):
        change(model.audio_spectrogram_transformer.blocks[0].mlp.fc1.weight)
    expected = TorchEngine(changed).logits(x)
    for _ in range(2):
        assert (engine.logits(x) == expected).all()
    assert (expected != before).any()


@linux
def test_changes_to_neighbors_that_share_a_page_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "some.safetensors"
    save_file({name: torch.zeros(3000) for name in "abc"}, file)
    mapped = read_weights(file)
    for name in "ac":
        mapped[name].fill_(1)
    assert mapped["b"].sum() == 0
    assert give_back([mapped["b"]]) > 0
    assert {name: tensor.mean().item() for name, tensor in mapped.items()} == {"a": 1, "b": 0, "c": 1}


@linux
def test_memory_that_the_system_refuses_to_take_back_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "some.safetensors"
    save_file({"a": torch.ones(100_000)}, file)
    mapped = read_weights(file)
    libc = ctypes.CDLL(None)
    start, length = ctypes.c_void_p(mapped["a"].data_ptr()), ctypes.c_size_t(mapped["a"].nbytes)
    if libc.mlock(start, length):
        pytest.skip("no memory may be locked here")
    assert give_back(mapped.values()) == 0
    assert mapped["a"].sum() == 100_000
    libc.munlock(start, length)


@linux
def test_files_are_mapped_in_one_thread_while_another_gives_back(tmp_path: Path) -> None:
    file = tmp_path / "some.safetensors"
    save_file({"a": torch.ones(1)}, file)
    alive = [read_weights(file) for _ in range(100)]
    end_s = time.monotonic() + 0.5

    def reading() -> None:
        while time.monotonic() < end_s:
            read_weights(file)

    def giving() -> None:
        while time.monotonic() < end_s:
            give_back(alive[0].values())

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(run) for run in (reading, reading, giving)]:
            done.result()


def test_an_engine_is_loaded_in_inference_mode_too(checkpoint: Path) -> None:
    x = spectrograms(tiny_config())
    with torch.inference_mode():
        within = TorchEngine.load(checkpoint).logits(x)
    assert (within == TorchEngine.load(checkpoint).logits(x)).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler, about torch
@pytest.mark.parametrize("kind", ["small", "compiled"])
def test_small_models_and_compiled_ones_keep_their_weights(
    kind: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "compiled":
        from ast_cli.engine.torch.compile_engine import COMPILERS, CompileEngine

        if not any(map(shutil.which, COMPILERS)):
            pytest.skip("there is no C++ compiler")
        monkeypatch.setattr(mapped_weights, "MIN_BYTES", 1)
        engine: TorchEngine = CompileEngine.load(checkpoint)
    else:
        engine = TorchEngine.load("builtin")
    assert not any(block._forward_hooks for block in engine.model.audio_spectrogram_transformer.blocks)
