"""The model scores equal windows only once, and the results do not change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from tiny_tagger import tiny_tagger

from ast_cli import ClassifyOptions, DecodeOptions, Tagger, TaggingResult
from ast_cli.tagging.decode.opening import OpenStream, Turn
from ast_cli.tagging.inputs import Input
from ast_cli.tagging.score import batch
from ast_cli.tagging.score.classify import classify_inputs, classify_turns
from ast_cli.tagging.score.recording import WaveformStream
from ast_cli.tagging.score.window_cache import WindowCache

SCORE_TOLERANCE = 1e-5  # other batch sizes add float32 numbers in another order
WINDOW_SAMPLES = 64 * 160  # length of a window of the tiny model, without overlap


@pytest.fixture
def tagger() -> Tagger:
    return tiny_tagger()


@pytest.fixture
def num_computed(tagger: Tagger, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list to which the size of each following batch is added."""
    sizes, logits = list[int](), tagger.engine.logits

    def counted(input_values: NDArray[np.float32]) -> NDArray[np.float32]:
        sizes.append(len(input_values))
        return logits(input_values)

    monkeypatch.setattr(tagger.engine, "logits", counted)
    return sizes


def noise(num_samples: int, seed: int = 0) -> NDArray[np.float32]:
    return (0.1 * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


def classify(tagger: Tagger, waveforms: list[NDArray[np.float32]], **changes: object) -> list[TaggingResult]:
    options = ClassifyOptions(timestamps=True, top_k=4, **changes)  # type: ignore[arg-type]
    streams = [WaveformStream(waveform, 16000, 16000, options) for waveform in waveforms]
    turns = [Turn(Input(f"{i}"), lambda stream=stream: stream) for i, stream in enumerate(streams)]
    return [record for record in classify_turns(tagger, turns, options) if isinstance(record, TaggingResult)]


def assert_same_scores(ours: list[TaggingResult], expected: list[TaggingResult]) -> None:
    for mine, plain in zip(ours, expected, strict=True):
        assert mine.windows is not None
        assert plain.windows is not None
        for window, other in zip(mine.windows, plain.windows, strict=True):
            assert (window.start_s, window.end_s) == (other.start_s, other.end_s)
            by_label = {tag.label: tag.score for tag in other.tags}
            for tag in window.tags:
                assert tag.score == pytest.approx(by_label[tag.label], abs=SCORE_TOLERANCE)


def test_digital_silence_is_computed_once(tagger: Tagger, num_computed: list[int]) -> None:
    (result,) = classify(tagger, [np.zeros(100 * WINDOW_SAMPLES, np.float32)])
    assert result.windows is not None
    assert (len(result.windows), sum(num_computed)) == (100, 1)
    assert len({window.tags for window in result.windows}) == 1


def test_a_loop_is_computed_once_and_its_scores_stay_in_order(tagger: Tagger, num_computed: list[int]) -> None:
    loop = [noise(WINDOW_SAMPLES, seed) for seed in range(5)]
    waveform = np.concatenate(loop * 4 + [np.zeros(240, np.float32)])  # 240 for the last frame of the last window
    (result,) = classify(tagger, [waveform], batch_size=3)
    assert result.windows is not None
    assert len(result.windows) == 20
    # The last frame reaches 240 samples further, so the last window before the zeros differs from its repeats.
    assert sum(num_computed) == 6
    for index, window in enumerate(result.windows[5:19], start=5):
        assert window.tags == result.windows[index - 5].tags


def test_scores_equal_those_of_a_run_without_the_cache(tagger: Tagger, monkeypatch: pytest.MonkeyPatch) -> None:
    silence = np.zeros(3 * WINDOW_SAMPLES + 5000, np.float32)
    waveforms = [
        noise(20_000),
        silence,
        np.concatenate([noise(WINDOW_SAMPLES, 1), silence]),
        noise(20_000),
        silence[:400],
    ]
    ours = classify(tagger, waveforms, batch_size=3)
    monkeypatch.setattr(batch, "WindowCache", lambda: WindowCache(0))
    assert_same_scores(ours, classify(tagger, waveforms, batch_size=3))


def test_copy_of_a_file_is_not_computed_again(tagger: Tagger, num_computed: list[int]) -> None:
    first, second, third = classify(tagger, [noise(20_000), noise(20_000), noise(20_000)], batch_size=1)
    assert sum(num_computed) == 2  # the two windows of the recording
    assert first.tags == second.tags == third.tags


def test_windows_that_differ_in_one_number_are_distinct() -> None:
    cache = WindowCache()
    content = np.zeros((64, 32), np.float32)
    assert cache.find(content)[1]
    for index in range(content.size):
        other = content.copy()
        other.flat[index] = 1e-6
        assert cache.find(other)[1], index
    assert cache.find(content[:40])[1]


def test_number_of_kept_windows_is_bounded_and_the_latest_used_stay() -> None:
    cache = WindowCache(max_windows=3)
    windows = [np.full((8, 4), value, np.float32) for value in range(5)]
    kept = [cache.find(window)[0] for window in windows[:3]]
    assert cache.find(windows[0]) == (kept[0], False)
    assert cache.find(windows[3])[1]
    assert cache.find(windows[0]) == (kept[0], False)
    assert cache.find(windows[1])[1]  # the least recently used window was dropped


def test_kept_window_is_a_copy_and_not_a_view_of_a_block() -> None:
    block = np.zeros((1000, 4), np.float32)
    window, _ = WindowCache().find(block[:8])
    assert window.content.base is None


def test_number_of_scores_that_wait_for_one_window_is_bounded(tagger: Tagger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MAX_BATCHES_WAITING", 1)
    longest = 0
    put = batch.Batcher.put

    def watched(self: batch.Batcher, *arguments: object) -> None:
        nonlocal longest
        put(self, *arguments)  # type: ignore[arg-type]
        longest = max(longest, len(self._deliveries))

    monkeypatch.setattr(batch.Batcher, "put", watched)
    waveform = np.concatenate([noise(WINDOW_SAMPLES), np.zeros(100 * WINDOW_SAMPLES, np.float32)])
    (result,) = classify(tagger, [waveform], batch_size=16)
    assert result.windows is not None
    assert len(result.windows) == 101
    assert 1 < longest < 16


def test_results_of_repeated_recordings_do_not_wait_for_a_full_batch(tagger: Tagger, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(WINDOW_SAMPLES), 16_000)
    inputs = [Input(str(tmp_path / "silence.wav"))] * 100
    opened = 0

    def watching(_path: str, open_stream: OpenStream) -> OpenStream:
        nonlocal opened
        opened += 1
        return open_stream

    options = ClassifyOptions(batch_size=4)
    results = classify_inputs(tagger, inputs, options, DecodeOptions(num_workers=0), watching=watching)
    assert next(results).path == str(tmp_path / "silence.wav")
    assert opened <= 4 * batch.MAX_BATCHES_WAITING
    results.close()
