from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from engine.tiny_engines import each_engine
from installed import needs_transformers
from tiny_models import small_config
from torch import Tensor, nn

from ast_cli import ASTFeatureExtractor
from ast_cli.benchmark.options import BenchmarkOptions
from ast_cli.benchmark.peers import check_agreement, engines_of, own_peers, random_input_values, random_model
from ast_cli.benchmark.run import run_benchmark
from ast_cli.engine.options import EngineOptions
from ast_cli.engine.torch.compile_engine import CompileEngine
from ast_cli.errors import AstError, DeviceError, EngineMissingError, UsageError
from ast_cli.model.transformer import ASTForAudioClassification

CPU = torch.device("cpu")
TORCH = EngineOptions("torch", "cpu", "float32")
MINI = small_config(num_labels=3)
TOLERANCE = 1e-4  # as tests/engine/test_engines.py holds the engines to


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model() -> ASTForAudioClassification:
    return random_model(MINI)


@pytest.fixture
def folder(model: ASTForAudioClassification, tmp_path: Path) -> str:
    model.save_pretrained(tmp_path / "mini")
    ASTFeatureExtractor(num_mel_bins=32, max_length=64).save_pretrained(tmp_path / "mini")
    return str(tmp_path / "mini")


def options_for(folder: str, engine: Any, **changes: Any) -> BenchmarkOptions:
    values = {"batch_sizes": (1, 2), "num_repeats": 1, "num_warmups": 1, "num_threads": 1}
    return BenchmarkOptions(folder, engine, **{**values, **changes})


# --- engines


def test_attentions_share_one_copy_of_the_weights(model: ASTForAudioClassification) -> None:
    engines: Any = engines_of(model, ("sdpa", "eager"), EngineOptions("torch", "cpu", "bfloat16"))
    assert [engine.model.attn_implementation for engine in engines.values()] == ["sdpa", "eager"]
    pointers = [[p.data_ptr() for p in engine.model.parameters()] for engine in engines.values()]
    assert pointers[0] == pointers[1]
    assert model.dtype == torch.float32  # the next data type starts from these


@each_engine
def test_a_timed_pass_returns_the_logits_of_the_chosen_engine(engine: Any, model: ASTForAudioClassification) -> None:
    (peer,) = own_peers(model, (None,), EngineOptions(engine, "auto", "float32", num_threads=1))
    values = random_input_values(MINI, 2, CPU, torch.float32)
    with torch.inference_mode():
        expected = model(values).logits
    logits = peer.step_for(values)()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE)
    assert (peer.engine, peer.attn, peer.facts["threads"]) == (engine, None, "1")


def test_a_timed_pass_of_the_compile_engine_runs_compiled_code(
    model: ASTForAudioClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: lambda values: function(values) + 1)
    monkeypatch.setenv("CXX", sys.executable)  # any program will do: nothing is compiled
    (peer,) = own_peers(model, ("eager",), EngineOptions("compile", "cpu", "float32"))
    values = random_input_values(MINI, 1, CPU, torch.float32)
    (plain,) = own_peers(model, ("eager",), TORCH)
    logits, expected = peer.step_for(values)(), plain.step_for(values)()
    assert isinstance(logits, Tensor)
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(logits, expected + 1)


# --- runs


@each_engine
def test_a_report_names_engine_data_type_and_threads(engine: Any, folder: str) -> None:
    report = run_benchmark(options_for(folder, engine))
    cells = [(m.library, m.engine, m.attn, m.dtype, m.batch_size, m.peer) for m in report.measurements]
    assert cells == [("ast", engine, None, "float32", size, engine) for size in (1, 2)]
    assert report.machine.num_threads == 1
    assert engine in report.machine.versions
    assert report.speed_ups == ()
    assert [stage.stage for stage in report.stages] == ["decode", "fbank", "fbank", "model"]


@each_engine
@pytest.mark.parity
@needs_transformers
def test_a_runtime_is_compared_with_transformers_too(engine: Any, folder: str) -> None:
    report = run_benchmark(options_for(folder, engine, batch_sizes=(1,), compare="transformers"))
    assert [m.peer for m in report.measurements] == [engine, "transformers sdpa"]
    assert [(s.baseline, s.peer) for s in report.speed_ups] == [("transformers sdpa", engine)]
    assert report.max_abs_difference is not None
    assert report.max_abs_difference < TOLERANCE


@each_engine
def test_an_unsupported_data_type_is_refused_before_anything_is_timed(engine: Any, folder: str) -> None:
    messages: list[str] = []
    with pytest.raises(DeviceError, match=f"the {engine} engine computes in float32.*, not in float16"):
        run_benchmark(options_for(folder, engine, dtypes=("fp32", "fp16")), messages.append)
    assert messages == [f"loading {folder}"]
    with pytest.raises(DeviceError, match=f"the {engine} engine runs on the CPU, not on cuda:0"):
        run_benchmark(options_for(folder, engine, device="cuda:0"))
    with pytest.raises(UsageError, match=f"the {engine} engine has no choice of attention: leave out --attn"):
        run_benchmark(options_for(folder, engine, attn_implementations=("sdpa",)))


def test_auto_chooses_one_engine_that_supports_every_data_type(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ast_cli.engine.choice.is_installed", lambda _package: True)
    monkeypatch.setattr("ast_cli.engine.choice.multiplies_bfloat16", lambda: False)
    report = run_benchmark(options_for(folder, "auto", dtypes=("fp32", "bf16"), device="cpu"))
    assert {m.engine for m in report.measurements} == {"torch"}
    assert {m.dtype for m in report.measurements} == {"float32", "bfloat16"}


def test_an_engine_that_is_not_installed_is_refused(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ast_cli.engine.choice.is_installed", lambda _package: False)
    with pytest.raises(EngineMissingError, match="openvino is not installed: pip install openvino"):
        run_benchmark(options_for(folder, "openvino"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own compiler
def test_the_compile_engine_compiles_before_timing_starts(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AST_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    messages: list[str] = []
    options = options_for(folder, CompileEngine.name, batch_sizes=(1,), num_repeats=3, device="cpu")
    report = run_benchmark(options, messages.append)
    assert [m.peer for m in report.measurements] == ["compile sdpa", "compile eager"]
    assert [(s.baseline, s.peer) for s in report.speed_ups] == [("compile eager", "compile sdpa")]
    assert messages.count("compiling for batches of 1; the code is kept for later runs") == 2


# --- the reference


class _Shifted(nn.Module):
    """A reference model whose logits differ from ours by a constant."""

    def __init__(self, model: ASTForAudioClassification, shift: float) -> None:
        super().__init__()
        self.model, self.shift = model, shift

    def forward(self, input_values: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.model(input_values).logits + self.shift)


def test_a_difference_within_rounding_is_reported(model: ASTForAudioClassification) -> None:
    references: dict[str, nn.Module] = {"sdpa": _Shifted(model, 9e-4), "eager": _Shifted(model, 0.0)}
    difference = check_agreement(model, references, TORCH, CPU)
    assert difference == pytest.approx(9e-4, abs=1e-6)  # float32 logits near 1


@pytest.mark.parametrize("shift", [1.1e-3, -1.1e-3, math.nan])
def test_different_logits_are_an_error_before_anything_is_timed(model: ASTForAudioClassification, shift: float) -> None:
    references: dict[str, nn.Module] = {"sdpa": _Shifted(model, 0.0), "eager": _Shifted(model, shift)}
    with pytest.raises(AstError, match="ast and transformers compute different logits"):
        check_agreement(model, references, TORCH, CPU)
