"""All formats give the same mono samples at 16 kHz, for whole files and for parts of them."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
from audio_files import RATE, sound, write_by_ffmpeg, write_sound
from numpy.typing import NDArray
from reading import decoder_name

from ast_cli.audio.decode import AudioStream, load_waveform, open_audio
from ast_cli.audio.decoders import libsndfile
from ast_cli.errors import AudioError, ErrorCode, UsageError

FLOAT32_TOLERANCE = 1e-6  # a few roundings of samples below 1
HALF_SECOND = 0.5


def decoded(audio: str | Path | bytes, **part: Any) -> tuple[NDArray[np.float32], AudioStream]:
    with open_audio(audio, **part) as stream:
        return np.concatenate(list(stream)), stream


def facts(stream: AudioStream) -> tuple[int, int, float, set[str]]:
    return stream.sampling_rate, stream.num_channels, round(stream.duration_s, 6), {str(w) for w in stream.warnings}


def relative_error(samples: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the root mean square of the difference, relative to that of the expected samples."""
    return float(np.sqrt(np.mean((samples - expected) ** 2) / np.mean(expected**2)))


# Lossless formats


LSB_8, LSB_16, LSB_24 = 2.0**-7, 2.0**-15, 2.0**-23
HALF_FLOAT_STEP = 2.0**-24
LOGARITHMIC = 2.0**-5  # 8 bits of A-law and mu-law: the coarsest step, near full scale
EXACT_FORMATS = [
    ("WAV", "PCM_U8", "LITTLE", LSB_8),
    ("WAV", "PCM_16", "LITTLE", LSB_16),
    ("WAV", "PCM_16", "BIG", LSB_16),  # RIFX
    ("WAV", "PCM_24", "LITTLE", LSB_24),
    ("WAV", "PCM_32", "LITTLE", HALF_FLOAT_STEP),
    ("WAV", "FLOAT", "LITTLE", HALF_FLOAT_STEP),
    ("WAV", "DOUBLE", "LITTLE", HALF_FLOAT_STEP),
    ("WAV", "ULAW", "LITTLE", LOGARITHMIC),
    ("WAV", "ALAW", "LITTLE", LOGARITHMIC),
    ("WAVEX", "PCM_24", "LITTLE", LSB_24),
    ("RF64", "PCM_16", "LITTLE", LSB_16),
    ("W64", "PCM_16", "LITTLE", LSB_16),
    ("W64", "DOUBLE", "LITTLE", HALF_FLOAT_STEP),
    ("AIFF", "PCM_S8", "FILE", LSB_8),
    ("AIFF", "PCM_16", "BIG", LSB_16),
    ("AIFF", "PCM_16", "LITTLE", LSB_16),  # AIFC, sowt
    ("AIFF", "PCM_24", "BIG", LSB_24),
    ("AIFF", "FLOAT", "FILE", HALF_FLOAT_STEP),
    ("AIFF", "ULAW", "FILE", LOGARITHMIC),
    ("AU", "PCM_16", "BIG", LSB_16),
    ("AU", "ULAW", "BIG", LOGARITHMIC),
    ("CAF", "PCM_16", "BIG", LSB_16),
    ("CAF", "FLOAT", "LITTLE", HALF_FLOAT_STEP),
    ("CAF", "ALAC_16", "BIG", LSB_16),
    ("VOC", "PCM_16", "LITTLE", LSB_16),
    ("FLAC", "PCM_S8", "FILE", LSB_8),
    ("FLAC", "PCM_16", "FILE", LSB_16),
    ("FLAC", "PCM_24", "FILE", LSB_24),
]


@pytest.mark.parametrize(("container", "subtype", "endian", "tolerance"), EXACT_FORMATS)
@pytest.mark.parametrize("num_channels", [1, 2])
def test_lossless_formats_give_the_samples_written(
    tmp_path: Path, container: str, subtype: str, endian: str, tolerance: float, num_channels: int
) -> None:
    original = sound(HALF_SECOND, num_channels=num_channels)
    path = write_sound(tmp_path / "a.bin", original, container=container, subtype=subtype, endian=endian)
    samples, stream = decoded(path)
    assert facts(stream) == (RATE, num_channels, HALF_SECOND, set())
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, original.mean(axis=1), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("container", "subtype", "error", "block_samples"),
    [
        ("WAV", "IMA_ADPCM", 0.05, 505),
        ("WAV", "MS_ADPCM", 0.15, 500),
        ("WAV", "GSM610", 0.25, 320),
        ("WAV", "G721_32", 0.15, 120),
        ("AU", "G723_40", 0.15, 120),
    ],
)
def test_telephone_codecs_give_approximate_samples(
    tmp_path: Path, container: str, subtype: str, error: float, block_samples: int
) -> None:
    original = sound(1.0)[:, 0]
    samples, stream = decoded(write_sound(tmp_path / "a.bin", original, container=container, subtype=subtype))
    assert stream.warnings == set()
    assert 0 <= samples.size - original.size < 2 * block_samples  # the last block is padded
    assert relative_error(samples[: original.size], original) < error


@pytest.mark.parametrize(
    ("codec", "container"), [("alac", "ipod"), ("flac", "matroska"), ("flac", "ogg"), ("tta", "tta")]
)
def test_lossless_formats_of_ffmpeg_give_the_samples_written(tmp_path: Path, codec: str, container: str) -> None:
    original = sound(HALF_SECOND)
    path = write_by_ffmpeg(tmp_path / "a.bin", original, codec=codec, container=container)
    samples, stream = decoded(path)
    assert facts(stream) == (RATE, 1, HALF_SECOND, set())
    tolerance = LSB_8 if codec == "tta" else LSB_16  # FFmpeg writes TTA of 8 bits first
    np.testing.assert_allclose(samples, original[:, 0], rtol=0, atol=tolerance)


# Lossy formats


LOSSY_ERROR = 0.12  # the codec's noise relative to the signal's RMS, if the decoder keeps the alignment of the samples
LOSSY = {
    "ogg": ("OGG", "VORBIS", 44100),
    "opus": ("OGG", "OPUS", 48000),
    "mp3": ("MP3", None, 44100),
    "mp3 of 8 kHz": ("MP3", None, 8000),
}


@pytest.mark.parametrize("name", LOSSY)
def test_compressed_formats_of_libsndfile_give_approximate_samples(tmp_path: Path, name: str) -> None:
    container, subtype, rate = LOSSY[name]
    original = sound(2.0, rate, num_channels=2)
    samples, stream = decoded(write_sound(tmp_path / "a.bin", original, rate, container, subtype))
    assert facts(stream) == (rate, 2, 2.0, set())
    expected = soxr.resample(original.mean(axis=1).astype(np.float32), rate, RATE)
    assert samples.shape == expected.shape
    assert relative_error(samples, expected) < LOSSY_ERROR


@pytest.mark.parametrize(
    ("codec", "container", "num_channels"),
    [
        *(("aac", "ipod", 6), ("aac", "ipod", 8), ("libopus", "ogg", 6), ("libopus", "ogg", 8)),
        *(("wavpack", "wv", 8), ("wavpack", "wv", 16), ("wavpack", "wv", 24)),
    ],
)
def test_surround_sound_is_mixed_and_crashes_no_decoder(
    tmp_path: Path, codec: str, container: str, num_channels: int
) -> None:
    original = np.repeat(sound(2.0, 48000), num_channels, axis=1)
    path = write_by_ffmpeg(tmp_path / "a.bin", original, 48000, codec, container)
    samples, stream = decoded(path)
    assert facts(stream) == (48000, num_channels, 2.0, set())
    expected = soxr.resample(original.mean(axis=1).astype(np.float32), 48000, RATE)
    assert samples.shape == expected.shape
    assert relative_error(samples, expected) < 3 * LOSSY_ERROR  # the fourth channel, LFE, contains only low frequencies


@pytest.mark.parametrize(("rate", "decoder"), [(48000, "PyAVDecoder"), (16000, "SoundFileDecoder")])
def test_opus_is_decoded_by_the_faster_decoder(tmp_path: Path, rate: int, decoder: str) -> None:
    path = write_sound(tmp_path / "a.opus", sound(1.0, rate), rate, "OGG", "OPUS")
    with open_audio(path) as stream:
        assert decoder_name(stream) == decoder


# Codec, container, whether there is a video stream, and the encoder's samples that remain at the start and at the end.
BY_FFMPEG = {
    "m4a": ("aac", "ipod", False, 0, 0),
    "mp4": ("aac", "mp4", True, 0, 0),
    "mov": ("aac", "mov", True, 0, 0),
    "mkv": ("aac", "matroska", True, 0, 1024),
    "webm": ("libopus", "webm", False, 0, 0),
    "opus": ("libopus", "ogg", False, 0, 0),
    "mp3": ("libmp3lame", "mp3", False, 0, 0),
    "aac": ("aac", "adts", False, 1024, 1024),
    "ts": ("aac", "mpegts", True, 1024, 1024),
    "wma": ("wmav2", "asf", False, -2048, 2048),  # FFmpeg's WMA decoder drops the first frame
    "ac3": ("ac3", "ac3", False, 256, 1536),
    "mp2": ("mp2", "mp2", False, 481, 1152),
    "avi": ("libmp3lame", "avi", True, 1105, 1152),
}


@pytest.mark.parametrize("name", BY_FFMPEG)
def test_compressed_formats_of_ffmpeg_give_approximate_samples(tmp_path: Path, name: str) -> None:
    codec, container, video, front, end = BY_FFMPEG[name]
    rate = 48000
    original = sound(2.0, rate, num_channels=2)
    path = write_by_ffmpeg(tmp_path / f"a.{name}", original, rate, codec, container, video, bit_rate=128_000)
    samples, stream = decoded(path)
    sampling_rate, num_channels, duration_s, warnings = facts(stream)
    assert (sampling_rate, num_channels, warnings) == (rate, 2, set())
    assert 0 <= duration_s - 2.0 - min(front, 0) / rate <= (max(front, 0) + end) / rate + 1e-6
    expected = soxr.resample(original.mean(axis=1).astype(np.float32), rate, RATE)
    shift = round(front * RATE / rate)
    samples, expected = samples[max(0, shift) :], expected[max(0, -shift) :]
    size = min(samples.size, expected.size)
    assert size > 30_000
    # Half a sample of shift at 16 kHz, which rounding leaves, is 0.1 of this signal.
    assert relative_error(samples[:size], expected[:size]) < (LOSSY_ERROR if front in (0, 1024) else 2 * LOSSY_ERROR)


def test_an_mp4_states_its_length_and_the_encoders_padding_is_cut_off(tmp_path: Path) -> None:
    for rate in (8000, 16000, 44100):  # a frame of AAC is 128, 64 and 23 ms
        path = write_by_ffmpeg(tmp_path / f"{rate}.m4a", sound(1.0, rate), rate, "aac", "ipod")
        samples, stream = decoded(path)
        assert facts(stream) == (rate, 1, 1.0, set())
        assert samples.size == RATE


def test_mono_is_the_mean_of_six_channels(tmp_path: Path) -> None:
    original = sound(HALF_SECOND, num_channels=6)
    samples, stream = decoded(write_sound(tmp_path / "a.wav", original, subtype="FLOAT"))
    assert stream.num_channels == 6
    np.testing.assert_allclose(samples, original.mean(axis=1), rtol=0, atol=FLOAT32_TOLERANCE)


def test_bytes_and_paths_of_both_kinds_give_the_same(tmp_path: Path) -> None:
    for path in (
        write_sound(tmp_path / "a.flac", sound(HALF_SECOND)),
        write_by_ffmpeg(tmp_path / "a.m4a", sound(HALF_SECOND)),
    ):
        expected = load_waveform(path)
        np.testing.assert_array_equal(load_waveform(str(path)), expected)
        np.testing.assert_array_equal(load_waveform(path.read_bytes()), expected)


# Resampling


@pytest.mark.parametrize("rate", [1000, 8000, 11025, 16001, 22050, 32000, 35467, 44100, 48000, 96000, 768_000])
@pytest.mark.parametrize("block_samples", [997, 65_536])
def test_resampling_in_blocks_equals_soxr_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: int, block_samples: int
) -> None:
    monkeypatch.setattr(libsndfile, "BLOCK_SAMPLES", block_samples)
    original = sound(0.3, rate).astype(np.float32)
    samples, stream = decoded(write_sound(tmp_path / "a.wav", original, rate, subtype="FLOAT"))
    expected = soxr.resample(original[:, 0], rate, RATE, quality="HQ")
    assert facts(stream) == (rate, 1, round(len(original) / rate, 6), set())
    assert samples.shape == expected.shape
    np.testing.assert_allclose(samples, expected, rtol=0, atol=FLOAT32_TOLERANCE)


def test_another_target_rate_is_possible(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", sound(HALF_SECOND), subtype="FLOAT")
    expected = soxr.resample(sound(HALF_SECOND)[:, 0].astype(np.float32), RATE, 22050)
    np.testing.assert_allclose(load_waveform(path, 22050), expected, rtol=0, atol=FLOAT32_TOLERANCE)


def test_segments_of_different_rates_in_one_file_are_resampled_separately(tmp_path: Path) -> None:
    path = tmp_path / "joined.aac"
    slow = write_by_ffmpeg(tmp_path / "slow.aac", sound(2.0, 16000), 16000, "aac", "adts")
    fast = write_by_ffmpeg(tmp_path / "fast.aac", sound(2.0, 44100, num_channels=2), 44100, "aac", "adts")
    path.write_bytes(slow.read_bytes() + fast.read_bytes())
    samples, stream = decoded(path)
    both = np.concatenate([load_waveform(slow), load_waveform(fast)])
    assert abs(samples.size - both.size) <= 2  # each segment ends on a whole sample
    assert stream.duration_s == pytest.approx(both.size / RATE, abs=1e-3)
    assert relative_error(samples[:RATE], both[:RATE]) < 1e-3
    tail = RATE // 2
    # The decoder's noise depends on earlier packets here; a shift by one sample would give 0.28.
    assert relative_error(samples[-tail:], both[-tail:]) < 0.05


# Parts of files


SEEKABLE = ["WAV", "FLAC", "AIFF", "AU", "CAF", "W64", "RF64"]
PARTS = [(0.0, 0.7), (0.1, None), (1.0, 1.0), (1.99999, 0.25), (2.345678, 1.2), (3.21, None), (4.999, 3.0)]


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100])
@pytest.mark.parametrize("container", SEEKABLE)
def test_a_part_equals_a_slice_of_the_whole(tmp_path: Path, container: str, rate: int) -> None:
    if container == "FLAC":  # noise and tones, so that a wrong frame shows
        path = write_sound(tmp_path / "a.bin", sound(5.0, rate, 2), rate, container)
    else:
        path = write_sound(tmp_path / "a.bin", sound(5.0, rate, 2), rate, container, "PCM_16")
    whole = load_waveform(path)
    for start_s, duration_s in PARTS:
        assert_part_equals_slice(path, whole, start_s, duration_s)


@pytest.mark.parametrize("name", ["ogg", "mp3", "m4a", "webm"])
def test_a_part_of_a_compressed_file_equals_a_slice_of_the_whole(tmp_path: Path, name: str) -> None:
    original = sound(5.0, 48000)
    if name in ("ogg", "mp3"):
        path = write_sound(tmp_path / f"a.{name}", original, 48000)
    else:
        path = write_by_ffmpeg(tmp_path / f"a.{name}", original, 48000, "aac" if name == "m4a" else "libopus")
    whole = load_waveform(path)
    for start_s, duration_s in PARTS:
        assert_part_equals_slice(path, whole, start_s, duration_s)


def assert_part_equals_slice(path: Path, whole: NDArray[Any], start_s: float, duration_s: float | None) -> None:
    samples, stream = decoded(path, start_s=start_s, duration_s=duration_s)
    start = round(start_s * RATE)
    expected = whole[start:] if duration_s is None else whole[start : start + round(duration_s * RATE)]
    assert samples.shape == expected.shape, (start_s, duration_s)
    np.testing.assert_allclose(samples, expected, rtol=0, atol=FLOAT32_TOLERANCE, err_msg=f"{start_s}, {duration_s}")
    assert stream.duration_s == samples.size / RATE
    assert stream.warnings == set()


def test_a_start_beyond_the_end_is_an_error(tmp_path: Path) -> None:
    for path in (write_sound(tmp_path / "a.wav", sound(1.0)), write_sound(tmp_path / "a.mp3", sound(1.0))):
        for start_s in (1.5, 3600.0, 1e15):
            with pytest.raises(AudioError, match=re.escape(f"contains no audio after {start_s:g} s")) as raised:
                load_waveform(path, start_s=start_s)
            assert raised.value.code is ErrorCode.NO_SAMPLES


@pytest.mark.parametrize(
    ("start_s", "duration_s"),
    [(-0.1, None), (math.nan, None), (math.inf, None), (0, 0), (0, -1), (0, math.nan), (0, math.inf)],
)
def test_an_invalid_start_or_duration_is_refused(start_s: float, duration_s: float | None) -> None:
    message = (
        "start_s must be finite and at least 0 s, not" if start_s else "duration_s must be finite and above 0 s, not"
    )
    with pytest.raises(UsageError, match=message):
        open_audio("whatever.wav", start_s=start_s, duration_s=duration_s)


def test_a_tiny_part_is_one_sample(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", sound(1.0))
    np.testing.assert_array_equal(load_waveform(path, start_s=0.5, duration_s=1e-9), load_waveform(path)[8000:8001])


# File names


NAMES = [
    "a\nb\tc.wav",
    "-x.wav",
    "-",
    "=x.wav",
    "[red]x.wav",
    "\x1b[31m.wav",
    "\u202etxt.wav",
    "%d.wav",
    "e\u0301.wav",
    "concat:x",
    "http:x.wav",
    "file:x.wav",
    "<img onerror=x>.wav",
    "a b?*.wav",
    "x" * 251 + ".wav",
    "no extension",
]


@pytest.mark.skipif(os.name != "posix", reason="names of POSIX")
@pytest.mark.parametrize("name", [os.fsencode(name) for name in NAMES] + [b"caf\xe9.wav", b"\xff\xfe"])
@pytest.mark.parametrize("kind", ["wav", "m4a"])
def test_every_name_can_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: bytes, kind: str) -> None:
    original = sound(0.1)
    made = (
        write_sound(tmp_path / "made", original, container="WAV")
        if kind == "wav"
        else write_by_ffmpeg(tmp_path / "made", original, container="ipod")
    )
    path = os.fsencode(tmp_path) + b"/" + name
    try:
        os.rename(made, path)
    except OSError:
        pytest.skip("this file system refuses the name")
    absolute = load_waveform(os.fsdecode(path))
    assert absolute.shape == (1600,)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(load_waveform(os.fsdecode(name)), absolute)


def test_a_file_is_closed_after_reading(tmp_path: Path) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc here")
    paths = [
        write_sound(tmp_path / "a.wav", sound(0.1)),
        write_by_ffmpeg(tmp_path / "a.m4a", sound(0.1)),
        tmp_path / "junk.wav",
    ]
    paths[2].write_bytes(b"no audio at all" * 100)
    before = open_files()
    for path in paths * 5:
        try:
            load_waveform(path)
        except AudioError:
            continue
    assert open_files() == before
