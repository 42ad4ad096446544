from __future__ import annotations

import csv
import dataclasses
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny_tagger import LABELS, tiny_tagger

from ast_cli import (
    ASTFeatureExtractor,
    ClassifyOptions,
    Tagger,
    TaggingResult,
    load_waveform,
)
from ast_cli.errors import AstWarning, AudioError, CheckpointError, DeviceError, ErrorCode, UsageError
from ast_cli.labels import SPEECH_COMMANDS, audioset_id2label
from ast_cli.tagging.inputs import Input
from ast_cli.tagging.options import DecodeOptions, LoadOptions, WindowOptions
from ast_cli.tagging.score.classify import classify_inputs

HERE = DecodeOptions(num_workers=0)

SCORE_TOLERANCE = 1e-5  # other batch sizes add float32 numbers in another order


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    return tiny_tagger()


def expected_scores(tagger: Tagger, waveform: np.ndarray, start_frames: list[int]) -> np.ndarray:
    """Score windows one by one through the public extractor and model, without the code of batches."""
    fbank = tagger.feature_extractor.fbank(torch.from_numpy(waveform)[None])[0]
    scores = []
    for start in start_frames:
        values = tagger.feature_extractor.input_values([fbank[start : start + 64]])
        with torch.inference_mode():
            scores.append(tagger.engine.model(values).logits.sigmoid()[0].numpy())
    return np.stack(scores)


def test_long_recording_is_the_mean_of_frame_exact_windows(tagger: Tagger, write_wav: Callable[..., Path]) -> None:
    path = write_wav("long.wav", 2.0)  # 198 frames: windows at 0, 64, 128 and, moved back, 134
    result = tagger.classify(path, timestamps=True, top_k=4)
    expected = expected_scores(tagger, load_waveform(path), [0, 64, 128, 134])
    by_id = {tag.label_id: tag.score for tag in result.tags}
    np.testing.assert_allclose([by_id[i] for i in range(4)], expected.mean(axis=0), atol=SCORE_TOLERANCE)
    assert result.windows is not None
    assert [(w.start_s, w.end_s) for w in result.windows] == [(0, 0.64), (0.64, 1.28), (1.28, 1.92), (1.34, 1.98)]
    for window, scores in zip(result.windows, expected, strict=True):
        assert [tag.label_id for tag in window.tags] == np.argsort(-scores).tolist()


def test_aggregate_max_keeps_the_largest_score(tagger: Tagger, write_wav: Callable[..., Path]) -> None:
    path = write_wav("long.wav", 2.0)
    result = tagger.classify(path, aggregate="max", top_k=4)
    expected = expected_scores(tagger, load_waveform(path), [0, 64, 128, 134]).max(axis=0)
    by_id = {tag.label_id: tag.score for tag in result.tags}
    np.testing.assert_allclose([by_id[i] for i in range(4)], expected, atol=SCORE_TOLERANCE)


def test_hop_is_rounded_to_whole_frames(tagger: Tagger, write_wav: Callable[..., Path]) -> None:
    result = tagger.classify(write_wav("long.wav", 1.5), timestamps=True, hop_s=0.324)
    assert result.windows is not None
    assert [window.start_s for window in result.windows] == [0.0, 0.32, 0.64, 0.84]


def test_window_times_count_from_the_beginning_of_the_recording(tagger: Tagger, write_wav: Callable[..., Path]) -> None:
    path = write_wav("long.wav", 3.0)
    result = tagger.classify(path, timestamps=True, start_s=0.5, duration_s=1.0, top_k=4)
    assert result.windows is not None
    times = [time for window in result.windows for time in (window.start_s, window.end_s)]
    assert times == pytest.approx([0.5, 1.14, 0.84, 1.48])
    part = load_waveform(path)[8000:24000]
    expected = expected_scores(tagger, part, [0, 34]).mean(axis=0)
    np.testing.assert_allclose(result.tags[0].score, expected.max(), atol=SCORE_TOLERANCE)


def test_batch_size_and_neighbors_do_not_change_scores(tagger: Tagger, write_wav: Callable[..., Path]) -> None:
    paths = [str(write_wav(f"{i}.wav", 0.3 + 0.37 * i)) for i in range(6)]
    alone = [tagger.classify(path, batch_size=1, top_k=4) for path in paths]
    for batch_size in (2, 3, 64):
        together = list(tagger.classify_paths(reversed(paths), batch_size=batch_size, top_k=4))
        assert [result.path for result in together] == paths[::-1]
        for result, single in zip(together, alone[::-1], strict=True):
            assert [tag.label for tag in result.tags] == [tag.label for tag in single.tags]
            np.testing.assert_allclose(
                [tag.score for tag in result.tags], [tag.score for tag in single.tags], atol=SCORE_TOLERANCE
            )


def test_bad_files_become_errors_and_do_not_change_other_results(
    tagger: Tagger, write_wav: Callable[..., Path], tmp_path: Path
) -> None:
    good = [str(write_wav(f"good{i}.wav", 0.9)) for i in range(3)]
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("this is no audio at all")
    nan = tmp_path / "nan.wav"
    samples = np.full(8000, 0.1, np.float32)
    samples[100] = np.nan
    soundfile.write(nan, samples, 16000, subtype="FLOAT")
    bad = [str(tmp_path / "missing.wav"), str(tmp_path / "empty.wav"), str(tmp_path / "text.wav")]
    paths = [good[0], bad[0], good[1], bad[1], str(nan), bad[2], good[2]]
    results = list(tagger.classify_paths(paths, batch_size=4, top_k=4))
    assert [result.error.code if result.error else "ok" for result in results] == [
        "ok", ErrorCode.NOT_FOUND, "ok", ErrorCode.EMPTY_FILE, "ok", ErrorCode.NOT_AUDIO, "ok",
    ]  # fmt: skip
    assert results[4].warnings == ("non_finite_samples",)
    for index, path in ((0, good[0]), (2, good[1]), (6, good[2])):
        clean = tagger.classify(path, top_k=4)
        np.testing.assert_allclose(
            [tag.score for tag in results[index].tags], [tag.score for tag in clean.tags], atol=SCORE_TOLERANCE
        )


def test_device_without_memory_gets_smaller_batches_and_one_warning(
    write_wav: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tagger = tiny_tagger()
    path = str(write_wav("long.wav", 12.0))  # 19 windows
    expected = tagger.classify(path, timestamps=True)
    logits, sizes = tagger.engine.logits, list[int]()

    def small(input_values: torch.Tensor) -> torch.Tensor:
        sizes.append(len(input_values))
        if len(input_values) > 3:
            raise torch.OutOfMemoryError("no room")
        return logits(input_values)

    monkeypatch.setattr(tagger.engine, "logits", small)
    with pytest.warns(AstWarning, match="out of memory; continuing with smaller batches") as caught:
        result = tagger.classify(path, timestamps=True, batch_size=8)
    assert len(caught) == 1
    assert sizes[:5] == [8, 4, 2, 2, 4]
    assert max(sizes[7:]) <= 4
    assert result.windows is not None
    assert expected.windows is not None
    for window, other in zip(result.windows, expected.windows, strict=True):
        assert window.tags[0].score == pytest.approx(other.tags[0].score, abs=SCORE_TOLERANCE)

    monkeypatch.setattr(tagger.engine, "logits", lambda _: (_ for _ in ()).throw(torch.OutOfMemoryError("none")))
    with pytest.raises(DeviceError, match="too small for one window"), pytest.warns(AstWarning):
        tagger.classify(path, batch_size=2)


def test_listed_file_that_is_missing_later_has_vanished(tagger: Tagger, tmp_path: Path) -> None:
    gone = Input(str(tmp_path / "gone.wav"), listed=True)
    options = ClassifyOptions()
    (result,) = classify_inputs(tagger, [gone], options, HERE)
    assert isinstance(result, TaggingResult)
    assert result.error is not None
    assert result.error.code == ErrorCode.VANISHED


def test_classify_takes_a_path_bytes_a_file_a_waveform_and_a_tensor(
    tagger: Tagger, write_wav: Callable[..., Path]
) -> None:
    path = write_wav("clip.wav", 0.7)
    waveform = load_waveform(path)
    scores = [
        [tag.score for tag in result.tags]
        for result in (
            tagger.classify(path),
            tagger.classify(str(path)),
            tagger.classify(path.read_bytes()),
            tagger.classify(io.BytesIO(path.read_bytes())),
            tagger.classify(waveform, sampling_rate=16000),
            tagger.classify(torch.from_numpy(waveform), sampling_rate=16000),
        )
    ]
    assert all(other == scores[0] for other in scores)


def test_an_open_file_is_read_by_classify_extract_and_load_waveform(
    tagger: Tagger, write_wav: Callable[..., Path]
) -> None:
    path = write_wav("clip.wav", 0.7)
    with path.open("rb") as file:
        assert tagger.classify(file) == dataclasses.replace(tagger.classify(path), path=None)
    with path.open("rb") as file:
        np.testing.assert_array_equal(tagger.extract(file, what="fbank").main, tagger.extract(path, what="fbank").main)
    with path.open("rb") as file:
        np.testing.assert_array_equal(load_waveform(file), load_waveform(path))
    for read in (tagger.classify, tagger.extract, load_waveform):
        with pytest.raises(UsageError, match="open as text: open it in binary mode"):
            read(io.StringIO("RIFF"))  # type: ignore[operator]
    with pytest.raises(UsageError, match="not ndarray"):
        load_waveform(np.zeros(16000))  # type: ignore[arg-type]


def test_a_list_of_paths_is_for_classify_paths(tagger: Tagger, write_wav: Callable[..., Path]) -> None:
    paths = [str(write_wav("a.wav")), write_wav("b.wav")]
    with pytest.raises(UsageError, match="classify takes one recording, not 2 paths: classify_paths tags several"):
        tagger.classify(paths)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="extract takes one recording, not 2 paths: call it for each"):
        tagger.extract(paths)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="paths must be a list of paths, not the single path"):
        list(tagger.classify_paths(str(paths[0])))
    results = tagger.classify_paths(paths, workers=HERE, exclude=["x"])
    assert [result.path for result in results] == [str(path) for path in paths]


def test_waveform_at_another_rate_is_resampled(tagger: Tagger, write_wav: Callable[..., Path]) -> None:
    path = write_wav("clip44.wav", 0.8, sampling_rate=44100)
    samples, rate = soundfile.read(path, dtype="float32")
    from_memory, from_file = tagger.classify(samples, sampling_rate=rate), tagger.classify(path)
    np.testing.assert_allclose(
        [tag.score for tag in from_memory.tags], [tag.score for tag in from_file.tags], atol=SCORE_TOLERANCE
    )
    assert (from_memory.sampling_rate, from_memory.duration_s) == (44100, 0.8)


def test_error_of_a_two_dimensional_waveform_says_how_to_mix_it(tagger: Tagger) -> None:
    with pytest.raises(UsageError, match=r"must be mono.*waveform\.mean\(axis=0\)"):
        tagger.classify(np.zeros((2, 16000), np.float32), sampling_rate=16000)


def test_waveform_without_a_rate_warns(tagger: Tagger) -> None:
    with pytest.warns(AstWarning, match="pass sampling_rate") as warned:
        tagger.classify(np.zeros(16000, np.float32))
    assert warned[0].filename == __file__


def test_unreadable_file_is_raised_from_classify(tagger: Tagger, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"missing\.wav: no such file") as raised:
        tagger.classify(tmp_path / "missing.wav")
    assert raised.value.code == ErrorCode.NOT_FOUND


def test_short_file_is_padded_with_a_warning_and_short_array_is_an_error(
    tagger: Tagger, write_wav: Callable[..., Path]
) -> None:
    result = tagger.classify(write_wav("short.wav", 100 / 16000))
    assert result.warnings == ("too_short",)
    assert all(np.isfinite(tag.score) for tag in result.tags)
    with pytest.raises(UsageError, match="a waveform of 100 samples is shorter than one frame, 25 ms or 400 samples"):
        tagger.classify(np.full(100, 0.1, np.float32), sampling_rate=16000)
    with pytest.raises(UsageError, match="a waveform of 399 samples is shorter than one frame, 25 ms or 1102 samples"):
        tagger.classify(np.full(399, 0.1, np.float32), sampling_rate=44100)


def test_error_of_an_array_from_soundfile_names_the_axis_of_its_channels(tagger: Tagger) -> None:
    with pytest.raises(UsageError, match=r"not \(16000, 2\): mix its channels down with waveform.mean\(axis=1\)"):
        tagger.classify(np.zeros((16000, 2)), sampling_rate=16000)


def test_unscaled_integers_in_a_float_array_give_a_warning(tagger: Tagger, rng: np.random.Generator) -> None:
    samples = (rng.uniform(-0.5, 0.5, 16000) * 32767).astype(np.int16)
    scaled = tagger.classify(samples, sampling_rate=16000).tags
    with pytest.warns(AstWarning, match="times full scale") as warned:
        wrong = tagger.classify(samples.astype(np.float32), sampling_rate=16000).tags
    assert wrong != scaled
    assert warned[0].filename == __file__


@pytest.mark.parametrize("rate", [np.int64(16000), np.int32(16000), 16000.0])
def test_sampling_rate_may_be_any_kind_of_number(tagger: Tagger, rate: Any) -> None:
    waveform = np.full(8000, 0.1, np.float32)
    assert tagger.classify(waveform, sampling_rate=rate).tags == tagger.classify(waveform, sampling_rate=16000).tags


def test_threshold_labels_and_exclusions_choose_the_tags(tagger: Tagger, write_wav: Callable[..., Path]) -> None:
    path = write_wav("clip.wav", 0.7)
    everything = tagger.classify(path, top_k=99).tags
    assert len(everything) == 4
    assert list(everything) == sorted(everything, key=lambda tag: -tag.score)
    threshold = everything[1].score
    assert tagger.classify(path, threshold=threshold).tags == everything[:2]
    chosen = tagger.classify(path, labels=("speech,Waves, surf",)).tags
    assert {tag.label for tag in chosen} == {"Speech", "Waves, surf"}
    rest = tagger.classify(path, exclude_labels=("Speech",)).tags
    assert {tag.label for tag in rest} == {"Rain", "Music", "Waves, surf"}
    with pytest.raises(UsageError, match="no label 'Ran'; similar labels: 'Rain'"):
        tagger.classify(path, labels=("Ran",))


def test_a_class_with_a_star_chooses_or_excludes_the_labels_below(
    tagger: Tagger, write_wav: Callable[..., Path]
) -> None:
    path = write_wav("clip.wav")
    water = {tag.label for tag in tagger.classify(path, labels=("Water/*", "Music")).tags}
    assert water == {"Rain", "Waves, surf", "Music"}
    rest = {tag.label for tag in tagger.classify(path, exclude_labels=("Natural sounds/*",)).tags}
    assert rest == {"Speech", "Music"}
    with pytest.raises(UsageError, match="no label is left"):
        tagger.classify(path, labels=("Rain",), exclude_labels=("Water/*",))
    with pytest.raises(UsageError, match="nothing below 'Music' in AudioSet's hierarchy is a label of the model"):
        tagger.classify(path, labels=("Music/*",))


def test_tags_carry_audioset_identifiers(tagger: Tagger, write_wav: Callable[..., Path]) -> None:
    mids = {tag.label: tag.mid for tag in tagger.classify(write_wav("clip.wav"), top_k=4).tags}
    assert mids == {"Rain": "/m/06mb1", "Speech": "/m/09x0r", "Music": "/m/04rlf", "Waves, surf": "/m/034srq"}


@pytest.mark.parametrize(
    ("problem_type", "labels", "activation"),
    [
        ("multi_label_classification", LABELS, "sigmoid"),
        ("single_label_classification", LABELS, "softmax"),
        (None, sorted(SPEECH_COMMANDS), "softmax"),
        (None, ["loudness"], "none"),
        (None, list(audioset_id2label().values()), "sigmoid"),
        ("single_label_classification", list(audioset_id2label().values()), "softmax"),
        ("regression", ["loudness"], "none"),
    ],
)
def test_activation_follows_the_checkpoint(problem_type: str | None, labels: list[str], activation: str) -> None:
    tagger = tiny_tagger(problem_type, labels)
    result = tagger.classify(np.full(8000, 0.1, np.float32), sampling_rate=16000, top_k=len(labels))
    assert result.activation == activation
    if activation == "softmax":
        assert sum(tag.score for tag in result.tags) == pytest.approx(1, abs=1e-5)


GUESSED = (
    "config.json of the checkpoint has no problem_type, so scores are a softmax, as if each recording had one label; "
    'if several labels may be right, use --activation sigmoid, or write "problem_type": "multi_label_classification" '
    "into the file"
)


def test_guessed_softmax_gives_a_warning() -> None:
    tagger = tiny_tagger(None, LABELS)
    with pytest.warns(AstWarning) as caught:
        result = tagger.classify(np.full(8000, 0.1, np.float32), sampling_rate=16000, top_k=4)
    assert {str(warning.message) for warning in caught} == {GUESSED}
    assert result.activation == "softmax"
    assert sum(tag.score for tag in result.tags) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax", "none"])
def test_chosen_activation_gives_no_warning(activation: Any) -> None:
    tagger = tiny_tagger(None, LABELS)  # warnings are errors here
    result = tagger.classify(np.full(8000, 0.1, np.float32), sampling_rate=16000, activation=activation)
    assert result.activation == activation


def test_command_warns_once_of_a_guessed_activation_also_after_an_export(
    run_ast: Callable[..., Any], write_wav: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    folder = tmp_path / "model"
    tagger = tiny_tagger(None, LABELS)
    tagger.engine.model.save_pretrained(folder)  # type: ignore[attr-defined]
    tagger.feature_extractor.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "problem_type": None}))
    assert run_ast("export", "--model", str(folder), "--output", str(tmp_path / "out")).returncode == 0
    files = [str(write_wav(f"{number}.wav")) for number in range(3)]
    for model, engine in ((folder, "torch"), (tmp_path / "out", "onnxruntime")):
        command = ["classify", *files, "--model", str(model), "--engine", engine, "--format", "jsonl"]
        done = run_ast(*command)
        assert done.returncode == 0, done.stderr
        assert [line for line in done.stderr.splitlines() if "problem_type" in line] == [f"warning: {GUESSED}"]
        assert {json.loads(line)["activation"] for line in done.stdout.splitlines()} == {"softmax"}
        assert "problem_type" not in run_ast(*command, "--activation", "sigmoid").stderr


@pytest.mark.parametrize(
    ("problem_type", "activation"),
    [("single_label_classification", "softmax"), ("multi_label_classification", "sigmoid")],
)
def test_a_threshold_that_no_score_can_reach_is_refused(problem_type: str | None, activation: str) -> None:
    tagger = tiny_tagger(problem_type)
    message = f"^--threshold must be from 0 to 1, as scores after {activation} are, not 1.5$"
    with pytest.raises(UsageError, match=message):
        tagger.classify(np.zeros(16000, np.float32), sampling_rate=16000, threshold=1.5)


def test_scores_without_an_activation_allow_any_threshold() -> None:
    silence, unbounded = np.zeros(16000, np.float32), tiny_tagger("regression")
    every = unbounded.classify(silence, sampling_rate=16000).tags
    threshold = max(every[0].score, 1.0) + 1
    assert unbounded.classify(silence, sampling_rate=16000, threshold=threshold).tags == ()
    assert unbounded.classify(silence, sampling_rate=16000, threshold=-1e9).tags == every
    assert tiny_tagger().classify(silence, sampling_rate=16000, threshold=-1e9, activation="none").tags


def test_activation_none_gives_the_logits(tagger: Tagger, write_wav: Callable[..., Path]) -> None:
    path = write_wav("clip.wav", 0.6)
    logits = tagger.extract(path, what="logits").arrays["logits"]
    result = tagger.classify(path, activation="none", top_k=4)
    by_id = {tag.label_id: tag.score for tag in result.tags}
    np.testing.assert_allclose([by_id[i] for i in range(4)], logits, atol=SCORE_TOLERANCE)


def test_model_and_feature_extractor_that_do_not_fit_are_refused(tagger: Tagger) -> None:
    with pytest.raises(CheckpointError, match=r"num_mel_bins 32 .* 128"):
        Tagger(tagger.engine, ASTFeatureExtractor(max_length=64), "mixed")


def test_unusual_sampling_rate_of_a_checkpoint_gives_a_warning(tagger: Tagger) -> None:
    extractor = ASTFeatureExtractor(num_mel_bins=32, max_length=64, sampling_rate=22050)
    with pytest.warns(AstWarning, match="takes audio at 22050 Hz, every published model of AST at 16000 Hz"):
        Tagger(tagger.engine, extractor, "odd")


def test_outputs_that_are_not_finite_are_an_error() -> None:
    tagger = tiny_tagger()
    torch.nn.init.constant_(tagger.engine.model.head.fc.weight, 3e38)
    with pytest.raises(CheckpointError, match="outputs are not finite in float32"):
        tagger.classify(np.full(8000, 0.1, np.float32), sampling_rate=16000)


def test_extract_equals_the_public_extractor_and_model(tagger: Tagger, write_wav: Callable[..., Path]) -> None:
    path = write_wav("long.wav", 2.0)
    waveform = load_waveform(path)
    fbank = tagger.feature_extractor.fbank(torch.from_numpy(waveform)[None])[0].numpy()
    np.testing.assert_allclose(tagger.extract(path, what="fbank").main, fbank, atol=1e-5)
    values = tagger.extract(path, what="input-values")
    assert values.main.shape == (4, 64, 32)
    assert values.arrays["start_s"].tolist() == [0.0, 0.64, 1.28, 1.34]
    with torch.inference_mode():
        output = tagger.engine.model(torch.from_numpy(values.main), output_hidden_states=True, output_attentions=True)
        pooled = tagger.engine.model.audio_spectrogram_transformer(torch.from_numpy(values.main)).pooler_output
    embedding = tagger.extract(path, what="embedding")
    np.testing.assert_allclose(embedding.arrays["window_embeddings"], pooled, atol=SCORE_TOLERANCE)
    np.testing.assert_allclose(embedding.main, pooled.mean(0), atol=SCORE_TOLERANCE)
    np.testing.assert_allclose(tagger.extract(path, what="logits").main, output.logits.mean(0), atol=SCORE_TOLERANCE)
    hidden = tagger.extract(path, what="hidden-states", all_windows=True).main
    np.testing.assert_allclose(hidden, torch.stack(output.hidden_states, 1), atol=SCORE_TOLERANCE)
    first = tagger.extract(path, what="attentions").main
    np.testing.assert_allclose(first, torch.stack(output.attentions, 1)[:1], atol=SCORE_TOLERANCE)


SAMPLES = Path(__file__).parents[2] / "sample_audio"


def test_builtin_recognizes_the_sample_files_and_silence() -> None:
    tagger = Tagger.from_pretrained("builtin")
    assert tagger.name == "builtin"
    assert len(tagger.config.id2label) == 521
    with open(SAMPLES / "labels.csv", newline="", encoding="utf-8") as lines:
        right = {row["path"]: (row["label"], *row["also_right"].split(";")) for row in csv.DictReader(lines)}
    found = {name: tagger.classify(SAMPLES / name, top_k=1).tags[0].label for name in right}
    assert {name: label for name, label in found.items() if label not in right[name]} == {"telephone.wav": "Music"}
    silence = tagger.classify(np.zeros(16000 * 6, np.float32), sampling_rate=16000, top_k=521)
    assert silence.tags[0].label == "Silence"
    assert all(tag.mid for tag in silence.tags)
    assert silence.activation == "sigmoid"


def test_every_keyword_of_from_pretrained_reaches_its_load_option(
    tagger: Tagger, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[tuple[object, LoadOptions]] = []

    def load(model: object, options: LoadOptions, _report_progress: object) -> Tagger:
        loaded.append((model, options))
        return tagger

    monkeypatch.setattr(Tagger, "load", load)
    changes = {
        "engine": "openvino",
        "device": "cuda:1",
        "dtype": "bf16",
        "attn_implementation": "eager",
        "unnamed_labels": True,
        "num_threads": 3,
        "fbank_backend": "torchaudio",
        "front_end": "speech-commands",
    }
    assert list(changes) == [field.name for field in dataclasses.fields(LoadOptions)]
    for name, value in changes.items():
        Tagger.from_pretrained("fast", **{name: value})
        assert loaded.pop() == ("fast", dataclasses.replace(LoadOptions(), **{name: value}))


def test_silence_in_wav_bytes_is_tagged_without_a_warning(tagger: Tagger) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(16000, np.int16), 16000, format="WAV")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tagger.classify(buffer.getvalue()).status == "ok"


def test_part_of_an_input_overrides_that_of_the_options(tagger: Tagger, write_wav: Callable[..., Path]) -> None:
    path = str(write_wav("long.wav", 3.0))
    options = ClassifyOptions(timestamps=True, top_k=4)
    own = WindowOptions(start_s=0.5, duration_s=1.0)
    inputs = [Input(path, part=own), Input(path)]
    part, whole = classify_inputs(tagger, inputs, options, HERE)
    assert part == tagger.classify(path, start_s=0.5, duration_s=1.0, timestamps=True, top_k=4)
    # These windows share batches with those of the part, so that scores are equal within 1e-5 only.
    alone = tagger.classify(path, timestamps=True, top_k=4)
    assert isinstance(whole, TaggingResult)
    assert whole.duration_s == alone.duration_s
    assert whole.windows is not None
    assert alone.windows is not None
    for ours, theirs in zip(whole.windows, alone.windows, strict=True):
        assert (ours.start_s, ours.end_s) == (theirs.start_s, theirs.end_s)
        assert [tag.score for tag in ours.tags] == pytest.approx([tag.score for tag in theirs.tags], abs=1e-5)


def test_batches_of_every_size_give_the_same_scores(tagger: Tagger, write_wav: Callable[..., Path]) -> None:
    num_inputs = 40
    path = str(write_wav("a.wav", 0.3 + 0.05 * num_inputs))
    # All windows differ, because the model scores equal ones only once.
    inputs = [Input(path, part=WindowOptions(start_s=0.05 * i, duration_s=0.3)) for i in range(num_inputs)]
    singly, *others = (
        list(classify_inputs(tagger, inputs, ClassifyOptions(top_k=4, batch_size=size), HERE)) for size in (1, 7, None)
    )
    for results in others:
        for result, alone in zip(results, singly, strict=True):
            assert isinstance(result, TaggingResult)
            assert isinstance(alone, TaggingResult)
            assert [tag.score for tag in result.tags] == pytest.approx([tag.score for tag in alone.tags], abs=1e-5)


def test_stream_is_ignored_where_one_result_is_returned(tagger: Tagger, write_wav: Callable[..., Path]) -> None:
    path = str(write_wav("a.wav", 1.0))
    assert tagger.classify(path, timestamps=True, stream=True) == tagger.classify(path, timestamps=True)
    (result,) = tagger.classify_paths([path], timestamps=True, stream=True)
    assert result == tagger.classify(path, timestamps=True)
