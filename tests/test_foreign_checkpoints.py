"""A folder that is none of the family, or that lies about itself, is refused in one line that names the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hub_layouts import ebird_codes, write_ast

from ast_cli import Tagger
from ast_cli.errors import CheckpointError

STYLES = ["Rock---Shoegaze", "Rock---Punk", "Electronic---House", "Jazz---Bop"]
MAEST = {"feature_extractor_type": "MAESTFeatureExtractor", "max_length": 64, "num_mel_bins": 96}
AST = {"feature_extractor_type": "ASTFeatureExtractor", "max_length": 64, "num_mel_bins": 96}
GONE = object()  # a key that is taken out

# What is changed in config.json, what in preprocessor_config.json (None: there is none), and what the error says.
MUTATED: list[tuple[dict[str, Any], dict[str, Any] | None, str]] = [
    ({"model_type": "clap"}, {}, "this is a 'clap' model"),
    ({"model_type": "wav2vec2"}, {}, "this is a 'wav2vec2' model"),
    ({"model_type": "htsat", "auto_map": {"AutoModel": "modeling.Model"}}, {}, "this is a 'htsat' model"),
    ({"model_type": 7}, {}, "this is a 7 model"),
    ({"model_type": ["eat"]}, {}, "this is a ['eat'] model"),
    ({}, {"feature_extractor_type": "ClapFeatureExtractor"}, "needs another front end, 'ClapFeatureExtractor'"),
    ({}, {"feature_extractor_type": "Wav2Vec2FeatureExtractor"}, "needs another front end, 'Wav2Vec2FeatureExtractor'"),
    ({}, {"feature_extractor_type": "MAESTFeatureExtractorV2"}, "needs another front end, 'MAESTFeatureExtractorV2'"),
    ({}, {"feature_extractor_type": "maestfeatureextractor"}, "needs another front end, 'maestfeatureextractor'"),
    ({}, {"feature_extractor_type": "../maest"}, "needs another front end, '../maest'"),
    ({}, {"feature_extractor_type": "FeatureExtractor"}, "needs another front end, 'FeatureExtractor'"),
    ({}, {"feature_extractor_type": ["MAESTFeatureExtractor"]}, "needs another front end, ['MAESTFeatureExtractor']"),
    ({}, {"feature_extractor_type": 1}, "needs another front end, 1"),
    ({}, None, "there is no preprocessor_config.json"),
    ({"id2label": dict(enumerate(ebird_codes(10)[:4]))}, None, "there is no preprocessor_config.json"),
    ({}, {"n_fft": 0}, "n_fft must be from"),
    ({}, {"n_fft": "512"}, "n_fft must be from"),
    ({}, {"hop_length": 0}, "hop_length must be from"),
    ({}, {"hop_length": 10**9}, "hop_length must be from"),
    ({}, {"log_compression": "log2"}, "log_compression must be"),
    ({}, {"sampling_rate": -16000}, "sampling_rate must be from"),
    ({}, {"num_mel_bins": 10**6}, "num_mel_bins must be from"),
    ({}, {"num_mel_bins": 64}, "num_mel_bins 96 and its preprocessor_config.json 64"),
    ({}, {"max_length": -1}, "max_length -1"),
    ({}, {"max_length": 128}, "max_length 64 and its preprocessor_config.json 128"),
    ({}, {"std": 0}, "std must be above 0"),
    ({}, {"mean": "nan"}, "mean must be a finite number"),
    ({}, {"do_normalize": "yes"}, "do_normalize must be true or false"),
    ({}, {"feature_size": 2}, "feature_size must be 1"),
    ({"num_mel_bins": 80}, {"num_mel_bins": 80}, "position_embeddings"),
    ({"max_length": 96}, {"max_length": 96}, "position_embeddings"),
    ({"num_hidden_layers": 3}, {}, "missing"),
    ({"patch_size": 8}, {}, "patch_embed"),
    ({"id2label": {"0": "Rock---Punk", "1": "Rock---Punk"}}, {}, "names 'Rock---Punk' twice"),
    ({"id2label": dict(enumerate(STYLES[:3])), "label2id": GONE}, {}, "names 3 labels for 4 outputs"),
]


def mutate(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in (values | changes).items() if value is not GONE}


def write_mutated(folder: Path, config: dict[str, Any], preprocessor: dict[str, Any] | None) -> None:
    write_ast(folder, STYLES, num_mel_bins=96, max_length=64)
    file = folder / "config.json"
    file.write_text(json.dumps(mutate(json.loads(file.read_text()), config)))
    if preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(mutate(MAEST, preprocessor)))
    for name in ("modeling.py", "feature_extraction_maest.py"):  # what remote code would do
        (folder / name).write_text("raise SystemExit('code of a model folder ran')")


@pytest.mark.parametrize(("config", "preprocessor", "message"), MUTATED)
def test_a_mutated_checkpoint_is_refused_in_one_line(
    tmp_path: Path, config: dict[str, Any], preprocessor: dict[str, Any] | None, message: str
) -> None:
    folder = tmp_path / "model"
    write_mutated(folder, config, preprocessor)
    with pytest.raises(CheckpointError) as raised:
        Tagger.from_pretrained(folder, device="cpu")
    text = str(raised.value)
    assert message in text or message.replace("position_embeddings", "pos_embed") in text
    assert str(folder) in text
    assert "\n" not in text


def test_without_a_mutation_the_same_folder_is_taken(tmp_path: Path) -> None:
    write_mutated(tmp_path / "model", {}, {})
    tagger = Tagger.from_pretrained(tmp_path / "model", device="cpu")
    assert tagger.feature_extractor.title == "MAEST"
    write_mutated(tmp_path / "model", {}, AST)
    assert Tagger.from_pretrained(tmp_path / "model", device="cpu").feature_extractor.title == "AST"
