"""A model that knows 521 of AudioSet's 527 labels works as one of AudioSet's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ast_cli import Tagger
from ast_cli.errors import UsageError
from ast_cli.labels import audioset_mids

ROOT = Path(__file__).parents[2]
STUDENT = ROOT.parent / "shared" / "models" / "audioset-student"
DOG = ROOT / "sample_audio" / "dog.wav"


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Tagger:
    """Return a tagger of the given model, whose configuration no longer says that it is multi-label."""
    if not STUDENT.is_dir():
        pytest.skip("../shared/models is not beside this repository")
    folder = tmp_path_factory.mktemp("student")
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        shutil.copy(STUDENT / name, folder)
    config = json.loads((folder / "config.json").read_text())
    del config["problem_type"]
    (folder / "config.json").write_text(json.dumps(config))
    return Tagger.from_pretrained(folder, device="cpu")


def test_its_scores_are_a_sigmoid_and_every_label_has_its_identifier(tagger: Tagger) -> None:
    result = tagger.classify(DOG, top_k=521)  # a warning, of a guessed softmax, would be an error
    assert result.activation == "sigmoid"
    assert {tag.label: tag.mid for tag in result.tags}.items() <= audioset_mids().items()
    assert len(result.tags) == 521


def test_classes_choose_its_labels_and_general_ones_are_left_out(tagger: Tagger) -> None:
    singing = tagger.classify(DOG, labels=("Singing/*", "Speech"), top_k=521).tags
    assert {tag.label for tag in singing} == {
        *("Singing", "Choir", "Yodeling", "Chant", "Mantra", "Child singing", "Synthetic singing", "Rapping", "Speech"),
    }
    with pytest.raises(UsageError, match="the model has no label 'Battle cry'"):
        tagger.classify(DOG, labels=("Battle cry",))
    general = tagger.classify(DOG, labels=("Animal/*",)).tags
    specific = tagger.classify(DOG, labels=("Animal/*",), specific=True).tags
    assert len(general) == 65
    assert {tag.label for tag in specific} < {tag.label for tag in general}
    assert specific[0].score >= 0.8 * general[0].score
