"""The names and shapes of the tensors in checkpoints: rename them, compare them, infer a configuration from them.

Works on tensors of both torch and NumPy, and imports torch only to concatenate tensors of torch. Checkpoints are
untrusted input: every tensor is compared with the configuration before a model is built, and a model never gets a head
that was not in the file.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ast_cli import labels as audioset
from ast_cli.audio.front_ends import extractor_type
from ast_cli.errors import CheckpointError
from ast_cli.files.json_object import read_json_object, shown
from ast_cli.hub.names import CONFIG_NAME, PREPROCESSOR_NAME
from ast_cli.model import eat_config
from ast_cli.model.config import ASTConfig
from ast_cli.model.form import AST, EAT, FORMS, EncoderForm

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

Array = TypeVar("Array", "NDArray[Any]", "Tensor")
Shape = tuple[int, ...]

ENCODER_PREFIX = "audio_spectrogram_transformer."
HEAD_PREFIX = "head."
PUBLISHED_STRIDES = (10, 12, 14, 16)
PUBLISHED_MEL_BINS = 128
PUBLISHED_LENGTHS = (1024, 512, 128, 256, 998, 2048)  # frames, most likely first
TIMM_HEAD_DIM = 64  # the same for every DeiT size; the original checkpoints were trained from DeiT
MAX_SHOWN_NAME = 120  # characters of a tensor name shown in an error message

# Patterns that turn AST's hub names (both layouts of transformers) and original names into ours, applied in this order.
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

# Beginnings of names in the files of EAT and SSLAM, and of ours; the first that fits is replaced, in both directions.
EAT_NAMES = (
    ("model.extra_tokens", "cls_token"),
    ("model.fixed_positional_encoder.positions", "pos_embed"),
    ("model.local_encoder.", "patch_embed."),
    ("model.fc_norm.", "head.norm."),
    ("model.head.", "head.fc."),
    ("model.", ""),  # norm before the blocks, and blocks
)

# Names, before and after renaming, of the tensors that `rename` fuses into ``qkv``.
IS_FUSED = re.compile(r"\.(?:query|key|value|[qkv]_proj)\.")


def rename(tensors: Mapping[str, Array], form: EncoderForm = AST) -> dict[str, Array]:
    """Translate the tensor names of any layout of a form to ours, and fuse queries, keys and values.

    Unknown names are kept, so that `compare` can report them.
    """
    if form == EAT:
        return _without_loss(tensors, {name: eat_name(name, to_ours=True) for name in tensors})
    is_original = any(re.match(r"(module\.)?v\.", name) for name in tensors)
    names: dict[str, str] = {}
    for original in tensors:
        if is_original and re.match(r"(module\.)?v\.head", original):
            continue  # the ImageNet head of the vision model that the checkpoint was trained from
        name = original
        for pattern, replacement in RENAMES:
            name = pattern.sub(replacement, name)
        names[original] = name
    renamed = _without_loss(tensors, names)
    for name in [name for name in renamed if ".attn.query." in name]:
        parts = [name.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        if _can_be_fused([renamed.get(part) for part in parts]):
            fused = [renamed.pop(part) for part in parts]
            renamed[name.replace(".query.", ".qkv.")] = _concatenated(fused)
    return renamed


def _without_loss(tensors: Mapping[str, Array], names: Mapping[str, str]) -> dict[str, Array]:
    """Return tensors under new names; of two with one new name, the second is marked, for `compare` to report."""
    renamed: dict[str, Array] = {}
    for original, name in names.items():
        renamed[name if name not in renamed else f"{original} (twice)"] = tensors[original]
    return renamed


def eat_name(name: str, *, to_ours: bool) -> str:
    """Translate the name of a tensor of EAT to ours, or back."""
    for theirs, ours in EAT_NAMES:
        old, new = (theirs, ours) if to_ours else (ours, theirs)
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _can_be_fused(tensors: list[Any]) -> bool:
    """Return whether all tensors exist and have the same shape and type.

    Tensors of different shapes could add up to a fused tensor that has the expected shape but is wrong.
    """
    first = tensors[0]
    return first is not None and all(
        tensor is not None and tensor.ndim > 0 and tensor.shape == first.shape and tensor.dtype == first.dtype
        for tensor in tensors
    )


def _concatenated(tensors: Sequence[Array]) -> Array:
    """Concatenate tensors along their first axis."""
    if isinstance(tensors[0], np.ndarray):
        return np.concatenate(tensors)
    import torch

    return torch.cat(list(tensors))


def expected_shapes(config: ASTConfig) -> dict[str, Shape]:
    """Return the shape of every tensor of a classifier, keyed by our names, without building the model."""
    C, M, L, p = config.hidden_size, config.intermediate_size, config.num_labels, config.patch_size
    shapes: dict[str, Shape] = {
        "cls_token": (1, 1, C),
        **({"dist_token": (1, 1, C)} if config.form.num_prefix_tokens == 2 else {}),
        "pos_embed": (1, config.num_positions, C),
        "patch_embed.proj.weight": (C, 1, p, p),
        "patch_embed.proj.bias": (C,),
    }
    for i in range(config.num_hidden_layers):
        shapes |= _norm_shapes(f"blocks.{i}.norm1", C) | _norm_shapes(f"blocks.{i}.norm2", C)
        shapes |= _linear_shapes(f"blocks.{i}.attn.qkv", C, 3 * C, has_bias=config.qkv_bias)
        shapes |= _linear_shapes(f"blocks.{i}.attn.proj", C, C)
        shapes |= _linear_shapes(f"blocks.{i}.mlp.fc1", C, M) | _linear_shapes(f"blocks.{i}.mlp.fc2", M, C)
    shapes |= _norm_shapes("norm" if config.form.norm_first else "pre_norm", C)
    encoder = {ENCODER_PREFIX + name: shape for name, shape in shapes.items()}
    return encoder | _norm_shapes("head.norm", C) | _linear_shapes("head.fc", C, L)


def _norm_shapes(name: str, width: int) -> dict[str, Shape]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear_shapes(name: str, num_in: int, num_out: int, *, has_bias: bool = True) -> dict[str, Shape]:
    return {f"{name}.weight": (num_out, num_in)} | ({f"{name}.bias": (num_out,)} if has_bias else {})


def infer_config(tensors: Mapping[str, Any], where: str) -> ASTConfig:
    """Infer the architecture of an original ``.pth`` file from the shapes of its (renamed) tensors.

    The strides are the published ones whose number of patches matches the number of position embeddings at a common
    input length.

    Raises:
        CheckpointError: If the tensors are not those of an AST classifier, or their shapes match no published
            architecture; the caller must then pass a configuration.
    """
    try:
        hidden_size = tensors["cls_token"].shape[-1]
        num_patches = tensors["pos_embed"].shape[1] - AST.num_prefix_tokens
        patch_size = tensors["patch_embed.proj.weight"].shape[-1]
        intermediate_size = tensors["blocks.0.mlp.fc1.weight"].shape[0]
        num_labels = tensors["head.fc.weight"].shape[0]
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"{where}: contains no AST classifier (no usable tensor {error})") from error
    if hidden_size % TIMM_HEAD_DIM:
        raise CheckpointError(
            f"{where}: the number of attention heads cannot be inferred from a width of {hidden_size}; "
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
    """Return the published stride, and the input length in frames, that give this number of patches.

    Raises:
        CheckpointError: If there is none.
    """
    for max_length in PUBLISHED_LENGTHS:
        for stride in PUBLISHED_STRIDES:
            frequency = (PUBLISHED_MEL_BINS - patch_size) // stride + 1
            if frequency * ((max_length - patch_size) // stride + 1) == num_patches:
                return stride, max_length
    raise CheckpointError(
        f"{where}: {num_patches} position embeddings match no published stride and length; "
        f"put its {CONFIG_NAME} beside it, or pass config=ASTConfig(...)"
    )


def name_labels(config: ASTConfig, tensors: Mapping[str, Any], where: str, *, allow_unnamed: bool) -> ASTConfig:
    """Return the configuration with one label for each output of the head.

    527 outputs without names get AudioSet's labels, because published configurations leave the names out or use
    ``LABEL_n``.

    Raises:
        CheckpointError: If the number of labels differs from the number of outputs, or there are no names, and
            ``allow_unnamed`` is false; or if the checkpoint is a pretrained encoder, which has no head.
    """
    if config.has_no_head:
        raise CheckpointError(
            f"{where}: by its model_variant, {eat_config.PRETRAINED}, this is an encoder without a classification "
            f"head; train one with `ast finetune`, or use a model of the variant {eat_config.FINETUNED}"
        )
    head = tensors.get("head.fc.weight")
    if head is None or head.ndim != 2 or not head.shape[0]:
        return config  # `compare` reports it
    num_outputs, num_labels = head.shape[0], config.num_labels
    says_nothing = not config.has_own_labels and num_labels == 2  # 2 is the default of transformers
    has_names = config.id2label != audioset.placeholder_labels(num_labels)
    config = copy.copy(config)
    if num_outputs == audioset.NUM_AUDIOSET_LABELS and not has_names and (num_labels == num_outputs or says_nothing):
        config.id2label = audioset.audioset_id2label()
    elif num_outputs != num_labels or not (config.has_own_labels or says_nothing):
        if not allow_unnamed:
            named = f"names {num_labels} labels" if config.has_own_labels else "names no labels"
            raise CheckpointError(
                f"{where}: {CONFIG_NAME} {named} for {num_outputs} outputs; correct its id2label, "
                "or use --unnamed-labels"
            )
        config.id2label = audioset.placeholder_labels(num_outputs)
    return config


def has_config(folder: Path) -> bool:
    """Return whether a folder contains the configuration of a model; a ``config.json`` of other programs is ignored."""
    file = folder / CONFIG_NAME
    return file.is_file() and read_json_object(file).get("model_type") in list(FORMS)


def check_front_end(folder: Path) -> None:
    """Check that the ``preprocessor_config.json`` of a checkpoint folder, if there is one, describes our front end.

    Raises:
        CheckpointError: If the checkpoint needs another front end; the message names it.
    """
    file = folder / PREPROCESSOR_NAME
    if file.is_file():
        extractor_type(read_json_object(file), str(folder))


def own_names(tensors: Mapping[str, Array], *, with_head: bool) -> dict[str, Array]:
    """Return renamed tensors under the attribute names of a classifier or, without the head, of a bare encoder."""
    if not with_head:
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(HEAD_PREFIX)}
    return {name if name.startswith(HEAD_PREFIX) else ENCODER_PREFIX + name: tensor for name, tensor in tensors.items()}


def compare(state: Mapping[str, Any], expected: Mapping[str, Shape], where: str) -> None:
    """Compare names, shapes and types of tensors with the expected ones.

    Raises:
        CheckpointError: If a tensor is missing, unexpected, misshapen or not floating point; the message lists the
            first tensors of each kind.
    """
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys())
    misshapen = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(shape)}"
        for name, shape in expected.items()
        if name in state and (tuple(state[name].shape) != shape or not _is_floating_point(state[name]))
    ]
    faults = {"missing": missing, "unexpected": unexpected, "of the wrong shape or type": misshapen}
    problems = [f"{len(names)} {fault}: {_first(names)}" for fault, names in faults.items() if names]
    if problems:
        raise CheckpointError(f"{where}: its tensors do not match its configuration; {'; '.join(problems)}")


def _first(names: list[str], most: int = 3) -> str:
    plain = [name if name.isprintable() and len(name) <= MAX_SHOWN_NAME else shown(name) for name in names[:most]]
    return ", ".join(plain) + (", ..." if len(names) > most else "")


def _is_floating_point(tensor: Any) -> bool:
    return tensor.dtype.kind == "f" if isinstance(tensor, np.ndarray) else bool(tensor.is_floating_point())


def refuse_non_finite(tensors: Mapping[str, NDArray[Any]], where: str) -> None:
    """Check that all weights are finite.

    Raises:
        CheckpointError: If a tensor contains NaN or infinity; the message names the tensor.
    """
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise CheckpointError(f"{where}: {name} contains NaN or infinite weights")
