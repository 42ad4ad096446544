"""The names and shapes of an AST's tensors, whatever library holds them: renaming, comparing, telling sizes. No torch.

Tensors may be torch's or NumPy's. A checkpoint may come from anywhere: its tensors are compared with its configuration
before a model exists, and a head that was not in the file is impossible.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ast_cli import labels as audioset
from ast_cli.errors import CheckpointError
from ast_cli.files.json_object import read_json_object, refuse_foreign_front_end, shown
from ast_cli.hub.names import CONFIG_NAME, PREPROCESSOR_NAME
from ast_cli.model.config import MODEL_TYPE, NUM_PREFIX_TOKENS, ASTConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

Array = TypeVar("Array", "NDArray[Any]", "Tensor")
Shape = tuple[int, ...]

ENCODER_PREFIX = "audio_spectrogram_transformer."
HEAD_PREFIX = "head."
PUBLISHED_STRIDES = (10, 12, 14, 16)
PUBLISHED_MEL_BINS = 128
PUBLISHED_LENGTHS = (1024, 512, 128, 256, 998, 2048)  # frames, likeliest first
TIMM_HEAD_DIM = 64  # of every DeiT size, which the original checkpoints start from
MAX_SHOWN_NAME = 120  # characters of a tensor's name in a message

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

# What `rename` puts together with others, in names before it and in ours.
IS_FUSED = re.compile(r"\.(?:query|key|value|[qkv]_proj)\.")


def rename(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Translate any known layout to our names, with queries, keys and values fused.

    Names it does not know pass through, so that the strict comparison can report them.
    """
    is_original = any(re.match(r"(module\.)?v\.", name) for name in tensors)
    renamed: dict[str, Array] = {}
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
            renamed[name.replace(".query.", ".qkv.")] = _concatenated(fused)
    return renamed


def _are_alike(tensors: list[Any]) -> bool:
    """Tell whether tensors are all there and of one shape and type; others might fuse to what only looks right."""
    first = tensors[0]
    return first is not None and all(
        tensor is not None and tensor.ndim > 0 and tensor.shape == first.shape and tensor.dtype == first.dtype
        for tensor in tensors
    )


def _concatenated(tensors: Sequence[Array]) -> Array:
    """Put tensors together along their first axis."""
    if isinstance(tensors[0], np.ndarray):
        return np.concatenate(tensors)
    import torch

    return torch.cat(list(tensors))


def expected_shapes(config: ASTConfig) -> dict[str, Shape]:
    """Return the shape of every tensor of a classifier, by our names, without building it."""
    C, M, L, p = config.hidden_size, config.intermediate_size, config.num_labels, config.patch_size
    shapes: dict[str, Shape] = {
        "cls_token": (1, 1, C),
        "dist_token": (1, 1, C),
        "pos_embed": (1, config.num_tokens, C),
        "patch_embed.proj.weight": (C, 1, p, p),
        "patch_embed.proj.bias": (C,),
    }
    for i in range(config.num_hidden_layers):
        shapes |= _norm_shapes(f"blocks.{i}.norm1", C) | _norm_shapes(f"blocks.{i}.norm2", C)
        shapes |= _linear_shapes(f"blocks.{i}.attn.qkv", C, 3 * C, has_bias=config.qkv_bias)
        shapes |= _linear_shapes(f"blocks.{i}.attn.proj", C, C)
        shapes |= _linear_shapes(f"blocks.{i}.mlp.fc1", C, M) | _linear_shapes(f"blocks.{i}.mlp.fc2", M, C)
    shapes |= _norm_shapes("norm", C)
    encoder = {ENCODER_PREFIX + name: shape for name, shape in shapes.items()}
    return encoder | _norm_shapes("head.norm", C) | _linear_shapes("head.fc", C, L)


def _norm_shapes(name: str, width: int) -> dict[str, Shape]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear_shapes(name: str, num_in: int, num_out: int, *, has_bias: bool = True) -> dict[str, Shape]:
    return {f"{name}.weight": (num_out, num_in)} | ({f"{name}.bias": (num_out,)} if has_bias else {})


def infer_config(tensors: Mapping[str, Any], where: str) -> ASTConfig:
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
            f"put its {CONFIG_NAME} beside it, or pass config=ASTConfig(...)"
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
        f"put its {CONFIG_NAME} beside it, or pass config=ASTConfig(...)"
    )


def name_labels(config: ASTConfig, tensors: Mapping[str, Any], where: str, *, allow_unnamed: bool) -> ASTConfig:
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
    has_names = config.id2label != audioset.placeholder_labels(num_labels)
    config = copy.copy(config)
    if num_outputs == audioset.NUM_AUDIOSET_LABELS and not has_names and (num_labels == num_outputs or says_nothing):
        config.id2label = audioset.audioset_id2label()
    elif num_outputs != num_labels or not (config.has_own_labels or says_nothing):
        if not allow_unnamed:
            named = f"names {num_labels} labels" if config.has_own_labels else "names no labels"
            raise CheckpointError(
                f"{where}: {CONFIG_NAME} {named} for {num_outputs} outputs; correct its id2label, "
                "or ask for unnamed labels (--unnamed-labels)"
            )
        config.id2label = audioset.placeholder_labels(num_outputs)
    return config


def has_config(folder: Path) -> bool:
    """Tell whether an AST's configuration lies beside a file of weights; another program's does not count."""
    file = folder / CONFIG_NAME
    return file.is_file() and read_json_object(file).get("model_type") == MODEL_TYPE


def check_front_end(folder: Path) -> None:
    """Refuse a checkpoint folder that says it needs another front end.

    Raises:
        CheckpointError: Naming the front end.
    """
    file = folder / PREPROCESSOR_NAME
    if file.is_file():
        refuse_foreign_front_end(read_json_object(file), str(folder))


def own_names(tensors: Mapping[str, Array], *, with_head: bool) -> dict[str, Array]:
    """Put renamed tensors under the attribute names of a classifier, or drop the head for a bare encoder."""
    if not with_head:
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(HEAD_PREFIX)}
    return {name if name.startswith(HEAD_PREFIX) else ENCODER_PREFIX + name: tensor for name, tensor in tensors.items()}


def compare(state: Mapping[str, Any], expected: Mapping[str, Shape], where: str) -> None:
    """Refuse missing, unexpected, misshapen and non-floating tensors, listing them.

    Raises:
        CheckpointError: Naming the first of each kind.
    """
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys())
    misshapen = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(shape)}"
        for name, shape in expected.items()
        if name in state and (tuple(state[name].shape) != shape or not _is_floating_point(state[name]))
    ]
    faults = {"missing": missing, "unexpected": unexpected, "of the wrong shape or type": misshapen}
    told = [f"{len(names)} {fault}: {_first(names)}" for fault, names in faults.items() if names]
    if told:
        raise CheckpointError(f"{where}: its tensors do not fit its configuration; {'; '.join(told)}")


def _first(names: list[str], most: int = 3) -> str:
    plain = [name if name.isprintable() and len(name) <= MAX_SHOWN_NAME else shown(name) for name in names[:most]]
    return ", ".join(plain) + (", ..." if len(names) > most else "")


def _is_floating_point(tensor: Any) -> bool:
    return tensor.dtype.kind == "f" if isinstance(tensor, np.ndarray) else bool(tensor.is_floating_point())


def refuse_non_finite(tensors: Mapping[str, NDArray[Any]], where: str) -> None:
    """Refuse weights that are no numbers.

    Raises:
        CheckpointError: Naming the tensor.
    """
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise CheckpointError(f"{where}: {name} holds NaN or infinite weights")
