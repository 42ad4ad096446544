from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from audio_files import sound, write_by_ffmpeg, write_sound
from numpy.typing import NDArray

from ast_cli import load_waveform, open_audio
from ast_cli.audio.channels import parsed_channels, split_channels
from ast_cli.audio.decoders.choice import open_decoder
from ast_cli.audio.source import Source
from ast_cli.errors import AudioError, ErrorCode, UsageError

SURROUND_HZ = (300, 500, 700, 60, 900, 1100)  # left, right, center, low frequencies, two behind


def tones(num_samples: int, rate: int, frequencies: tuple[int, ...] = SURROUND_HZ) -> NDArray[np.float64]:
    """Return one tone a channel, shape (num_samples, num_channels)."""
    time = np.arange(num_samples)[:, None] / rate
    return 0.3 * np.sin(2 * np.pi * np.array(frequencies) * time)


def loudest_hz(waveform: NDArray[np.float32], rate: int = 16000) -> int:
    second = waveform[rate // 4 : rate // 4 + rate]
    return int(np.argmax(np.abs(np.fft.rfft(second))))


def decoded_channels(path: Path, folder: Path) -> list[Path]:
    """Write every channel of a file, as its decoder gives it, to a mono file of its own."""
    decoder = open_decoder(Source(str(path)))
    samples = np.concatenate([block for _, block in decoder.blocks()])
    files = [folder / f"{path.name}.{number}.wav" for number in range(1, samples.shape[1] + 1)]
    for file, channel in zip(files, samples.T, strict=True):
        soundfile.write(file, channel, decoder.sampling_rate, subtype="FLOAT")
    decoder.close()
    return files


@pytest.mark.parametrize("value", ["mix", "each", 1, 64])
def test_choices_of_channels_are_taken_as_they_are(value: object) -> None:
    assert parsed_channels(value) == value


def test_number_in_digits_is_a_number() -> None:
    assert parsed_channels("2") == 2


@pytest.mark.parametrize("value", ["left", "0", 0, -1, 65, "", "1.0", 1.0, True, None, "²", "+1"])
def test_other_choices_of_channels_are_refused(value: object) -> None:
    with pytest.raises(UsageError, match="--channels must be mix, each, or a channel's number from 1 to 64, not"):
        parsed_channels(value)


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("num_channels", [2, 4])
@pytest.mark.parametrize("part", [{}, {"start_s": 2.5, "duration_s": 3.1}])
def test_channels_are_the_samples_of_mono_files(
    tmp_path: Path, rate: int, num_channels: int, part: dict[str, float]
) -> None:
    samples = np.stack([sound(9.0, rate, seed=seed)[:, 0] for seed in range(num_channels)], axis=1)
    path = write_sound(tmp_path / "all.wav", samples, rate, subtype="FLOAT")
    each = load_waveform(path, channels="each", **part)
    assert each.shape == (num_channels, round(16000 * part.get("duration_s", 9.0)))
    for number in range(1, num_channels + 1):
        mono = write_sound(tmp_path / f"{number}.wav", samples[:, number - 1], rate, subtype="FLOAT")
        expected = load_waveform(mono, **part)
        np.testing.assert_array_equal(each[number - 1], expected)
        np.testing.assert_array_equal(load_waveform(path, channels=number, **part), expected)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.m4a", "aac"), ("a.opus", "libopus"), ("a.mp3", "libmp3lame"), ("a.flac", "flac"), ("a.mka", "flac")],
)
def test_channels_of_compressed_files_are_those_of_their_decoder(tmp_path: Path, name: str, codec: str) -> None:
    path = write_by_ffmpeg(tmp_path / name, tones(48000 * 3, 48000, (440, 1000)), 48000, codec)
    each = load_waveform(path, channels="each")
    assert [loudest_hz(channel) for channel in each] == [440, 1000]
    for number, mono in enumerate(decoded_channels(path, tmp_path), start=1):
        np.testing.assert_array_equal(each[number - 1], load_waveform(mono))
        np.testing.assert_array_equal(load_waveform(path, channels=number), each[number - 1])
    np.testing.assert_allclose(each.mean(axis=0), load_waveform(path), atol=1e-6)  # resampling is linear


@pytest.mark.parametrize(
    ("name", "codec"), [("a.flac", "flac"), ("a.wav", "pcm_s16le"), ("a.m4a", "aac"), ("a.opus", "libopus")]
)
def test_surround_channels_come_in_the_order_of_wav(tmp_path: Path, name: str, codec: str) -> None:
    path = write_by_ffmpeg(tmp_path / name, tones(48000 * 2, 48000), 48000, codec)
    assert tuple(loudest_hz(channel) for channel in load_waveform(path, channels="each")) == SURROUND_HZ


def test_surround_channels_of_vorbis_come_in_the_order_of_wav(tmp_path: Path) -> None:
    left, right, center, low, *behind = SURROUND_HZ
    in_own_order = (left, center, right, *behind, low)  # Vorbis I specification, 4.3.9
    path = write_sound(tmp_path / "a.ogg", tones(48000 * 2, 48000, in_own_order), 48000, "OGG", "VORBIS")
    assert tuple(loudest_hz(channel) for channel in load_waveform(path, channels="each")) == SURROUND_HZ


def test_missing_channel_is_an_error_of_the_file(write_wav: Callable[..., Path]) -> None:
    path = write_wav("stereo.wav", num_channels=2)
    with pytest.raises(AudioError) as raised:
        open_audio(path, channels=3)
    assert raised.value.code == ErrorCode.BAD_CHANNELS
    assert str(raised.value) == f"{path}: there is no channel 3 (--channels 3): it has 2 channels"
    with pytest.raises(AudioError, match=r"it has 1 channel$"):
        open_audio(write_wav("mono.wav"), channels=2)


def test_each_channel_of_a_mono_file_is_one(write_wav: Callable[..., Path]) -> None:
    path = write_wav("mono.wav", 0.5, sampling_rate=22050)
    each = load_waveform(path, channels="each")
    np.testing.assert_array_equal(each, load_waveform(path)[None])
    np.testing.assert_array_equal(load_waveform(path, channels=1), each[0])


def test_single_sample_is_a_sample_of_each_channel(write_wav: Callable[..., Path]) -> None:
    path = write_wav("short.wav", 1 / 44100, sampling_rate=44100, num_channels=2)
    assert load_waveform(path, channels="each").shape == (2, 1)


def test_number_of_channels_that_changes_is_an_error_unless_they_are_mixed(tmp_path: Path) -> None:
    parts = [
        write_by_ffmpeg(tmp_path / f"{num_channels}.aac", sound(2.0, num_channels=num_channels), 16000, "aac", "adts")
        for num_channels in (2, 1)
    ]
    path = tmp_path / "both.aac"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert load_waveform(path).size > 3.5 * 16000
    for channels in ("each", 1):
        with pytest.raises(AudioError) as raised:
            load_waveform(path, channels=channels)  # type: ignore[arg-type]
        assert raised.value.code == ErrorCode.BAD_CHANNELS
        expected = f"{path}: the number of channels changes from 2 to 1; use --channels mix"
        assert str(raised.value) == expected


def test_damage_of_a_channel_that_is_not_read_is_no_warning(tmp_path: Path) -> None:
    samples = sound(1.0, num_channels=2)
    samples[100, 1] = np.nan
    path = write_sound(tmp_path / "nan.wav", samples, subtype="FLOAT")
    for channels, warnings in ((1, set()), (2, {"non_finite_samples"}), ("each", {"non_finite_samples"})):
        with open_audio(path, channels=channels) as stream:  # type: ignore[arg-type]
            assert np.isfinite(np.concatenate(list(stream), axis=-1)).all()
            assert stream.warnings == warnings


class CountedStream:
    """Blocks of two channels, counted as they are read."""

    sampling_rate, num_channels, start_s, duration_s, header_duration_s = 16000, 2, 0.0, 0.0, None

    def __init__(self) -> None:
        self.warnings: set[Any] = set()
        self.num_read = 0
        self.is_closed = False

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for number in range(5):
            self.num_read += 1
            yield np.array([[number], [-number]], np.float32)

    def close(self) -> None:
        self.is_closed = True


def test_channels_read_in_turns_read_one_block_ahead() -> None:
    source = CountedStream()
    first, second = split_channels(source)
    for number, (block, other) in enumerate(zip(first, second, strict=True), start=1):
        assert source.num_read == number
        assert (block.tolist(), other.tolist()) == ([number - 1], [1 - number])
    assert source.num_read == 5


def test_channel_read_before_the_other_leaves_it_its_samples() -> None:
    first, second = split_channels(CountedStream())
    assert [block.item() for block in first] == [0, 1, 2, 3, 4]
    assert [block.item() for block in second] == [0, -1, -2, -3, -4]
