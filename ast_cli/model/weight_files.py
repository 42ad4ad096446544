"""Read tensors from untrusted files: safetensors, or pickles that contain only tensors.

No code in a file is executed, and nothing is unpacked that could fill the memory. The caller chooses between tensors of
torch and arrays of NumPy; the latter need torch only if the file is a pickle.
"""

from __future__ import annotations

import json
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize, safe_open

from ast_cli.errors import CheckpointError
from ast_cli.files.json_object import foreign_content, read_json_object, shown
from ast_cli.hub.folders import exported_file
from ast_cli.hub.names import PICKLE_NAME, WEIGHTS_NAME
from ast_cli.model.layout import IS_FUSED

if TYPE_CHECKING:
    from torch import Tensor

# Every global that a pickled dictionary of plain tensors refers to. torch's own list of safe globals is longer: it
# contains `bytearray`, with which a file of a hundred bytes can fill the memory.
TENSOR_GLOBALS = re.compile(
    r"collections\.OrderedDict"
    r"|torch\._utils\._rebuild_(?:tensor|tensor_v2|tensor_v3|parameter|parameter_with_state)"
    r"|torch\.(?:cuda\.|storage\.)?[A-Z]\w*Storage"
    r"|torch\.(?:float|bfloat|int|uint)\w+|torch\.(?:Size|device|bool)"
)
SAFETENSORS_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4"}  # and BF16
Framework = Literal["torch", "numpy"]
ZIP_MAGIC = b"PK\x03\x04"
LEGACY_PICKLES = 5  # magic number, protocol, system, content, storage keys: the format of torch before 1.6


@overload
def read_weights_folder(folder: Path, framework: Literal["torch"] = "torch") -> dict[str, Tensor]: ...


@overload
def read_weights_folder(folder: Path, framework: Literal["numpy"]) -> dict[str, NDArray[Any]]: ...


def read_weights_folder(folder: Path, framework: Framework = "torch") -> Any:
    """Read the weights of a checkpoint folder from safetensors files or, if there are none, from pickles.

    Args:
        folder: Folder of the checkpoint.
        framework: Library of the returned tensors.

    Returns:
        Tensors keyed by their names in the files.

    Raises:
        CheckpointError: If there are no weights, or a file is damaged, has another format or is unsafe.
    """
    if (folder / WEIGHTS_NAME).is_file():
        return read_weights(folder / WEIGHTS_NAME, framework)
    for index_name in (f"{WEIGHTS_NAME}.index.json", f"{PICKLE_NAME}.index.json"):
        if (folder / index_name).is_file():
            return _read_shards(folder, folder / index_name, framework)
    if (folder / PICKLE_NAME).is_file():
        return read_weights(folder / PICKLE_NAME, framework)
    refuse_exported(folder)
    raise CheckpointError(f"{folder}: contains neither {WEIGHTS_NAME} nor {PICKLE_NAME}")


def refuse_exported(model: Path) -> None:
    """Check that a path is not a model written by ``ast export``.

    Raises:
        CheckpointError: If it is one.
    """
    if exported_file(model) is not None:
        raise CheckpointError(
            f"{model}: written by `ast export` and not a checkpoint: use the checkpoint that it was made from"
        )


def _read_shards(folder: Path, index: Path, framework: Framework) -> dict[str, Any]:
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{index}: has no weight_map of file names")
    tensors: dict[str, Any] = {}
    for name in sorted(set(weight_map.values())):
        if Path(name).name != name or not name.isprintable():
            raise CheckpointError(f"{index}: {shown(name)} is not a plain file name")
        tensors |= read_weights(folder / name, framework)
    return tensors


@overload
def read_weights(file: Path, framework: Literal["torch"] = "torch") -> dict[str, Tensor]: ...


@overload
def read_weights(file: Path, framework: Literal["numpy"]) -> dict[str, NDArray[Any]]: ...


@overload
def read_weights(file: Path, framework: Framework) -> dict[str, Any]: ...


def read_weights(file: Path, framework: Framework = "torch") -> Any:
    """Read the tensors of one file: safetensors if the suffix says so, else a pickle.

    Args:
        file: File of weights.
        framework: Library of the returned tensors; NumPy has no bfloat16, so such tensors become float32.

    Raises:
        CheckpointError: If the file is damaged, has another format or is unsafe.
    """
    refuse_exported(file)
    try:
        if not file.is_file():  # reading from a pipe could block forever
            raise CheckpointError(f"{file}: there is no such file")
        with file.open("rb") as opened:
            head = opened.read(512)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read ({getattr(error, 'strerror', error)})") from error
    if reason := foreign_content(head):
        raise CheckpointError(f"{file}: {reason}")
    if file.suffix == ".safetensors":
        return _read_safetensors(file, framework)
    tensors = _read_pickle(file, head)
    return tensors if framework == "torch" else {name: _as_array(tensor) for name, tensor in tensors.items()}


def _as_array(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor as an array; half precision becomes float32."""
    array: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return array


def _read_safetensors(file: Path, framework: Framework) -> dict[str, Any]:
    try:
        return _map_tensors(file) if framework == "torch" else _read_arrays(file)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{file}: not a valid safetensors file ({shown(str(error))})") from error


def _map_tensors(file: Path) -> dict[str, Tensor]:
    """Map a safetensors file into memory, but read the tensors that will be fused.

    Pages of a mapping that were accessed stay in memory until they are given back, which not every system supports.
    Mapped queries, keys and values would therefore be in memory twice after they are fused, 85 MB at base size. Tensors
    that were read are freed once they are fused.
    """
    from ast_cli.model.mapped_file import map_file, tensor_at

    with safe_open(file, "pt") as opened, file.open("rb") as stream:  # `safe_open` validates the header
        content = 8 + int.from_bytes(stream.read(8), "little")  # the tensors follow the header and its size (8 bytes)
        header = json.loads(stream.read(content - 8))
        mapping = map_file(stream)
        tensors = {}
        for name in filter("__metadata__".__ne__, header):
            like = opened.get_tensor(name)
            offset = content + header[name]["data_offsets"][0]
            if IS_FUSED.search(name):
                stream.seek(offset)
                tensors[name] = _read_like(like, stream)
            else:
                tensors[name] = tensor_at(mapping, offset, like)
    return tensors


def _read_like(tensor: Tensor, stream: IO[bytes]) -> Tensor:
    """Read the bytes of a tensor from a stream into newly allocated memory."""
    import torch

    own = torch.empty_like(tensor)
    if stream.readinto(own.flatten().view(torch.uint8).numpy()) != own.nbytes:  # type: ignore[attr-defined]
        raise ValueError("the file ends within a tensor")
    return own


def _read_arrays(file: Path) -> dict[str, NDArray[Any]]:
    """Read a safetensors file into arrays."""
    with safe_open(file, "np") as opened:
        names = opened.keys()
        if all(opened.get_slice(name).get_dtype() != "BF16" for name in names):
            return {name: opened.get_tensor(name) for name in names}
    return {name: _decoded(view) for name, view in deserialize(file.read_bytes())}  # type: ignore[no-untyped-call]


def _decoded(view: Mapping[str, Any]) -> NDArray[Any]:
    """Return an array from the bytes of a tensor; bfloat16 is the upper half of float32."""
    if view["dtype"] == "BF16":
        wide = np.frombuffer(view["data"], "<u2").astype(np.uint32) << 16
        return wide.view(np.float32).reshape(view["shape"])
    return np.frombuffer(view["data"], SAFETENSORS_DTYPES[view["dtype"]]).reshape(view["shape"])


def _read_pickle(file: Path, head: bytes) -> dict[str, Tensor]:
    """Read a state dictionary with ``weights_only=True``, after checking which names it would import."""
    import torch

    try:
        named = _globals_of_archive(file) if head.startswith(ZIP_MAGIC) else _globals_of_legacy(file)
        if strange := sorted(name for name in named if not TENSOR_GLOBALS.fullmatch(name)):
            raise CheckpointError(
                f"{file}: refused, because it contains {shown(strange[0])}, which is not a tensor and could run code; "
                "use a safetensors file instead"
            )
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:  # not quoted: torch's message recommends disabling the protection
        raise CheckpointError(
            f"{file}: refused, because it contains something other than tensors, or is damaged"
        ) from error
    except Exception as error:  # a broken archive or pickle can raise any exception
        raise CheckpointError(f"{file}: not a valid PyTorch checkpoint; it is damaged or has another format") from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(value, torch.Tensor) for value in content.values())
    ):
        raise CheckpointError(f"{file}: contains something other than a dictionary of tensors")
    return {str(name): tensor for name, tensor in content.items()}


def _globals_of(opened: IO[bytes]) -> Iterator[str]:
    """Yield the names that one pickle imports, as ``module.name``, without running it."""
    words: list[str] = []
    for opcode, argument, _ in pickletools.genops(opened):
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL":  # usually takes the last two strings; torch never writes it
            yield ".".join(words[-2:]) + " (protocol 4)"
        elif isinstance(argument, str):
            words.append(argument)


def _globals_of_legacy(file: Path) -> set[str]:
    """Return the names that a file in the format of torch before 1.6, a sequence of pickles, imports."""
    found: set[str] = set()
    with file.open("rb") as opened:
        for _ in range(LEGACY_PICKLES):
            if opened.peek(1):
                found.update(_globals_of(opened))
    return found


def _globals_of_archive(file: Path) -> set[str]:
    """Return the names that the pickles of an archive import, after validating the directory of the archive.

    The directory is checked before torch unpacks anything. torch itself never compresses the parts of a checkpoint.

    Raises:
        CheckpointError: If a part is compressed, claims to be larger than the file, or has an unsafe name, or if the
            archive is a TorchScript program.
    """
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise CheckpointError(
                f"{file}: refused, because it contains compressed parts, which PyTorch checkpoints never do"
            )
        if sum(member.file_size for member in members) > file.stat().st_size:
            raise CheckpointError(f"{file}: refused, because its parts claim to be larger than the file")
        names = [member.filename for member in members]
        if any(name.startswith("/") or ".." in Path(name).parts for name in names):
            raise CheckpointError(f"{file}: refused, because a file name in it points outside the archive")
        if any(name.endswith("constants.pkl") for name in names):
            raise CheckpointError(f"{file}: refused, because it is a TorchScript program; a state dictionary is needed")
        found: set[str] = set()
        for member in members:  # iterate over members, not names: two members can have the same name
            if member.filename.casefold().endswith(".pkl"):
                with archive.open(member) as opened:
                    found.update(_globals_of(opened))
    return found
