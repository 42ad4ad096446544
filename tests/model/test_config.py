from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tiny_models import FIVE_LABELS, TINY, tiny_config
from torch.nn import functional as F

from ast_cli import ASTConfig
from ast_cli.errors import CheckpointError, UsageError
from ast_cli.labels import audioset_id2label
from ast_cli.model.config import LIMITS, activation_of, named_labels, read_config

DEFAULTS = {  # of the reference's documentation
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "patch_size": 16,
    "qkv_bias": True,
    "frequency_stride": 10,
    "time_stride": 10,
    "max_length": 1024,
    "num_mel_bins": 128,
}
OTHERS = {  # a valid value of every field that is not its default
    **TINY,
    "hidden_act": "selu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.2,
    "initializer_range": 0.05,
    "layer_norm_eps": 1e-6,
    "qkv_bias": False,
}


def test_defaults_are_those_of_the_published_checkpoint() -> None:
    config = ASTConfig()
    assert {name: getattr(config, name) for name in DEFAULTS} == DEFAULTS
    assert config.num_patches == (12, 101)
    assert config.num_tokens == 1214
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert (config.problem_type, config.output_attentions, config.output_hidden_states) == (None, False, False)
    assert config.return_dict is True
    assert config.model_type == "audio-spectrogram-transformer"


def test_fields_are_accepted_by_position_in_the_documented_order() -> None:
    assert vars(ASTConfig(*(OTHERS[name] for name in DEFAULTS))) == vars(ASTConfig(**OTHERS))


def test_every_field_survives_json_both_ways(tmp_path: Path) -> None:
    assert OTHERS.keys() == DEFAULTS.keys()
    config = ASTConfig(
        **OTHERS,
        id2label=FIVE_LABELS,
        problem_type="multi_label_classification",
        output_attentions=True,
        output_hidden_states=True,
        return_dict=False,
    )
    config.save_pretrained(tmp_path / "new" / "folder")
    again = ASTConfig.from_pretrained(tmp_path / "new" / "folder")
    assert again == config
    assert {name: getattr(again, name) for name in OTHERS} == OTHERS
    assert again.id2label == FIVE_LABELS
    assert (again.output_attentions, again.output_hidden_states, again.return_dict) == (True, True, False)


@pytest.mark.parametrize("changes", [{}, {"num_labels": 7}, {"id2label": {0: "one"}}, {"foo": [1, {"a": None}]}])
def test_to_dict_and_from_dict_round_trip(changes: dict[str, Any]) -> None:
    assert ASTConfig.from_dict(ASTConfig(**changes).to_dict()) == ASTConfig(**changes)


def test_configurations_differ_when_a_field_or_label_does() -> None:
    assert tiny_config() == tiny_config()
    assert tiny_config() != tiny_config(hidden_size=24)
    assert tiny_config() != tiny_config(id2label=FIVE_LABELS | {4: "other"})
    assert tiny_config() != tiny_config(foo=1)
    assert tiny_config() != "a string"


def test_to_dict_returns_the_content_of_config_json() -> None:
    assert ASTConfig(id2label={0: "no", 1: "yes"}, problem_type="regression").to_dict() == {
        "model_type": "audio-spectrogram-transformer",
        **DEFAULTS,
        "id2label": {"0": "no", "1": "yes"},
        "label2id": {"no": 0, "yes": 1},
        "problem_type": "regression",
    }


def test_unknown_keys_are_kept_and_written_back(tmp_path: Path) -> None:
    unknown = {"foo": {"bar": [1, None, "x"]}, "transformers_version": "4.48.0", "torch_dtype": "float32"}
    config = ASTConfig.from_dict({**TINY, **unknown})
    assert config.extra == unknown
    config.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert {name: written[name] for name in unknown} == unknown


@pytest.mark.parametrize("key", ["auto_map", "custom_pipelines"])
def test_keys_that_name_code_are_neither_kept_nor_written_back(key: str) -> None:
    config = ASTConfig.from_dict({**TINY, key: {"AutoConfig": "evil.Config"}})
    assert config.extra == {}
    assert "evil" not in json.dumps(config.to_dict())


def test_a_value_json_cannot_hold_is_refused_when_saving_and_leaves_no_file(tmp_path: Path) -> None:
    for value in (math.nan, {1, 2}):
        with pytest.raises(CheckpointError, match=r"config\.json: JSON cannot represent"):
            ASTConfig(foo=value).save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_checkpoint_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        ASTConfig().save_pretrained(tmp_path / "file" / "folder")


def test_an_activation_function_is_taken_and_cannot_be_written() -> None:
    config = ASTConfig(hidden_act=F.silu)
    assert config.hidden_act is F.silu
    with pytest.raises(
        UsageError, match="hidden_act is a function and cannot be written to JSON; set it to one of gelu, relu,"
    ):
        config.to_dict()


@pytest.mark.parametrize("hidden_act", ["gelu", "relu", "selu", "gelu_new"])
def test_the_documented_activations_are_known(hidden_act: str) -> None:
    assert ASTConfig(hidden_act=hidden_act).hidden_act == hidden_act


@pytest.mark.parametrize("field", LIMITS)
@pytest.mark.parametrize("value", [0, -1, 10**9, 1.0, 12.5, "12", [12], {"a": 1}, None, True, math.nan])
def test_invalid_sizes_are_refused_naming_the_field(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{field} must be a whole number from 1 to {LIMITS[field]}, not "):
        ASTConfig(**{field: value})


@pytest.mark.parametrize(
    "field", ["hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "layer_norm_eps"]
)
@pytest.mark.parametrize("value", [-0.1, 10.5, 10**400, math.nan, math.inf, "0.1", [0.1], {}, None, False])
def test_invalid_numbers_are_refused_naming_the_field(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{field} must be a number from 0 to \d+, not "):
        ASTConfig(**{field: value})


@pytest.mark.parametrize("field", ["qkv_bias", "output_attentions", "output_hidden_states", "return_dict"])
@pytest.mark.parametrize("value", ["false", 0, 1, None, [True], {}])
def test_flags_that_are_not_booleans_are_refused_naming_the_field(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{field} must be true or false, not "):
        ASTConfig(**{field: value})


@pytest.mark.parametrize("field", ["hidden_act", "problem_type"])
@pytest.mark.parametrize("value", ["swish", "", 3, ["gelu"], {"gelu": 1}, True])
def test_unknown_names_are_refused_naming_the_field(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{field} must be one of "):
        ASTConfig(**{field: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 770}, "hidden_size 770 is not divisible by num_attention_heads 12"),
        ({"num_mel_bins": 15}, "patch_size 16 does not fit into num_mel_bins 15 and max_length 1024"),
        ({"max_length": 15}, "patch_size 16 does not fit into num_mel_bins 128 and max_length 15"),
        (
            {"max_length": 100_000, "patch_size": 1, "frequency_stride": 1, "time_stride": 1},
            "these strides and lengths give 12800002 tokens; at most 1000000 are allowed",
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        ASTConfig(**changes)
    assert str(caught.value) == message


def test_a_long_foreign_value_is_shown_in_one_short_printable_line() -> None:
    with pytest.raises(UsageError) as caught:
        ASTConfig(hidden_act="\x1b[2J\n" + "x" * 10_000)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("id2label", "label2id", "num_labels"),
    [
        ({"1": "b", "0": "a", "2": "c"}, None, None),
        ({2: "c", 0: "a", 1: "b"}, None, 3),
        (None, {"c": 2, "a": 0, "b": 1}, None),
        (None, {"c": "2", "a": "0", "b": "1"}, 3),
        ({"0": "a", "1": "b", "2": "c"}, {"x": 7}, None),
    ],
    ids=["strings", "integers", "label2id", "label2id with strings", "id2label goes before label2id"],
)
def test_label_maps_are_read_in_any_order_and_key_type(id2label: Any, label2id: Any, num_labels: int | None) -> None:
    assert list(named_labels(id2label, label2id, num_labels).items()) == [(0, "a"), (1, "b"), (2, "c")]


def test_string_keys_are_ordered_as_numbers() -> None:
    labels = {str(index): f"name {index}" for index in sorted(range(12), key=str)}
    assert list(ASTConfig(id2label=labels).id2label) == list(range(12))


def test_a_number_may_serve_as_a_label() -> None:
    assert named_labels({"0": 7, "1": 8}, None, None) == {0: "7", 1: "8"}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"id2label": {0: "a", 2: "c"}}, "id2label must name every class from 0 to 1 once"),
        ({"id2label": {1: "a", 2: "b"}}, "id2label must name every class from 0 to 1 once"),
        ({"id2label": {"0": "a", 0: "b"}}, "id2label must name every class from 0 to 1 once"),
        ({"id2label": {"0": "a", "1": "a"}}, "id2label names 'a' twice"),
        ({"id2label": {"zero": "a"}}, "the class indices of id2label must be whole numbers, not 'zero'"),
        ({"id2label": {"0.5": "a"}}, "the class indices of id2label must be whole numbers, not '0.5'"),
        ({"id2label": {" 0": "a"}}, "the class indices of id2label must be whole numbers, not ' 0'"),
        ({"id2label": {"-1": "a"}}, "the class indices of id2label must be whole numbers, not '-1'"),
        ({"id2label": {0.0: "a"}}, "the class indices of id2label must be whole numbers, not 0.0"),
        ({"id2label": {False: "a"}}, "the class indices of id2label must be whole numbers, not False"),
        ({"id2label": {"0": None}}, "the labels of id2label must be text, not None"),
        ({"id2label": {"0": ["a"]}}, "the labels of id2label must be text, not ['a']"),
        (
            {"id2label": {"0": "a", "1": "b\x1b[2J"}},
            "id2label names 'b\\x1b[2J': a label with characters that control a terminal or turn text around; correct "
            "it, or use --unnamed-labels",
        ),
        (
            {"label2id": {"a\u202eb": 0}},
            "label2id names 'a\\u202eb': a label with characters that control a terminal or turn text around; correct "
            "it, or use --unnamed-labels",
        ),
        ({"id2label": {}}, "id2label must map 1 to 100000 labels, not {}"),
        ({"id2label": ["a", "b"]}, "id2label must map 1 to 100000 labels, not ['a', 'b']"),
        ({"id2label": "ab"}, "id2label must map 1 to 100000 labels, not 'ab'"),
        ({"label2id": ["a"]}, "label2id must map 1 to 100000 labels, not ['a']"),
        ({"label2id": {"a": [0]}}, "the class indices of label2id must be whole numbers, not [0]"),
        ({"label2id": {"a": 0, "b": 0}}, "label2id must name every class from 0 to 1 once"),
        ({"id2label": {"0": "a"}, "num_labels": 3}, "num_labels is 3 but id2label names 1 labels"),
        ({"num_labels": 0}, "num_labels must be a whole number from 1 to 100000, not 0"),
        ({"num_labels": 10**7}, "num_labels must be a whole number from 1 to 100000, not 10000000"),
        ({"num_labels": "5"}, "num_labels must be a whole number from 1 to 100000, not '5'"),
        ({"num_labels": True}, "num_labels must be a whole number from 1 to 100000, not True"),
    ],
)
def test_faulty_label_maps_are_refused(labels: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        ASTConfig(**labels)
    assert str(caught.value) == message


def test_a_faulty_file_is_a_checkpoint_error_that_begins_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 0}))
    with pytest.raises(CheckpointError) as caught:
        ASTConfig.from_pretrained(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: config.json: num_attention_heads must be a whole number from 1 to 1024, not 0"
    )


@pytest.mark.parametrize("kind", ["bert", None, ["audio-spectrogram-transformer"]])
def test_another_kind_of_model_is_refused(kind: Any) -> None:
    with pytest.raises(CheckpointError, match="not an Audio Spectrogram Transformer"):
        ASTConfig.from_dict({"model_type": kind})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1, 2]", "must contain a JSON object, not a list"),
        (b"{", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"\xff\xfe\xfa", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"hidden_size": ' + b"9" * 10_000 + b"}", "not valid JSON"),
        (b'{"layer_norm_eps": NaN}', "layer_norm_eps must be a number from 0 to 1, not nan"),
        (b'{"hidden_size": 1e7}', "hidden_size must be a whole number from 1 to 16384, not 10000000.0"),
        (b'{"self": 1}', "self"),
        (b"<!DOCTYPE html><html>", "this is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "this is a Git LFS pointer"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        ASTConfig.from_pretrained(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: cannot be read \(No such file or directory\)"):
        ASTConfig.from_pretrained(tmp_path)


def test_overrides_replace_values_of_the_file_and_a_label_override_replaces_all_labels(tmp_path: Path) -> None:
    tiny_config().save_pretrained(tmp_path)
    config = ASTConfig.from_pretrained(tmp_path, hidden_dropout_prob=0.5, num_labels=3)
    assert config == ASTConfig(**TINY, hidden_dropout_prob=0.5, num_labels=3)
    assert ASTConfig.from_pretrained(tmp_path, id2label={0: "x", 1: "y"}).label2id == {"x": 0, "y": 1}


def test_forget_bad_labels_ignores_a_faulty_label_map_but_no_other_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**TINY, "id2label": {"0": "a", "5": "b"}}))
    assert read_config(tmp_path, forget_bad_labels=True) == ASTConfig(**TINY)
    (tmp_path / "config.json").write_text(json.dumps({**TINY, "id2label": {"0": "a", "1": "b", "2": "c"}}))
    assert read_config(tmp_path, forget_bad_labels=True).id2label == {0: "a", 1: "b", 2: "c"}
    (tmp_path / "config.json").write_text(json.dumps({**TINY, "time_stride": 0}))
    with pytest.raises(CheckpointError, match="time_stride"):
        read_config(tmp_path, forget_bad_labels=True)


STYLES = ("Blues---Boogie Woogie", "Folk, World, & Country---Celtic", "Funk / Soul---P.Funk", "Rock---AOR")
# The first labels of AST-BirdSet-XCM, a short name, one of five letters, and one of -XCL whose species were joined.
BIRDS = (
    *("gretit1", "eurbla", "comcha", "comchi1", "eurrob1", "sonthr1", "blackc1", "blutit", "redcro", "winwre4"),
    *("iiwi", "veery", "y01036"),
)


@pytest.mark.parametrize(
    ("labels", "problem_type", "activation"),
    [
        (audioset_id2label(), None, "sigmoid"),
        (audioset_id2label(), "multi_label_classification", "sigmoid"),
        (audioset_id2label(), "single_label_classification", "softmax"),
        ({index: name for index, name in audioset_id2label().items() if index < 521}, None, "sigmoid"),
        ({index: name for index, name in audioset_id2label().items() if index < 200}, None, "softmax"),
        (FIVE_LABELS, None, "softmax"),
        (FIVE_LABELS, "single_label_classification", "softmax"),
        (FIVE_LABELS, "multi_label_classification", "sigmoid"),
        (FIVE_LABELS, "regression", "none"),
        ({0: "loudness"}, None, "none"),
        ({index: f"LABEL_{index}" for index in range(526)}, None, "softmax"),
        ({index: f"class {index}" for index in range(527)}, None, "softmax"),
        ({index: f"LABEL_{index}" for index in range(527)}, None, "sigmoid"),
        (dict(enumerate(STYLES)), None, "sigmoid"),
        (dict(enumerate(STYLES)), "single_label_classification", "softmax"),
        (dict(enumerate([*STYLES, "Rock"])), None, "softmax"),
        (dict(enumerate(["Rock---", *STYLES])), None, "softmax"),
        (dict(enumerate(STYLES[:1])), None, "none"),
        (dict(enumerate(BIRDS)), None, "sigmoid"),
        (dict(enumerate(BIRDS)), "single_label_classification", "softmax"),
        (dict(enumerate([*BIRDS, "Great tit"])), None, "softmax"),
        (dict(enumerate([*BIRDS, "gretit100"])), None, "softmax"),
        (dict(enumerate([bird for bird in BIRDS if bird.isalpha()])), None, "softmax"),
        ({0: "dog", 1: "cat", 2: "rain", 3: "siren1", 4: "guitar"}, None, "softmax"),
    ],
)
def test_the_activation_comes_from_the_problem_type_else_from_the_labels(
    labels: dict[int, str], problem_type: str | None, activation: str
) -> None:
    assert activation_of(ASTConfig(id2label=labels, problem_type=problem_type)) == activation


def test_the_representation_shows_what_differs_from_the_defaults() -> None:
    assert repr(ASTConfig(hidden_act="relu", foo=1)) == "ASTConfig(hidden_act='relu', extra={'foo': 1})"
