"""Converted models are found by content, and incomplete, damaged, outdated or foreign files are written again."""

from __future__ import annotations

import importlib.util
import json
import mmap
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tiny_engines import features, save_tiny

from ast_cli.engine.choice import load_engine
from ast_cli.engine.graph.model_cache import cached_model, content_of, keep_model
from ast_cli.engine.options import EngineOptions

ENGINES = [
    pytest.param(name, marks=pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is missing"))
    for name in ("onnxruntime", "openvino")
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


SUFFIXES = {"onnxruntime": {".onnx", ".weights"}, "openvino": {".openvino"}}  # of the files of one model


def load(folder: Path, engine: Any, **changes: Any) -> tuple[Any, list[str]]:
    """Load an engine; return it and its progress messages."""
    said: list[str] = []
    return load_engine(folder, EngineOptions(engine, **changes), said.append), said


def test_a_model_is_found_only_by_the_facts_that_it_was_kept_with(cache: Path) -> None:
    assert cached_model({"a": "1"}, ".x") is None
    file = keep_model({"a": "1", "b": "2"}, ".x", [b"con", memoryview(b"tent")], {"labels": ["ü"]})
    assert file is not None
    assert cached_model({"b": "2", "a": "1"}, ".x") == (file, {"labels": ["ü"]})
    content = content_of(file)
    assert content == b"content"
    assert isinstance(content.obj, mmap.mmap)  # hundreds of megabytes that are not read
    for other in ({"a": "1"}, {"a": "1", "b": "3"}, {"a": "1", "b": "2", "c": ""}):
        assert cached_model(other, ".x") is None
    assert cached_model({"a": "1", "b": "2"}, ".y") is None
    assert [found.name for found in cache.iterdir()] == [file.name]


@pytest.mark.parametrize("position", [0, 3, 7, 9, 12, 20, 30, -41, -40, -33, -32, -1])
def test_a_file_with_one_wrong_bit_is_removed(cache: Path, position: int) -> None:
    file = keep_model({}, ".x", [b"content"], {"fact": 1})
    assert file is not None
    data = bytearray(file.read_bytes())
    data[position] ^= 4
    file.write_bytes(data)
    assert cached_model({}, ".x") is None
    assert not file.exists()


def test_a_truncated_file_is_detected_at_every_length(cache: Path) -> None:
    file = keep_model({}, ".x", [b"content"], {"fact": 1})
    assert file is not None
    data = file.read_bytes()
    for length in range(len(data)):
        file.write_bytes(data[:length])
        assert cached_model({}, ".x") is None


def test_a_failing_writer_leaves_nothing_behind(cache: Path) -> None:
    def failing() -> Any:
        yield b"half"
        raise OSError(28, "No space left on device")

    assert keep_model({}, ".x", failing(), {}) is None
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_a_second_load_converts_nothing_and_gives_the_same_logits(tmp_path: Path, cache: Path, engine: str) -> None:
    folder = save_tiny(tmp_path / "model")
    first, said = load(folder, engine)
    assert [text.split()[0] for text in said] in (["converting"], ["compiling"])
    files = sorted(cache.iterdir())
    assert {file.suffix for file in files} == SUFFIXES[engine]
    again, said = load(folder, engine)
    assert said == []
    assert again.config == first.config
    x = features(first.config, 3)
    np.testing.assert_array_equal(again.logits(x), first.logits(x))
    for file in files:
        whole = file.read_bytes()
        for change in (None, b"", b"no model", whole[:-7], b"\0" * len(whole)):
            file.unlink()  # and no change in place, under the model that is mapped
            if change is not None:
                file.write_bytes(change)
            once_more, said = load(folder, engine)
            assert len(said) == 1
            np.testing.assert_array_equal(once_more.logits(x), first.logits(x))
            assert load(folder, engine)[1] == []
            assert sorted(cache.iterdir()) == files


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is missing")
def test_cached_models_have_onnx_runtimes_attention_and_weights_in_a_second_file(tmp_path: Path, cache: Path) -> None:
    load(save_tiny(tmp_path / "model"), "onnxruntime")
    (file,) = cache.glob("*.onnx")
    model = onnx.load(file, load_external_data=False)
    assert [node.domain for node in model.graph.node if node.op_type == "MultiHeadAttention"] == ["com.microsoft"] * 2
    places = {entry.value for t in model.graph.initializer for entry in t.external_data if entry.key == "location"}
    assert places == {file.with_suffix(".weights").name}


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is missing")
def test_weights_without_a_model_are_removed_and_a_vanished_file_is_no_error(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ast_cli.engine.graph import onnxruntime_engine

    folder = save_tiny(tmp_path / "model")
    first, _ = load(folder, "onnxruntime")
    x = features(first.config, 2)
    for file in cache.iterdir():
        file.unlink()

    def half(depends_on: Any, suffix: str, chunks: Any, facts: Any) -> Path | None:
        return keep_model(depends_on, suffix, chunks, facts) if suffix == ".weights" else None

    monkeypatch.setattr(onnxruntime_engine, "keep_model", half)
    np.testing.assert_array_equal(load(folder, "onnxruntime")[0].logits(x), first.logits(x))
    assert list(cache.iterdir()) == []

    def vanishing(*arguments: Any) -> Path | None:
        file = keep_model(*arguments)
        if file is not None and file.suffix == ".onnx":
            file.with_suffix(".weights").unlink()
        return file

    monkeypatch.setattr(onnxruntime_engine, "keep_model", vanishing)
    np.testing.assert_array_equal(load(folder, "onnxruntime")[0].logits(x), first.logits(x))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_complete_file_that_the_runtime_rejects_is_written_again(tmp_path: Path, cache: Path, engine: str) -> None:
    folder = save_tiny(tmp_path / "model")
    first, _ = load(folder, engine)
    file = next(file for file in cache.iterdir() if file.suffix != ".weights")
    facts = first.config.to_dict()
    file.unlink()
    forged = keep_model({"x": "y"}, file.suffix, [b"no model of any kind"], facts)
    assert forged is not None
    forged.rename(file)
    again, said = load(folder, engine)
    assert len(said) == 1
    x = features(first.config, 2)
    np.testing.assert_array_equal(again.logits(x), first.logits(x))
    assert load(folder, engine)[1] == []  # the new file is kept


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_cached_from_another_graph_version_is_converted_again(
    tmp_path: Path, cache: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny(tmp_path / "model")
    assert [len(load(folder, engine)[1]) for _ in range(2)] == [1, 0]
    monkeypatch.setattr("ast_cli.engine.graph.prepared.GRAPH_FORM", "of a later version")
    assert [len(load(folder, engine)[1]) for _ in range(2)] == [1, 0]


@pytest.mark.parametrize("engine", ENGINES)
def test_other_weights_with_the_same_name_size_and_time_are_another_model(
    tmp_path: Path, cache: Path, engine: str
) -> None:
    import os

    folder = save_tiny(tmp_path / "model")
    first, _ = load(folder, engine)
    weights = folder / "model.safetensors"
    status = weights.stat()
    data = bytearray(weights.read_bytes())
    data[-4:] = np.float32(0.123).tobytes()
    weights.write_bytes(data)
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert weights.stat().st_size == status.st_size
    second, said = load(folder, engine)
    assert len(said) == 1
    x = features(first.config, 1)
    assert not np.array_equal(second.logits(x), first.logits(x))


@pytest.mark.parametrize("engine", ENGINES)
def test_two_processes_at_once_write_one_model(tmp_path: Path, cache: Path, engine: str) -> None:
    folder = save_tiny(tmp_path / "model")
    program = (
        "import sys, json; import numpy as np\n"
        "from ast_cli.engine.choice import load_engine\n"
        "from ast_cli.engine.options import EngineOptions\n"
        f"engine = load_engine({str(folder)!r}, EngineOptions({engine!r}))\n"
        "print(json.dumps(engine.logits(np.ones((1, 60, 32), np.float32)).tolist()))"
    )
    runs = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(3)]
    outputs = [json.loads(run.communicate(timeout=120)[0]) for run in runs]
    assert outputs[0] == outputs[1] == outputs[2]
    assert sorted(file.suffix for file in cache.iterdir()) == sorted(SUFFIXES[engine])
    assert load(folder, engine)[1] == []
