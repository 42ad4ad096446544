"""Untrusted checkpoints: every bad file gives one clear error, runs no code and does not fill the memory."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save_file
from tiny_models import randomize, tiny_config

from ast_cli import ASTForAudioClassification, ASTModel
from ast_cli.errors import CheckpointError
from ast_cli.hub.names import FEATURE_EXTRACTORS
from ast_cli.model import weight_files
from ast_cli.model.layout import rename


class RunsCode:
    """A malicious pickle: loading it would create a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return Path.touch, (self.canary,)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    randomize(ASTForAudioClassification(tiny_config())).save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def pickle_file(folder: Path) -> Path:
    """Return the path of a folder's pickle, after removing its safetensors file."""
    (folder / "model.safetensors").unlink()
    return folder / "pytorch_model.bin"


def refusal(folder: Path, **options: Any) -> str:
    """Load the folder as classifier and as encoder; both must fail with the same message, one printable line."""
    with pytest.raises(CheckpointError) as caught:
        ASTForAudioClassification.from_pretrained(folder, **options)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1000
    assert "weights_only" not in message
    assert "safe_globals" not in message
    return message


def rewrite_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors in memory instead of mapped, as the test overwrites their file."""
    return load((folder / "model.safetensors").read_bytes())


def rewrite_tensors(folder: Path, change: Any) -> None:
    tensors = tensors_of(folder)
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


# --- pickles -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["zip", "old format", "plain pickle", "protocol 4", "inside a state_dict"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(
    folder: Path, pickle_file: Path, tmp_path: Path, form: str
) -> None:
    canary = tmp_path / "canary"
    content: Any = {"cls_token": torch.zeros(1), "evil": RunsCode(canary)}
    if form == "inside a state_dict":
        content = {"state_dict": content}
    if form in ("plain pickle", "protocol 4"):
        pickle_file.write_bytes(pickle.dumps({"evil": RunsCode(canary)}, protocol=4 if form == "protocol 4" else 2))
    else:
        torch.save(content, pickle_file, _use_new_zipfile_serialization=form != "old format")
    message = refusal(folder)
    assert "refused" in message
    assert str(pickle_file) in message
    assert not canary.exists()
    pickle.loads(pickle.dumps(RunsCode(canary)))
    assert canary.exists()  # it would have run


def test_a_forbidden_import_is_named_and_safetensors_are_advised(folder: Path, pickle_file: Path) -> None:
    torch.save({"evil": RunsCode(Path("canary"))}, pickle_file)
    assert refusal(folder) == (
        f"{pickle_file}: refused, because it contains '__builtin__.getattr', which is not a tensor and could run code; "
        "use a safetensors file instead"
    )


@pytest.mark.parametrize("zipped", [True, False])
def test_a_few_bytes_that_would_fill_the_memory_are_refused(folder: Path, pickle_file: Path, zipped: bool) -> None:
    """`bytearray(10**10)` is on torch's list of harmless calls."""
    bomb = b"\x80\x02}X\x01\x00\x00\x00ac__builtin__\nbytearray\n\x8a\x05\x00\xe4\x0bT\x02\x85Rs."
    if zipped:
        torch.save({"a": torch.zeros(1)}, pickle_file)
        with zipfile.ZipFile(pickle_file) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(pickle_file, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, bomb if name.endswith("data.pkl") else data)
    else:
        pickle_file.write_bytes(bomb)
    assert "bytearray" in refusal(folder)


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(1, 1, 12).to_sparse(),
        torch.zeros(1, 1, 12, device="meta"),
        torch.zeros(1, 1, 12, dtype=torch.complex64),
        torch.zeros(1, 1, 12, dtype=torch.int32),
        torch.zeros(1, 1, 12, dtype=torch.bool),
        "text",
        3,
        None,
        [torch.zeros(1)],
        {"deeper": torch.zeros(1)},
    ],
    ids=["sparse", "meta", "complex", "int", "bool", "str", "number", "none", "list", "dict"],
)
def test_a_pickle_of_anything_but_floating_point_tensors_is_refused(
    folder: Path, pickle_file: Path, value: Any
) -> None:
    model = randomize(ASTForAudioClassification(tiny_config()))
    torch.save(model.state_dict() | {"audio_spectrogram_transformer.cls_token": value}, pickle_file)
    assert "checkpoint" in refusal(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80",
        b"hello world" * 100,
        bytes(range(256)) * 20,
        b"PK\x03\x04",
        b"PK\x03\x04" + b"x" * 1000,
        b"\x00" * 99,
    ],
)
def test_bytes_that_are_no_pickle_are_refused(folder: Path, pickle_file: Path, content: bytes) -> None:
    pickle_file.write_bytes(content)
    message = refusal(folder)
    assert str(pickle_file) in message


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_cut_anywhere_is_refused(folder: Path, pickle_file: Path, zipped: bool) -> None:
    model = randomize(ASTForAudioClassification(tiny_config()))
    torch.save(model.state_dict(), pickle_file, _use_new_zipfile_serialization=zipped)
    whole = pickle_file.read_bytes()
    for part in range(1, 16):
        pickle_file.write_bytes(whole[: len(whole) * part // 16])
        assert str(pickle_file) in refusal(folder)


def test_a_torchscript_program_is_refused(folder: Path, pickle_file: Path) -> None:
    with zipfile.ZipFile(pickle_file, "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02}.")
        archive.writestr("model/constants.pkl", b"\x80\x02).")
    assert "refused, because it is a TorchScript program" in refusal(folder)


def test_a_compressed_archive_is_refused_without_being_unpacked(
    folder: Path, pickle_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(pickle_file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", b"\x80\x02}.")
        with archive.open("model/data/0", "w") as member:
            for _ in range(64):
                member.write(bytes(1 << 20))
    assert pickle_file.stat().st_size < 100_000
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch unpacks what it opens"))
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_, **__: pytest.fail("a part was unpacked"))
    assert "refused, because it contains compressed parts, which PyTorch checkpoints never do" in refusal(folder)


def test_parts_that_state_a_larger_size_than_the_file_are_refused(folder: Path, pickle_file: Path) -> None:
    with zipfile.ZipFile(pickle_file, "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02}.")
        archive.writestr("model/data/0", b"x" * 100)
        archive.filelist[1].file_size = archive.filelist[1].compress_size = 2**31
    assert "refused, because its parts claim to be larger than the file" in refusal(folder)


@pytest.mark.parametrize("name", ["/etc/passwd", "model/../../outside"])
def test_parts_whose_names_point_outside_the_archive_are_refused(folder: Path, pickle_file: Path, name: str) -> None:
    with zipfile.ZipFile(pickle_file, "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02}.")
        archive.writestr(name, b"x")
    assert "refused, because a file name in it points outside the archive" in refusal(folder)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")  # of zipfile, making the file
def test_every_pickle_of_an_archive_is_checked_even_with_duplicate_names(folder: Path, pickle_file: Path) -> None:
    evil = pickle.dumps(RunsCode(Path("canary")), protocol=2)
    for order in ([evil, b"\x80\x02}."], [b"\x80\x02}.", evil]):
        with zipfile.ZipFile(pickle_file, "w") as archive:
            for content in order:
                archive.writestr("model/data.pkl", content)
        assert "could run code" in refusal(folder)


def test_files_written_by_torch_import_only_allowed_globals(tmp_path: Path) -> None:
    dtypes = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
    for zipped in (True, False):
        file = tmp_path / f"{zipped}.bin"
        tensors = {str(dtype): torch.zeros(2, 2).to(dtype) for dtype in dtypes}
        tensors["parameter"] = torch.nn.Parameter(torch.zeros(3))
        torch.save(tensors, file, _use_new_zipfile_serialization=zipped)
        assert weight_files.read_weights(file).keys() == tensors.keys()


# --- safetensors -------------------------------------------------------------------------------------------------


def safetensors_bytes(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(start: int, end: int, dtype: str = "F32", shape: Any = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(end - start) // 4] if shape is None else shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        safetensors_bytes(b""),
        safetensors_bytes(b"{", length=2**40),
        safetensors_bytes(b"{", length=2**64 - 1),
        safetensors_bytes(b" " * 1000 + b"{}", length=99_999_999),
        safetensors_bytes(b"not json"),
        safetensors_bytes([1, 2]),
        safetensors_bytes({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)),
        safetensors_bytes({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12)),
        safetensors_bytes({"a": entry(0, 400)}, bytes(40)),
        safetensors_bytes({"a": entry(8, 4)}, bytes(12)),
        safetensors_bytes({"a": entry(-4, 4)}, bytes(12)),
        safetensors_bytes({"a": entry(0, 4, dtype="F31")}, bytes(4)),
        safetensors_bytes({"a": entry(0, 4, shape=[2])}, bytes(4)),
        safetensors_bytes({"a": entry(0, 4, shape=[2**40, 2**40])}, bytes(4)),
        safetensors_bytes({"a": "text"}, bytes(4)),
        safetensors_bytes({"a": ["F32", [1], [0, 4]]}, bytes(4)),
        safetensors_bytes({}, b"left over"),
    ],
    ids=[
        "empty", "too short", "no header", "header of 2^40 bytes", "header of 2^64 - 1 bytes", "header past the end",
        "no json", "no object", "overlap", "hole", "past the end", "backwards", "negative", "unknown dtype",
        "shape at odds with its size", "shape whose size overflows", "no entry", "entry as a list", "bytes left over",
    ],
)  # fmt: skip
def test_malformed_safetensors_are_refused(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    assert refusal(folder).startswith(f"{folder / 'model.safetensors'}: not a valid safetensors file (")


def test_safetensors_cut_anywhere_are_refused(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    for part in range(16):
        (folder / "model.safetensors").write_bytes(whole[: len(whole) * part // 16])
        assert "not a valid safetensors file" in refusal(folder)


def test_safetensors_without_tensors_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(safetensors_bytes({}))
    assert "35 missing: audio_spectrogram_transformer.blocks.0.attn.proj.bias" in refusal(folder)


@pytest.mark.parametrize("dtype", ["I8", "U8", "I64", "BOOL"])
def test_tensors_that_are_not_floating_point_are_refused(folder: Path, dtype: str) -> None:
    def as_integers(tensors: dict[str, torch.Tensor]) -> None:
        kinds = {"I8": torch.int8, "U8": torch.uint8, "I64": torch.int64, "BOOL": torch.bool}
        tensors["classifier.dense.bias"] = torch.zeros(5, dtype=kinds[dtype])

    rewrite_tensors(folder, as_integers)
    assert "1 of the wrong shape or type: head.fc.bias (5,)" in refusal(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "config.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 346404948\n", "this is a Git LFS pointer"),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>", "this is a web page"),
        (b"\n  <HTML lang='en'>", "this is a web page"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "this is a web page"),
    ],
)
def test_a_failed_download_is_identified_in_the_message(folder: Path, name: str, content: bytes, message: str) -> None:
    if name == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    assert refusal(folder).startswith(f"{folder / name}: {message}")


# --- tensors at odds with the configuration ----------------------------------------------------------------------


def test_missing_unexpected_and_misshapen_tensors_are_listed(folder: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["audio_spectrogram_transformer.layernorm.bias"]
        tensors["foo"] = torch.zeros(1)
        tensors["classifier.dense.weight"] = torch.zeros(5, 13)

    rewrite_tensors(folder, spoil)
    assert refusal(folder) == (
        f"{folder}: its tensors do not match its configuration; "
        "1 missing: audio_spectrogram_transformer.norm.bias; 1 unexpected: audio_spectrogram_transformer.foo; "
        "1 of the wrong shape or type: head.fc.weight (5, 13) instead of (5, 12)"
    )


def test_every_single_missing_tensor_is_refused(folder: Path) -> None:
    whole = tensors_of(folder)
    for name in whole:
        save_file({other: whole[other] for other in whole if other != name}, folder / "model.safetensors")
        assert "1 missing" in refusal(folder)


FUSED_PART = re.compile(r"encoder\.layer\.(\d)\.attention\.attention\.(?:query|key|value)\.(weight|bias)$")


def test_every_single_misshapen_tensor_is_refused(folder: Path) -> None:
    whole = tensors_of(folder)
    for name in whole:
        shape = (*whole[name].shape[:-1], whole[name].shape[-1] + 1)
        save_file(whole | {name: torch.zeros(shape)}, folder / "model.safetensors")
        if part := FUSED_PART.search(name):  # its two fellows are left over
            block, kind = part.groups()
            wrong = f"1 missing: audio_spectrogram_transformer.blocks.{block}.attn.qkv.{kind}; 3 unexpected: "
        else:
            (ours,) = rename({name: whole[name]})
            full = ours if ours.startswith("head.") else f"audio_spectrogram_transformer.{ours}"
            wrong = f"1 of the wrong shape or type: {full} {shape} instead of {tuple(whole[name].shape)}"
        assert refusal(folder).startswith(f"{folder}: its tensors do not match its configuration; {wrong}")


def test_queries_keys_and_values_of_unequal_shapes_are_refused_even_if_the_sum_matches(folder: Path) -> None:
    def shift(tensors: dict[str, torch.Tensor]) -> None:
        part = "audio_spectrogram_transformer.encoder.layer.0.attention.attention"
        tensors[f"{part}.query.weight"] = torch.zeros(8, 12)
        tensors[f"{part}.key.weight"] = torch.zeros(16, 12)

    rewrite_tensors(folder, shift)
    message = refusal(folder)
    assert "1 missing: audio_spectrogram_transformer.blocks.0.attn.qkv.weight" in message
    assert "3 unexpected: audio_spectrogram_transformer.blocks.0.attn.key.weight" in message


@pytest.mark.parametrize("shape", [(), (1,), (12,), (5, 12, 1), (0, 12)])
def test_a_head_of_another_rank_or_without_outputs_is_refused(folder: Path, shape: tuple[int, ...]) -> None:
    rewrite_tensors(folder, lambda tensors: tensors.update({"classifier.dense.weight": torch.zeros(shape)}))
    for options in ({}, {"unnamed_labels": True}):
        assert "head.fc.weight" in refusal(folder, **options)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("kind", [ASTModel, ASTForAudioClassification])
def test_weights_that_are_not_finite_are_refused(folder: Path, value: float, kind: Any) -> None:
    name = "audio_spectrogram_transformer.encoder.layer.1.output.dense.weight"
    rewrite_tensors(folder, lambda tensors: tensors[name][3].fill_(value))
    with pytest.raises(CheckpointError, match=r"blocks\.1\.mlp\.fc2\.weight contains NaN or infinite weights"):
        kind.from_pretrained(folder)


def test_weights_too_large_for_half_precision_are_refused_in_half_precision_only(folder: Path) -> None:
    rewrite_tensors(folder, lambda tensors: tensors["classifier.dense.bias"].fill_(1e5))
    with pytest.raises(
        CheckpointError, match=r"head\.fc\.bias contains weights too large for torch\.float16; use float32"
    ):
        ASTForAudioClassification.from_pretrained(folder, dtype="float16")
    for dtype in ("bfloat16", "float32"):
        ASTForAudioClassification.from_pretrained(folder, dtype=dtype)


def test_a_name_with_control_characters_or_of_great_length_is_shown_harmlessly(folder: Path) -> None:
    rewrite_tensors(folder, lambda tensors: tensors.update({"\x1b[2J\u202eevil\n": torch.zeros(1)}))
    assert "\\x1b[2J\\u202eevil\\n" in refusal(folder)
    rewrite_tensors(folder, lambda tensors: tensors.update({"x" * 100_000: torch.zeros(1)}))
    assert "xxx..." in refusal(folder)


# --- configurations ----------------------------------------------------------------------------------------------

ABSURD = [
    {"hidden_size": 10**7},
    {"num_attention_heads": 0},
    {"num_attention_heads": 5},
    {"frequency_stride": 0},
    {"time_stride": 0},
    {"max_length": 10**9},
    {"num_hidden_layers": 10**6},
    {"intermediate_size": 10**9},
    {"patch_size": 0},
    {"num_mel_bins": -1},
    {"layer_norm_eps": float("nan")},
    {"layer_norm_eps": float("inf")},
    {"initializer_range": -1},
    {"hidden_dropout_prob": 2},
    {"hidden_size": "12"},
    {"hidden_size": [12]},
    {"hidden_size": True},
    {"hidden_size": {"value": 12}},
    {"hidden_size": None},
    {"hidden_size": 12.0},
    {"qkv_bias": "yes"},
    {"hidden_act": ["gelu"]},
    {"problem_type": {"a": 1}},
    {"return_dict": "false"},
    {"output_attentions": 1},
    {"num_labels": 10**9, "id2label": None, "label2id": None},
    {"id2label": "text"},
    {"label2id": [1], "id2label": None},
    {"model_type": "wav2vec2"},
    {"model_type": ["audio-spectrogram-transformer"]},
]


@pytest.mark.parametrize("changes", ABSURD, ids=[str(changes)[:50] for changes in ABSURD])
def test_a_configuration_beyond_the_limits_is_refused_before_anything_is_read_or_built(
    folder: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite_config(folder, **changes)
    for name in ("read_weights", "_read_safetensors", "_read_pickle"):
        monkeypatch.setattr(weight_files, name, lambda *_: pytest.fail("weights were read"))
    monkeypatch.setattr(torch.nn.Linear, "__init__", lambda *_, **__: pytest.fail("a layer was built"))
    assert refusal(folder).startswith(f"{folder}: config.json: ")


def test_a_large_configuration_takes_no_memory_before_the_tensors_are_compared(folder: Path) -> None:
    """4096 x 100 blocks would be 80 GB."""
    rewrite_config(folder, hidden_size=4096, num_hidden_layers=100, intermediate_size=16384, num_attention_heads=32)
    assert "its tensors do not match its configuration" in refusal(folder)


def test_a_checkpoint_with_another_front_end_is_refused(folder: Path) -> None:
    for kind in ("ClapFeatureExtractor", "Wav2Vec2FeatureExtractor", ["ASTFeatureExtractor"], 3):
        (folder / "preprocessor_config.json").write_text(json.dumps({"feature_extractor_type": kind}))
        assert refusal(folder).startswith(f"{folder}: needs another front end, {kind!r}")
        with pytest.raises(CheckpointError, match="needs another front end"):
            ASTModel.from_pretrained(folder)
    for values in ({}, *({"feature_extractor_type": kind} for kind in (None, *FEATURE_EXTRACTORS))):
        (folder / "preprocessor_config.json").write_text(json.dumps(values))
        ASTForAudioClassification.from_pretrained(folder)


# --- folders -----------------------------------------------------------------------------------------------------


def test_a_folder_without_weights_or_configuration_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert refusal(folder) == f"{folder}: contains neither model.safetensors nor pytorch_model.bin"
    (folder / "config.json").unlink()
    assert f"{folder / 'config.json'}: cannot be read" in refusal(folder)


@pytest.mark.parametrize(
    "index",
    [
        {},
        {"weight_map": []},
        {"weight_map": {"a": 3}},
        {"weight_map": {"a": "../outside.safetensors"}},
        {"weight_map": {"a": "/etc/passwd"}},
        {"weight_map": {"a": "sub/folder.safetensors"}},
        {"weight_map": {"a": ".."}},
        {"weight_map": {"a": ""}},
        {"weight_map": {"a": "nul\x00.safetensors"}},
        {"weight_map": {"a": "absent.safetensors"}},
        {"weight_map": {"a": "config.json"}},
        {"weight_map": {}},
    ],
)
def test_a_shard_index_with_bad_or_missing_file_names_is_refused(folder: Path, index: dict[str, Any]) -> None:
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert str(folder) in refusal(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_instead_of_a_file_is_refused_without_blocking(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    assert "contains neither" in refusal(folder)
    os.mkfifo(folder / "shard.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "shard.safetensors"}}')
    assert "there is no such file" in refusal(folder)


def test_nothing_is_printed_whatever_is_refused(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "model.safetensors").unlink()
    buffer = io.BytesIO()
    torch.save({"evil": RunsCode(Path("canary"))}, buffer)
    (folder / "pytorch_model.bin").write_bytes(buffer.getvalue())
    refusal(folder)
    assert capfd.readouterr() == ("", "")
