from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import (
    HERE,
    MAX_LENGTH,
    NUM_MEL_BINS,
    SCRATCH,
    options_for,
    plain_options,
    tiny_extractor,
    tiny_head_trainer,
    tiny_model,
    tiny_trainer,
    weights_of,
)
from tone_folders import write_tone_folders

from ast_cli import Tagger
from ast_cli.audio.windows import slice_windows
from ast_cli.dataset.examples import Example, ExampleSet
from ast_cli.dataset.soft_targets import SoftTargets
from ast_cli.errors import ErrorCode, UsageError
from ast_cli.results import FileError
from ast_cli.training.augmentation import mixup
from ast_cli.training.cross_validation import finetune_folds
from ast_cli.training.data.batches import Clips, epoch_order, evaluation_windows
from ast_cli.training.data.soft_targets import match_soft_targets, num_uncovered, soft_clips
from ast_cli.training.data.splits import assign_splits
from ast_cli.training.data.window_targets import WindowTargets, combined
from ast_cli.training.finetuning import RunSettings, finetune
from ast_cli.training.linear_probe import HeadEvaluator, _window_parts, embedded
from ast_cli.training.options import TrainOptions
from ast_cli.training.validation import Evaluator, metric_of, present_labels

LABELS = ("Cat", "Dog", "Rain")
ROWS = np.array([[0.9, 0.1, 0.5], [0.2, 0.6, 0.0], [0.3, 0.3, 0.8]], np.float32)


def data_of(*examples: Example, is_multi_label: bool = False, source: str = "data.csv") -> ExampleSet:
    labels = tuple(sorted({label for example in examples for label in example.labels}))
    return ExampleSet(source, examples, labels, is_multi_label)


def soft_of(*paths: str, scores: Any = ROWS, **fields: Any) -> SoftTargets:
    return SoftTargets(LABELS, paths, np.asarray(scores, np.float32)[: len(paths)], **fields)


def clips_of(soft: SoftTargets, lengths: Sequence[int], *examples: Example, **options: Any) -> Clips:
    """Return clips whose log-mel energies are the number of their frame."""
    fbanks = [np.arange(length, dtype=np.float32)[:, None].repeat(NUM_MEL_BINS, axis=1) for length in lengths]
    settings = TrainOptions(**options)
    matched = match_soft_targets(data_of(*examples), soft, settings)
    return soft_clips(fbanks, lengths, matched.examples.examples, matched, settings.soft_weight, 100)


def test_recordings_are_found_however_their_paths_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("data/audio/a.wav", "data/b.wav", "data/c.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"RIFF")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    clips = [Example(f"link/{name}", ()) for name in ("audio/a.wav", "b.wav", "c.wav")]
    for paths, source in (
        (("data/audio/a.wav", "./data/b.wav", str(tmp_path / "data" / "c.wav")), "elsewhere/teacher.jsonl"),
        (("a.wav", "b.wav", "audio/../c.wav"), "data/teacher.jsonl"),  # beside the scores
        (("audio\\a.wav", "b.wav", "c.wav"), "teacher.jsonl"),  # beside the manifest, written on Windows
    ):
        soft = soft_of(*paths, source=source)
        matched = match_soft_targets(data_of(*clips, source="link/data.csv"), soft, TrainOptions())
        assert [matched.rows[clip].tolist() for clip in clips] == [[0], [1], [2]]
        assert matched.num_unused == 0


def test_recordings_that_the_data_lacks_are_counted_and_errors_leave_clips_out() -> None:
    error = FileError(ErrorCode.NOT_AUDIO, "b.wav: no audio")
    soft = soft_of("a.wav", "x.wav", failures={"b.wav": error, "y.wav": error})
    matched = match_soft_targets(data_of(Example("a.wav", ()), Example("b.wav", ())), soft, TrainOptions())
    assert [example.path for example in matched.examples.examples] == ["a.wav"]
    assert [(example.path, error.code) for example, error in matched.failures] == [("b.wav", ErrorCode.NOT_AUDIO)]
    assert matched.num_unused == 1


@pytest.mark.parametrize(
    ("example", "soft", "message"),
    [
        (Example("b.wav", ()), soft_of("a.wav"), "has no scores for 'b.wav'; its first recording is 'a.wav'"),
        (Example("a.wav", ("Dogs",)), soft_of("a.wav"), "the label 'Dogs' of a.wav has no scores in soft targets, whi"),
        (Example("a.wav", (), start_s=1, end_s=2), soft_of("a.wav"), "'a.wav' from 1 s to 2 s, only for the whole rec"),
        (Example("a.wav", (), start_s=7), soft_of("a.wav", end_s=[5]), "has no scores for 'a.wav' from 7 s to its end"),
        (
            Example("a.wav", ()),
            soft_of("a.wav", "./a.wav"),
            r"row 2: has scores for '\./a\.wav', as soft targets, row 1",
        ),
        (
            Example("a.wav", ()),
            soft_of("z.wav", failures={"a.wav": FileError(ErrorCode.NOT_AUDIO, "")}),
            "has errors instead of scores for all clips",
        ),
    ],
)
def test_clips_without_scores_are_refused(example: Example, soft: SoftTargets, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        match_soft_targets(data_of(example), soft, TrainOptions())


def test_a_clip_takes_the_row_of_its_part_and_otherwise_the_windows_that_it_overlaps() -> None:
    part, rest = Example("a.wav", (), start_s=1, end_s=3), Example("a.wav", (), start_s=2.5, end_s=9)
    soft = soft_of("a.wav", "a.wav", "a.wav", start_s=[0, 1, 2.6], end_s=[2, 3.0004, 5])
    matched = match_soft_targets(data_of(part, rest), soft, TrainOptions())
    assert matched.rows[part].tolist() == [1]
    assert matched.rows[rest].tolist() == [1, 2]


def test_a_crop_has_the_mean_of_the_windows_that_it_overlaps() -> None:
    example = Example("a.wav", (), start_s=10)
    soft = soft_of("a.wav", "a.wav", "a.wav", start_s=[10, 10.4, 12], end_s=[10.4, 11, np.inf])
    clips = clips_of(soft, [260], example)
    for draw in range(200):
        batch = clips.batch([0], MAX_LENGTH, np.random.default_rng(draw))
        start = int(batch.fbank[0, 0, 0])
        overlaps = [
            max(0, min(end, start + MAX_LENGTH) - max(begin, start)) for begin, end in ((0, 40), (40, 100), (200, 260))
        ]
        if sum(overlaps):
            expected = np.array(overlaps) @ ROWS / sum(overlaps)
        else:
            expected = ROWS[1] if start - 100 <= 200 - (start + MAX_LENGTH) else ROWS[2]  # the nearest window
        np.testing.assert_allclose(batch.targets[0], expected, atol=1e-6)
    np.testing.assert_allclose(clips.targets[0], [40, 60, 60] @ ROWS / 160, atol=1e-6)
    for _, batch in evaluation_windows(clips, 40, 1):
        start = int(batch.fbank[0, 0, 0])
        np.testing.assert_allclose(batch.targets[0], clips.part_targets(0, start, start + 40))
        if start == 0:
            np.testing.assert_allclose(batch.targets[0], ROWS[0])


def test_clips_longer_than_their_windows_are_counted() -> None:
    clips = [Example(name, ()) for name in ("a", "b")]
    soft = soft_of("a", "a", "b", start_s=[0, 1, 0], end_s=[1, 2, 2])
    assert num_uncovered(clips_of(soft, [301, 300], *clips), [301, 300]) == 1
    assert num_uncovered(clips_of(soft_of("a", "b"), [301, 300], *clips), [301, 300]) == 0


def test_labels_are_combined_with_scores_as_documented() -> None:
    clips = [Example("a", ("Dog",)), Example("b", ()), Example("c", ("Cat", "Rain"))]
    labels = np.array([[0, 1, 0], [0, 0, 0], [1, 0, 1]], np.float32)
    found = clips_of(soft_of("a", "b", "c"), [9, 9, 9], *clips)
    np.testing.assert_array_equal(found.targets, np.maximum(labels, ROWS))
    assert found.truth is None
    found = clips_of(soft_of("a", "b", "c"), [9, 9, 9], *clips, soft_weight=0.75)
    expected = 0.75 * ROWS + 0.25 * labels
    np.testing.assert_allclose(found.targets, [expected[0], ROWS[1], expected[2]], atol=1e-7)
    np.testing.assert_array_equal(found.own_truth(), np.maximum(labels, ROWS))
    alone = clips_of(
        soft_of("a", "b", "c"), [9, 9, 9], *(replace(clip, labels=("Horse",)) for clip in clips), soft_weight=1.0
    )
    np.testing.assert_array_equal(alone.targets, ROWS)


def test_targets_of_single_label_data_add_up_to_one_and_other_data_is_multi_label() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], np.float32)
    data = data_of(Example("a", ("Dog",)), Example("b", ("Dog",)))
    matched = match_soft_targets(data, soft_of("a", "b", scores=probabilities), TrainOptions())
    assert not matched.examples.is_multi_label
    assert matched.examples.labels == LABELS
    found = soft_clips([], [9, 9], data.examples, matched, None, 100).targets
    np.testing.assert_allclose(found, [[0.7 / 1.8, 1 / 1.8, 0.1 / 1.8], [0.1 / 1.9, 1 / 1.9, 0.8 / 1.9]], atol=1e-6)
    assert match_soft_targets(data, soft_of("a", "b"), TrainOptions()).examples.is_multi_label
    several = replace(data, is_multi_label=True)
    assert match_soft_targets(several, soft_of("a", "b", scores=probabilities), TrainOptions()).examples.is_multi_label


def test_predictions_are_compared_with_the_labels_that_targets_stand_for(rng: np.random.Generator) -> None:
    np.testing.assert_array_equal(present_labels(ROWS, is_multi_label=True), [[1, 0, 1], [0, 1, 0], [0, 0, 1]])
    np.testing.assert_array_equal(present_labels(ROWS, is_multi_label=False), [[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    scores, soft = rng.random((40, 5)).astype(np.float32), rng.random((40, 5)).astype(np.float32)
    hard = (soft >= 0.5).astype(np.float32)
    assert metric_of(scores, soft, is_multi_label=True) == metric_of(scores, hard, is_multi_label=True)


def test_mixed_clips_have_mixed_soft_targets(rng: np.random.Generator) -> None:
    clips = clips_of(soft_of("a", "b", "c"), [MAX_LENGTH] * 3, *(Example(name, ()) for name in "abc"))
    batch = mixup(clips.batch(range(3), MAX_LENGTH), 1.0, 10.0, np.random.default_rng(1))
    numbers = np.random.default_rng(1)
    numbers.random(3)
    weights, partners = numbers.beta(10.0, 10.0, 3)[:, None], numbers.permutation(3)
    np.testing.assert_allclose(batch.targets, weights * ROWS + (1 - weights) * ROWS[partners], atol=1e-6)
    assert not np.allclose(batch.targets, ROWS)


def test_balanced_sampling_counts_soft_targets_by_their_degree() -> None:
    targets = np.array([[0.8, 0.1], [0.8, 0.1], [0.8, 0.3]] * 100, np.float32)
    clips = Clips([np.zeros((1, 1), np.float32)] * 300, targets, tuple(range(300)))
    drawn = np.concatenate([epoch_order(clips, plain_options(balanced=True), epoch) for epoch in range(40)])
    whole = np.column_stack([targets, np.full(300, 0.2)])
    weights = (whole / whole.sum(axis=0)).sum(axis=1)
    fractions = np.bincount(drawn % 3, minlength=3) / len(drawn)
    np.testing.assert_allclose(fractions, weights.reshape(-1, 3).sum(axis=0) / weights.sum(), atol=0.015)
    assert fractions[2] > 0.4


def taught_clips(num_clips: int = 9) -> Clips:
    """Return clips of one to three windows of a model, scored in windows of a teacher."""
    rng = np.random.default_rng(4)
    lengths = rng.integers(MAX_LENGTH // 2, 3 * MAX_LENGTH, num_clips)
    fbanks = [rng.normal(-6, 2, (length, NUM_MEL_BINS)).astype(np.float32) for length in lengths]
    starts = [np.arange(0, length, 20) for length in lengths]
    first = np.cumsum([0, *map(len, starts)])
    scores = rng.dirichlet(np.ones(3), first[-1]).astype(np.float32)
    flat = np.concatenate(starts).astype(np.float64)
    labels = np.zeros((num_clips, 3), np.bool_)
    windows = WindowTargets(scores, np.arange(first[-1]), first, flat, flat + 25, labels, None, True)
    targets = np.stack([windows.part_targets(i, 0, length) for i, length in enumerate(lengths)])
    return Clips(fbanks, targets, tuple(range(num_clips)), windows)


def test_the_windows_of_the_linear_probe_are_those_of_the_evaluation() -> None:
    for num_frames in (1, 31, 32, 33, 64, 90, 97):
        fbank = np.zeros((num_frames, 2), np.float32)
        windows = slice_windows([fbank], MAX_LENGTH, MAX_LENGTH)
        expected = [(each.start_frame, each.start_frame + len(each.content)) for each in windows]
        assert _window_parts(fbank, MAX_LENGTH) == expected
        last = max(0, num_frames - MAX_LENGTH)
        starts = sorted({*range(0, last + 1, MAX_LENGTH), last})
        assert expected == [(start, min(start + MAX_LENGTH, num_frames)) for start in starts]


def test_the_linear_probe_learns_the_same_targets_of_windows(tmp_path: Path) -> None:
    clips, model = taught_clips(), tiny_model()
    probe = embedded(clips, model.audio_spectrogram_transformer, tiny_extractor(), tmp_path)
    arguments = (tiny_extractor(), "cross-entropy", False, 4)
    scores, loss = Evaluator(clips, *arguments).scores(model)
    found, found_loss = HeadEvaluator(probe, *arguments).scores(model)
    np.testing.assert_allclose(found, scores, atol=1e-5)
    assert found_loss == pytest.approx(loss, abs=1e-5)
    plain_loss = Evaluator(replace(clips, windows=None), *arguments).scores(model)[1]
    assert abs(loss - plain_loss) > 1e-3  # the windows have targets of their own
    short = replace(clips, indices=tuple(i for i, each in enumerate(clips.fbanks) if len(each) <= MAX_LENGTH))  # type: ignore[arg-type, var-annotated]
    options = plain_options(freeze_encoder=True, epochs=4, learning_rate=1e-2)
    whole = tiny_trainer(options, tmp_path / "whole", short)
    whole.model.audio_spectrogram_transformer.requires_grad_(False)
    whole.run()
    head = tiny_head_trainer(options, tmp_path / "head", replace(probe, indices=short.indices))
    head.run()
    for name, tensor in weights_of(whole).items():
        torch.testing.assert_close(weights_of(head)[name], tensor, atol=2e-5, rtol=0, msg=name)


def test_clips_without_labels_are_split_at_random() -> None:
    clips = data_of(*(Example(f"{i}.wav", ()) for i in range(20)))
    splits = assign_splits(clips, TrainOptions(validation_fraction=0.2), needs_labels=False)
    assert (len(splits.train), len(splits.validation)) == (16, 4)
    assert splits.how == "a random 20 % of the clips"
    with pytest.raises(UsageError, match="no training example has a label"):
        assign_splits(clips, TrainOptions(validation_fraction=0.2))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_tone_folders(tmp_path / "data")


NAMES = ("Rain", "Hum", "Whistle", "Wind", "Bell", "Motor")
LOW, HIGH = (0.25, 0.85, 0.05, 0.4, 0.1, 0.6), (0.3, 0.1, 0.75, 0.2, 0.55, 0.05)


def write_scores(data: Path, file: Path, low: Sequence[float] = LOW, **fields: Any) -> Path:
    """Write the scores of a teacher that distinguishes the tones."""
    with file.open("w", encoding="utf-8") as stream:
        for clip in sorted(data.glob("*/*.wav")):
            scores = dict(zip(NAMES, low if clip.parent.name == "Low" else HIGH, strict=True))
            print(json.dumps({"path": str(clip), "model": "big/teacher", **fields, "scores": scores}), file=stream)
    return file


def entropy_of(*rows: Sequence[float]) -> float:
    p = np.array(rows)
    return float(-(p * np.log(p) + (1 - p) * np.log(1 - p)).mean())


def test_a_student_learns_the_scores_of_its_teacher(data: Path, tmp_path: Path) -> None:
    scores = write_scores(data, tmp_path / "teacher.jsonl")
    notes: list[str] = []
    options = options_for(epochs=40, soft_weight=1.0, learning_rate=1e-2)
    run = replace(HERE, on_note=notes.append)
    result = finetune(data, SCRATCH, tmp_path / "out", options, run, scores)
    assert (result.config.problem_type, tuple(result.config.id2label.values())) == ("multi_label_classification", NAMES)
    floor = entropy_of(LOW, HIGH)
    losses = [row["train_loss"] for row in result.history]
    assert losses[0] > floor + 0.05
    assert floor - 1e-3 < losses[-1] < floor + 0.01
    tagger = Tagger.from_pretrained(str(tmp_path / "out"))
    for clip in data.glob("*/*.wav"):
        found = {tag.label: tag.score for tag in tagger.classify(str(clip), top_k=6).tags}
        assert found == pytest.approx(
            dict(zip(NAMES, LOW if clip.parent.name == "Low" else HIGH, strict=True)), abs=0.1
        )
    assert result.taught is not None
    validation = result.taught.agreement["validation"]
    assert (validation.num_examples, validation.top_1) == (2, 1.0)
    assert validation.top_5 == 1.0
    assert validation.divergence < 0.01
    assert result.validation is not None
    assert result.validation.headline == ("mAP", 1.0)
    best = min(result.history, key=lambda row: row["validation_loss"])
    assert validation.divergence == pytest.approx(best["validation_loss"] - floor, abs=2e-3)  # its weights are saved
    recorded = json.loads((tmp_path / "out" / "results.json").read_text())["soft_targets"]
    assert (recorded["source"], recorded["teacher"]) == (str(scores), "big/teacher")
    assert recorded["agreement"]["validation"]["top_1"] == 1.0
    card = (tmp_path / "out" / "README.md").read_text()
    assert (
        "The targets are soft: the scores of teacher, the teacher, in teacher.jsonl. A clip counts for labels" in card
    )
    assert "Agreement with the soft targets of 2 validation clips: the first label is the same for 100.0 %, and" in card
    assert "| Motor | 3 | 1 |" in card  # of Low, by targets of 0.5 and more
    assert "with the same scores of the teacher." in card
    assert any(
        note.startswith("note: 2 of 6 labels have no training clip with a target of 0.5 or more")
        and "Rain, Wind" in note
        for note in notes
    )


def test_probabilities_are_learned_with_a_softmax(data: Path, tmp_path: Path) -> None:
    low, high = (0.7, 0.2, 0.1), (0.15, 0.25, 0.6)
    clips = sorted(map(str, data.glob("*/*.wav")))
    rows = np.array([low if "Low" in clip else high for clip in clips], np.float32)
    options = options_for(epochs=40, learning_rate=1e-2, soft_weight=1.0)
    result = finetune(data, SCRATCH, tmp_path / "out", options, HERE, SoftTargets(LABELS, clips, rows))
    assert result.config.problem_type == "single_label_classification"
    floor = float(-(rows * np.log(rows)).sum(axis=1).mean())
    losses = [row["train_loss"] for row in result.history]
    assert losses[0] > floor + 0.1
    assert floor - 1e-3 < losses[-1] < floor + 0.02
    assert result.validation is not None
    assert result.validation.headline == ("accuracy", 1.0)
    assert result.taught is not None
    assert result.taught.agreement["validation"].top_5 is None


def test_scores_in_the_manifest_are_the_targets_beside_its_labels(data: Path, tmp_path: Path) -> None:
    rows = []
    for i, clip in enumerate(sorted(data.glob("*/*.wav"))):
        scores = dict(zip(NAMES, LOW if clip.parent.name == "Low" else HIGH, strict=True))
        labels = {"labels": ["Rain"]} if i == 0 else {}
        rows.append(
            {"path": str(clip.relative_to(data)), "split": ["train", "test"][i % 2], "scores": scores, **labels}
        )
    manifest = data / "data.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    result = finetune(manifest, SCRATCH, tmp_path / "out", options_for(validation_fraction=0.0), HERE)
    assert result.taught is not None
    assert result.taught.label_counts["train"] == {"Rain": 1, "Hum": 2, "Whistle": 2, "Wind": 0, "Bell": 2, "Motor": 2}
    assert set(result.taught.agreement) == {"test"}
    assert (
        "the scores in data.jsonl and the clips' labels (the larger of both)."
        in (tmp_path / "out" / "README.md").read_text()
    )
    header = ",".join(["path", *(f"scores.{name}" for name in NAMES)])
    lines = [",".join([row["path"].join('""'), *map(str, row["scores"].values())]) for row in rows]
    (data / "data.csv").write_text("\n".join([header, *lines]))
    result = finetune(data / "data.csv", SCRATCH, tmp_path / "csv", options_for(), HERE)
    assert result.taught is not None
    assert tuple(result.config.id2label.values()) == NAMES


@pytest.mark.parametrize("freeze_encoder", [False, True])
def test_scores_of_windows_give_parts_of_clips_their_own_targets(
    data: Path, tmp_path: Path, freeze_encoder: bool
) -> None:
    clips = sorted(map(str, data.glob("*/*.wav")))
    soft = SoftTargets(
        LABELS,
        [path for path in [*clips, "elsewhere.wav"] for _ in range(2)],
        np.tile(np.array([[0.9, 0.1, 0.2], [0.1, 0.8, 0.2]], np.float32), (len(clips) + 1, 1)),
        start_s=np.tile([0.0, 0.2], len(clips) + 1),
        end_s=np.tile([0.2, 1.0], len(clips) + 1),
    )
    notes: list[str] = []
    options = options_for(soft_weight=1.0, random_crop=True, freeze_encoder=freeze_encoder)
    result = finetune(data, SCRATCH, tmp_path / "out", options, replace(HERE, on_note=notes.append), soft)
    assert result.taught is not None
    counts = [result.taught.label_counts[name] for name in ("train", "validation")]
    in_first = 20 / np.array([28, 38, 48, 58])  # fraction of the frames of the clips of each class
    means = in_first[:, None] * soft.scores[0] + (1 - in_first[:, None]) * soft.scores[1]
    expected = 2 * (means >= 0.5).sum(axis=0)
    assert expected.tolist() == [4, 4, 0]
    assert [sum(each[label] for each in counts) for label in LABELS] == expected.tolist()
    assert "note: soft targets also has scores for 1 recording that the data lacks" in notes


def test_a_clip_that_the_teacher_could_not_score_is_left_out_and_reported(data: Path, tmp_path: Path) -> None:
    scores = write_scores(data, tmp_path / "teacher.jsonl")
    lines = scores.read_text().splitlines()
    first = json.loads(lines[0])
    first |= {"scores": {}, "error": {"code": "timeout", "message": "took too long"}}
    scores.write_text("\n".join([json.dumps(first), *lines[1:]]))
    (data / "Low" / "bad.wav").write_bytes(b"no audio at all " * 9)
    scores.write_text(
        scores.read_text() + "\n" + json.dumps({**json.loads(lines[1]), "path": str(data / "Low/bad.wav")})
    )
    failures: list[Any] = []
    run = RunSettings(num_workers=0, on_failures=failures.extend)
    result = finetune(data, SCRATCH, tmp_path / "out", options_for(soft_weight=1.0), run, scores)
    assert [str(error.code) for _, error in failures] == ["timeout", "not_audio"]
    assert [str(error.code) for _, error in result.failures] == ["timeout", "not_audio"]
    assert len(result.splits.train) + len(result.splits.validation) == 7


def test_a_run_resumes_only_with_the_same_scores(data: Path, tmp_path: Path) -> None:
    def stop(report: Any) -> None:
        if report.row is not None:
            raise KeyboardInterrupt

    scores, output = write_scores(data, tmp_path / "teacher.jsonl"), tmp_path / "out"
    options = options_for(epochs=2, soft_weight=1.0)
    with pytest.raises(KeyboardInterrupt):
        finetune(data, SCRATCH, output, options, RunSettings(num_workers=0, on_report=stop), scores)
    resumed = RunSettings(num_workers=0, resume=True)
    other = write_scores(data, tmp_path / "other.jsonl", low=(0.25, 0.84, *LOW[2:]))
    with pytest.raises(UsageError, match="the soft targets have changed"):
        finetune(data, SCRATCH, output, options, resumed, other)
    with pytest.raises(UsageError, match=r"--soft-weight was 1\.0 and is None"):
        finetune(data, SCRATCH, output, options_for(epochs=2), resumed)
    result = finetune(data, SCRATCH, output, options, resumed, scores.rename(tmp_path / "moved.jsonl"))
    assert len(result.history) == 2


def test_folds_learn_from_soft_targets_too(data: Path, tmp_path: Path) -> None:
    clips = sorted(data.glob("*/*.wav"))
    manifest = data / "folds.csv"
    manifest.write_text(
        "\n".join(["path,fold", *(f'"{clip.relative_to(data)}",{i % 2}' for i, clip in enumerate(clips))])
    )
    scores = write_scores(data, tmp_path / "teacher.jsonl")
    result = finetune_folds(manifest, SCRATCH, tmp_path / "out", options_for(), HERE, scores)
    assert (result.metric, [fold.num_examples for fold in result.folds]) == ("mean_average_precision", [4, 4])
    for fold in (0, 1):
        recorded = json.loads((tmp_path / "out" / f"fold-{fold}" / "results.json").read_text())
        assert recorded["soft_targets"]["agreement"]["validation"]["num_examples"] == 4


def test_labels_of_the_data_that_the_teacher_lacks_are_refused_before_anything_is_written(
    data: Path, tmp_path: Path
) -> None:
    scores = write_scores(data, tmp_path / "teacher.jsonl")
    with pytest.raises(UsageError, match=r"the label 'High, very' of .*0\.wav has no scores in .*--soft-weight 1$"):
        finetune(data, SCRATCH, tmp_path / "out", options_for(), HERE, scores)
    with pytest.raises(UsageError, match=r"--soft-weight 0\.5 needs soft targets: add --soft-targets"):
        finetune(data, SCRATCH, tmp_path / "out", options_for(soft_weight=0.5), HERE)
    assert not (tmp_path / "out").exists()


def test_combined_targets_keep_the_type_of_scores() -> None:
    found = combined(ROWS, np.zeros_like(ROWS), 0.5, are_probabilities=False)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, ROWS)
