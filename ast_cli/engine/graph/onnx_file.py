"""Write and read the parts of the ONNX format that our models use, without the ``onnx`` package.

ONNX files are Protocol Buffers (github.com/onnx/onnx, ``onnx.proto``): each field is a tag, which combines a number and
a wire type, and a value. tests/engine/test_engines.py validates the files with ``onnx.checker``. Weights are written
from their arrays without a copy, so a model is never in memory twice.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

IR_VERSION = 10  # file format of ONNX 1.16, which every runtime with our operators can read
DATA_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "float16": 10}  # TensorProto.DataType
MAX_BYTES = 2**31 - 1  # size limit of a Protocol Buffers message
SMALLEST_OUTSIDE = 1024  # bytes; smaller arrays, such as shapes, stay in the model, where runtimes expect them
METADATA_PROPS = 14  # field of ModelProto with one named text
MAX_METADATA_BYTES = 64 * 2**20  # size limit of a text that is read; the JSON of any checkpoint is smaller
MAX_FIELDS = 100_000  # limit of fields to read; ours have a dozen, and 2 GB of empty fields would take minutes
FIXED_BYTES = {1: 8, 5: 4}  # size of fixed-size numbers, by wire type
ALIGNMENT = 64  # bytes, for arrays in the file of weights: a cache line, and the widest vector
Attribute = int | float | str | Sequence[int]
Dimension = int | str  # a size, or the name of a dimension of variable size


@dataclass(frozen=True, slots=True)
class Node:
    """One operation on named values; an operator outside the ONNX standard is written ``domain.Operator``."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]

    @property
    def domain(self) -> str:
        """Domain of the operator; empty for operators of the ONNX standard."""
        return self.operator.rpartition(".")[0]


@dataclass(slots=True)
class Graph:
    """A whole model.

    Attributes:
        opset: Version of the operators.
        inputs: Shapes of the inputs by name; all are float32.
        outputs: Shapes of the outputs by name; all are float32.
        nodes: Operations, in an order in which they can be computed.
        constants: Weights and other arrays by name.
        metadata: Texts by name.
    """

    opset: int
    inputs: dict[str, tuple[Dimension, ...]] = field(default_factory=dict)
    outputs: dict[str, tuple[Dimension, ...]] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


def onnx_chunks(graph: Graph, producer: str, weights_file: str | None = None) -> Iterator[bytes | memoryview]:
    """Yield the content of an ONNX file in pieces.

    Args:
        graph: Model to write.
        producer: Name and version of the program that writes it.
        weights_file: Name of the file, in the same folder, with the output of `weight_chunks`, which runtimes map
            instead of reading it; None to write everything into one file.

    Raises:
        ValueError: If the model is larger than 2 GB, the limit of an ONNX file.
    """
    inner = _graph_parts(graph, weights_file)
    num_bytes = sum(len(part) for part in inner)
    if num_bytes >= MAX_BYTES:
        raise ValueError(f"{num_bytes / 2**30:.1f} GiB")
    name, _, version = producer.partition(" ")
    yield _integer(1, IR_VERSION) + _text(2, name) + _text(3, version)
    yield _message(8, _integer(2, graph.opset))  # opset_import
    for domain in sorted({node.domain for node in graph.nodes} - {""}):
        yield _message(8, _text(1, domain) + _integer(2, 1))
    for key, text in graph.metadata.items():
        yield _message(METADATA_PROPS, _text(1, key) + _text(2, text))
    yield _tag(7, 2) + varint(num_bytes)
    yield from inner


def weight_chunks(graph: Graph) -> Iterator[bytes | memoryview]:
    """Yield the content of the file of weights: the large arrays of a model, each at an aligned offset."""
    for array in graph.constants.values():
        if _is_outside(array):
            yield _data(array)
            yield bytes(_padding(array))


def read_metadata(file: Path) -> dict[str, str]:
    """Return the metadata texts of an ONNX file by name, without reading its graph and weights.

    Raises:
        ValueError: If the file is not an ONNX file.
        OSError: If the file cannot be read.
    """
    metadata = {}
    with open(file, "rb") as stream:
        for number, num_bytes in _fields(stream):
            if number == METADATA_PROPS and num_bytes <= MAX_METADATA_BYTES:
                key, text = _entry(stream.read(num_bytes))
                metadata[key] = text
    return metadata


def _entry(message: bytes) -> tuple[str, str]:
    """Return the key and the value of a StringStringEntryProto."""
    stream = io.BytesIO(message)
    texts = {number: stream.read(num_bytes).decode() for number, num_bytes in _fields(stream)}
    return texts.get(1, ""), texts.get(2, "")


def _fields(stream: BinaryIO) -> Iterator[tuple[int, int]]:
    """Yield the number and the size in bytes of each field of wire type "bytes"; the stream is at its first byte.

    Raises:
        ValueError: If the content is not a Protocol Buffers message.
    """
    end = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    for _ in range(MAX_FIELDS):
        if stream.tell() == end:
            return
        number, wire_type = divmod(_read_varint(stream), 8)
        if wire_type == 0:
            _read_varint(stream)
            continue
        if wire_type not in (2, *FIXED_BYTES):
            raise ValueError("a field of an unknown kind")
        num_bytes = FIXED_BYTES[wire_type] if wire_type in FIXED_BYTES else _read_varint(stream)
        start = stream.tell()
        if start + num_bytes > end:
            raise ValueError("a field beyond the end")
        if wire_type == 2:
            yield number, num_bytes
        stream.seek(start + num_bytes)
    raise ValueError("too many fields")


def _read_varint(stream: BinaryIO) -> int:
    value = 0
    for position in range(10):  # ten groups of seven bits cover 64 bits
        group = stream.read(1)
        if not group:
            raise ValueError("a number beyond the end")
        value |= (group[0] & 127) << 7 * position
        if group[0] < 128:
            return value
    raise ValueError("a number of more than 64 bits")


def _is_outside(array: NDArray[Any]) -> bool:
    return array.nbytes >= SMALLEST_OUTSIDE


def _padding(array: NDArray[Any]) -> int:
    """Return the number of bytes between the end of an array in the file of weights and the next array."""
    return -array.nbytes % ALIGNMENT


def _data(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _graph_parts(graph: Graph, weights_file: str | None) -> list[bytes | memoryview]:
    """Return GraphProto in pieces: nodes, name, initializers, inputs, outputs."""
    parts: list[bytes | memoryview] = [_message(1, _node(node)) for node in graph.nodes]
    parts.append(_text(2, "ast"))
    offset = 0
    for name, array in graph.constants.items():
        head = b"".join(_integer(1, size) for size in array.shape)
        head += _integer(2, DATA_TYPES[array.dtype.name]) + _text(8, name)
        if weights_file is not None and _is_outside(array):
            place = {"location": weights_file, "offset": str(offset), "length": str(array.nbytes)}
            entries = [_message(13, _text(1, key) + _text(2, value)) for key, value in place.items()]
            parts.append(_message(5, b"".join([head, *entries, _integer(14, 1)])))  # data_location: external
            offset += array.nbytes + _padding(array)
        else:
            data = _data(array)
            head += _tag(9, 2) + varint(len(data))
            parts += [_tag(5, 2) + varint(len(head) + len(data)) + head, data]
    parts += [_message(11, _value_info(name, shape)) for name, shape in graph.inputs.items()]
    parts += [_message(12, _value_info(name, shape)) for name, shape in graph.outputs.items()]
    return parts


def _node(node: Node) -> bytes:
    names = [_text(1, name) for name in node.inputs] + [_text(2, name) for name in node.outputs]
    attributes = [_message(5, _attribute(name, value)) for name, value in node.attributes.items()]
    operator = node.operator.rpartition(".")[2]
    kind = [_text(3, f"{node.outputs[0]}/{operator}"), _text(4, operator)]
    return b"".join([*names, *kind, *attributes, _text(7, node.domain)])


def _attribute(name: str, value: Attribute) -> bytes:
    """Return an AttributeProto; its types are 1 float, 2 integer, 3 text, 7 integers."""
    if isinstance(value, float):
        return _text(1, name) + _tag(2, 5) + np.float32(value).tobytes() + _integer(20, 1)
    if isinstance(value, int):
        return _text(1, name) + _integer(3, value) + _integer(20, 2)
    if isinstance(value, str):
        return _text(1, name) + _text(4, value) + _integer(20, 3)
    return _text(1, name) + b"".join(_integer(8, item) for item in value) + _integer(20, 7)


def _value_info(name: str, shape: tuple[Dimension, ...]) -> bytes:
    dimensions = [_message(1, _integer(1, size) if isinstance(size, int) else _text(2, size)) for size in shape]
    tensor_type = _integer(1, DATA_TYPES["float32"]) + _message(2, b"".join(dimensions))
    return _text(1, name) + _message(2, _message(1, tensor_type))


def _tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


def varint(value: int) -> bytes:
    """Return an integer as a varint: groups of seven bits, the lowest first."""
    value &= 2**64 - 1  # negative numbers are written as their 64-bit complement
    groups = bytearray()
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _integer(number: int, value: int) -> bytes:
    return _tag(number, 0) + varint(value)


def _text(number: int, value: str) -> bytes:
    return _message(number, value.encode())


def _message(number: int, content: bytes) -> bytes:
    return _tag(number, 2) + varint(len(content)) + content
