"""Windows equal to one heard before are given to the model once, and change no result."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_tagger import tiny_tagger

from ast_cli import ClassifyOptions, Tagger, TaggingResult
from ast_cli.tagging.decode.opening import Turn
from ast_cli.tagging.inputs import Input
from ast_cli.tagging.score import batch
from ast_cli.tagging.score.classify import classify_turns
from ast_cli.tagging.score.recording import WaveformStream
from ast_cli.tagging.score.window_cache import WindowCache

SCORE_TOLERANCE = 1e-5  # float32 sums in another order, as other batch sizes make them
WINDOW_SAMPLES = 64 * 160  # of the tiny model, laid side by side


@pytest.fixture
def tagger() -> Tagger:
    return tiny_tagger()


@pytest.fixture
def num_computed(tagger: Tagger, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the sizes of the batches that the model gets from now on."""
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
    waveform = np.concatenate(loop * 4 + [np.zeros(240, np.float32)])  # 240: the last frame of the last window
    (result,) = classify(tagger, [waveform], batch_size=3)
    assert result.windows is not None
    assert len(result.windows) == 20
    # A frame reaches 240 samples into what follows: the loop's last repeat, before the zeros, is a window of its own.
    assert sum(num_computed) == 6
    for index, window in enumerate(result.windows[5:19], start=5):
        assert window.tags == result.windows[index - 5].tags


def test_scores_are_those_of_a_run_that_recognizes_nothing(tagger: Tagger, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_file_that_was_heard_before_under_another_name_costs_nothing(tagger: Tagger, num_computed: list[int]) -> None:
    first, second, third = classify(tagger, [noise(20_000), noise(20_000), noise(20_000)], batch_size=1)
    assert sum(num_computed) == 2  # its two windows
    assert first.tags == second.tags == third.tags


def test_one_number_makes_another_window() -> None:
    cache = WindowCache()
    content = np.zeros((64, 32), np.float32)
    assert cache.find(content)[1]
    for index in range(content.size):
        other = content.copy()
        other.flat[index] = 1e-6
        assert cache.find(other)[1], index
    assert cache.find(content[:40])[1]


def test_the_number_of_windows_kept_is_bounded_and_the_latest_heard_stay() -> None:
    cache = WindowCache(max_windows=3)
    windows = [np.full((8, 4), value, np.float32) for value in range(5)]
    kept = [cache.find(window)[0] for window in windows[:3]]
    assert cache.find(windows[0]) == (kept[0], False)
    assert cache.find(windows[3])[1]
    assert cache.find(windows[0]) == (kept[0], False)
    assert cache.find(windows[1])[1]  # the one heard longest ago went


def test_what_is_kept_is_a_copy_and_not_a_view_of_a_block() -> None:
    block = np.zeros((1000, 4), np.float32)
    window, _ = WindowCache().find(block[:8])
    assert window.content.base is None


def test_scores_waiting_for_one_window_are_bounded(tagger: Tagger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MAX_DELIVERIES", 10)
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
    assert 1 < longest < 10
