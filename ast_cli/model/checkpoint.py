"""Reading and writing checkpoint folders; whatever the names in the file, one pure function renames them.

A checkpoint may come from anywhere. Nothing in it is executed: safetensors, or pickles with ``weights_only=True``.
Everything is compared with the configuration before a model exists, and a head that was not in the file is impossible.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ast_cli import hub
from ast_cli import labels as audioset
from ast_cli.errors import CheckpointError, DeviceError, UsageError
from ast_cli.json_object import foreign_content, read_json_object
from ast_cli.model.config import CONFIG_NAME, NUM_PREFIX_TOKENS, ASTConfig

if TYPE_CHECKING:
    from ast_cli.model.transformer import PretrainedAST

Model = TypeVar("Model", bound="PretrainedAST")

ENCODER_PREFIX = "audio_spectrogram_transformer."
HEAD_PREFIX = "head."
PUBLISHED_STRIDES = (10, 12, 14, 16)
PUBLISHED_LENGTHS = (1024, 512, 128, 256, 998, 2048)  # frames, likeliest first
TIMM_HEAD_DIM = 64  # of every DeiT size, which the original checkpoints start from
DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "float16": torch.float16,
    "fp16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
}

# Hub names (both layouts of the reference library) and original names to ours, applied in this order.
RENAMES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^module\.", ""),
        (r"^audio_spectrogram_transformer\.", ""),
        (r"^v\.", ""),
        (r"^mlp_head\.0\.", "head.norm."),
        (r"^mlp_head\.1\.", "head.fc."),
        (r"^classifier\.layernorm\.", "head.norm."),
        (r"^classifier\.dense\.", "head.fc."),
        (r"^embeddings\.cls_token$", "cls_token"),
        (r"^embeddings\.distillation_token$", "dist_token"),
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^(?:encoder\.layer|layers)\.(\d+)\.", r"blocks.\1."),
        (r"^layernorm\.", "norm."),
        (r"\.layernorm_before\.", ".norm1."),
        (r"\.layernorm_after\.", ".norm2."),
        (r"\.attention\.(?:attention\.)?(query|key|value)\.", r".attn.\1."),
        (r"\.attention\.q_proj\.", ".attn.query."),
        (r"\.attention\.k_proj\.", ".attn.key."),
        (r"\.attention\.v_proj\.", ".attn.value."),
        (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    )
]
HUB_RENAMES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^head\.norm\.", "classifier.layernorm."),
        (r"^head\.fc\.", "classifier.dense."),
        (r"^cls_token$", "embeddings.cls_token"),
        (r"^dist_token$", "embeddings.distillation_token"),
        (r"^pos_embed$", "embeddings.position_embeddings"),
        (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
        (r"^norm\.", "layernorm."),
        (r"^blocks\.(\d+)\.", r"encoder.layer.\1."),
        (r"\.norm1\.", ".layernorm_before."),
        (r"\.norm2\.", ".layernorm_after."),
        (r"\.attn\.(query|key|value)\.", r".attention.attention.\1."),
        (r"\.attn\.proj\.", ".attention.output.dense."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
    )
]


def resolve_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """Return a torch data type from itself or its name (``float16``, ``fp16``, ...)."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise UsageError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    return DTYPES[dtype]


def load_checkpoint(
    kind: type[Model],
    model: str | Path,
    *,
    dtype: torch.dtype | str,
    device: torch.device | str,
    config: ASTConfig | None,
    unnamed_labels: bool,
) -> Model:
    """Load a model; see ``from_pretrained`` of the models, which is this."""
    target_dtype = resolve_dtype(dtype)
    path = Path(model).expanduser()
    if path.is_file():
        tensors = rename(_read_file(path))
        config = config or infer_config(tensors, str(path))
        where = str(path)
    else:
        folder = hub.checkpoint_folder(model)
        where = str(model)
        _refuse_foreign_front_end(folder)
        config = config or ASTConfig.from_dict(read_json_object(folder / CONFIG_NAME))
        tensors = rename(_read_folder(folder))
    name_labels(config, tensors, where, unnamed_labels=unnamed_labels)
    with torch.device("meta"):  # shapes without memory: nothing is built before the tensors fit
        skeleton = kind(config)
    state = _own_names(tensors, with_head=hasattr(skeleton, "head"))
    _compare(state, {name: tensor.shape for name, tensor in skeleton.state_dict().items()}, where)
    try:
        state = {name: tensor.to(device=device, dtype=target_dtype) for name, tensor in state.items()}
    except (RuntimeError, AssertionError) as error:  # torch's words for a device that is not there
        raise DeviceError(f"device {str(device)!r} cannot be used here ({str(error).splitlines()[0]})") from error
    _refuse_non_finite(state, where)
    skeleton.load_state_dict(state, strict=True, assign=True)
    return skeleton.eval()


def save_checkpoint(model: PretrainedAST, folder: str | Path) -> None:
    """Write ``config.json`` and ``model.safetensors`` in the hub's layout; each is old or new, never half.

    Raises:
        CheckpointError: The folder cannot be written.
    """
    folder = Path(folder)
    config = model.config.to_dict()
    config.pop("torch_dtype", None)
    config |= {"architectures": [type(model).__name__], "dtype": str(model.dtype).removeprefix("torch.")}
    tensors = {name.removeprefix(ENCODER_PREFIX): tensor.detach() for name, tensor in model.state_dict().items()}
    prefix = ENCODER_PREFIX if hasattr(model, "head") else ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / ".model.safetensors.tmp"
        temporary.write_bytes(save(hub_names(tensors, prefix), metadata={"format": "pt"}))
        os.replace(temporary, folder / hub.WEIGHTS_NAME)
        temporary = folder / ".config.json.tmp"
        temporary.write_text(json.dumps(config, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(temporary, folder / CONFIG_NAME)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written ({error.strerror})") from error


def rename(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate any known layout to our names, with queries, keys and values fused.

    Names it does not know pass through, so that the strict comparison can report them.
    """
    is_original = any(re.match(r"(module\.)?v\.", name) for name in tensors)
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if is_original and re.match(r"(module\.)?v\.head", name):
            continue  # the ImageNet head of the vision model that training started from
        for pattern, replacement in RENAMES:
            name = pattern.sub(replacement, name)
        renamed[name] = tensor
    for name in [name for name in renamed if ".attn.query." in name]:
        parts = [name.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        if all(part in renamed for part in parts):
            fused = [renamed.pop(part) for part in parts]
            renamed[name.replace(".query.", ".qkv.")] = torch.cat(fused)
    return renamed


def hub_names(tensors: Mapping[str, Tensor], encoder_prefix: str = "") -> dict[str, Tensor]:
    """Translate our names to the hub's; the inverse of `rename`."""
    split: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if ".attn.qkv." not in name:
            split[name] = tensor
            continue
        for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
            split[name.replace(".qkv.", f".{part}.")] = rows
    renamed = {}
    for name, tensor in split.items():
        for pattern, replacement in HUB_RENAMES:
            name = pattern.sub(replacement, name)
        prefix = "" if name.startswith("classifier.") else encoder_prefix
        renamed[prefix + name] = tensor.contiguous().clone()
    return renamed


def infer_config(tensors: Mapping[str, Tensor], where: str) -> ASTConfig:
    """Tell the architecture of an original ``.pth`` from the shapes of its (renamed) tensors.

    The strides are those published ones whose patch grid fits the table of position embeddings at a common length.

    Raises:
        CheckpointError: No AST, or a table that fits no published stride: then the configuration must be given.
    """
    try:
        hidden_size = tensors["cls_token"].shape[-1]
        num_patches = tensors["pos_embed"].shape[1] - NUM_PREFIX_TOKENS
        patch_size = tensors["patch_embed.proj.weight"].shape[-1]
        intermediate_size = tensors["blocks.0.mlp.fc1.weight"].shape[0]
        num_labels = tensors["head.fc.weight"].shape[0]
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"{where}: holds no AST classifier (no usable tensor {error})") from error
    num_mel_bins = 128
    for max_length in PUBLISHED_LENGTHS:
        for stride in PUBLISHED_STRIDES:
            frequency = (num_mel_bins - patch_size) // stride + 1
            if frequency * ((max_length - patch_size) // stride + 1) == num_patches:
                return ASTConfig(
                    hidden_size=hidden_size,
                    num_hidden_layers=len({name.split(".")[1] for name in tensors if name.startswith("blocks.")}),
                    num_attention_heads=max(1, hidden_size // TIMM_HEAD_DIM),
                    intermediate_size=intermediate_size,
                    patch_size=patch_size,
                    qkv_bias="blocks.0.attn.qkv.bias" in tensors,
                    frequency_stride=stride,
                    time_stride=stride,
                    max_length=max_length,
                    num_mel_bins=num_mel_bins,
                    num_labels=num_labels,
                )
    raise CheckpointError(
        f"{where}: {num_patches} position embeddings fit no published stride and length; "
        "put it into a folder with its config.json, or pass config=ASTConfig(...)"
    )


def name_labels(config: ASTConfig, tensors: Mapping[str, Tensor], where: str, *, unnamed_labels: bool) -> None:
    """Give the configuration the label names that the head's size calls for, or refuse to guess.

    527 outputs without names are AudioSet's; published configurations leave the names out or say ``LABEL_n``.

    Raises:
        CheckpointError: Names and outputs do not go together, or there are no names and ``unnamed_labels`` is false.
    """
    head = tensors.get("head.fc.weight")
    if head is None or head.ndim != 2:
        return  # a bare encoder, or a shape the strict comparison will report
    num_outputs = head.shape[0]
    placeholders = all(label == f"LABEL_{label_id}" for label_id, label in config.id2label.items())
    if placeholders and num_outputs == audioset.NUM_AUDIOSET_LABELS:
        config.id2label = audioset.audioset_id2label()
    elif num_outputs != config.num_labels or (placeholders and not config.has_own_labels and num_outputs != 2):
        if not unnamed_labels:
            named = f"names {config.num_labels} labels" if config.has_own_labels else "names no labels"
            raise CheckpointError(
                f"{where}: {CONFIG_NAME} {named} for {num_outputs} outputs; correct its id2label, "
                "or ask for unnamed labels (--unnamed-labels)"
            )
        config.id2label = {label_id: f"LABEL_{label_id}" for label_id in range(num_outputs)}


def _refuse_foreign_front_end(folder: Path) -> None:
    """Refuse a checkpoint of the same model type that needs other features, such as MAEST."""
    file = folder / hub.PREPROCESSOR_NAME
    if file.is_file():
        kind = read_json_object(file).get("feature_extractor_type", "ASTFeatureExtractor")
        if kind != "ASTFeatureExtractor":
            raise CheckpointError(f"{folder}: needs another front end, {kind}: its scores would be wrong here")


def _own_names(tensors: Mapping[str, Tensor], *, with_head: bool) -> dict[str, Tensor]:
    """Put renamed tensors under the attribute names of a classifier, or drop the head for a bare encoder."""
    if not with_head:
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(HEAD_PREFIX)}
    return {name if name.startswith(HEAD_PREFIX) else ENCODER_PREFIX + name: tensor for name, tensor in tensors.items()}


def _compare(state: Mapping[str, Tensor], expected: Mapping[str, torch.Size], where: str) -> None:
    """Refuse missing, unexpected, misshapen and non-floating tensors, listing them."""
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys())
    misshapen = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(shape)}"
        for name, shape in expected.items()
        if name in state and (state[name].shape != shape or not state[name].is_floating_point())
    ]
    faults = {"missing": missing, "unexpected": unexpected, "of the wrong shape or type": misshapen}
    told = [f"{len(names)} {fault}: {_first(names)}" for fault, names in faults.items() if names]
    if told:
        raise CheckpointError(f"{where}: its tensors do not fit its configuration; {'; '.join(told)}")


def _first(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _refuse_non_finite(state: Mapping[str, Tensor], where: str) -> None:
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{where}: {name} holds NaN or infinite weights")


def _read_folder(folder: Path) -> dict[str, Tensor]:
    """Read the weights of a folder: safetensors in one file or several, else a pickle of tensors."""
    if (folder / hub.WEIGHTS_NAME).is_file():
        return _read_file(folder / hub.WEIGHTS_NAME)
    for index_name in (f"{hub.WEIGHTS_NAME}.index.json", f"{hub.PICKLE_NAME}.index.json"):
        if (folder / index_name).is_file():
            return _read_shards(folder, folder / index_name)
    if (folder / hub.PICKLE_NAME).is_file():
        return _read_file(folder / hub.PICKLE_NAME)
    raise CheckpointError(f"{folder}: holds neither {hub.WEIGHTS_NAME} nor {hub.PICKLE_NAME}")


def _read_shards(folder: Path, index: Path) -> dict[str, Tensor]:
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{index}: has no weight_map of file names")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(weight_map.values())):
        if Path(name).name != name:
            raise CheckpointError(f"{index}: {name!r} is not a plain file name")
        tensors |= _read_file(folder / name)
    return tensors


def _read_file(file: Path) -> dict[str, Tensor]:
    """Read the tensors of one file, by its content: safetensors or a pickle."""
    try:
        with file.open("rb") as opened:
            head = opened.read(512)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from error
    if reason := foreign_content(head):
        raise CheckpointError(f"{file}: {reason}")
    return _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file)


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{file}: no valid safetensors file ({error})") from error


def _read_pickle(file: Path) -> dict[str, Tensor]:
    """Read a state dictionary with ``weights_only=True``; anything else in the file is refused."""
    _refuse_zip_bomb(file)
    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file}: refused, because it holds more than tensors and could run code; "
            "ask its author for a safetensors file"
        ) from error
    except Exception as error:  # torch.load raises whatever a broken archive happens to cause
        raise CheckpointError(f"{file}: no valid PyTorch checkpoint ({str(error).splitlines()[0][:200]})") from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{file}: holds something else than a dictionary of tensors")
    return {str(name): tensor for name, tensor in content.items()}


def _refuse_zip_bomb(file: Path) -> None:
    """Look at the archive's directory before torch unpacks anything: torch itself never compresses."""
    if not zipfile.is_zipfile(file):
        return  # the old format, a plain pickle
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise CheckpointError(f"{file}: a damaged archive ({error})") from error
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise CheckpointError(f"{file}: refused, because it holds compressed parts, which no PyTorch checkpoint does")
    if sum(member.file_size for member in members) > file.stat().st_size:
        raise CheckpointError(f"{file}: refused, because its parts claim to be larger than the file")
    if any(member.filename.startswith("/") or ".." in Path(member.filename).parts for member in members):
        raise CheckpointError(f"{file}: refused, because of a file name in it that points elsewhere")
