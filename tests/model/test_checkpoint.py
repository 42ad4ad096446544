from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, load_file, save_file
from tiny_models import FIVE_LABELS, TINY, randomize, spectrograms, tiny_config
from torch import Tensor

from ast_cli import ASTConfig, ASTForAudioClassification, ASTModel
from ast_cli.errors import CheckpointError, DeviceError, UsageError
from ast_cli.labels import audioset_id2label
from ast_cli.model.arrays import load_arrays
from ast_cli.model.checkpoint import hub_names
from ast_cli.model.layout import PUBLISHED_LENGTHS, PUBLISHED_STRIDES, expected_shapes, infer_config, rename
from ast_cli.model.weight_files import read_weights

BLOCK = "audio_spectrogram_transformer.encoder.layer.1"
HUB_NAMES_OF_BLOCK_1 = {
    f"{BLOCK}.attention.attention.{part}.{kind}" for part in ("query", "key", "value") for kind in ("weight", "bias")
} | {
    f"{BLOCK}.{layer}.{kind}"
    for layer in (
        "attention.output.dense", "intermediate.dense", "output.dense", "layernorm_before", "layernorm_after",
    )
    for kind in ("weight", "bias")
}  # fmt: skip
HUB_NAMES_OUTSIDE_BLOCKS = {
    "audio_spectrogram_transformer.embeddings.cls_token",
    "audio_spectrogram_transformer.embeddings.distillation_token",
    "audio_spectrogram_transformer.embeddings.position_embeddings",
    "audio_spectrogram_transformer.embeddings.patch_embeddings.projection.weight",
    "audio_spectrogram_transformer.embeddings.patch_embeddings.projection.bias",
    "audio_spectrogram_transformer.layernorm.weight",
    "audio_spectrogram_transformer.layernorm.bias",
    "classifier.layernorm.weight",
    "classifier.layernorm.bias",
    "classifier.dense.weight",
    "classifier.dense.bias",
}


def classifier(**changes: Any) -> ASTForAudioClassification:
    model = randomize(ASTForAudioClassification(tiny_config(**changes)))
    assert isinstance(model, ASTForAudioClassification)
    return model


def logits(model: ASTForAudioClassification) -> Tensor:
    with torch.no_grad():
        return model(spectrograms(model.config)).logits  # type: ignore[no-any-return]


def plain_names(model: ASTForAudioClassification | ASTModel) -> dict[str, Tensor]:
    """Return the tensors under our names without the encoder's prefix, which is what `rename` returns."""
    return {n.removeprefix("audio_spectrogram_transformer."): t.detach() for n, t in model.state_dict().items()}


def original_names(model: ASTForAudioClassification) -> dict[str, Tensor]:
    """Return the layout of the authors' files: timm's names, a fused qkv layer, and the prefix of `DataParallel`."""
    renamed = {}
    for name, tensor in plain_names(model).items():
        name = re.sub(r"^head\.norm\.", "mlp_head.0.", name)
        name = re.sub(r"^head\.fc\.", "mlp_head.1.", name)
        renamed["module." + (name if name.startswith("mlp_head") else f"v.{name}")] = tensor.clone()
    width = model.config.hidden_size
    for head in ("head", "head_dist"):  # ImageNet's, never used by AST
        renamed |= {f"module.v.{head}.weight": torch.zeros(1000, width), f"module.v.{head}.bias": torch.zeros(1000)}
    return renamed


def names_in_memory(model: ASTForAudioClassification) -> dict[str, Tensor]:
    """Return the in-memory layout of transformers 5, converted from the layout on disk."""
    renamed = {}
    for name, tensor in hub_names(plain_names(model), "audio_spectrogram_transformer.").items():
        for pattern, replacement in (
            (r"encoder\.layer\.", "layers."),
            (r"attention\.attention\.query", "attention.q_proj"),
            (r"attention\.attention\.key", "attention.k_proj"),
            (r"attention\.attention\.value", "attention.v_proj"),
            (r"attention\.output\.dense", "attention.o_proj"),
            (r"intermediate\.dense", "mlp.fc1"),
            (r"(\d)\.output\.dense", r"\1.mlp.fc2"),
        ):
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def rewrite_config(folder: Path, **changes: Any) -> None:
    """Change ``config.json``; None removes a key."""
    file = folder / "config.json"
    values = json.loads(file.read_text(encoding="utf-8")) | changes
    file.write_text(json.dumps({name: value for name, value in values.items() if value is not None}), encoding="utf-8")


@pytest.fixture
def model() -> ASTForAudioClassification:
    return classifier()


@pytest.fixture
def folder(tmp_path: Path, model: ASTForAudioClassification) -> Path:
    model.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


# --- saving and loading ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_saved_weights_load_bit_for_bit(tmp_path: Path, qkv_bias: bool) -> None:
    model = classifier(qkv_bias=qkv_bias, problem_type="multi_label_classification")
    model.train().save_pretrained(str(tmp_path / "a" / "b"))
    again = ASTForAudioClassification.from_pretrained(str(tmp_path / "a" / "b"))
    assert not again.training
    assert again.config.to_dict() == model.config.to_dict() | {
        "architectures": ["ASTForAudioClassification"],
        "dtype": "float32",
    }
    expected = model.state_dict()
    assert again.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.state_dict().items())
    assert torch.equal(logits(again), logits(model.eval()))
    assert all(parameter.requires_grad for parameter in again.parameters())


def test_a_saved_folder_contains_only_the_hubs_tensor_names(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        names = set(file.keys())
    assert {name for name in names if ".encoder.layer." not in name} == HUB_NAMES_OUTSIDE_BLOCKS
    assert {name for name in names if ".encoder.layer.1." in name} == HUB_NAMES_OF_BLOCK_1
    assert len(names) == 11 + 2 * 16


def test_the_rows_of_the_fused_product_are_queries_keys_and_values(
    folder: Path, model: ASTForAudioClassification
) -> None:
    saved = load_file(folder / "model.safetensors")
    fused = model.audio_spectrogram_transformer.blocks[1].attn.qkv.weight
    for part, rows in (("query", fused[:12]), ("key", fused[12:24]), ("value", fused[24:])):
        assert torch.equal(saved[f"{BLOCK}.attention.attention.{part}.weight"], rows)


def test_a_second_save_replaces_the_first_completely(folder: Path) -> None:
    other = randomize(ASTForAudioClassification(tiny_config()), seed=9)
    other.save_pretrained(folder)
    assert torch.equal(logits(ASTForAudioClassification.from_pretrained(folder)), logits(other))
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_a_loaded_model_can_be_saved_over_its_own_files(folder: Path, model: ASTForAudioClassification) -> None:
    again = ASTForAudioClassification.from_pretrained(folder)
    again.save_pretrained(folder)
    assert torch.equal(logits(again), logits(model))
    assert torch.equal(logits(ASTForAudioClassification.from_pretrained(folder)), logits(model))


@pytest.mark.parametrize(
    ("changes", "problem_type"),
    [
        ({}, "single_label_classification"),
        ({"problem_type": "multi_label_classification"}, "multi_label_classification"),
        ({"id2label": audioset_id2label()}, "multi_label_classification"),
        (
            {"id2label": audioset_id2label(), "problem_type": "single_label_classification"},
            "single_label_classification",
        ),
        ({"id2label": {0: "loudness"}}, "regression"),
    ],
)
def test_saving_writes_the_problem_type_out(tmp_path: Path, changes: dict[str, Any], problem_type: str) -> None:
    model = classifier(**changes)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["problem_type"] == problem_type
    assert model.config.problem_type == changes.get("problem_type")


def test_an_activation_function_cannot_be_saved_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="hidden_act is a function"):
        classifier(hidden_act=torch.nn.functional.silu).save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_a_checkpoint_error(
    tmp_path: Path, model: ASTForAudioClassification
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        model.save_pretrained(tmp_path / "file" / "folder")


def test_auto_map_is_neither_followed_nor_written_back(folder: Path, tmp_path: Path) -> None:
    (folder / "evil.py").write_text("raise SystemExit('imported')")
    rewrite_config(folder, auto_map={"AutoModelForAudioClassification": "evil.Model"}, foo="kept")
    ASTForAudioClassification.from_pretrained(folder).save_pretrained(tmp_path / "again")
    written = json.loads((tmp_path / "again" / "config.json").read_text())
    assert "auto_map" not in written
    assert written["foo"] == "kept"


# --- options of from_pretrained ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, torch.float16),
        ("fp16", torch.float16),
        ("float16", torch.float16),
        ("bf16", torch.bfloat16),
        ("bfloat16", torch.bfloat16),
        ("fp32", torch.float32),
        ("float32", torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_weights_are_converted_to_the_requested_type(
    folder: Path, model: ASTForAudioClassification, dtype: Any, expected: torch.dtype
) -> None:
    loaded = ASTForAudioClassification.from_pretrained(folder, dtype=dtype)
    assert {parameter.dtype for parameter in loaded.parameters()} == {expected}
    assert torch.equal(loaded.head.fc.weight, model.head.fc.weight.to(expected))


@pytest.mark.parametrize("dtype", ["int8", "auto", "float", "", torch.int8, torch.complex64, torch.float8_e4m3fn])
def test_another_type_is_refused(folder: Path, dtype: Any) -> None:
    with pytest.raises(UsageError, match="dtype must be one of float32, fp32, float16"):
        ASTForAudioClassification.from_pretrained(folder, dtype=dtype)


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_tensors_to_be_fused_are_read_and_the_others_mapped(tmp_path: Path, stored: torch.dtype) -> None:
    names = ("blocks.0.attn.query.weight", "x.attention.k_proj.bias", "layers.3.attention.attention.value.weight")
    tensors = {name: (100 * torch.randn(5, 7)).to(stored) for name in (*names, "other.weight")}
    tensors |= {"a.query.scale": torch.tensor(3).to(stored), "a.key.none": torch.empty(0, 4, dtype=stored)}
    save_file(tensors, tmp_path / "some.safetensors", metadata={"format": "pt"})
    found = read_weights(tmp_path / "some.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, tensors[name]), name
        assert tensor.dtype == stored
    if Path("/proc/self/maps").exists():
        assert is_mapped(found["other.weight"])
        assert not any(is_mapped(found[name]) for name in names)


def is_mapped(tensor: Tensor) -> bool:
    """Return whether a tensor lies in a memory-mapped file."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(bound, 16) for bound in line.split()[0].split("-"))
        if begin <= tensor.data_ptr() < end:
            return line.endswith("some.safetensors")
    raise AssertionError("nowhere")


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float64])
def test_files_of_other_types_are_loaded_as_float32(tmp_path: Path, stored: torch.dtype) -> None:
    model = classifier()
    rounded = {name: tensor.to(stored).float() for name, tensor in model.state_dict().items()}
    model.to(stored).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == str(stored).removeprefix("torch.")
    assert load_file(tmp_path / "model.safetensors")["classifier.dense.bias"].dtype == stored
    loaded = ASTForAudioClassification.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in rounded.items())


@pytest.mark.parametrize("attn", ["eager", "sdpa"])
def test_the_attention_implementation_can_be_chosen(folder: Path, attn: str) -> None:
    loaded = ASTForAudioClassification.from_pretrained(folder, attn_implementation=attn)
    assert loaded.attn_implementation == attn
    with pytest.raises(UsageError, match="attn_implementation must be one of"):
        ASTForAudioClassification.from_pretrained(folder, attn_implementation="flash")


def test_sdpa_and_float32_on_the_cpu_are_the_defaults(folder: Path) -> None:
    loaded = ASTForAudioClassification.from_pretrained(folder)
    assert (loaded.attn_implementation, loaded.dtype, loaded.device.type) == ("sdpa", torch.float32, "cpu")


@pytest.mark.parametrize("device", ["nonsense", "cuda:9", torch.device("cuda", 9)])
def test_a_device_that_is_not_there_is_refused(folder: Path, device: Any) -> None:
    with pytest.raises(DeviceError, match=r"device '.*' cannot be used here"):
        ASTForAudioClassification.from_pretrained(folder, device=device)


def test_a_given_configuration_replaces_the_folders_and_is_not_modified(
    folder: Path, model: ASTForAudioClassification
) -> None:
    (folder / "config.json").unlink()
    config = ASTConfig(**TINY, hidden_dropout_prob=0.5, num_labels=5)
    loaded = ASTForAudioClassification.from_pretrained(folder, config=config, unnamed_labels=True)
    assert loaded.config.hidden_dropout_prob == 0.5
    assert torch.equal(logits(loaded), logits(model))
    wide = ASTConfig(**TINY)  # two labels by default
    ASTForAudioClassification.from_pretrained(folder, config=wide, unnamed_labels=True)
    assert wide == ASTConfig(**TINY)


def test_the_built_in_model_loads_by_name() -> None:
    loaded = ASTForAudioClassification.from_pretrained("builtin")
    assert "Bark" in loaded.config.label2id
    assert ASTConfig.from_pretrained("builtin") == loaded.config


def test_an_unknown_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="no checkpoint folder or name 'audioste'; did you mean audioset"):
        ASTForAudioClassification.from_pretrained("audioste")


# --- encoder and classifier --------------------------------------------------------------------------------------


def test_the_encoder_ignores_the_head_of_a_classification_checkpoint(
    folder: Path, model: ASTForAudioClassification
) -> None:
    encoder = ASTModel.from_pretrained(folder)
    expected = model.audio_spectrogram_transformer.state_dict()
    assert encoder.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in encoder.state_dict().items())


def test_the_encoder_needs_no_label_names(folder: Path) -> None:
    rewrite_config(folder, id2label=None, label2id=None)
    assert isinstance(ASTModel.from_pretrained(folder), ASTModel)


def test_an_encoders_folder_loads_as_encoder_and_is_refused_as_classifier(
    tmp_path: Path, model: ASTForAudioClassification
) -> None:
    encoder = model.audio_spectrogram_transformer
    encoder.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["ASTModel"]
    assert "embeddings.cls_token" in load_file(tmp_path / "model.safetensors")
    x = spectrograms(model.config)
    assert torch.equal(ASTModel.from_pretrained(tmp_path)(x).pooler_output, encoder(x).pooler_output)
    with pytest.raises(CheckpointError) as caught:
        ASTForAudioClassification.from_pretrained(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: its tensors do not match its configuration; "
        "4 missing: head.fc.bias, head.fc.weight, head.norm.bias, ..."
    )


# --- layouts -----------------------------------------------------------------------------------------------------


def test_hub_names_and_rename_round_trip(model: ASTForAudioClassification) -> None:
    tensors = plain_names(model)
    for prefix in ("", "audio_spectrogram_transformer."):
        again = rename(hub_names(tensors, prefix))
        assert again.keys() == tensors.keys()
        assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("layout", [original_names, names_in_memory, plain_names])
def test_every_layout_loads_from_a_folder(tmp_path: Path, model: ASTForAudioClassification, layout: Any) -> None:
    model.config.save_pretrained(tmp_path)
    save_file({name: tensor.clone() for name, tensor in layout(model).items()}, tmp_path / "model.safetensors")
    assert torch.equal(logits(ASTForAudioClassification.from_pretrained(tmp_path)), logits(model))
    assert ASTModel.from_pretrained(tmp_path).config == model.config


def test_unknown_names_pass_through() -> None:
    tensor = torch.zeros(1)
    assert rename({"foo.bar": tensor}) == {"foo.bar": tensor}


def test_two_names_for_one_tensor_are_refused(tmp_path: Path, model: ASTForAudioClassification) -> None:
    model.save_pretrained(tmp_path)
    tensors = load((tmp_path / "model.safetensors").read_bytes())  # not mapped: the file is written over
    tensors["cls_token"] = torch.ones(1, 1, 12)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 unexpected: .*cls_token \(twice\)"):
        ASTForAudioClassification.from_pretrained(tmp_path)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_a_pickle_of_tensors_loads(folder: Path, model: ASTForAudioClassification, zipped: bool) -> None:
    (folder / "model.safetensors").unlink()
    tensors = hub_names(plain_names(model), "audio_spectrogram_transformer.")
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    assert torch.equal(logits(ASTForAudioClassification.from_pretrained(folder)), logits(model))


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_a_pickle_in_half_precision_loads_as_float32(folder: Path, stored: torch.dtype, zipped: bool) -> None:
    (folder / "model.safetensors").unlink()
    model = classifier().to(stored)
    tensors = {name: torch.nn.Parameter(tensor) for name, tensor in plain_names(model).items()}
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    assert torch.equal(logits(ASTForAudioClassification.from_pretrained(folder)), logits(model.float()))


def test_safetensors_take_precedence_over_a_pickle(folder: Path, model: ASTForAudioClassification) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    assert torch.equal(logits(ASTForAudioClassification.from_pretrained(folder)), logits(model))


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
def test_shards_load_as_one(folder: Path, model: ASTForAudioClassification, kind: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    stem, suffix = kind.split(".")
    shards = [f"{stem}-{number:05}-of-00003.{suffix}" for number in (1, 2, 3)]
    weight_map = {name: shards[index % 3] for index, name in enumerate(sorted(tensors))}
    for shard in shards:
        part = {name: tensors[name] for name in tensors if weight_map[name] == shard}
        save_file(part, folder / shard) if suffix == "safetensors" else torch.save(part, folder / shard)
    (folder / f"{kind}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert torch.equal(logits(ASTForAudioClassification.from_pretrained(folder)), logits(model))
    (folder / shards[1]).unlink()
    with pytest.raises(CheckpointError, match=rf"{shards[1]}: there is no such file"):
        ASTForAudioClassification.from_pretrained(folder)


# --- original .pth files -----------------------------------------------------------------------------------------

PUBLISHED = [(1024, 10), (1024, 12), (1024, 14), (1024, 16), (512, 10), (128, 10)]
TIMM_LIKE: dict[str, Any] = {  # as narrow as heads of 64 dimensions allow
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "intermediate_size": 32,
}


@pytest.mark.parametrize(("max_length", "stride"), PUBLISHED)
def test_an_original_file_of_every_published_geometry_loads(tmp_path: Path, max_length: int, stride: int) -> None:
    config = ASTConfig(**TIMM_LIKE, max_length=max_length, frequency_stride=stride, time_stride=stride, num_labels=527)
    model = randomize(ASTForAudioClassification(config), scale=0.1)
    torch.save(original_names(model), tmp_path / "audioset.pth")
    loaded = ASTForAudioClassification.from_pretrained(tmp_path / "audioset.pth")
    expected = config.to_dict() | {"id2label": None, "label2id": None}
    assert loaded.config.to_dict() | {"id2label": None, "label2id": None} == expected
    assert loaded.config.id2label == audioset_id2label()
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    loaded.save_pretrained(tmp_path / "converted")
    assert ASTForAudioClassification.from_pretrained(tmp_path / "converted").config.max_length == max_length


def test_the_published_base_size_is_inferred_from_shapes_alone() -> None:
    with torch.device("meta"):
        model = ASTForAudioClassification(ASTConfig(num_labels=35, max_length=128))
    assert infer_config(plain_names(model), "x.pth") == ASTConfig(num_labels=35, max_length=128)


def test_no_two_published_geometries_have_the_same_number_of_patches() -> None:
    geometries = [(length, stride) for length in PUBLISHED_LENGTHS for stride in PUBLISHED_STRIDES]
    counts = [((128 - 16) // stride + 1) * ((length - 16) // stride + 1) for length, stride in geometries]
    assert len(set(counts)) == len(geometries)


@pytest.mark.parametrize("changes", [{"max_length": 777}, {"frequency_stride": 9}, {"time_stride": 4}])
def test_an_original_file_of_unknown_strides_needs_a_configuration(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = ASTConfig(**{**TIMM_LIKE, "max_length": 256, **changes}, id2label=FIVE_LABELS)
    model = randomize(ASTForAudioClassification(config), scale=0.1)
    file = tmp_path / "own.pth"
    torch.save(original_names(model), file)
    with pytest.raises(CheckpointError, match="position embeddings match no published stride and length; put its"):
        ASTForAudioClassification.from_pretrained(file)
    loaded = ASTForAudioClassification.from_pretrained(file, config=config)
    assert torch.equal(logits(loaded), logits(model))
    config.save_pretrained(tmp_path)
    assert ASTForAudioClassification.from_pretrained(file).config == config


def test_an_original_file_whose_number_of_heads_is_unknown_needs_a_configuration(tmp_path: Path) -> None:
    config = ASTConfig(**{**TIMM_LIKE, "hidden_size": 96, "num_attention_heads": 3}, num_labels=527)
    torch.save(original_names(randomize(ASTForAudioClassification(config))), tmp_path / "own.pth")
    with pytest.raises(
        CheckpointError, match="the number of attention heads cannot be inferred from a width of 96; put"
    ):
        ASTForAudioClassification.from_pretrained(tmp_path / "own.pth")
    loaded = ASTForAudioClassification.from_pretrained(tmp_path / "own.pth", config=config)
    assert loaded.config.num_attention_heads == 3


def test_another_programs_config_json_beside_an_original_file_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"theme": "dark", "hidden_size": 7}')
    config = ASTConfig(**TIMM_LIKE, max_length=128, num_labels=527)
    torch.save(original_names(randomize(ASTForAudioClassification(config))), tmp_path / "audioset.pth")
    assert ASTForAudioClassification.from_pretrained(tmp_path / "audioset.pth").config.max_length == 128


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_a_training_checkpoint_that_wraps_its_tensors_loads(tmp_path: Path, wrapper: str) -> None:
    config = ASTConfig(**TIMM_LIKE, max_length=128, num_labels=527)
    model = randomize(ASTForAudioClassification(config))
    torch.save({"epoch": 3, wrapper: original_names(model)}, tmp_path / "run.pth")
    loaded = ASTForAudioClassification.from_pretrained(tmp_path / "run.pth")
    assert torch.equal(loaded.head.fc.weight, model.head.fc.weight)


def test_a_pickle_of_another_model_is_refused(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(
        CheckpointError, match=r"other\.pth: contains no AST classifier \(no usable tensor 'cls_token'\)"
    ):
        ASTForAudioClassification.from_pretrained(tmp_path / "other.pth")


# --- label names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [None, {str(index): f"LABEL_{index}" for index in range(527)}])
def test_527_outputs_without_names_get_audiosets_labels(tmp_path: Path, given: dict[str, str] | None) -> None:
    classifier(num_labels=527).save_pretrained(tmp_path)
    rewrite_config(tmp_path, id2label=given, label2id=None, problem_type=None)
    loaded = ASTForAudioClassification.from_pretrained(tmp_path)
    assert loaded.config.id2label == audioset_id2label()


def test_527_outputs_with_names_of_their_own_keep_them(tmp_path: Path) -> None:
    names = {index: f"bird {index}" for index in range(527)}
    classifier(id2label=names).save_pretrained(tmp_path)
    assert ASTForAudioClassification.from_pretrained(tmp_path).config.id2label == names


@pytest.mark.parametrize(
    ("num_outputs", "labels", "named"),
    [
        (5, {}, "names no labels"),
        (1, {}, "names no labels"),
        (5, {"num_labels": 5}, "names no labels"),
        (5, {"id2label": {"0": "a", "1": "b"}}, "names 2 labels"),
        (5, {"id2label": {str(index): str(index) for index in range(6)}}, "names 6 labels"),
        (5, {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, "names 2 labels"),
        (527, {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, "names 2 labels"),
        (527, {"num_labels": 4}, "names no labels"),
    ],
)
def test_names_that_do_not_match_the_outputs_are_refused_without_unnamed_labels(
    tmp_path: Path, num_outputs: int, labels: dict[str, Any], named: str
) -> None:
    classifier(num_labels=num_outputs).save_pretrained(tmp_path)
    rewrite_config(tmp_path, **{"id2label": None, "label2id": None, **labels})
    with pytest.raises(CheckpointError) as caught:
        ASTForAudioClassification.from_pretrained(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: config.json {named} for {num_outputs} outputs; correct its id2label, or use --unnamed-labels"
    )
    loaded = ASTForAudioClassification.from_pretrained(tmp_path, unnamed_labels=True)
    assert loaded.config.id2label == {index: f"LABEL_{index}" for index in range(num_outputs)}


@pytest.mark.parametrize(
    "id2label",
    [
        {"0": "a", "1": "b", "2": "c", "3": "d", "5": "f"},
        {"0": "a", "1": "b", "2": "c", "3": "d", "4": "a"},
        {"zero": "a", "1": "b", "2": "c", "3": "d", "4": "e"},
        ["a", "b", "c", "d", "e"],
        {"0": "a", "1": "b", "2": "c", "3": "d", "4": "\x1b[2J"},
    ],
    ids=["gap", "duplicate", "no integer", "list", "escape"],
)
def test_a_faulty_label_map_is_refused_without_unnamed_labels(folder: Path, id2label: Any) -> None:
    rewrite_config(folder, id2label=id2label)
    with pytest.raises(CheckpointError, match=r"config\.json: .*id2label"):
        ASTForAudioClassification.from_pretrained(folder)
    loaded = ASTForAudioClassification.from_pretrained(folder, unnamed_labels=True)
    assert loaded.config.id2label == {index: f"LABEL_{index}" for index in range(5)}


def test_unnamed_labels_keep_valid_names(folder: Path) -> None:
    loaded = ASTForAudioClassification.from_pretrained(folder, unnamed_labels=True)
    assert loaded.config.id2label == FIVE_LABELS


def test_two_outputs_need_no_names_as_two_is_the_default(tmp_path: Path) -> None:
    classifier(num_labels=2).save_pretrained(tmp_path)
    rewrite_config(tmp_path, id2label=None, label2id=None)
    assert ASTForAudioClassification.from_pretrained(tmp_path).config.id2label == {0: "LABEL_0", 1: "LABEL_1"}


# Without torch


@pytest.mark.parametrize("changes", [{}, {"qkv_bias": False}, {"num_hidden_layers": 1, "num_labels": 2}])
def test_expected_shapes_are_those_of_a_built_model(changes: dict[str, Any]) -> None:
    model = classifier(**changes)
    assert expected_shapes(model.config) == {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("form", ["safetensors", "pickle"])
def test_load_arrays_returns_the_models_weights(tmp_path: Path, dtype: torch.dtype, form: str) -> None:
    model = classifier().to(dtype)
    model.save_pretrained(tmp_path)
    if form == "pickle":
        torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
        (tmp_path / "model.safetensors").unlink()
    weights, config = load_arrays(tmp_path)
    assert config == ASTForAudioClassification.from_pretrained(tmp_path).config
    assert weights.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert weights[name].dtype == np.float32
        np.testing.assert_array_equal(weights[name], tensor.float().numpy())


def test_load_arrays_refuses_tensors_that_do_not_match_the_configuration(tmp_path: Path) -> None:
    classifier().save_pretrained(tmp_path)
    tensors = load((tmp_path / "model.safetensors").read_bytes())  # not mapped: the file is written over
    name = "classifier.dense.bias"
    for content, message in (
        ({**tensors, name: torch.full((5,), float("nan"))}, "head.fc.bias contains NaN"),
        ({**tensors, name: torch.zeros(4)}, r"head.fc.bias \(4,\) instead of \(5,\)"),
        ({**tensors, name: torch.zeros(5, dtype=torch.int64)}, "of the wrong shape or type"),
        ({key: tensor for key, tensor in tensors.items() if key != name}, "1 missing: head.fc.bias"),
    ):
        save_file(content, tmp_path / "model.safetensors")
        with pytest.raises(CheckpointError, match=message):
            load_arrays(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_arrays(tmp_path)
