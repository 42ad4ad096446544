"""The ``config.json`` of EAT and SSLAM: its keys in terms of the fields of `ASTConfig`, and back. No torch.

The published files name remote code that reads them; it is never run. Keys that decide about the computation must have
the values of the published models, and the others are kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ast_cli.errors import UsageError
from ast_cli.files.json_object import shown
from ast_cli.model.field_checks import LIMITS, MAX_LABELS, MAX_TOKENS, check_flag, check_number, check_whole_number

if TYPE_CHECKING:
    from ast_cli.model.config import ASTConfig

FINETUNED, PRETRAINED = "finetune", "pretrain"  # values of model_variant: with and without a head
PUBLISHED_SIZES = {  # used for missing keys
    "embed_dim": 768,
    "depth": 12,
    "num_heads": 12,
    "patch_size": 16,
    "stride": 16,
    "mel_bins": 128,
    "max_length": 768,  # rows along time of the table of positions, not frames
    "num_classes": 527,
}
FIELDS = {  # by key, the field of the same meaning
    "embed_dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "patch_size": "patch_size",
    "stride": "frequency_stride",
    "mel_bins": "num_mel_bins",
    "max_length": "position_rows",
    "num_classes": "num_labels",
}
KEY_LIMITS = {"max_length": LIMITS["max_length"], "num_classes": MAX_LABELS}
FIXED: dict[str, Any] = {"layer_norm_first": False, "norm_affine": True, "fixed_positions": True, "in_chans": 1}
# Rates of training that have no counterpart in our model and do not change scores.
UNUSED_RATES = ("activation_dropout", "post_mlp_drop", "start_drop_path_rate", "end_drop_path_rate")


def fields_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `ASTConfig` for the content of an EAT ``config.json``, and all keys without a counterpart.

    Raises:
        UsageError: If a value is invalid, or the model computes in another way than the published ones; the message
            names the key.
    """
    sizes = {key: values.get(key, default) for key, default in PUBLISHED_SIZES.items()}
    for key, value in sizes.items():
        check_whole_number(key, value, KEY_LIMITS.get(key) or LIMITS[FIELDS[key]])
    for key, expected in FIXED.items():
        value = values.get(key, expected)
        if type(value) is not type(expected) or value != expected:
            raise UsageError(f"{key} must be {json.dumps(expected)}, as in the published models, not {shown(value)}")
    variant = values.get("model_variant", FINETUNED)
    if variant not in (FINETUNED, PRETRAINED):
        raise UsageError(f"model_variant must be {FINETUNED} or {PRETRAINED}, not {shown(variant)}")
    rates = {key: values.get(key, 0.0) for key in ("drop_rate", "attn_drop_rate", *UNUSED_RATES)}
    for key, value in rates.items():
        check_number(key, value, 0.0, 1.0)
    eps, qkv_bias = values.get("norm_eps", 1e-6), values.get("qkv_bias", True)
    check_number("norm_eps", eps, 0.0, 1.0)
    check_flag("qkv_bias", qkv_bias)
    if sizes["embed_dim"] % sizes["num_heads"]:
        raise UsageError(f"embed_dim {sizes['embed_dim']} is not divisible by num_heads {sizes['num_heads']}")
    num_frames = _num_frames(values.get("img_size", [1024, sizes["mel_bins"]]), sizes)
    named = values.get("id2label") or values.get("label2id")
    if isinstance(named, Mapping) and len(named) != values.get("num_classes", len(named)):
        raise UsageError(f"num_classes is {sizes['num_classes']} but id2label names {len(named)} labels")
    translated = {
        **{FIELDS[key]: value for key, value in sizes.items()},
        "time_stride": sizes["stride"],
        "max_length": num_frames,
        "intermediate_size": _intermediate_size(sizes["embed_dim"], values.get("mlp_ratio", 4.0)),
        "hidden_dropout_prob": rates["drop_rate"],
        "attention_probs_dropout_prob": rates["attn_drop_rate"],
        "layer_norm_eps": eps,
        "qkv_bias": qkv_bias,
        "model_variant": variant,
    }
    if named and "num_classes" not in values:
        translated["num_labels"] = None  # as many as there are names
    known = {*FIELDS, *FIXED, "img_size", "mlp_ratio", "drop_rate", "attn_drop_rate", "norm_eps"}
    return {**{key: value for key, value in values.items() if key not in known}, **translated}


def _num_frames(size: Any, sizes: Mapping[str, int]) -> int:
    """Return the length of a window in frames, from ``img_size``: frames and mel bins."""
    if not isinstance(size, list | tuple) or len(size) != 2:
        raise UsageError(f"img_size must be two whole numbers, frames and mel bins, not {shown(size)}")
    num_frames, num_bins = size
    check_whole_number("img_size[0]", num_frames, LIMITS["max_length"])
    if type(num_bins) is not int or num_bins != sizes["mel_bins"]:
        raise UsageError(f"img_size[1] must equal mel_bins {sizes['mel_bins']}, not {shown(num_bins)}")
    if sizes["patch_size"] > min(size):
        raise UsageError(f"patch_size {sizes['patch_size']} does not fit into img_size {shown(size)}")
    num_patches = (num_frames - sizes["patch_size"]) // sizes["stride"] + 1
    if num_patches > sizes["max_length"]:
        raise UsageError(
            f"max_length {sizes['max_length']} is less than the {num_patches} patches along time of img_size"
        )
    along_frequency = (num_bins - sizes["patch_size"]) // sizes["stride"] + 1
    if sizes["max_length"] * along_frequency > MAX_TOKENS:
        raise UsageError(
            f"max_length {sizes['max_length']} times {along_frequency} patches along frequency gives "
            f"{sizes['max_length'] * along_frequency} positions; at most {MAX_TOKENS} are allowed"
        )
    return int(num_frames)


def _intermediate_size(embed_dim: int, ratio: Any) -> int:
    """Return the width of the hidden layer of the MLP, from ``mlp_ratio``."""
    check_number("mlp_ratio", ratio, 0.0, LIMITS["intermediate_size"])
    width = round(embed_dim * ratio)
    if not math.isclose(embed_dim * ratio, width, rel_tol=1e-9) or not 1 <= width <= LIMITS["intermediate_size"]:
        raise UsageError(
            f"mlp_ratio {ratio:g} times embed_dim {embed_dim} must be a whole number from 1 to "
            f"{LIMITS['intermediate_size']}, not {embed_dim * ratio:g}"
        )
    return int(width)


def keys_of(config: ASTConfig) -> dict[str, Any]:
    """Return the content of ``config.json`` that states the architecture; the inverse of `fields_of`."""
    return {
        **{key: getattr(config, field) for key, field in FIELDS.items()},
        "max_length": config.position_rows or config.num_patches[1],
        "img_size": [config.max_length, config.num_mel_bins],
        "mlp_ratio": config.intermediate_size / config.hidden_size,
        "qkv_bias": config.qkv_bias,
        "drop_rate": config.hidden_dropout_prob,
        "attn_drop_rate": config.attention_probs_dropout_prob,
        "norm_eps": config.layer_norm_eps,
        "hidden_act": config.hidden_act,
        "initializer_range": config.initializer_range,
        "model_variant": config.extra.get("model_variant", FINETUNED),
        **FIXED,
    }
