"""The sample files: what their table says, that the built-in model knows them, that the script makes them again."""

from __future__ import annotations

import csv
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ast_cli import load_waveform
from ast_cli.dataset.examples import read_examples
from ast_cli.labels import audioset_mids
from ast_cli.tagging.inputs import AUDIO_EXTENSIONS

SAMPLES = Path(__file__).parents[1] / "sample_audio"
NAMES = {file.name for file in SAMPLES.iterdir() if file.suffix in AUDIO_EXTENSIONS}
MAX_BYTES = 1_800_000
ROUNDING = 2 / 32768  # of 16 bits, and of a transform on another machine


@pytest.fixture
def make_samples(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SAMPLES))
    import make_samples  # type: ignore[import-not-found]

    return make_samples  # type: ignore[no-any-return]


def test_each_sample_but_the_long_one_has_labels_of_audioset() -> None:
    with open(SAMPLES / "labels.csv", newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert {row["path"] for row in rows} == NAMES - {"soundscape.mp3"}
    named = {label for row in rows for label in (row["label"], *row["also_right"].split(";"))}
    assert named <= set(audioset_mids())


def test_labeled_parts_are_inside_their_files() -> None:
    examples = read_examples(str(SAMPLES / "labels.csv"))
    assert examples.splits == ("train", "validation")
    assert len(examples.labels) == len(NAMES) - 1
    lengths_s = {name: load_waveform(SAMPLES / name).size / 16000 for name in NAMES}
    for example in examples.examples:
        assert example.end_s is not None
        assert example.end_s <= lengths_s[Path(example.path).name] + 0.01


def test_samples_are_small_and_of_many_formats(make_samples: ModuleType) -> None:
    import sound_files  # type: ignore[import-not-found]

    assert sum((SAMPLES / name).stat().st_size for name in NAMES) < MAX_BYTES
    assert {Path(name).suffix for name in NAMES} == {".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav"}
    made = [sample.file for sample in (*make_samples.SAMPLES, *make_samples.RECORDINGS)]
    assert {*made, sound_files.SPEECH_FILE} == NAMES
    assert all(f"| `{name}` |" in (SAMPLES / "README.md").read_text(encoding="utf-8") for name in NAMES)


@pytest.mark.parametrize("file", ["siren.wav", "telephone.wav"])
def test_the_script_makes_the_same_sound_again(make_samples: ModuleType, tmp_path: Path, file: str) -> None:
    (sample,) = (sample for sample in make_samples.SAMPLES if sample.file == file)
    make_samples.make(sample, tmp_path, make_samples.SEED)
    np.testing.assert_allclose(load_waveform(tmp_path / file), load_waveform(SAMPLES / file), atol=ROUNDING)
