"""Read and write checkpoint folders.

Files from different libraries name the tensors differently; `ast_cli.model.layout.rename` translates all of them.
Checkpoints are untrusted input: every tensor is compared with the configuration before a model is built, and a model
never gets a head that was not in the file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Self, TypeVar

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ast_cli.errors import CheckpointError, DeviceError, UsageError
from ast_cli.files.atomic import write_whole
from ast_cli.files.json_object import write_json_object
from ast_cli.hub.folders import checkpoint_folder
from ast_cli.hub.names import CONFIG_NAME, WEIGHTS_NAME
from ast_cli.model import eat_config
from ast_cli.model.config import ASTConfig, implied_problem_type, read_config
from ast_cli.model.form import AST, EAT
from ast_cli.model.layout import (
    ENCODER_PREFIX,
    check_front_end,
    compare,
    eat_name,
    has_config,
    infer_config,
    name_labels,
    own_names,
    rename,
)
from ast_cli.model.mapped_file import give_back
from ast_cli.model.weight_files import read_weights, read_weights_folder

Model = TypeVar("Model", bound="PretrainedAST")

DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "float16": torch.float16,
    "fp16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
}
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
    """Return the torch data type for a data type or its name (``float16``, ``fp16``, ...).

    Raises:
        UsageError: If the type is unknown or unsupported.
    """
    found = dtype if isinstance(dtype, torch.dtype) else DTYPES.get(dtype)
    if found not in (*DTYPES.values(), torch.float64):
        raise UsageError(f"dtype must be one of {', '.join(DTYPES)}, not {str(dtype)!r}")
    return found


class PretrainedAST(nn.Module):
    """A model that can be loaded from checkpoints and saved to them.

    The constructor of a subclass takes a configuration as its only required argument.

    Attributes:
        config: Configuration of the model.
        has_head: Whether the model is a classifier; the bare encoder ignores the head of a checkpoint.
        attn_implementation: Attention implementation, ``sdpa`` or ``eager``.
    """

    config: ASTConfig
    has_head = False
    attn_implementation: str

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        return next(self.parameters()).dtype

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        attn_implementation: str = "sdpa",
        dtype: torch.dtype | str = torch.float32,
        device: torch.device | str = "cpu",
        config: ASTConfig | None = None,
        unnamed_labels: bool = False,
    ) -> Self:
        """Load a checkpoint strictly: missing, unexpected, misshapen and non-finite tensors are errors.

        Args:
            model: ``builtin``, a folder in the hub's layout, an alias (``audioset``), a hub id, or an original
                ``.pth`` file.
            attn_implementation: Attention implementation, ``sdpa`` or ``eager``.
            dtype: Data type of the loaded weights: ``torch.float16`` or ``"float16"``, ``"fp16"`` and so on.
            device: Device of the loaded weights.
            config: Configuration to use instead of the checkpoint's own; required for a ``.pth`` file whose strides
                cannot be inferred from its tensors.
            unnamed_labels: Use the labels ``LABEL_n`` where the checkpoint does not name its labels.

        Returns:
            The model, in evaluation mode.

        Raises:
            CheckpointError: If the checkpoint is damaged, belongs to another model, or contradicts its configuration.
            HubError: If the checkpoint is not on this machine and cannot be downloaded.
        """
        loaded = load_checkpoint(cls, model, dtype=dtype, device=device, config=config, unnamed_labels=unnamed_labels)
        loaded.attn_implementation = attn_implementation
        return loaded

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` in the hub's layout; transformers loads that of AST too.

        Raises:
            CheckpointError: If the folder cannot be written.
        """
        save_checkpoint(self, folder)


def load_checkpoint(
    kind: type[Model],
    model: str | Path,
    *,
    dtype: torch.dtype | str,
    device: torch.device | str,
    config: ASTConfig | None,
    unnamed_labels: bool,
) -> Model:
    """Load a model of the class ``kind``; `PretrainedAST.from_pretrained` describes the arguments and errors."""
    target_dtype = resolve_dtype(dtype)
    where = str(model)
    tensors, found_config = _read(model, config, forget_bad_labels=unnamed_labels)
    if kind.has_head:
        found_config = name_labels(found_config, tensors, where, allow_unnamed=unnamed_labels)
    with torch.device("meta"):  # shapes only: no memory is allocated before the tensors are checked
        skeleton = kind(found_config)
    state = own_names(tensors, with_head=kind.has_head)
    compare(state, {name: tuple(tensor.shape) for name, tensor in skeleton.state_dict().items()}, where)
    converted = {}
    for name, tensor in state.items():
        try:
            converted[name] = tensor.to(device=device, dtype=target_dtype)
        except (RuntimeError, AssertionError) as error:  # torch raises either for a missing device
            raise DeviceError(f"device {str(device)!r} cannot be used here ({str(error).splitlines()[0]})") from error
        _refuse_non_finite(converted[name], tensor, f"{where}: {name}")
        give_back([tensor])
    skeleton.load_state_dict(converted, strict=True, assign=True)
    return skeleton.eval()


def _read(
    model: str | Path, config: ASTConfig | None, *, forget_bad_labels: bool
) -> tuple[dict[str, Tensor], ASTConfig]:
    """Read the tensors, under our names, and the configuration unless it is given, of a folder or a file of weights."""
    path = Path(model).expanduser()
    if path.is_file():
        if config is None and has_config(path.parent):
            config = read_config(path.parent, forget_bad_labels=forget_bad_labels)
        tensors = rename(read_weights(path), config.form if config else AST)
        return tensors, config or infer_config(tensors, str(path))
    folder = checkpoint_folder(model)
    check_front_end(folder)
    config = config or read_config(folder, forget_bad_labels=forget_bad_labels)
    return rename(read_weights_folder(folder), config.form), config


def save_checkpoint(model: PretrainedAST, folder: str | Path) -> None:
    """Write ``config.json`` and ``model.safetensors`` in the hub's layout, replacing each file atomically.

    Raises:
        CheckpointError: If the folder cannot be written.
    """
    folder = Path(folder)
    config = model.config.to_dict() | {
        "architectures": [type(model).__name__],
        "dtype": str(model.dtype).removeprefix("torch."),
        "problem_type": implied_problem_type(model.config),  # readers derive the activation from it
    }
    if model.config.form == EAT:
        config["architectures"] = ["EATModel"]
        config["model_variant"] = eat_config.FINETUNED if model.has_head else eat_config.PRETRAINED
    config.pop("torch_dtype", None)
    tensors = {name.removeprefix(ENCODER_PREFIX): tensor.detach() for name, tensor in model.state_dict().items()}
    if model.config.form == EAT:
        named = {eat_name(name, to_ours=False): tensor.contiguous().clone() for name, tensor in tensors.items()}
    else:
        named = hub_names(tensors, ENCODER_PREFIX if model.has_head else "")
    weights = save(named, metadata={"format": "pt"})
    write_whole(folder / WEIGHTS_NAME, weights, CheckpointError)
    write_json_object(folder / CONFIG_NAME, config)


def hub_names(tensors: Mapping[str, Tensor], encoder_prefix: str = "") -> dict[str, Tensor]:
    """Translate our tensor names to AST's on the hub; the inverse of `rename`."""
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


def _refuse_non_finite(converted: Tensor, source: Tensor, which: str) -> None:
    # The sum needs one pass and no copy, and NaN and infinity carry over to it. It may also overflow for large but
    # finite weights, so only then every element is checked.
    if not math.isfinite(converted.sum().item()) and not torch.isfinite(converted).all():
        if torch.isfinite(source.double()).all():
            raise CheckpointError(f"{which} contains weights too large for {converted.dtype}; use float32")
        raise CheckpointError(f"{which} contains NaN or infinite weights")
