"""Reading and writing checkpoint folders; whatever the names in the file, one pure function renames them.

A checkpoint may come from anywhere: everything is compared with the configuration before a model exists, and a head
that was not in the file is impossible.
"""

from __future__ import annotations

import copy
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from safetensors.torch import save
from torch import Tensor

from ast_cli import hub
from ast_cli import labels as audioset
from ast_cli.errors import CheckpointError, DeviceError, UsageError
from ast_cli.json_object import read_json_object, shown, write_json_object
from ast_cli.model.config import (
    MODEL_TYPE,
    NUM_PREFIX_TOKENS,
    ASTConfig,
    implied_problem_type,
    placeholder_labels,
    read_config,
)
from ast_cli.model.weight_files import read_weights, read_weights_folder

if TYPE_CHECKING:
    from ast_cli.model.transformer import PretrainedAST

Model = TypeVar("Model", bound="PretrainedAST")

ENCODER_PREFIX = "audio_spectrogram_transformer."
HEAD_PREFIX = "head."
PUBLISHED_STRIDES = (10, 12, 14, 16)
PUBLISHED_MEL_BINS = 128
PUBLISHED_LENGTHS = (1024, 512, 128, 256, 998, 2048)  # frames, likeliest first
TIMM_HEAD_DIM = 64  # of every DeiT size, which the original checkpoints start from
MAX_SHOWN_NAME = 120  # characters of a tensor's name in a message
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
    found = dtype if isinstance(dtype, torch.dtype) else DTYPES.get(dtype)
    if found not in (*DTYPES.values(), torch.float64):
        raise UsageError(f"dtype must be one of {', '.join(DTYPES)}, not {str(dtype)!r}")
    return found


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
    where = str(model)
    tensors, found_config = _read(model, config, forget_bad_labels=unnamed_labels)
    if kind.has_head:
        found_config = name_labels(found_config, tensors, where, allow_unnamed=unnamed_labels)
    with torch.device("meta"):  # shapes without memory: nothing is built before the tensors fit
        skeleton = kind(found_config)
    state = _own_names(tensors, with_head=kind.has_head)
    _compare(state, {name: tensor.shape for name, tensor in skeleton.state_dict().items()}, where)
    try:
        converted = {name: tensor.to(device=device, dtype=target_dtype) for name, tensor in state.items()}
    except (RuntimeError, AssertionError) as error:  # torch's words for a device that is not there
        raise DeviceError(f"device {str(device)!r} cannot be used here ({str(error).splitlines()[0]})") from error
    _refuse_non_finite(converted, state, where)
    skeleton.load_state_dict(converted, strict=True, assign=True)
    return skeleton.eval()


def _read(
    model: str | Path, config: ASTConfig | None, *, forget_bad_labels: bool
) -> tuple[dict[str, Tensor], ASTConfig]:
    """Read renamed tensors, and the configuration unless it is given: from a folder, or from one file of weights."""
    path = Path(model).expanduser()
    if path.is_file():
        if config is None and _has_config(path.parent):
            config = read_config(path.parent, forget_bad_labels=forget_bad_labels)
        tensors = rename(read_weights(path))
        return tensors, config or infer_config(tensors, str(path))
    folder = hub.checkpoint_folder(model)
    _refuse_foreign_front_end(folder)
    config = config or read_config(folder, forget_bad_labels=forget_bad_labels)
    return rename(read_weights_folder(folder)), config


def _has_config(folder: Path) -> bool:
    """Tell whether an AST's configuration lies beside a file of weights; another program's does not count."""
    file = folder / hub.CONFIG_NAME
    return file.is_file() and read_json_object(file).get("model_type") == MODEL_TYPE


def save_checkpoint(model: PretrainedAST, folder: str | Path) -> None:
    """Write ``config.json`` and ``model.safetensors`` in the hub's layout; each is old or new, never half.

    Raises:
        CheckpointError: The folder cannot be written.
    """
    folder = Path(folder)
    config = model.config.to_dict() | {
        "architectures": [type(model).__name__],
        "dtype": str(model.dtype).removeprefix("torch."),
        "problem_type": implied_problem_type(model.config),  # readers take the activation from it
    }
    config.pop("torch_dtype", None)
    tensors = {name.removeprefix(ENCODER_PREFIX): tensor.detach() for name, tensor in model.state_dict().items()}
    prefix = ENCODER_PREFIX if model.has_head else ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{hub.WEIGHTS_NAME}.tmp"
        temporary.write_bytes(save(hub_names(tensors, prefix), metadata={"format": "pt"}))
        os.replace(temporary, folder / hub.WEIGHTS_NAME)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written ({error.strerror})") from error
    write_json_object(folder / hub.CONFIG_NAME, config)


def rename(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate any known layout to our names, with queries, keys and values fused.

    Names it does not know pass through, so that the strict comparison can report them.
    """
    is_original = any(re.match(r"(module\.)?v\.", name) for name in tensors)
    renamed: dict[str, Tensor] = {}
    for original, tensor in tensors.items():
        if is_original and re.match(r"(module\.)?v\.head", original):
            continue  # the ImageNet head of the vision model that training started from
        name = original
        for pattern, replacement in RENAMES:
            name = pattern.sub(replacement, name)
        renamed[name if name not in renamed else f"{original} (twice)"] = tensor
    for name in [name for name in renamed if ".attn.query." in name]:
        parts = [name.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        if _are_alike([renamed.get(part) for part in parts]):
            fused = [renamed.pop(part) for part in parts]
            renamed[name.replace(".query.", ".qkv.")] = torch.cat(fused)
    return renamed


def _are_alike(tensors: list[Tensor | None]) -> bool:
    """Tell whether tensors are all there and of one shape and type; others might fuse to what only looks right."""
    first = tensors[0]
    return first is not None and all(
        tensor is not None and tensor.ndim > 0 and tensor.shape == first.shape and tensor.dtype == first.dtype
        for tensor in tensors
    )


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
    if hidden_size % TIMM_HEAD_DIM:
        raise CheckpointError(
            f"{where}: the number of attention heads cannot be told from a width of {hidden_size}; "
            f"put its {hub.CONFIG_NAME} beside it, or pass config=ASTConfig(...)"
        )
    stride, max_length = _published_geometry(num_patches, patch_size, where)
    return ASTConfig.from_dict(
        {
            "hidden_size": hidden_size,
            "num_hidden_layers": len({name.split(".")[1] for name in tensors if name.startswith("blocks.")}),
            "num_attention_heads": hidden_size // TIMM_HEAD_DIM,
            "intermediate_size": intermediate_size,
            "patch_size": patch_size,
            "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
            "frequency_stride": stride,
            "time_stride": stride,
            "max_length": max_length,
            "num_mel_bins": PUBLISHED_MEL_BINS,
            "num_labels": num_labels,
        }
    )


def _published_geometry(num_patches: int, patch_size: int, where: str) -> tuple[int, int]:
    """Return the stride and the length in frames that give this number of patches."""
    for max_length in PUBLISHED_LENGTHS:
        for stride in PUBLISHED_STRIDES:
            frequency = (PUBLISHED_MEL_BINS - patch_size) // stride + 1
            if frequency * ((max_length - patch_size) // stride + 1) == num_patches:
                return stride, max_length
    raise CheckpointError(
        f"{where}: {num_patches} position embeddings fit no published stride and length; "
        f"put its {hub.CONFIG_NAME} beside it, or pass config=ASTConfig(...)"
    )


def name_labels(config: ASTConfig, tensors: Mapping[str, Tensor], where: str, *, allow_unnamed: bool) -> ASTConfig:
    """Return the configuration with the label names that the head's size calls for, or refuse to guess.

    527 outputs without names are AudioSet's; published configurations leave the names out or say ``LABEL_n``.

    Raises:
        CheckpointError: Names and outputs do not go together, or there are no names and ``allow_unnamed`` is false.
    """
    head = tensors.get("head.fc.weight")
    if head is None or head.ndim != 2 or not head.shape[0]:
        return config  # the strict comparison will report it
    num_outputs, num_labels = head.shape[0], config.num_labels
    says_nothing = not config.has_own_labels and num_labels == 2  # two is the reference's default
    has_names = config.id2label != placeholder_labels(num_labels)
    config = copy.copy(config)
    if num_outputs == audioset.NUM_AUDIOSET_LABELS and not has_names and (num_labels == num_outputs or says_nothing):
        config.id2label = audioset.audioset_id2label()
    elif num_outputs != num_labels or not (config.has_own_labels or says_nothing):
        if not allow_unnamed:
            named = f"names {num_labels} labels" if config.has_own_labels else "names no labels"
            raise CheckpointError(
                f"{where}: {hub.CONFIG_NAME} {named} for {num_outputs} outputs; correct its id2label, "
                "or ask for unnamed labels (--unnamed-labels)"
            )
        config.id2label = placeholder_labels(num_outputs)
    return config


def _refuse_foreign_front_end(folder: Path) -> None:
    """Refuse a checkpoint of the same model type that needs other features, such as MAEST."""
    file = folder / hub.PREPROCESSOR_NAME
    if file.is_file():
        kind = read_json_object(file).get("feature_extractor_type")
        if kind not in (None, "ASTFeatureExtractor"):
            raise CheckpointError(f"{folder}: needs another front end, {shown(kind)}: its scores would be wrong here")


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
    plain = [name if name.isprintable() and len(name) <= MAX_SHOWN_NAME else shown(name) for name in names[:most]]
    return ", ".join(plain) + (", ..." if len(names) > most else "")


def _refuse_non_finite(converted: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str) -> None:
    for name, tensor in converted.items():
        # One pass without a copy: what is not finite stays so in a sum. The sum of large weights may overflow, too.
        if not math.isfinite(tensor.sum().item()) and not torch.isfinite(tensor).all():
            if torch.isfinite(state[name].double()).all():
                raise CheckpointError(f"{where}: {name} holds weights too large for {tensor.dtype}; use float32")
            raise CheckpointError(f"{where}: {name} holds NaN or infinite weights")
