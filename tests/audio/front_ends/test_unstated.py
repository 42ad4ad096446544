"""The labels or the user determine the front end of a checkpoint without ``preprocessor_config.json``."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from hub_layouts import ebird_codes

from ast_cli import ASTFeatureExtractor, FeatureExtractor
from ast_cli.audio.front_ends.birdset import BirdSetFeatureExtractor
from ast_cli.errors import AstWarning, CheckpointError, UsageError
from ast_cli.labels import SPEECH_COMMANDS, audioset_id2label

BIRDS = {"0": "eurbla", "1": "comcha"}
WORDS = {str(label_id): word.upper() for label_id, word in enumerate(sorted(SPEECH_COMMANDS, reverse=True))}
CLASSES = {str(label_id): name for label_id, name in audioset_id2label().items()}
NAMELESS = {str(label_id): f"LABEL_{label_id}" for label_id in range(527)}


def write_config(folder: Path, **values: Any) -> Path:
    (folder / "config.json").write_text(json.dumps({"max_length": 100, "num_mel_bins": 64, **values}))
    return folder


@pytest.mark.parametrize(
    ("values", "title", "mean", "std"),
    [
        ({"id2label": CLASSES}, "AudioSet", -4.2677393, 4.5689974),
        ({"id2label": NAMELESS}, "AudioSet", -4.2677393, 4.5689974),
        ({"label2id": {name: int(i) for i, name in CLASSES.items()}}, "AudioSet", -4.2677393, 4.5689974),
        ({"id2label": WORDS}, "Speech Commands", -6.845978, 5.5654526),
    ],
)
def test_known_labels_determine_the_front_end_with_a_warning(
    tmp_path: Path, values: dict[str, Any], title: str, mean: float, std: float
) -> None:
    write_config(tmp_path, **values)
    with pytest.warns(AstWarning) as caught:
        extractor = ASTFeatureExtractor.from_pretrained(tmp_path)
    assert [str(warning.message) for warning in caught] == [
        f"{tmp_path}: there is no preprocessor_config.json; by its labels this is an AST for {title}, so the front end "
        f"for {title} is used (16000 Hz, mean {mean}, std {std})"
    ]
    assert extractor.to_dict() == ASTFeatureExtractor(max_length=100, num_mel_bins=64, mean=mean, std=std).to_dict()


@pytest.mark.parametrize(
    "values",
    [
        {"id2label": BIRDS},
        {"id2label": {label_id: CLASSES[label_id] for label_id in list(CLASSES)[1:]}},
        {"id2label": {**CLASSES, "527": "Bird, new"}},
        {"id2label": {**WORDS, "34": "lion"}},
        {"id2label": {str(label_id): f"LABEL_{label_id}" for label_id in range(35)}, "max_length": 128},
        {"id2label": ["no", "map"]},
        {},
    ],
)
def test_other_labels_are_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    write_config(tmp_path, **values)
    with pytest.raises(CheckpointError) as raised:
        ASTFeatureExtractor.from_pretrained(tmp_path)
    assert str(raised.value) == (
        f"{tmp_path}: there is no preprocessor_config.json, so the sampling rate and the spectrogram that the model "
        "needs are unknown; put that file beside its config.json, or, if the model was trained on the features of "
        "AudioSet's, Speech Commands' or BirdSet's AST, add --front-end audioset, speech-commands or birdset "
        "(front_end= in Python)"
    )


def test_a_folder_without_a_configuration_is_refused_too(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="the sampling rate and the spectrogram that the model needs are unknown"):
        ASTFeatureExtractor.from_pretrained(tmp_path)
    extractor = ASTFeatureExtractor.from_pretrained(tmp_path, front_end="speech-commands")
    assert (extractor.mean, extractor.max_length) == (-6.845978, 128)


def test_a_front_end_given_by_name_is_used_without_a_warning(tmp_path: Path) -> None:
    write_config(tmp_path, id2label=BIRDS)
    extractor = ASTFeatureExtractor.from_pretrained(tmp_path, front_end="audioset", max_length=50)
    assert extractor.to_dict() == ASTFeatureExtractor(max_length=50, num_mel_bins=64).to_dict()
    write_config(tmp_path, id2label=CLASSES)
    assert ASTFeatureExtractor.from_pretrained(tmp_path, front_end="speech-commands").mean == -6.845978


def test_a_configuration_without_sizes_means_the_default_sizes(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"id2label": BIRDS}))
    extractor = ASTFeatureExtractor.from_pretrained(tmp_path, front_end="speech-commands")
    assert (extractor.max_length, extractor.num_mel_bins) == (1024, 128)


def test_invalid_sizes_are_an_error_of_the_configuration(tmp_path: Path) -> None:
    write_config(tmp_path, id2label=BIRDS, max_length="long")
    with pytest.raises(CheckpointError, match=r"config\.json: max_length must be from 1 to 100000 frames, not 'long'"):
        ASTFeatureExtractor.from_pretrained(tmp_path, front_end="audioset")


def test_a_checkpoints_own_front_end_is_used_and_another_is_ignored_with_a_warning(tmp_path: Path) -> None:
    write_config(tmp_path, id2label=CLASSES)
    ASTFeatureExtractor(mean=-1.0).save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ASTFeatureExtractor.from_pretrained(tmp_path).mean == -1.0
    message = f"--front-end audioset is ignored, because {tmp_path / 'preprocessor_config.json'} defines the front end"
    with pytest.warns(AstWarning, match=message):
        assert ASTFeatureExtractor.from_pretrained(tmp_path, front_end="audioset").mean == -1.0


@pytest.mark.parametrize("has_file", [False, True])
def test_a_front_end_that_does_not_exist_is_refused(tmp_path: Path, has_file: bool) -> None:
    if has_file:
        ASTFeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=r"^front end must be one of audioset, speech-commands, birdset, not 'birds'$"):
        ASTFeatureExtractor.from_pretrained(tmp_path, front_end="birds")  # type: ignore[arg-type]


BIRDSET = {"id2label": dict(enumerate(ebird_codes(411))), "max_length": 1024, "num_mel_bins": 128}


@pytest.mark.parametrize("values", [{}, {"id2label": dict(enumerate(ebird_codes(9736)))}, {"time_stride": 10}])
def test_birdsets_checkpoints_are_recognized_by_an_exact_rule_and_named(tmp_path: Path, values: dict[str, Any]) -> None:
    write_config(tmp_path, **BIRDSET | values)
    with pytest.warns(AstWarning) as caught:
        extractor = FeatureExtractor.from_pretrained(tmp_path)
    assert [str(warning.message) for warning in caught] == [
        f"{tmp_path}: there is no preprocessor_config.json; by its labels this is an AST for BirdSet, so the front end "
        "for BirdSet is used (32000 Hz, mean -4.268, std 4.569)"
    ]
    assert extractor.to_dict() == BirdSetFeatureExtractor().to_dict()


@pytest.mark.parametrize(
    "values",
    [
        {"id2label": dict(enumerate(ebird_codes(410)))},
        {"id2label": dict(enumerate(ebird_codes(412)))},
        {"id2label": dict(enumerate([*ebird_codes(410), "Common Chaffinch"]))},
        {"id2label": dict(enumerate([*ebird_codes(410), "EURROB1"]))},
        {"max_length": 512},
        {"num_mel_bins": 64},
        {"time_stride": 16},
        {"patch_size": 8},
        {"max_length": "1024"},
    ],
)
def test_a_near_miss_of_birdset_is_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    write_config(tmp_path, **BIRDSET | values)
    with pytest.raises(CheckpointError, match="the sampling rate and the spectrogram that the model needs are unknown"):
        FeatureExtractor.from_pretrained(tmp_path)


def test_the_front_end_of_birdset_can_be_chosen_by_name(tmp_path: Path) -> None:
    write_config(tmp_path, id2label=BIRDS, max_length=600, num_mel_bins=64)
    extractor = FeatureExtractor.from_pretrained(tmp_path, front_end="birdset")
    assert extractor.to_dict() == BirdSetFeatureExtractor(max_length=600, num_mel_bins=64).to_dict()


def test_a_birdset_checkpoint_is_not_loaded_as_asts_extractor(tmp_path: Path) -> None:
    BirdSetFeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="needs another front end, BirdSetFeatureExtractor, than ASTFeatureExtr"):
        ASTFeatureExtractor.from_pretrained(tmp_path)


def test_a_model_of_eats_type_has_asts_front_end_with_its_own_statistics(tmp_path: Path) -> None:
    write_config(tmp_path, model_type="eat", img_size=[512, 64], max_length=768)
    extractor = FeatureExtractor.from_pretrained(tmp_path)
    assert extractor.to_dict() == ASTFeatureExtractor(max_length=512, num_mel_bins=64, mean=-4.268, std=4.569).to_dict()


@pytest.mark.parametrize("img_size", [1024, [1024], "wide", [1024, 128, 3], ["1024", 128], None])
def test_a_hostile_image_size_of_eat_is_refused(tmp_path: Path, img_size: Any) -> None:
    write_config(tmp_path, model_type="eat", img_size=img_size)
    with pytest.raises(CheckpointError, match=r"config\.json: (img_size must be|max_length must be)"):
        FeatureExtractor.from_pretrained(tmp_path)
