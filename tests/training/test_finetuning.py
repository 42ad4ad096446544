from __future__ import annotations

import csv
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from sklearn.metrics import accuracy_score, average_precision_score
from tiny_training import HERE, SCRATCH, options_for, tiny_extractor, tiny_model
from tone_folders import write_tone_folders

from ast_cli import ASTFeatureExtractor, ASTForAudioClassification, Tagger
from ast_cli.audio.decode import load_waveform
from ast_cli.errors import AstError, UsageError
from ast_cli.training.cross_validation import finetune_folds
from ast_cli.training.finetuning import RunSettings, finetune
from ast_cli.training.options import TrainOptions
from ast_cli.training.recipes import options_of


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_tone_folders(tmp_path / "data")


@pytest.fixture
def base(tmp_path: Path) -> str:
    tiny_model().save_pretrained(tmp_path / "base")
    tiny_extractor().save_pretrained(tmp_path / "base")
    return str(tmp_path / "base")


def write_manifest(data: Path, header: str, row: Callable[[int, Path], str]) -> Path:
    files = sorted(data.glob("*/*.wav"))
    rows = [f'"{file.relative_to(data)}",{row(i, file)}' for i, file in enumerate(files)]
    manifest = data / "data.csv"
    manifest.write_text("\n".join([f"path,{header}", *rows]) + "\n")
    return manifest


def test_labels_that_no_checkpoint_may_have_are_refused_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    (data / "Low").rename(data / "Low\x1b[2J")
    with pytest.raises(UsageError) as raised:
        finetune(data, SCRATCH, tmp_path / "out", options_for(), HERE)
    assert str(raised.value) == (
        f"{data}: the label 'Low\\x1b[2J' contains control characters or characters that reverse text: correct it"
    )
    assert not (tmp_path / "out").exists()


def test_a_folder_per_class_becomes_a_checkpoint_that_tags(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    result = finetune(data, SCRATCH, output, options_for(epochs=12, normalize="data"), HERE)
    assert sorted(file.name for file in output.iterdir()) == [
        "README.md",
        "config.json",
        "curves.png",
        "history.csv",
        "model.safetensors",
        "preprocessor_config.json",
        "results.json",
        "training_options.toml",
    ]
    tagger = Tagger.from_pretrained(str(output))
    for file in data.glob("*/*.wav"):
        assert tagger.classify(str(file), top_k=1).tags[0].label == file.parent.name
    assert result.validation is not None
    assert result.validation.headline == ("accuracy", 1.0)
    results = json.loads((output / "results.json").read_text())
    assert results["validation"]["metrics"]["accuracy"] == 1.0
    assert results["num_examples"] == {"train": 6, "validation": 2, "test": 0}
    assert (results["failures"], results["num_epochs"], results["kept"]) == ([], 12, "best")
    with (output / "history.csv").open() as stream:
        assert [row["epoch"] for row in csv.DictReader(stream)] == [str(epoch) for epoch in range(1, 13)]
    assert options_of(output / "training_options.toml") == result.options


def test_the_output_loads_in_transformers_with_the_same_logits(data: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    finetune(data, SCRATCH, tmp_path / "out", options_for(), HERE)
    theirs = transformers.ASTForAudioClassification.from_pretrained(tmp_path / "out").eval()
    ours = ASTForAudioClassification.from_pretrained(tmp_path / "out")
    extractor = ASTFeatureExtractor.from_pretrained(tmp_path / "out")
    waveforms = [load_waveform(str(file)) for file in sorted(data.glob("*/*.wav"))]
    inputs = extractor(waveforms, sampling_rate=16000, return_tensors="pt")["input_values"]
    with torch.no_grad():
        torch.testing.assert_close(ours(inputs).logits, theirs(inputs).logits, atol=1e-5, rtol=0)
    assert theirs.config.id2label == {0: "High, very", 1: "Low"}
    assert theirs.config.problem_type == "single_label_classification"
    settings = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert settings["feature_extractor_type"] == "ASTFeatureExtractor"
    assert (settings["num_mel_bins"], settings["max_length"]) == (32, 48)


def test_statistics_of_the_data_are_those_of_the_frames_that_are_trained_on(data: Path, tmp_path: Path) -> None:
    manifest = write_manifest(data, "label,split", lambda i, f: f'"{f.parent.name}",{["train", "test"][i % 4 == 3]}')
    options = options_for(normalize="data", validation_fraction=0.0)
    finetune(manifest, SCRATCH, tmp_path / "out", options, HERE)
    extractor = ASTFeatureExtractor.from_pretrained(tmp_path / "out")
    trained = [file for i, file in enumerate(sorted(data.glob("*/*.wav"))) if i % 4 != 3]
    fbanks = [extractor.fbank(torch.from_numpy(load_waveform(str(file)))[None])[0][:48] for file in trained]
    frames = torch.cat(fbanks).double()
    assert extractor.mean == pytest.approx(frames.mean().item(), abs=1e-4)
    assert extractor.std == pytest.approx(frames.std(correction=0).item(), abs=1e-4)


def test_multi_label_data_is_trained_with_sigmoids_and_evaluated_on_the_test_split(data: Path, tmp_path: Path) -> None:
    kinds = ["low", "low;short", "", "low", "high", "high;short", "high", "short"]
    splits = ["train", "train", "train", "test", "validation", "train", "test", "test"]
    manifest = write_manifest(data, "labels,split", lambda i, _: f'"{kinds[i]}",{splits[i]}')
    result = finetune(manifest, SCRATCH, tmp_path / "out", options_for(balanced=True), HERE)
    assert result.config.problem_type == "multi_label_classification"
    assert list(result.config.id2label.values()) == ["high", "low", "short"]
    assert result.test is not None
    tagger = Tagger.from_pretrained(str(tmp_path / "out"))
    tested = [(i, str(file)) for i, file in enumerate(sorted(data.glob("*/*.wav"))) if splits[i] == "test"]
    scores = np.zeros((3, 3))
    for row, (_, file) in zip(scores, tested, strict=True):
        for tag in tagger.classify(file, top_k=3).tags:
            row[tag.label_id] = tag.score
    targets = np.array([[label in kinds[i].split(";") for label in ("high", "low", "short")] for i, _ in tested])
    expected = np.mean([average_precision_score(targets[:, i], scores[:, i]) for i in range(3)])
    assert result.test.headline == ("mAP", pytest.approx(expected, abs=1e-6))
    assert "Mean average precision" in (tmp_path / "out" / "README.md").read_text()


def test_a_clip_that_cannot_be_read_is_reported_and_left_out(data: Path, tmp_path: Path) -> None:
    (data / "Low" / "bad.wav").write_bytes(b"no audio at all " * 9)
    (data / "Only").mkdir()
    (data / "Only" / "bad.wav").write_bytes(b"")
    failures: list[Any] = []
    notes: list[str] = []
    run = RunSettings(num_workers=0, on_failures=failures.extend, on_note=notes.append)
    result = finetune(data, SCRATCH, tmp_path / "out", options_for(epochs=1), run)
    assert [Path(example.path).name for example, _ in failures] == ["bad.wav", "bad.wav"]
    assert [str(error.code) for _, error in result.failures] == ["not_audio", "empty_file"]
    assert len(result.splits.train) + len(result.splits.validation) == 8
    assert "note: the model cannot learn labels without training clips: Only" in notes
    recorded = json.loads((tmp_path / "out" / "results.json").read_text())["failures"]
    assert [each["error"]["code"] for each in recorded] == ["not_audio", "empty_file"]
    assert "2 clips could not be read." in (tmp_path / "out" / "README.md").read_text()


def test_data_without_readable_clips_is_an_error_and_changed_files_are_other_data(data: Path, tmp_path: Path) -> None:
    contents = {file: file.read_bytes() for file in data.glob("*/*.wav")}
    for file in contents:
        file.write_bytes(b"junk" * 50)
    with pytest.raises(AstError, match="none of the 8 recordings could be read"):
        finetune(data, SCRATCH, tmp_path / "out", options_for(), HERE)
    for file, content in contents.items():
        file.write_bytes(content)
    with pytest.raises(UsageError, match="the data has changed"):
        finetune(data, SCRATCH, tmp_path / "out", options_for(), RunSettings(num_workers=0, resume=True))


def test_the_head_alone_is_trained_on_a_base(data: Path, base: str, tmp_path: Path) -> None:
    options = TrainOptions(
        epochs=30, batch_size=4, freeze_encoder=True, learning_rate=0.05, validation_fraction=0.25, random_crop=True
    )
    progress: list[tuple[str, int, int]] = []
    run = RunSettings(num_workers=0, on_progress=lambda *values: progress.append(values))
    result = finetune(data, base, tmp_path / "out", options, run)
    assert progress[-1] == ("running the encoder over clips", 8, 8)
    assert ("reading clips", 8, 8) in progress
    tuned = ASTForAudioClassification.from_pretrained(tmp_path / "out").audio_spectrogram_transformer.state_dict()
    for name, tensor in tiny_model().audio_spectrogram_transformer.state_dict().items():
        assert torch.equal(tuned[name], tensor), name
    tagger = Tagger.from_pretrained(str(tmp_path / "out"))
    held_out = result.splits.validation.examples
    predicted = [tagger.classify(example.path, top_k=1).tags[0].label for example in held_out]
    assert result.validation is not None
    assert result.validation.headline[1] == accuracy_score([example.labels[0] for example in held_out], predicted)


def test_a_note_states_that_the_ends_of_long_clips_are_not_used(data: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    run = RunSettings(num_workers=0, on_note=notes.append)
    finetune(data, SCRATCH, tmp_path / "a", options_for(epochs=1, max_length=32), run)
    assert any(note.startswith("note: 6 of 8 clips last 0.32 s or more; ") for note in notes)
    assert any(note.endswith("; audio after that is not used without --random-crop") for note in notes)
    notes.clear()
    finetune(data, SCRATCH, tmp_path / "b", options_for(epochs=1, max_length=32, random_crop=True), run)
    assert not any(note.startswith("warning") for note in notes)


def test_a_scratch_model_has_an_input_as_long_as_the_clips(data: Path, tmp_path: Path) -> None:
    result = finetune(data, SCRATCH, tmp_path / "out", options_for(epochs=1, max_length=None), HERE)
    assert result.config.max_length == 64  # 58 frames, up to a whole patch
    assert ASTFeatureExtractor.from_pretrained(tmp_path / "out").max_length == 64


def test_a_few_long_clips_do_not_make_the_input_of_a_scratch_model_long(data: Path, tmp_path: Path) -> None:
    for i in range(4, 16):
        for folder in data.iterdir():
            shutil.copy(folder / "0.wav", folder / f"{i}.wav")
    samples, sampling_rate = soundfile.read(data / "Low" / "3.wav")
    soundfile.write(data / "Low" / "3.wav", np.tile(samples, 4), sampling_rate)
    notes: list[str] = []
    run = RunSettings(num_workers=0, on_note=notes.append)
    result = finetune(data, SCRATCH, tmp_path / "out", options_for(epochs=1, max_length=None), run)
    assert result.config.max_length == 64
    assert any(note.startswith("note: 1 of 32 clips last 0.64 s or more; ") for note in notes)


def test_clips_that_exactly_fill_the_input_are_not_reported_as_cut(data: Path, tmp_path: Path) -> None:
    for path in data.glob("*/*.wav"):
        soundfile.write(path, soundfile.read(path)[0][:4720], 16000, subtype="FLOAT")  # 28 frames
    soundfile.write(path, np.zeros(5360), 16000, subtype="FLOAT")  # 32 frames: two whole patches
    notes: list[str] = []
    run = RunSettings(num_workers=0, on_note=notes.append)
    result = finetune(data, SCRATCH, tmp_path / "out", options_for(epochs=1, max_length=None), run)
    assert result.config.max_length == 32
    assert not any("is not used" in note for note in notes)


def test_an_interrupted_run_resumes_only_with_the_same_settings_and_data(data: Path, tmp_path: Path) -> None:
    def stop(report: Any) -> None:
        if report.row is not None:
            raise KeyboardInterrupt

    output, options = tmp_path / "out", options_for(epochs=3)
    with pytest.raises(KeyboardInterrupt):
        finetune(data, SCRATCH, output, options, RunSettings(num_workers=0, on_report=stop))
    with pytest.raises(UsageError, match="exists and is not empty: add --resume"):
        finetune(data, SCRATCH, output, options, HERE)
    resumed = RunSettings(num_workers=0, resume=True)
    with pytest.raises(UsageError, match=r"--learning-rate was 0\.005 and is 0.001"):
        finetune(data, SCRATCH, output, options_for(epochs=3, learning_rate=1e-3), resumed)
    with pytest.raises(UsageError, match="base was 'scratch:32x1' and is 'scratch:64x1'"):
        finetune(data, "scratch:64x1", output, options, resumed)
    manifest = write_manifest(data, "label,fold", lambda i, f: f'"{f.parent.name}",{i % 2}')
    with pytest.raises(UsageError, match="folds was False and is True"):
        finetune_folds(manifest, SCRATCH, output, options, resumed)
    notes: list[str] = []
    result = finetune(data, SCRATCH, output, options, RunSettings(num_workers=0, resume=True, on_note=notes.append))
    assert notes[-1] == "resuming after epoch 1, update 0"
    assert len(result.history) == 3
    with pytest.raises(UsageError, match="contains no interrupted run"):
        finetune(data, SCRATCH, output, options, resumed)


def test_the_folders_of_the_data_and_the_base_model_are_never_written(data: Path, base: str) -> None:
    for output, what in ((data, "data"), (Path(base), "base model")):
        with pytest.raises(UsageError, match=f"is the {what} itself"):
            finetune(data, base, output, options_for(), RunSettings(force=True))


def test_divergence_without_nan_is_reported_once_and_in_the_card(data: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    run = RunSettings(num_workers=0, device="cpu", on_note=notes.append)
    options = options_for(epochs=4, learning_rate=10.0, schedule="constant")
    result = finetune(data, SCRATCH, tmp_path / "out", options, run)
    assert [math.isfinite(row["train_loss"]) for row in result.history] == [True] * 4  # the NaN message says nothing
    (warning,) = [note for note in notes if note.startswith("warning")]
    assert re.fullmatch(
        r"warning: training diverged: the loss of epoch 1 is [\d.e+]+, far above the initial [\d.]+; "
        r"try a lower --learning-rate or a longer --warmup-epochs",
        warning,
    )
    assert json.loads((tmp_path / "out" / "results.json").read_text())["diverged_epoch"] == 1
    card = (tmp_path / "out" / "README.md").read_text()
    assert "**Training diverged**: the loss of epoch 1 was far above the initial loss." in card
    notes.clear()
    finetune(data, SCRATCH, tmp_path / "good", options_for(), run)
    assert not any(note.startswith("warning") for note in notes)
    assert json.loads((tmp_path / "good" / "results.json").read_text())["diverged_epoch"] is None
    assert "diverged" not in (tmp_path / "good" / "README.md").read_text()


def test_every_fold_is_held_out_once_and_an_interrupted_fold_resumes(data: Path, tmp_path: Path) -> None:
    manifest = write_manifest(data, "label,fold", lambda i, f: f'"{f.parent.name}",{i % 2 + 1}')
    output, options, trained = tmp_path / "out", options_for(epochs=2), []

    def stop(report: Any) -> None:
        trained.extend([report] if report.row is not None else [])
        if len(trained) == 3:  # in the second fold
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune_folds(manifest, SCRATCH, output, options, RunSettings(num_workers=0, on_report=stop))
    notes: list[str] = []
    run = RunSettings(num_workers=0, resume=True, on_note=notes.append)
    result = finetune_folds(manifest, SCRATCH, output, options, run)
    assert (notes[0], notes[-1]) == ("fold 2 is held out (2 of 2)", "resuming after epoch 1, update 0")
    assert [(fold.fold, fold.num_examples) for fold in result.folds] == [(1, 4), (2, 4)]
    summary = json.loads((output / "folds.json").read_text())
    assert summary["mean"] == pytest.approx(np.mean([fold.value for fold in result.folds]), abs=1e-6)
    assert summary["std"] == pytest.approx(np.std([fold.value for fold in result.folds], ddof=1), abs=1e-6)
    assert summary["metric"] == "accuracy"
    assert sorted(file.name for file in output.iterdir()) == ["fold-1", "fold-2", "folds.json"]
    for fold in (1, 2):
        results = json.loads((output / f"fold-{fold}" / "results.json").read_text())
        assert results["held_out"] == f"fold {fold} of the data"
        held_out = [str(file) for i, file in enumerate(sorted(data.glob("*/*.wav"))) if i % 2 + 1 == fold]
        tagger = Tagger.from_pretrained(str(output / f"fold-{fold}"))
        hits = [tagger.classify(file, top_k=1).tags[0].label == Path(file).parent.name for file in held_out]
        assert result.folds[fold - 1].value == np.mean(hits)
    finetune(data, SCRATCH, output, options, RunSettings(num_workers=0, force=True))
    assert not list(output.glob("fold-*"))


def test_folds_need_data_with_folds(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--folds needs data with at least two folds"):
        finetune_folds(data, SCRATCH, tmp_path / "out", options_for(), HERE)
    with pytest.raises(UsageError, match="choose one"):
        finetune_folds(data, SCRATCH, tmp_path / "out", options_for(fold=1), HERE)
    assert not (tmp_path / "out").exists()


def test_the_card_shows_foreign_names_as_they_are(data: Path, tmp_path: Path) -> None:
    manifest = write_manifest(data, "label", lambda i, _: ['"<img src=x>|[a](b) *c*"', "plain"][i % 2])
    finetune(manifest, SCRATCH, tmp_path / "out", options_for(), HERE)
    card = (tmp_path / "out" / "README.md").read_text()
    row = "| &lt;img src=x>\\|\\[a\\](b) \\*c\\* | 3 | 1 |"
    assert row in card.splitlines()
    assert card.startswith("---\npipeline_tag: audio-classification\n")
    assert "Training started from random weights." in card
    assert "the best of 2 validations on the same clips, so the validation results" in card
    assert Tagger.from_pretrained(str(tmp_path / "out")).config.id2label[0] == "<img src=x>|[a](b) *c*"
