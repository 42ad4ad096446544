"""Windows and events that are yielded as soon as they are complete, and endless input."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_tagger import tiny_tagger

from ast_cli.audio.decode import load_waveform
from ast_cli.audio.raw_stream import RAW_DTYPES, RawFormat, RawStream
from ast_cli.errors import AudioError, ErrorCode, UsageError
from ast_cli.results import Event, StreamedPart, TaggingResult, Window
from ast_cli.tagging.decode.opening import Turn
from ast_cli.tagging.inputs import Input
from ast_cli.tagging.options import ClassifyOptions, DecodeOptions
from ast_cli.tagging.score.classify import classify_inputs, classify_turns
from ast_cli.tagging.tagger import Tagger

HERE = DecodeOptions(num_workers=0)


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    return tiny_tagger()


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_streamed_parts_equal_those_of_a_complete_result(
    tagger: Tagger, write_wav: Callable[..., Path], batch_size: int
) -> None:
    paths = [str(write_wav("a.wav", 2.0)), str(write_wav("b.wav", 0.3)), str(write_wav("c.wav", 1.5))]
    options = ClassifyOptions(timestamps=True, events=True, threshold=0.4, batch_size=batch_size)
    streaming = ClassifyOptions(timestamps=True, events=True, threshold=0.4, batch_size=batch_size, stream=True)
    inputs = [Input(path) for path in paths]
    whole = [r for r in classify_inputs(tagger, inputs, options, HERE) if isinstance(r, TaggingResult)]
    windows: dict[str | None, list[Window]] = {path: [] for path in paths}
    events: dict[str | None, list[Event]] = {path: [] for path in paths}
    finished: list[TaggingResult] = []
    for record in classify_inputs(tagger, inputs, streaming, HERE):
        if isinstance(record, StreamedPart):
            assert record.path not in [result.path for result in finished]
            (windows if isinstance(record.part, Window) else events)[record.path].append(record.part)  # type: ignore[arg-type]
        else:
            finished.append(record)
    assert [result.path for result in finished] == paths
    for result, streamed in zip(whole, finished, strict=True):
        assert (streamed.windows, streamed.events) == (None, None)
        assert streamed.tags == result.tags
        assert tuple(windows[result.path]) == result.windows
        assert sorted(events[result.path], key=repr) == sorted(result.events or (), key=repr)


def test_streamed_window_comes_before_the_next_block_is_read(tagger: Tagger) -> None:
    rng = np.random.default_rng(0)
    log: list[str] = []

    class Endless(io.RawIOBase):
        def read1(self, most: int) -> bytes:
            log.append("read")
            return (rng.standard_normal(most // 2) * 1000).astype("<i2").tobytes()

    stream = RawStream(Endless(), RawFormat(16000), 16000)  # type: ignore[arg-type]
    options = ClassifyOptions(timestamps=True, stream=True, batch_size=1)
    records: Iterator[TaggingResult | StreamedPart] = classify_turns(
        tagger, [Turn(Input("-"), lambda: stream)], options
    )
    for number in range(3):
        record = next(records)
        assert isinstance(record, StreamedPart)
        assert isinstance(record.part, Window)
        assert record.part.start_s == pytest.approx(0.64 * number)
        needed_s = 0.64 * (number + 1) + 0.015  # the last frame of a window reaches 15 ms beyond it
        assert needed_s <= len(log) * 0.1 < needed_s + 0.1 + 1e-9


@pytest.mark.parametrize("sample_format", RAW_DTYPES)
def test_raw_samples_are_scaled_by_their_format(sample_format: str) -> None:
    dtype = np.dtype(RAW_DTYPES[sample_format])
    wave = np.sin(np.arange(4000) / 20) * 0.5
    scaled = wave if dtype.kind == "f" else wave * 2.0 ** (8 * dtype.itemsize - 1) + (128 if dtype.kind == "u" else 0)
    stereo = np.stack([scaled, scaled], axis=1).round() if dtype.kind != "f" else np.stack([scaled, scaled], axis=1)
    stream = RawStream(io.BytesIO(stereo.astype(dtype).tobytes()), RawFormat(16000, sample_format, 2), 16000)
    samples = np.concatenate(list(stream))
    step = 2.0**-7 if sample_format == "u8" else 2.0**-15
    np.testing.assert_allclose(samples, wave, atol=step)
    assert stream.duration_s == 0.25


def test_raw_stream_cut_inside_a_sample_and_resampled_equals_the_file(write_wav: Callable[..., Path]) -> None:
    path = write_wav("a.wav", 0.7, sampling_rate=44100)
    raw = load_waveform(path, sampling_rate=44100).astype("<f4").tobytes()

    class Dribble(io.BytesIO):
        def read1(self, most: int | None = -1) -> bytes:
            return self.read(min(most or 1, 1001))  # never a whole number of samples

    samples = np.concatenate(list(RawStream(Dribble(raw), RawFormat(44100, "f32le"), 16000)))
    np.testing.assert_allclose(samples, load_waveform(path), atol=1e-6)


def test_channels_of_a_raw_stream_equal_those_of_the_file(write_wav: Callable[..., Path]) -> None:
    path = write_wav("a.wav", 0.7, sampling_rate=44100, num_channels=3)
    interleaved = load_waveform(path, sampling_rate=44100, channels="each").T.astype("<f4").tobytes()
    raw = RawFormat(44100, "f32le", 3)
    each = RawStream(io.BytesIO(interleaved), raw, 16000, "each")
    expected = load_waveform(path, channels="each")
    np.testing.assert_allclose(np.concatenate(list(each), axis=1), expected, atol=1e-6)
    assert each.duration_s == pytest.approx(0.7)
    second = RawStream(io.BytesIO(interleaved), raw, 16000, 2)
    np.testing.assert_allclose(np.concatenate(list(second)), expected[1], atol=1e-6)
    with pytest.raises(UsageError, match="--channels 4 names a channel that --raw-channels 3 does not have"):
        RawStream(io.BytesIO(), raw, 16000, 4)


def test_raw_stream_without_samples_is_an_error() -> None:
    with pytest.raises(AudioError, match="no samples") as raised:
        list(RawStream(io.BytesIO(b""), RawFormat(16000), 16000))
    assert raised.value.code == ErrorCode.NO_SAMPLES


def test_invalid_raw_format_is_refused() -> None:
    with pytest.raises(UsageError, match="raw format must be one of u8, s16le"):
        RawFormat(16000, "s12")
    with pytest.raises(UsageError, match="raw rate must be from 1000 to 768000 Hz, not 1"):
        RawFormat(1)
    with pytest.raises(UsageError, match="raw channels"):
        RawFormat(16000, "u8", 0)
