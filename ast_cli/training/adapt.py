"""The model that training starts from: a checkpoint adapted to other labels and inputs, or random weights."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.audio.front_ends.unstated import FRONT_ENDS
from ast_cli.errors import UsageError
from ast_cli.model.config import ASTConfig, read_config
from ast_cli.model.eat_config import FINETUNED
from ast_cli.model.form import AST
from ast_cli.model.transformer import ASTForAudioClassification, ASTModel
from ast_cli.model.weight_files import refuse_exported
from ast_cli.training.options import TrainOptions

SCRATCH_PREFIX = "scratch:"
HEAD_DIM = 64  # width of one attention head, as in every DeiT and AST
SCRATCH_EPS = 1e-6  # epsilon of layer normalization, as in the blocks of the original
TOKEN_STD = 0.02  # standard deviation of random tokens, as in timm
# Position embeddings then start about as large as patch embeddings: rms 0.14, against 0.16 for normalized inputs.
POSITION_AMPLITUDE = 0.2
LONGEST_PERIOD = 100  # longest period of the sines and cosines, in patches over 2 pi; a window has 101 along time
GEOMETRY = ("max_length", "num_mel_bins", "frequency_stride", "time_stride")

Grid = tuple[int, int]


def adapt_pos_embed(pos_embed: Tensor, old_grid: Grid, new_grid: Grid) -> Tensor:
    """Adapt AST's position embeddings to another grid of patches by the rule of the original code (``ast_models.py``).

    The rule applies to each dimension, time first: a smaller size is cut from the middle, a larger size is interpolated
    (bilinear).

    Args:
        pos_embed: Position embeddings, shape (1, num_prefix_tokens + old_frequency * old_time, hidden_size).
        old_grid: Present number of patches along frequency and time.
        new_grid: New number of patches along frequency and time.

    Returns:
        Position embeddings, shape (1, num_prefix_tokens + new_frequency * new_time, hidden_size).
    """
    if old_grid == new_grid:
        return pos_embed
    prefix, patches = pos_embed[:, : AST.num_prefix_tokens], pos_embed[:, AST.num_prefix_tokens :]
    grid = patches.transpose(1, 2).reshape(1, -1, *old_grid)  # (1, hidden_size, frequency, time)
    grid = _cut_or_stretch(grid, 3, new_grid[1])
    grid = _cut_or_stretch(grid, 2, new_grid[0])
    return torch.cat([prefix, grid.flatten(2).transpose(1, 2)], dim=1)


def _cut_or_stretch(grid: Tensor, dim: int, size: int) -> Tensor:
    """Cut or interpolate one dimension of an array of shape (1, hidden_size, frequency, time)."""
    old = grid.shape[dim]
    if size <= old:
        return grid.narrow(dim, old // 2 - size // 2, size)
    target = (size, grid.shape[3]) if dim == 2 else (grid.shape[2], size)
    return F.interpolate(grid, size=target, mode="bilinear")


def is_scratch(model: str) -> bool:
    """Return whether a model name means random weights: ``scratch:192x6``, or a ``config.json``."""
    return model.startswith(SCRATCH_PREFIX) or (model.endswith(".json") and Path(model).is_file())


def start_config(model: str, options: TrainOptions, default_max_length: int) -> ASTConfig:
    """Return the configuration of the model to train, with the input sizes of the options and the labels of the base.

    Args:
        model: A checkpoint, ``scratch:HIDDENxLAYERS``, or a ``config.json``.
        options: Options with the length, mel bins and strides of the input.
        default_max_length: Input length in frames for ``scratch:`` models if the options set none.

    Raises:
        UsageError: If the sizes are invalid.
        CheckpointError: If the configuration is invalid.
    """
    changes = {name: value for name in GEOMETRY if (value := getattr(options, name)) is not None}
    if not model.startswith(SCRATCH_PREFIX):
        file = Path(model)
        refuse_exported(file.expanduser())
        config = _config_from_file(file) if is_scratch(model) else ASTConfig.from_pretrained(model)
        base, config = config, copy.copy(config)
        for name, value in changes.items():
            setattr(config, name, value)
        config.validate()
        if config.form.fixed_positions and not is_scratch(model):
            _refuse_other_grid(base, config)
        return config
    hidden_size, num_layers = _scratch_sizes(model)
    return ASTConfig(
        hidden_size=hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=max(1, hidden_size // HEAD_DIM),
        intermediate_size=4 * hidden_size,
        layer_norm_eps=SCRATCH_EPS,
        **{"max_length": default_max_length, **changes},
    )


def _refuse_other_grid(base: ASTConfig, config: ASTConfig) -> None:
    """Check that the fixed positions of a base model fit the patches; only their number along time may differ.

    Raises:
        UsageError: If they do not fit.
    """
    if (base.num_patches[0], base.time_stride) != (config.num_patches[0], config.time_stride):
        raise UsageError(
            f"this base model has fixed positions, for {base.num_patches[0]} patches along frequency with strides of "
            f"{base.time_stride}; leave out --num-mel-bins, --frequency-stride and --time-stride"
        )


def _config_from_file(file: Path) -> ASTConfig:
    if file.name != "config.json":
        raise UsageError(f"--model {file}: a configuration must be named config.json")
    return read_config(file.parent, forget_bad_labels=True)


def _scratch_sizes(model: str) -> tuple[int, int]:
    """Return hidden size and number of layers of ``scratch:HIDDENxLAYERS``."""
    found = re.fullmatch(r"scratch:(\d{1,5})x(\d{1,3})", model)
    hidden_size, num_layers = (int(found[1]), int(found[2])) if found else (0, 0)
    if not hidden_size or not num_layers or (hidden_size >= HEAD_DIM and hidden_size % HEAD_DIM):
        raise UsageError(
            f"--model {model}: write scratch:HIDDENxLAYERS with a width that {HEAD_DIM} divides, as in scratch:192x6"
        )
    return hidden_size, num_layers


def start_model(
    model: str, config: ASTConfig, labels: Sequence[str], problem_type: str, options: TrainOptions
) -> ASTForAudioClassification:
    """Build the model to train.

    The head is new, as in the original, unless the base model knows every label: then the rows of these labels are
    kept.

    Args:
        model: Name of the base model; see `start_config`.
        config: Configuration from `start_config`.
        labels: Labels of the data, in the order of the outputs.
        problem_type: Problem type as in ``config.json``.
        options: Options with the seed and ``new_head``.
    """
    config = copy.copy(config)
    config.id2label = dict(enumerate(labels))
    config.has_own_labels = True
    config.problem_type = problem_type
    is_encoder = config.has_no_head
    if is_encoder:
        config.extra = config.extra | {"model_variant": FINETUNED}  # it gets a head
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        fresh = ASTForAudioClassification(config)
        if is_scratch(model):
            _randomize_embeddings(fresh.audio_spectrogram_transformer)
    if is_scratch(model):
        return fresh
    if is_encoder:
        fresh.audio_spectrogram_transformer.load_state_dict(ASTModel.from_pretrained(model).state_dict())
        return fresh
    base = ASTForAudioClassification.from_pretrained(model, unnamed_labels=True)
    fresh.load_state_dict(_adapted_state(base, fresh, keep_head=not options.new_head))
    return fresh


@torch.no_grad()
def _randomize_embeddings(encoder: ASTModel) -> None:
    """Give an encoder random prefix tokens, and sines and cosines as positions."""
    config = encoder.config
    for token in encoder.embeddings:
        torch.nn.init.trunc_normal_(token, std=TOKEN_STD)
    if config.form.fixed_positions:  # time-major, for the whole table
        frequency, time = config.num_patches
        grid = frequency, config.position_rows or time
        positions = first_positions(grid, config.hidden_size).view(*grid, -1)
        encoder.pos_embed[0] = positions.transpose(0, 1).flatten(0, 1)
    else:
        positions = first_positions(config.num_patches, config.hidden_size)
        encoder.pos_embed[:, config.form.num_prefix_tokens :] = positions


def first_positions(grid: Grid, hidden_size: int) -> Tensor:
    """Return the initial position embeddings of a model that is trained from random weights.

    They are sines and cosines along both axes, so that neighbors have similar embeddings from the start. A plain vision
    transformer learns faster from them than from random numbers (Beyer et al., 2022,
    https://arxiv.org/abs/2205.01580). A quarter of the numbers each is the sine and the cosine of the position along
    frequency, then along time, at wavelengths in a geometric series.

    Args:
        grid: Number of patches along frequency and time.
        hidden_size: Width of the model; up to three numbers at the end stay 0 if it is not a multiple of four.

    Returns:
        Position embeddings, shape (patches along frequency * patches along time, hidden_size), frequency-major.
    """
    rates = LONGEST_PERIOD ** -torch.linspace(0, 1, hidden_size // 4)
    along_frequency, along_time = (torch.arange(length)[:, None] * rates for length in grid)
    waves = [
        along_frequency.sin()[:, None].expand(-1, grid[1], -1),
        along_frequency.cos()[:, None].expand(-1, grid[1], -1),
        along_time.sin().expand(grid[0], -1, -1),
        along_time.cos().expand(grid[0], -1, -1),
    ]
    positions = POSITION_AMPLITUDE * torch.cat(waves, dim=-1).flatten(0, 1)
    return F.pad(positions, (0, hidden_size - positions.shape[1]))


def _adapted_state(
    base: ASTForAudioClassification, fresh: ASTForAudioClassification, *, keep_head: bool
) -> dict[str, Tensor]:
    """Return the tensors of the base model in the shapes of the new model."""
    state = dict(base.state_dict())
    name = "audio_spectrogram_transformer.pos_embed"
    if not fresh.config.form.fixed_positions:
        state[name] = adapt_pos_embed(state[name], base.config.num_patches, fresh.config.num_patches)
    rows = [base.config.label2id.get(label) for label in fresh.config.id2label.values()]
    if keep_head and None not in rows:
        state["head.fc.weight"] = state["head.fc.weight"][rows]
        state["head.fc.bias"] = state["head.fc.bias"][rows]
    else:
        state |= {key: tensor for key, tensor in fresh.state_dict().items() if key.startswith("head.")}
    return state


def start_feature_extractor(model: str, config: ASTConfig, options: TrainOptions) -> FeatureExtractor:
    """Return the feature extractor for a model to train, with the mean and std of the base model or of the options.

    A model from random weights starts with AudioSet's mean and std, or with those of ``options.front_end``.

    Raises:
        CheckpointError: If the front end of the base model is unknown.
    """
    if is_scratch(model):
        known = FRONT_ENDS[options.front_end or "audioset"]
        statistics = {"mean": known.mean, "std": known.std}
        values: dict[str, Any] = {"feature_extractor_type": known.feature_extractor_type, **statistics}
    else:
        values = FeatureExtractor.from_pretrained(model, front_end=options.front_end).to_dict()
    sizes = {"num_mel_bins": config.num_mel_bins, "max_length": config.max_length}
    extractor = FeatureExtractor.from_dict(values | sizes)
    fixed = options.fixed_statistics()
    if fixed is not None:
        extractor.mean, extractor.std = fixed
        extractor.check_parameters()
    return extractor
