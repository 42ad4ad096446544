"""The labels of a model: their ancestors, and which are unproven."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import small_config, tiny_config

from ast_cli import ASTConfig, ASTForAudioClassification
from ast_cli.errors import CheckpointError, UsageError
from ast_cli.export import ExportOptions, export_model
from ast_cli.hub.names import LABELS_NAME
from ast_cli.label_list import LabelList, ListedLabel, list_labels
from ast_cli.labels import audioset_id2label

STUDENT = Path(__file__).parent.parent.parent / "shared" / "models" / "audioset-student"
LABELS = ["Animal", "Bark", "Crackle", "my own"]
BARK = (("Animal", "Domestic animals, pets", "Dog"),)
CRACKLE = (("Natural sounds", "Fire"), ("Source-ambiguous sounds", "Onomatopoeia"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = tiny_config(id2label=dict(enumerate(LABELS)), problem_type="multi_label_classification")
    ASTForAudioClassification(config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def write_labels_file(folder: Path, content: Any) -> Path:
    (folder / LABELS_NAME).write_text(json.dumps(content), encoding="utf-8")
    return folder / LABELS_NAME


def test_labels_have_identifiers_and_every_chain_of_classes_above_them(folder: Path) -> None:
    assert list_labels(folder) == LabelList(
        str(folder),
        (
            ListedLabel("Animal", 0, "/m/0jbk", (), None),
            ListedLabel("Bark", 1, "/m/05tny_", BARK, None),
            ListedLabel("Crackle", 2, "/m/07pzfmf", CRACKLE, None),
            ListedLabel("my own", 3, None, (), None),
        ),
    )


def test_the_builtin_model_has_its_labels_and_says_which_are_unproven() -> None:
    listed = list_labels("builtin").labels
    assert [each.label_id for each in listed] == list(range(len(listed)))
    assert {each.label: each.ancestors for each in listed}["Bark"] == BARK
    assert all(each.mid for each in listed)
    assert {each.label: each.unproven for each in listed}["Dog"] is False
    assert sum(bool(each.unproven) for each in listed) == 77


def test_the_list_of_a_model_marks_unproven_labels(folder: Path) -> None:
    write_labels_file(folder, {"unproven": ["Crackle", "my own"], "other": 1})
    assert [each.unproven for each in list_labels(folder).labels] == [False, False, True, True]
    write_labels_file(folder, {"unproven": []})
    assert [each.unproven for each in list_labels(folder).labels] == [False] * 4
    write_labels_file(folder, {"note": "another program's"})
    assert [each.unproven for each in list_labels(folder).labels] == [None] * 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"unproven": ["Bark"', "not valid JSON"),
        ('["Bark"]', "must contain a JSON object, not a list"),
        ('{"unproven": "Bark"}', "\"unproven\" must be a list of labels, not 'Bark'"),
        ('{"unproven": {"Bark": true}}', "\"unproven\" must be a list of labels, not {'Bark': True}"),
        ('{"unproven": null}', '"unproven" must be a list of labels, not None'),
        ('{"unproven": ["Bark", 3]}', "\"unproven\" must be a list of labels, not ['Bark', 3]"),
        ('{"unproven": ["Bark", "bark"]}', "'bark' is no label of the model: the file belongs to another one"),
        ('{"unproven": ["\\u001b[2J"]}', r"'\x1b[2J' is no label of the model"),
        ("", "not valid JSON"),
        ("version https://git-lfs.github.com/spec/v1", "this is a Git LFS pointer"),
        ("\u20ac\udcff", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
    ],
)  # fmt: skip
def test_a_damaged_list_is_one_sentence_that_names_the_file(folder: Path, content: str, message: str) -> None:
    (folder / LABELS_NAME).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError) as caught:
        list_labels(folder)
    assert str(caught.value).startswith(f"{folder / LABELS_NAME}: {message}")
    assert "\n" not in str(caught.value)


def test_a_folder_of_that_name_is_no_list(folder: Path) -> None:
    (folder / LABELS_NAME).mkdir()
    assert {label.unproven for label in list_labels(folder).labels} == {None}


def test_labels_are_searched_by_name_and_identifier_in_any_case(folder: Path) -> None:
    listed = list_labels(folder)
    assert [each.label for each in listed.containing("AR").labels] == ["Bark"]
    assert [each.label for each in listed.containing("/M/0").labels] == ["Animal", "Bark", "Crackle"]
    with pytest.raises(UsageError) as caught:
        listed.containing("brak")
    assert str(caught.value) == f"no label of {folder} contains 'brak'; similar labels: 'Bark'"
    with pytest.raises(UsageError) as caught:
        listed.containing("zzz")
    assert str(caught.value) == f"no label of {folder} contains 'zzz'"


def test_the_json_form_has_chains_as_lists(folder: Path) -> None:
    assert json.loads(json.dumps(list_labels(folder).containing("bark").to_dict())) == {
        "schema_version": 1,
        "type": "labels",
        "model": str(folder),
        "labels": [
            {
                "label": "Bark",
                "label_id": 1,
                "mid": "/m/05tny_",
                "ancestors": [["Animal", "Domestic animals, pets", "Dog"]],
                "unproven": None,
            }
        ],
    }


def test_527_outputs_without_names_are_audiosets_and_others_need_to_be_unnamed(tmp_path: Path) -> None:
    ASTForAudioClassification(small_config(num_labels=527)).save_pretrained(tmp_path)
    assert [each.label for each in list_labels(tmp_path).labels] == list(audioset_id2label().values())
    ASTForAudioClassification(small_config(num_labels=3)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "id2label": None, "label2id": None}))
    with pytest.raises(CheckpointError, match="names no labels for 3 outputs"):
        list_labels(tmp_path)
    unnamed = list_labels(tmp_path, unnamed_labels=True).labels
    assert [(each.label, each.mid) for each in unnamed] == [("LABEL_0", None), ("LABEL_1", None), ("LABEL_2", None)]


def test_exported_models_have_labels_too(tmp_path: Path) -> None:
    config = small_config(id2label=dict(enumerate(LABELS)), problem_type="multi_label_classification")
    ASTForAudioClassification(config).save_pretrained(tmp_path / "model")
    for output in (tmp_path / "folder", tmp_path / "alone.onnx"):
        export_model(ExportOptions(str(tmp_path / "model"), output, front_end="audioset"))
        assert [each.label for each in list_labels(output).labels] == LABELS
    write_labels_file(tmp_path / "folder", {"unproven": ["Bark"]})
    assert [each.unproven for each in list_labels(tmp_path / "folder").labels] == [False, True, False, False]
    write_labels_file(tmp_path, {"unproven": ["Bark"]})  # beside the single file, but not its own
    assert [each.unproven for each in list_labels(tmp_path / "alone.onnx").labels] == [None] * 4


def test_a_file_of_weights_in_its_folder_has_the_folders_labels(folder: Path) -> None:
    write_labels_file(folder, {"unproven": ["Bark"]})
    listed = list_labels(folder / "model.safetensors").labels
    assert [(each.label, each.unproven) for each in listed] == list(
        zip(LABELS, [False, True, False, False], strict=True)
    )


def test_a_file_of_weights_without_a_configuration_takes_no_list_of_its_neighbors(tmp_path: Path) -> None:
    config = ASTConfig(
        hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=256, num_labels=527
    )
    torch.save(ASTForAudioClassification(config).state_dict(), tmp_path / "original.pth")
    write_labels_file(tmp_path, {"unproven": ["no such label"]})
    assert {each.unproven for each in list_labels(tmp_path / "original.pth").labels} == {None}


def test_a_model_of_521_labels_has_every_identifier_and_chain() -> None:
    if not STUDENT.is_dir():
        pytest.skip("../shared/models is not beside this repository")
    listed = list_labels(STUDENT).labels
    assert len(listed) == 521
    assert all(each.mid for each in listed)
    assert {each.label for each in listed if not each.ancestors} == {"Animal", "Music"}
