"""Metadata texts of ONNX files are read without the weights, also from untrusted files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ast_cli.engine.graph import onnx_file
from ast_cli.engine.graph.onnx_file import Graph, onnx_chunks, read_metadata, varint


def write(folder: Path, content: bytes) -> Path:
    file = folder / "model.onnx"
    file.write_bytes(content)
    return file


def test_metadata_texts_round_trip(tmp_path: Path) -> None:
    texts = {"config.json": '{"a": "Ü"}', "long": "x" * 100_000, "": "nameless", "empty": ""}
    graph = Graph(17, constants={"weights": np.zeros(10_000, np.float32)}, metadata=texts)
    assert read_metadata(write(tmp_path, b"".join(onnx_chunks(graph, "ast 1")))) == texts


def test_metadata_after_the_graph_is_found(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    model = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:]))
    helper.set_model_props(model, {"key": "value", "other": "text"})
    onnx.save(model, tmp_path / "model.onnx")  # which writes them after the graph
    assert read_metadata(tmp_path / "model.onnx") == {"key": "value", "other": "text"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no model", "a field of an unknown kind"),
        (bytes([14 << 3 | 2, 100]), "a field beyond the end"),
        (bytes([14 << 3 | 2]), "a number beyond the end"),
        (bytes([14 << 3 | 2]) + varint(2**63), "a field beyond the end"),
        (bytes([0x80] * 20), "a number of more than 64 bits"),
        (bytes([1 << 3 | 1, 0]), "a field beyond the end"),
        (bytes([8, 0]) * 200_000, "too many fields"),
        (bytes([14 << 3 | 2, 4, 2 << 3 | 2, 2, 0xFF, 0xFE]), "utf-8"),
    ],
)
def test_a_file_that_is_not_a_model_is_an_error(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_metadata(write(tmp_path, content))


def test_an_empty_file_and_other_fields_contain_no_texts(tmp_path: Path) -> None:
    assert read_metadata(write(tmp_path, b"")) == {}
    assert read_metadata(write(tmp_path, bytes([1 << 3, 7, 2 << 3 | 5, 0, 0, 0, 0, 3 << 3 | 1, *range(8)]))) == {}


def test_a_text_above_the_size_limit_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "MAX_METADATA_BYTES", 50)
    graph = Graph(17, metadata={"short": "text", "long": "x" * 100})
    assert read_metadata(write(tmp_path, b"".join(onnx_chunks(graph, "ast 1")))) == {"short": "text"}
