"""Tagging of each channel: the result of a channel equals that of a mono file with its samples."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from faulty_decoders import faulty_pool
from numpy.typing import NDArray
from tiny_tagger import tiny_tagger

from ast_cli import ClassifyOptions, Tagger, TaggingResult, load_waveform
from ast_cli.audio.raw_stream import RawFormat, RawStream
from ast_cli.errors import AudioError, ErrorCode, UsageError
from ast_cli.results import StreamedPart, Tag, Window
from ast_cli.tagging.decode.opening import Turn, open_inputs
from ast_cli.tagging.decode.pool import DecodePool
from ast_cli.tagging.decode.worker import MESSAGE_SAMPLES
from ast_cli.tagging.extract.extraction import Extraction
from ast_cli.tagging.inputs import Input
from ast_cli.tagging.options import DecodeOptions, ExtractOptions, WindowOptions
from ast_cli.tagging.run.tag_files import tag_files
from ast_cli.tagging.score.classify import classify_inputs, classify_turns
from ast_cli.tagging.score.recording import recordings_of

HERE = DecodeOptions(num_workers=0)
RATE = 16000
SCORE_TOLERANCE = 1e-5  # other batch sizes add float32 numbers in another order
EXTRACT_TOLERANCE = 2e-5  # the same for numbers beyond 0 to 1


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    return tiny_tagger()


Write = Callable[..., tuple[Path, list[Path]]]


@pytest.fixture
def write_channels(tmp_path: Path) -> Write:
    """Return a function that writes a file with several channels, and a mono file of each channel."""

    def write(
        num_channels: int = 2, duration_s: float = 3.0, rate: int = 44100, name: str = "all.wav", seed: int = 0
    ) -> tuple[Path, list[Path]]:
        rng = np.random.default_rng(seed)
        time = np.arange(round(duration_s * rate))[:, None] / rate
        tones = 0.3 * np.sin(2 * np.pi * 150 * np.arange(2, num_channels + 2) ** 2 * time)
        samples = tones * rng.uniform(0.1, 1, num_channels) + 0.02 * rng.standard_normal(tones.shape)
        return write_apart(tmp_path / name, samples, rate)

    return write


def write_apart(path: Path, samples: NDArray[Any], rate: int) -> tuple[Path, list[Path]]:
    soundfile.write(path, samples.astype(np.float32), rate, subtype="FLOAT")
    monos = [path.with_name(f"{path.stem}-{number}.wav") for number in range(1, samples.shape[1] + 1)]
    for mono, channel in zip(monos, samples.T, strict=True):
        soundfile.write(mono, channel.astype(np.float32), rate, subtype="FLOAT")
    return path, monos


def assert_same_tags(tags: Sequence[Tag], expected: Sequence[Tag]) -> None:
    assert [tag.label for tag in tags] == [tag.label for tag in expected]
    scores = [[tag.score for tag in some] for some in (tags, expected)]
    np.testing.assert_allclose(*scores, atol=SCORE_TOLERANCE)


def assert_is_channel(result: TaggingResult, number: int, mono: TaggingResult, num_channels: int) -> None:
    """Compare the result of a channel with that of its mono file."""
    assert_same_tags(result.tags, mono.tags)
    assert (result.windows is None) == (mono.windows is None)
    for window, expected in zip(result.windows or (), mono.windows or (), strict=True):
        assert (window.start_s, window.end_s) == (expected.start_s, expected.end_s)
        assert_same_tags(window.tags, expected.tags)
    for event, other in zip(result.events or (), mono.events or (), strict=True):
        assert (event.label, event.start_s, event.end_s) == (other.label, other.start_s, other.end_s)
    facts = dataclasses.replace(
        mono, path=result.path, channel=number, num_channels=num_channels,
        tags=result.tags, windows=result.windows, events=result.events,
    )  # fmt: skip
    assert result == facts


@pytest.mark.parametrize(("num_channels", "batch_size"), [(2, 1), (2, 64), (4, 3)])
@pytest.mark.parametrize("workers", [HERE, DecodeOptions(num_workers=1)])
@pytest.mark.parametrize("in_order", [True, False])
def test_each_channel_is_tagged_as_its_mono_file(
    tagger: Tagger, write_channels: Write, num_channels: int, batch_size: int, workers: DecodeOptions, in_order: bool
) -> None:
    path, monos = write_channels(num_channels)
    options = ClassifyOptions(
        timestamps=True, events=True, threshold=0.2, top_k=4, hop_s=0.3, batch_size=batch_size, channels="each"
    )
    (result,) = classify_inputs(tagger, [Input(str(path))], options, workers, in_order=in_order)
    assert isinstance(result, TaggingResult)
    assert [channel.channel for channel in result.channels] == list(range(1, num_channels + 1))
    for number, (channel, mono) in enumerate(zip(result.channels, monos, strict=True), start=1):
        expected = tagger.classify(mono, options=dataclasses.replace(options, channels="mix"))
        assert_is_channel(channel, number, expected, num_channels)
        alone = tagger.classify(path, options=dataclasses.replace(options, channels=number))
        assert_is_channel(alone, number, expected, num_channels)
    assert len({tuple(tag.score for tag in channel.tags) for channel in result.channels}) == num_channels


def test_result_of_each_channel_contains_the_facts_of_the_file(tagger: Tagger, write_channels: Write) -> None:
    path, _ = write_channels(2, 1.0)
    result = tagger.classify(path, channels="each")
    assert (result.path, result.status, result.duration_s) == (str(path), "ok", 1.0)
    assert (result.sampling_rate, result.num_channels) == (44100, 2)
    assert (result.tags, result.channel) == ((), None)


def test_mix_is_the_default_and_has_no_channels(tagger: Tagger, write_channels: Write) -> None:
    path, _ = write_channels(2, 1.0)
    result = tagger.classify(path)
    assert result == tagger.classify(path, channels="mix")
    assert (result.channel, result.channels, "channel" in result.to_dict()) == (None, (), False)


def test_mono_file_and_waveform_have_one_channel(tagger: Tagger, write_channels: Write) -> None:
    _, (mono, _) = write_channels(2, 1.0, RATE)
    expected = tagger.classify(mono)
    waveform = load_waveform(mono)
    for result in (
        tagger.classify(mono, channels="each"),
        tagger.classify(waveform, sampling_rate=RATE, channels="each"),
    ):
        (channel,) = result.channels
        assert (channel.path, channel.channel) == (result.path, 1)
        assert_same_tags(channel.tags, expected.tags)
    assert tagger.classify(waveform, sampling_rate=RATE, channels=1).channel == 1
    with pytest.raises(AudioError, match="there is no channel 2") as raised:
        tagger.classify(waveform, sampling_rate=RATE, channels=2)
    assert raised.value.code == ErrorCode.BAD_CHANNELS


@pytest.mark.parametrize("workers", [HERE, DecodeOptions(num_workers=1)])
def test_file_without_the_channel_is_an_error_and_others_are_tagged(
    tagger: Tagger, write_channels: Write, workers: DecodeOptions
) -> None:
    stereo, (mono, _) = write_channels(2, 1.0)
    bad, good = tagger.classify_paths([str(mono), str(stereo)], ClassifyOptions(channels=2), workers)
    assert bad.error is not None
    assert (bad.error.code, bad.channel) == (ErrorCode.BAD_CHANNELS, 2)
    assert bad.error.message == f"{mono}: there is no channel 2 (--channels 2): it has 1 channel"
    assert (good.status, good.channel) == ("ok", 2)


def test_file_that_cannot_be_read_is_one_error_without_a_channel(tagger: Tagger, tmp_path: Path) -> None:
    options = ClassifyOptions(channels="each", timestamps=True)
    (result,) = tagger.classify_paths([str(tmp_path / "nope.wav")], options, HERE)
    assert result.error is not None
    assert (result.channel, result.channels, result.records) == (None, (), (result,))


def test_worker_that_dies_within_a_file_is_one_error(tagger: Tagger, tmp_path: Path) -> None:
    path = tmp_path / "exit-late.wav"
    path.touch()
    with faulty_pool(1) as pool:
        (result,) = classify_inputs(tagger, [Input(str(path))], ClassifyOptions(channels="each"), pool)
    assert isinstance(result, TaggingResult)
    assert result.error is not None
    assert (result.error.code, result.channels) == (ErrorCode.WORKER_CRASHED, ())


def counted_windows(tagger: Tagger, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list to which the number of windows of each following batch is added."""
    sizes: list[int] = []
    logits = tagger.engine.logits

    def counted(input_values: Any) -> Any:
        sizes.append(len(input_values))
        return logits(input_values)

    monkeypatch.setattr(tagger.engine, "logits", counted)
    return sizes


def test_windows_of_several_channels_share_a_batch(
    tagger: Tagger, write_channels: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = write_channels(4, 1.98, RATE)  # 196 frames: four windows of each channel
    sizes = counted_windows(tagger, monkeypatch)
    tagger.classify(path, channels="each", batch_size=8)
    assert sizes == [8, 8]


def test_equal_channels_are_scored_once(
    tagger: Tagger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    one = 0.1 * rng.standard_normal(RATE * 2)
    path, _ = write_apart(tmp_path / "twice.wav", np.stack([one, one], axis=1), RATE)
    sizes = counted_windows(tagger, monkeypatch)
    result = tagger.classify(path, channels="each", batch_size=64)
    assert sum(sizes) == 4
    assert result.channels[0].tags == result.channels[1].tags


def test_windows_equal_to_those_of_another_channel_keep_their_order(
    tagger: Tagger, tmp_path: Path, rng: np.random.Generator
) -> None:
    noise, silence = 0.1 * rng.standard_normal(RATE * 2), np.zeros(RATE * 2)
    samples = np.stack([np.concatenate([noise, silence]), np.concatenate([silence, noise])], axis=1)
    path, monos = write_apart(tmp_path / "turns.wav", samples, RATE)
    result = tagger.classify(path, channels="each", timestamps=True, hop_s=0.1, batch_size=4)
    for number, (channel, mono) in enumerate(zip(result.channels, monos, strict=True), start=1):
        assert_is_channel(channel, number, tagger.classify(mono, timestamps=True, hop_s=0.1), 2)


@pytest.mark.parametrize("in_order", [True, False])
def test_streamed_windows_and_events_name_their_channel(tagger: Tagger, write_channels: Write, in_order: bool) -> None:
    path, _ = write_channels(2)
    options = ClassifyOptions(timestamps=True, events=True, threshold=0.2, channels="each", batch_size=3)
    whole = tagger.classify(path, options=options)
    *parts, result = classify_inputs(
        tagger, [Input(str(path))], dataclasses.replace(options, stream=True), HERE, in_order=in_order
    )
    assert isinstance(result, TaggingResult)
    for channel, streamed in zip(whole.channels, result.channels, strict=True):
        own = [part for part in parts if isinstance(part, StreamedPart) and part.channel == channel.channel]
        assert tuple(part.part for part in own if isinstance(part.part, Window)) == channel.windows
        assert tuple(part.part for part in own if not isinstance(part.part, Window)) == channel.events
        assert (streamed.tags, streamed.windows, streamed.events) == (channel.tags, None, None)
    assert len(parts) == sum(len(channel.windows or ()) + len(channel.events or ()) for channel in whole.channels)


@pytest.mark.parametrize("channels", ["each", 2])
def test_live_channels_equal_those_of_a_file(tagger: Tagger, write_channels: Write, channels: Any) -> None:
    path, _ = write_channels(3, 2.0, RATE)
    interleaved = load_waveform(path, channels="each").T.astype("<f4").tobytes()
    stream = RawStream(io.BytesIO(interleaved), RawFormat(RATE, "f32le", 3), RATE, channels)
    options = ClassifyOptions(timestamps=True, stream=True, batch_size=1, channels=channels)
    *parts, result = classify_turns(tagger, [Turn(Input("-"), lambda: stream)], options)
    expected = tagger.classify(path, options=dataclasses.replace(options, stream=False))
    assert isinstance(result, TaggingResult)
    for record, of_file in zip(result.records, expected.records, strict=True):
        assert_same_tags(record.tags, of_file.tags)
        own = [part.part for part in parts if isinstance(part, StreamedPart) and part.channel == record.channel]
        assert tuple(own) == of_file.windows


def test_windows_of_live_channels_are_yielded_at_their_end(tagger: Tagger, rng: np.random.Generator) -> None:
    num_reads = 0

    class Endless(io.RawIOBase):
        def read1(self, most: int) -> bytes:
            nonlocal num_reads
            num_reads += 1
            return (rng.standard_normal(most // 2) * 1000).astype("<i2").tobytes()

    stream = RawStream(Endless(), RawFormat(RATE, "s16le", 2), RATE, "each")  # type: ignore[arg-type]
    options = ClassifyOptions(timestamps=True, stream=True, batch_size=1, channels="each")
    records: Iterator[Any] = classify_turns(tagger, [Turn(Input("-"), lambda: stream)], options)
    for number in range(6):
        record = next(records)
        assert (record.channel, record.part.start_s) == (number % 2 + 1, pytest.approx(number // 2 * 0.64))
        assert num_reads * 0.1 < 0.64 * (number // 2 + 1) + 0.015 + 0.1 + 1e-9


def test_workers_send_the_samples_of_each_channel(tmp_path: Path, write_channels: Write) -> None:
    path, _ = write_channels(3, 12.0)  # several messages
    assert 12.0 * RATE > 2 * MESSAGE_SAMPLES
    for part in (WindowOptions(channels="each"), WindowOptions(channels="each", start_s=1.5, duration_s=7.0)):
        with open_inputs([Input(str(path))], RATE, part, DecodeOptions(num_workers=1)) as turns:
            (blocks,) = [list(turn.open_stream()) for turn in turns]
        expected = load_waveform(path, RATE, part.start_s, part.duration_s, "each")
        np.testing.assert_array_equal(np.concatenate(blocks, axis=1), expected)
        assert all(block.shape[1] >= MESSAGE_SAMPLES for block in blocks[:-1])


def test_part_of_an_input_is_read_with_the_channels_of_the_run(tagger: Tagger, write_channels: Write) -> None:
    path, monos = write_channels(2, 3.0)
    item = Input(str(path), part=WindowOptions(start_s=1.0, duration_s=1.0))
    (result,) = classify_inputs(tagger, [item], ClassifyOptions(channels="each"), HERE)
    assert isinstance(result, TaggingResult)
    for channel, mono in zip(result.channels, monos, strict=True):
        assert_same_tags(channel.tags, tagger.classify(mono, start_s=1.0, duration_s=1.0).tags)


class MeasuredPool(DecodePool):
    """A pool that records the largest number of bytes it has buffered."""

    most_bytes = 0

    def _count_bytes(self, *arguments: Any) -> None:
        super()._count_bytes(*arguments)
        self.most_bytes = max(self.most_bytes, self.num_buffered_bytes)


def test_long_recording_of_many_channels_is_not_kept_in_memory(
    tagger: Tagger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ast_cli.tagging.decode.pool.INPUT_BUFFER_BYTES", 4 << 20)
    num_channels, num_minutes = 8, 4  # 123 MB of float32 at 16 kHz
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", RATE, num_channels) as file:
        for _ in range(num_minutes):
            file.write(np.zeros((RATE * 60, num_channels), np.float32))
    with MeasuredPool(1) as pool:
        options = ClassifyOptions(channels="each", stream=True, timestamps=True, batch_size=64)
        *_, result = classify_inputs(tagger, [Input(str(path))], options, pool)
    assert result.to_dict()["duration_s"] == 60 * num_minutes
    assert 0 < pool.most_bytes <= 4 << 20


def test_waveform_windows_of_each_channel_equal_those_of_its_mono_file(tagger: Tagger, write_channels: Write) -> None:
    path, monos = write_channels(2, 2.0)
    options = WindowOptions(channels="each", hop_s=0.2)

    def windows(file: Path, options: WindowOptions) -> list[list[NDArray[np.float32]]]:
        with open_inputs([Input(str(file))], RATE, options, HERE) as turns:
            recordings = recordings_of(next(turns).open_stream(), tagger.feature_extractor, options)
            return [[window.content for window in recording.waveform_windows()] for recording in recordings]

    for of_channel, mono in zip(windows(path, options), monos, strict=True):
        (expected,) = windows(mono, dataclasses.replace(options, channels="mix"))
        np.testing.assert_array_equal(np.stack(of_channel), np.stack(expected))


def test_channels_option_takes_digits_and_refuses_other_words() -> None:
    assert ClassifyOptions(channels="2").channels == 2  # type: ignore[arg-type]
    assert ExtractOptions().channels == "mix"
    with pytest.raises(UsageError, match="--channels must be mix, each, or a channel's number from 1 to 64, not 0"):
        ExtractOptions(channels=0)


def test_output_can_only_be_continued_with_the_same_channels(
    tagger: Tagger, write_channels: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ast_cli.tagging.run.fingerprint.checkpoint_folder", lambda _name: tmp_path)
    monkeypatch.setattr("ast_cli.tagging.run.fingerprint.checkpoint_digest", lambda _name: "tiny")
    path, _ = write_channels(2, 1.0)

    def tag(channels: Any) -> int:
        options = ClassifyOptions(channels=channels)
        return tag_files(
            [path], tagger, tmp_path / "tags.jsonl", options=options, resume=True, num_workers=0
        ).num_skipped

    assert [tag("mix"), tag("mix")] == [0, 1]
    journal = tmp_path / "tags.jsonl.ast-journal"
    journal.write_text(journal.read_text().replace('"channels": "mix", ', ""))  # as written by earlier versions
    assert tag("mix") == 1
    with pytest.raises(UsageError, match="--channels was mix and is now each"):
        tag("each")


@pytest.mark.parametrize("what", ["fbank", "input-values", "embedding", "logits", "hidden-states", "attentions"])
@pytest.mark.parametrize("all_windows", [False, True])
def test_extracted_channels_have_an_axis(tagger: Tagger, write_channels: Write, what: Any, all_windows: bool) -> None:
    path, monos = write_channels(3, 2.0)

    def extracted(file: Path, channels: Any) -> Extraction:
        return tagger.extract(file, what=what, all_windows=all_windows, batch_size=2, channels=channels)

    each = extracted(path, "each")
    for number, mono in enumerate(monos, start=1):
        expected, alone = extracted(mono, "mix"), extracted(path, number)
        assert list(each.arrays) == list(expected.arrays) == list(alone.arrays)
        for name, array in expected.arrays.items():
            of_channel = each.arrays[name] if name in ("start_s", "end_s") else each.arrays[name][number - 1]
            assert of_channel.shape == alone.arrays[name].shape == array.shape
            np.testing.assert_allclose(of_channel, array, atol=EXTRACT_TOLERANCE)
            np.testing.assert_allclose(alone.arrays[name], array, atol=EXTRACT_TOLERANCE)
    assert (each.num_channels, each.duration_s, each.sampling_rate) == (3, 2.0, 44100)


def test_extracted_channel_of_a_mono_file_keeps_its_axis(tagger: Tagger, write_channels: Write) -> None:
    _, (mono, _) = write_channels(2, 1.0)
    each, alone = tagger.extract(mono, channels="each"), tagger.extract(mono)
    np.testing.assert_allclose(each.main, alone.main[None], atol=EXTRACT_TOLERANCE)
