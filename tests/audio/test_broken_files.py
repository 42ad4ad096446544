"""Unusual, damaged and malicious files give samples with a warning or an error: no wrong result, hang or crash."""

from __future__ import annotations

import os
import socket
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audio_files import (
    RATE,
    data_offset,
    patched,
    sound,
    truncated,
    with_flac_total,
    write_by_ffmpeg,
    write_flac_of_single_samples,
    write_sound,
)
from reading import decoded, error_of, error_or_warnings

from ast_cli.audio import decode
from ast_cli.audio.containers.lengths import is_cut
from ast_cli.audio.decode import load_waveform, open_audio
from ast_cli.errors import AudioError, ErrorCode

DURATION_S = 4.0
ORIGINAL = sound(DURATION_S)

Maker = Callable[[Path], Path]


def by_libsndfile(container: str, subtype: str | None = None) -> Maker:
    return lambda path: write_sound(path, ORIGINAL, container=container, subtype=subtype)


def by_ffmpeg(codec: str, container: str, **options: str) -> Maker:
    rate = 48000 if codec == "libopus" else RATE
    samples = sound(DURATION_S, rate)
    return lambda path: write_by_ffmpeg(path, samples, rate, codec, container, options=options)


MAKERS: dict[str, Maker] = {
    "wav": by_libsndfile("WAV"),
    "flac": by_libsndfile("FLAC"),
    "mp3": by_libsndfile("MP3"),
    "ogg": by_libsndfile("OGG", "VORBIS"),
    "opus": by_libsndfile("OGG", "OPUS"),
    "opus at 48 kHz": by_ffmpeg("libopus", "ogg"),
    "m4a": by_ffmpeg("aac", "ipod"),  # its tables are at the end
    "m4a with tables in front": by_ffmpeg("aac", "ipod", movflags="faststart"),
    "webm": by_ffmpeg("libopus", "webm"),
    "mkv": by_ffmpeg("aac", "matroska"),
    "aiff": by_libsndfile("AIFF"),
    "caf": by_libsndfile("CAF"),
    "w64": by_libsndfile("W64"),
    "rf64": by_libsndfile("RF64"),
    "au": by_libsndfile("AU"),
    "wma": lambda path: write_by_ffmpeg(path, ORIGINAL, codec="wmav2", container="asf", bit_rate=32_000),
    "wavpack": by_ffmpeg("wavpack", "wv"),
    "tta": by_ffmpeg("tta", "tta"),
}


@pytest.fixture(scope="module")
def intact_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    return {name: make(folder / "made").read_bytes() for name, make in MAKERS.items()}


# Intact files of each kind, so that the later tests are about the damage only


@pytest.mark.parametrize("name", MAKERS)
def test_an_intact_file_gives_no_warning(tmp_path: Path, intact_files: dict[str, bytes], name: str) -> None:
    path = tmp_path / "whole.bin"
    path.write_bytes(intact_files[name])
    samples, warnings = decoded(path)
    assert warnings == set()
    assert abs(samples.size - DURATION_S * RATE) <= (1024 if name in ("mkv", "wma") else 1)


# Files with no or few samples


def test_an_empty_file_is_refused_without_opening_a_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "open_decoder", lambda source: pytest.fail("a decoder was called"))
    path = tmp_path / "empty.wav"
    path.touch()
    assert error_of(path) == "empty_file"
    assert error_of(b"") == "empty_file"


@pytest.mark.parametrize("container", ["WAV", "AIFF", "AU", "CAF", "W64", "RF64"])
def test_a_header_without_samples_is_an_error(tmp_path: Path, container: str) -> None:
    assert error_of(write_sound(tmp_path / "a.bin", np.zeros(0), container=container)) == "no_samples"


def test_a_flac_header_without_samples_is_an_error(tmp_path: Path) -> None:
    assert error_of(truncated(with_flac_total(tmp_path / "a.flac", ORIGINAL, 0), 42)) in ("no_samples", "decode_error")


@pytest.mark.parametrize(
    ("num_samples", "rate", "container"), [(1, 44100, "FLAC"), (1, 48000, "WAV"), (7, 768000, "WAV")]
)
def test_less_than_one_sample_at_the_models_rate_gives_one_sample(
    tmp_path: Path, num_samples: int, rate: int, container: str
) -> None:
    samples, warnings = decoded(write_sound(tmp_path / "a.bin", np.full(num_samples, 0.25), rate, container=container))
    np.testing.assert_array_equal(samples, np.float32([0.25]))
    assert warnings == set()


@pytest.mark.parametrize("num_samples", [1, 2, 159, 399])
def test_a_few_samples_are_read_exactly(tmp_path: Path, num_samples: int) -> None:
    samples, warnings = decoded(write_sound(tmp_path / "a.wav", ORIGINAL[:num_samples]))
    assert (samples.size, warnings) == (num_samples, set())


# Truncated files


@pytest.mark.parametrize("name", MAKERS)
def test_a_truncated_file_gives_a_warning_or_an_error(
    tmp_path: Path, intact_files: dict[str, bytes], name: str
) -> None:
    content = intact_files[name]
    path = tmp_path / "cut.bin"
    sizes = []
    for k in range(1, 16):
        path.write_bytes(content[: len(content) * k // 16])
        num_samples, codes = error_or_warnings(path)
        assert codes in ({"truncated"}, {"decode_error"}), (k, codes)
        assert (num_samples > 0) == (codes == {"truncated"})
        sizes.append(num_samples)
    assert sizes == sorted(sizes)
    if name not in ("m4a", "wavpack"):  # tables at the end; one block of several seconds
        assert sizes[7] > 0.2 * DURATION_S * RATE  # half a file: its complete pages are decoded
    assert sizes[-1] < 0.97 * DURATION_S * RATE


def test_an_mp3_without_a_stated_length_is_read_to_where_it_was_cut(tmp_path: Path) -> None:
    path = write_by_ffmpeg(tmp_path / "a.mp3", ORIGINAL, codec="libmp3lame", options={"write_xing": "0"})
    whole, warnings = decoded(path)
    assert warnings == set()
    half, warnings = decoded(truncated(path, path.stat().st_size // 2))
    assert 0.45 * whole.size < half.size < 0.55 * whole.size


SHORT_HEADERS = {"wav": 44, "aiff": 54, "au": 24}  # bytes; samples of 16 bits follow at once


@pytest.mark.parametrize("num_bytes", range(1, 64))
def test_a_file_cut_in_its_header_is_an_error(tmp_path: Path, intact_files: dict[str, bytes], num_bytes: int) -> None:
    path = tmp_path / "cut.bin"
    for name, content in intact_files.items():
        path.write_bytes(content[:num_bytes])
        num_samples, codes = error_or_warnings(path)
        assert num_samples == max(0, num_bytes - SHORT_HEADERS.get(name, 64)) // 2, name
        if num_samples:
            assert codes == {"truncated"}, name
        else:  # fewer bytes may not be recognizable as audio
            assert codes == {"decode_error"} or (num_bytes < 8 and codes == {"not_audio"}), name


def test_a_tag_after_the_audio_does_not_count_as_truncation(tmp_path: Path, intact_files: dict[str, bytes]) -> None:
    path = tmp_path / "tagged.bin"
    for name in ("wav", "mp3", "ogg", "flac", "aiff"):
        path.write_bytes(intact_files[name] + b"TAG" + bytes(125))
        samples, warnings = decoded(path)
        assert (abs(samples.size - DURATION_S * RATE) <= 1, warnings) == (True, set()), name


def test_an_omitted_padding_byte_does_not_count_as_truncation(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", ORIGINAL[:1001], subtype="PCM_U8")
    with path.open("rb") as file:
        assert is_cut(file, data_offset(path) + 1001) is False
        assert is_cut(file, data_offset(path) + 1000) is True
    samples, warnings = decoded(truncated(path, data_offset(path) + 1001))
    assert (samples.size, warnings) == (1001, set())


# Headers with wrong sizes


def with_wav_size(path: Path, size: int) -> Path:
    return patched(write_sound(path, ORIGINAL), 40, struct.pack("<I", size))


@pytest.mark.parametrize("size", [0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFF000, 0xFFFFFFFE, 1_000_000])
def test_a_wav_that_states_too_large_a_size_is_read_completely(tmp_path: Path, size: int) -> None:
    samples, warnings = decoded(with_wav_size(tmp_path / "a.wav", size))
    assert samples.size == DURATION_S * RATE
    # The first three are written for "unknown" if the output is a pipe.
    assert warnings == (set() if size in (0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFF000) else {"truncated"})


@pytest.mark.parametrize("size", [0, 1, 2, 200, 30_000])
def test_a_wav_that_states_too_small_a_size_is_read_completely(tmp_path: Path, size: int) -> None:
    samples, warnings = decoded(with_wav_size(tmp_path / "a.wav", size))
    np.testing.assert_allclose(samples, ORIGINAL[:, 0], rtol=0, atol=2.0**-15)
    assert warnings == (
        set() if size in (0, 1) else {"length_mismatch"}
    )  # 0 and half a sample do not count as a stated length


@pytest.mark.parametrize("size", [0, 1, 2**63 - 1])
def test_an_rf64_with_an_absurd_size_is_read_completely(tmp_path: Path, size: int) -> None:
    path = write_sound(tmp_path / "a.wav", ORIGINAL, container="RF64", subtype="PCM_16")
    samples, warnings = decoded(patched(path, path.read_bytes().index(b"ds64") + 16, struct.pack("<Q", size)))
    assert (samples.size, warnings) == (DURATION_S * RATE, set())


@pytest.mark.parametrize("size", [1, 0x7FFFFFFF, 0xFFFFFFFF])
def test_an_au_with_an_absurd_size_is_read_completely(tmp_path: Path, size: int) -> None:
    path = patched(write_sound(tmp_path / "a.au", ORIGINAL), 8, struct.pack(">I", size))
    assert decoded(path)[0].size == DURATION_S * RATE


@pytest.mark.parametrize("size", [-1, 0, 1, 2**40])
def test_a_caf_with_an_absurd_size_is_read_completely(tmp_path: Path, size: int) -> None:
    path = write_sound(tmp_path / "a.caf", ORIGINAL)
    samples, warnings = decoded(patched(path, path.read_bytes().index(b"data") + 4, struct.pack(">q", size)))
    assert abs(samples.size - DURATION_S * RATE) <= 1  # a size in bytes may divide a sample
    assert warnings == ({"truncated"} if size == 2**40 else set())


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        (0, set()),
        (1, {"length_mismatch"}),
        (100, {"length_mismatch"}),
        (64_001, {"truncated"}),
        (2**36 - 1, {"truncated"}),
    ],
)
def test_a_flac_with_a_wrong_total_is_read_completely(tmp_path: Path, total: int, expected: set[str]) -> None:
    samples, warnings = decoded(with_flac_total(tmp_path / "a.flac", ORIGINAL, total))
    np.testing.assert_allclose(samples, ORIGINAL[:, 0], rtol=0, atol=2.0**-15)
    assert warnings == expected


def with_chunk_before_samples(path: Path, size: int, content: bytes, before: bytes = b"data") -> Path:
    """Write a WAV with a LIST chunk of a given size before its samples or before its format."""
    whole = write_sound(path, ORIGINAL).read_bytes()
    start = whole.index(before)
    path.write_bytes(whole[:start] + b"LIST" + struct.pack("<I", size) + content + whole[start:])
    return path


@pytest.mark.parametrize("size", [100_000_000, 0xFFFFFFFF])
@pytest.mark.parametrize("content", [b"INFOISFT\x06\0\0\0Lavf58", b"INFOdata" + bytes(8)])
def test_a_chunk_whose_wrong_size_hides_the_samples_is_skipped(tmp_path: Path, size: int, content: bytes) -> None:
    path = with_chunk_before_samples(tmp_path / "a.wav", size, content)
    before = path.read_bytes()
    for audio in (path, before):
        samples, warnings = decoded(audio)
        np.testing.assert_allclose(samples, ORIGINAL[:, 0], rtol=0, atol=2.0**-15)
        assert warnings == set()
    assert path.read_bytes() == before


@pytest.mark.parametrize("before", [b"fmt ", b"data"])
@pytest.mark.parametrize("after", [b"", b"id3 " + struct.pack("<I", 10) + bytes(10)])
def test_a_wrong_size_hides_neither_the_format_nor_samples_followed_by_tags(
    tmp_path: Path, before: bytes, after: bytes
) -> None:
    path = with_chunk_before_samples(tmp_path / "a.wav", 100_000_000, b"INFOfmt data" + bytes(8), before)
    path.write_bytes(path.read_bytes() + after)
    samples, warnings = decoded(path)
    np.testing.assert_allclose(samples, ORIGINAL[:, 0], rtol=0, atol=2.0**-15)
    assert warnings == set()


@pytest.mark.timeout(20)
def test_searching_an_oversized_chunk_full_of_apparent_samples_is_fast(tmp_path: Path) -> None:
    path = with_chunk_before_samples(tmp_path / "a.wav", 100_000_000, (b"data" + struct.pack("<I", 8)) * (1 << 17))
    assert error_of(truncated(path, path.stat().st_size - 44 - 2 * len(ORIGINAL))) == "decode_error"


def test_the_word_data_in_a_chunk_of_the_right_size_is_ignored(tmp_path: Path) -> None:
    whole = write_sound(tmp_path / "b.wav", ORIGINAL).stat().st_size
    text = b"data" + struct.pack("<I", whole - 44 + 8)  # would reach to the end of the file
    content = b"INFOISFT" + struct.pack("<I", len(text)) + text
    samples, warnings = decoded(with_chunk_before_samples(tmp_path / "a.wav", len(content), content))
    np.testing.assert_allclose(samples, ORIGINAL[:, 0], rtol=0, atol=2.0**-15)
    assert warnings == set()


def test_an_oversized_chunk_that_hides_no_samples_is_an_error(tmp_path: Path) -> None:
    path = with_chunk_before_samples(tmp_path / "a.wav", 100_000_000, bytes(16))
    assert error_of(truncated(path, path.read_bytes().index(b"data"))) == "decode_error"


def test_a_flac_of_blocks_of_one_sample_is_read(tmp_path: Path) -> None:
    expected = np.arange(-2000, 2000, dtype=np.int16)
    samples, warnings = decoded(write_flac_of_single_samples(tmp_path / "a.flac", expected))
    np.testing.assert_array_equal(samples * 2**15, expected)
    assert warnings == set()


def test_files_that_ffmpeg_opens_but_cannot_decode_are_decoded_by_libsndfile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> Any:
        raise ValueError("invalid data")

    path = with_flac_total(tmp_path / "a.flac", ORIGINAL, 100)  # so that FFmpeg comes first
    monkeypatch.setattr("ast_cli.audio.decoders.ffmpeg.frame_samples", fail)
    samples, _ = decoded(path)
    np.testing.assert_allclose(samples[:100], ORIGINAL[:100, 0], rtol=0, atol=2.0**-15)
    other = write_by_ffmpeg(tmp_path / "a.m4a", ORIGINAL, codec="aac", container="ipod")  # which libsndfile cannot read
    assert error_of(other) == "decode_error"


@pytest.mark.parametrize(("codec", "container"), [("flac", "ogg"), ("libopus", "webm"), ("aac", "matroska")])
def test_files_that_were_written_into_a_pipe_are_read_completely(tmp_path: Path, codec: str, container: str) -> None:
    rate = 48000 if codec == "libopus" else RATE
    seekable = write_by_ffmpeg(tmp_path / "file", sound(1.0, rate), rate, codec, container)
    piped = write_by_ffmpeg(tmp_path / "piped", sound(1.0, rate), rate, codec, container, into_pipe=True)
    expected = decoded(seekable)[0]
    samples, warnings = decoded(piped)
    assert warnings == set()
    np.testing.assert_array_equal(samples, expected)


def test_mp3s_that_were_joined_are_read_to_the_end(tmp_path: Path, intact_files: dict[str, bytes]) -> None:
    path = tmp_path / "joined.bin"
    for name in ("mp3", "ogg", "opus"):
        path.write_bytes(intact_files[name] * 2 if name == "mp3" else intact_files[name] + other_stream(tmp_path, name))
        samples, warnings = decoded(path)
        assert samples.size == pytest.approx(2 * DURATION_S * RATE, rel=0.03)  # the second keeps its encoder's delay
        assert warnings == {"length_mismatch"}, name


def other_stream(folder: Path, name: str) -> bytes:
    """Return the same audio again; an Ogg stream has another random serial number."""
    return MAKERS[name](folder / "other").read_bytes()


def test_joined_streams_of_different_rates_keep_their_speed(tmp_path: Path) -> None:
    slow, fast = write_sound(tmp_path / "1.ogg", ORIGINAL), write_sound(tmp_path / "2.ogg", sound(2.0, 44100), 44100)
    path = tmp_path / "joined.ogg"
    path.write_bytes(slow.read_bytes() + fast.read_bytes())
    num_samples, codes = error_or_warnings(path)
    if num_samples > DURATION_S * RATE:
        assert num_samples == pytest.approx((DURATION_S + 2.0) * RATE, rel=0.02)
    else:
        assert num_samples == DURATION_S * RATE
        assert codes & {"truncated", "partial"}


# Damage in the middle


DAMAGED = ["flac", "mp3", "ogg", "opus", "opus at 48 kHz", "m4a", "webm", "mkv"]


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("at", [0.3, 0.5, 0.7])
def test_damage_in_the_middle_is_skipped_with_a_warning(
    tmp_path: Path, intact_files: dict[str, bytes], name: str, at: float
) -> None:
    content = bytearray(intact_files[name])
    start = int(at * len(content))
    content[start : start + 500] = np.random.default_rng(1).bytes(500)
    path = tmp_path / "damaged.bin"
    path.write_bytes(content)
    samples, warnings = decoded(path)
    # An MP3 decoder may take damage for a frame, and so return more samples than the original.
    assert warnings & ({"partial", "length_mismatch"} if name == "mp3" else {"partial"})
    # The audio before the damage is complete, and the total is hardly longer than the original.
    assert 0.9 * at < samples.size / (DURATION_S * RATE) < 1.1
    if name in ("flac", "mp3", "m4a"):  # frames that can be found again
        assert samples.size > 0.85 * DURATION_S * RATE


# Samples that are NaN or infinite


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_samples_that_are_not_finite_become_zero_with_a_warning(tmp_path: Path, subtype: str) -> None:
    original = ORIGINAL[:, 0].copy()
    bad = [np.nan, np.inf, -np.inf] + ([1e300, -1e300] if subtype == "DOUBLE" else [3e38, -3e38])
    original[100:105] = bad
    samples, warnings = decoded(write_sound(tmp_path / "a.wav", original, subtype=subtype))
    assert warnings == {"non_finite_samples"}
    expected = np.where(np.isin(np.arange(original.size), range(100, 105)), 0.0, original)
    np.testing.assert_allclose(samples, expected, rtol=0, atol=2.0**-24)


def test_a_nan_in_one_channel_does_not_affect_the_other(tmp_path: Path) -> None:
    original = sound(0.1, num_channels=2)
    original[50, 0] = np.nan
    samples, warnings = decoded(write_sound(tmp_path / "a.wav", original, subtype="FLOAT"))
    assert warnings == {"non_finite_samples"}
    np.testing.assert_allclose(samples[50], original[50, 1] / 2, rtol=0, atol=2.0**-24)


def test_loud_floats_are_not_changed(tmp_path: Path) -> None:
    original = ORIGINAL[:, 0] * 1e6
    samples, warnings = decoded(write_sound(tmp_path / "a.wav", original, subtype="FLOAT"))
    assert warnings == set()
    np.testing.assert_allclose(samples, original, rtol=2.0**-23, atol=0)


# Rates and channels


@pytest.mark.parametrize("rate", [0, 1, 999, 768_001, 2**31 - 1, 2**31, 2**32 - 1])
def test_an_unsupported_rate_is_refused_before_memory_is_allocated(tmp_path: Path, rate: int) -> None:
    path = patched(write_sound(tmp_path / "a.wav", ORIGINAL), 24, struct.pack("<I", rate))
    tracemalloc.start()
    assert error_of(path) == "bad_sample_rate"
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("rate", [1000, 16_001, 35_467, 768_000])
def test_an_unusual_rate_is_resampled(tmp_path: Path, rate: int) -> None:
    path = patched(write_sound(tmp_path / "a.wav", ORIGINAL), 24, struct.pack("<I", rate))
    samples, warnings = decoded(path)
    assert warnings == set()
    assert abs(samples.size - ORIGINAL.size * RATE / rate) <= 1


@pytest.mark.parametrize("num_channels", [0, 65, 255, 1024, 1025, 65_535])
def test_an_unsupported_number_of_channels_is_refused(tmp_path: Path, num_channels: int) -> None:
    path = patched(write_sound(tmp_path / "a.wav", ORIGINAL), 22, struct.pack("<H", num_channels))
    assert error_of(path) == "bad_channels"


def test_sixty_four_channels_are_mixed(tmp_path: Path) -> None:
    original = sound(0.1, num_channels=64)
    samples, _ = decoded(write_sound(tmp_path / "a.wav", original, subtype="FLOAT"))
    np.testing.assert_allclose(samples, original.mean(axis=1), rtol=0, atol=1e-6)


# Large metadata and unusual MP3s


def test_ten_megabytes_of_chunks_are_skipped(tmp_path: Path, intact_files: dict[str, bytes]) -> None:
    ballast = b"LIST" + struct.pack("<I", 10 << 20) + bytes(10 << 20)
    content, path = intact_files["wav"], tmp_path / "a.wav"
    for before, after in ((ballast, b""), (b"", ballast), (ballast, ballast)):
        path.write_bytes(content[:12] + before + content[12:] + after)
        samples, warnings = decoded(path)
        np.testing.assert_allclose(samples, ORIGINAL[:, 0], rtol=0, atol=2.0**-15)
        assert warnings == set()


def test_ten_megabytes_of_flac_metadata_are_skipped(tmp_path: Path, intact_files: dict[str, bytes]) -> None:
    content, path = intact_files["flac"], tmp_path / "a.flac"
    padding = b"\x01" + (10 << 20).to_bytes(3) + bytes(10 << 20)  # a block of type 1 after the 42 bytes of the first
    path.write_bytes(content[:42] + padding + content[42:])
    samples, warnings = decoded(path)
    assert (samples.size, warnings) == (DURATION_S * RATE, set())


def test_mp3s_of_all_kinds_are_read(tmp_path: Path) -> None:
    picture = b"APIC" + (200_000).to_bytes(4) + bytes(2) + bytes(200_000)
    size = len(picture)
    id3 = b"ID3\x03\x00\x00" + bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127]) + picture
    plain = write_by_ffmpeg(tmp_path / "plain.mp3", ORIGINAL, codec="libmp3lame").read_bytes()
    no_xing = {"write_xing": "0"}
    kinds = {
        "cover art": id3 + plain,
        "without Xing": write_by_ffmpeg(tmp_path / "1.mp3", ORIGINAL, codec="libmp3lame", options=no_xing).read_bytes(),
        "garbage before": np.random.default_rng(0).bytes(700).replace(b"\xff", b"\0") + plain,
        "layer II": write_by_ffmpeg(tmp_path / "1.mp2", sound(DURATION_S, 44100), 44100, "mp2").read_bytes(),
        "MPEG 2.5": write_by_ffmpeg(tmp_path / "2.mp3", sound(DURATION_S, 8000), 8000, "libmp3lame").read_bytes(),
    }
    for kind, content in kinds.items():
        path = tmp_path / "a.mp3"
        path.write_bytes(content)
        samples, warnings = decoded(path)
        assert samples.size == pytest.approx(DURATION_S * RATE, abs=2000), kind  # some keep their encoder's delay
        assert warnings == set(), kind


# Files that are not audio


def png() -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress((b"\0" + bytes(24)) * 8)) + chunk(b"IEND", b"")


JUNK = {
    "text": b"hello, this is text and no audio\n" * 500,
    "one newline": b"\n",
    "HTML": b"<!DOCTYPE html><html><body>404 not found</body></html>" * 20,
    "PDF": b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\n" + b"x" * 5000 + b"\n%%EOF",
    "JPEG": bytes.fromhex("ffd8ffe000104a46494600010100000100010000") + bytes(range(256)) * 20 + b"\xff\xd9",
    "PNG": png(),
    "GIF": b"GIF89a" + bytes(500),
    "ZIP": b"PK\x03\x04" + bytes(26) + b"a.txt" + b"hi" * 3000 + b"PK\x05\x06" + bytes(18),
    "subtitles": b"1\n00:00:01,000 --> 00:00:02,000\nhello\n\n" * 20,
    "session": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    "WEBP": b"RIFF" + struct.pack("<I", 20_004) + b"WEBPVP8L" + struct.pack("<I", 19_992) + bytes(range(256)) * 78,
    "cursor": b"RIFF" + struct.pack("<I", 5004) + b"ACONanih" + bytes(5000),
    "SoundFont": b"RIFF" + struct.pack("<I", 5004) + b"sfbkLIST" + bytes(5000),
    "AVIF": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(5000),
    "zeros": bytes(20_000),
    "ones": b"\xff" * 20_000,
    "noise": np.random.default_rng(0).bytes(20_000),
    "more noise": np.random.default_rng(1).bytes(20_000),
}
SUFFIXES = [".wav", ".mp3", ".m4a", ".flac", ".aac", ".ogg", ".au", ".snd", ".gsm", ".raw", ".txt", ""]
HEADERLESS = [".vox", ".g722", ".ul", ".sln", ".sbc"]  # formats in which any bytes are valid samples
BARE = ("zeros", "ones", "noise", "more noise")  # content that may be samples without a header


@pytest.mark.parametrize("kind", JUNK)
def test_junk_is_not_audio_whatever_its_name(tmp_path: Path, kind: str) -> None:
    for suffix in SUFFIXES if kind in BARE else [*SUFFIXES, *HEADERLESS]:
        path = tmp_path / f"junk{suffix}"
        path.write_bytes(JUNK[kind])
        assert error_of(path) == "not_audio", suffix
    assert error_of(JUNK[kind]) == "not_audio"


def test_the_content_and_not_the_name_determines_the_format(tmp_path: Path, intact_files: dict[str, bytes]) -> None:
    for name, content in intact_files.items():
        right = load_waveform(content)
        for suffix in (".wav", ".mp3", ".m4a", ".txt", ".gsm"):
            path = tmp_path / f"named{suffix}"
            path.write_bytes(content)
            np.testing.assert_array_equal(load_waveform(path), right, err_msg=f"{name} as {suffix}")


PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile '{canary}'\n",
    "concat by name": "ffconcat version 1.0\nfile canary.wav\n",
    "HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{canary}\n#EXT-X-ENDLIST\n",
    "HLS over HTTP": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n",
    "DASH": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet '
    'mimeType="audio/mp4"><Representation id="1" bandwidth="1"><BaseURL>canary.wav</BaseURL></Representation>'
    "</AdaptationSet></Period></MPD>",
    "session over RTP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 0\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_opens_no_other_file_and_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    canary = write_sound(tmp_path / "canary.wav", sound(0.5))
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        text = PLAYLISTS[kind].format(canary=canary, port=server.getsockname()[1])
        for suffix in (".m4a", ".wav", ".m3u8", ".mpd"):
            path = tmp_path / f"list{suffix}"
            path.write_text(text)
            assert error_of(path) == "not_audio"
            assert error_of(path.name) == "not_audio"
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_video_without_audio_has_no_audio_stream(tmp_path: Path) -> None:
    for container in ("mp4", "matroska", "avi"):
        path = write_by_ffmpeg(tmp_path / "a.bin", np.zeros(0), container=container, video=True, audio=False)
        assert error_of(path) == "no_audio_stream"


def test_an_unknown_codec_is_an_unsupported_codec(tmp_path: Path) -> None:
    path = write_by_ffmpeg(tmp_path / "a.mka", ORIGINAL, container="matroska")
    path.write_bytes(path.read_bytes().replace(b"A_AAC", b"A_XYZ"))
    assert error_of(path) == "unsupported_codec"


@pytest.mark.parametrize("tag", [b"drms", b"enca"])
def test_a_protected_mp4_is_encrypted(tmp_path: Path, intact_files: dict[str, bytes], tag: bytes) -> None:
    path = tmp_path / "a.m4p"
    path.write_bytes(intact_files["m4a"].replace(b"mp4a", tag))
    assert error_of(path) == "encrypted"


def test_an_encrypted_mp4_is_not_decoded_to_noise(tmp_path: Path) -> None:
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "00" * 16, "encryption_kid": "11" * 16}
    path = write_by_ffmpeg(tmp_path / "a.mp4", ORIGINAL, container="mp4", options=key)
    assert error_of(path) == "encrypted"  # although its packets, encrypted with a random vector, may decode


# Paths that are not regular files


def test_a_path_that_does_not_exist_is_not_found(tmp_path: Path) -> None:
    assert error_of(tmp_path / "no.wav") == "not_found"


@pytest.mark.parametrize("path", ["http://example.org/a.wav", "s3://bucket/a.wav", "concat:a.wav|b.wav", "data:,x"])
def test_a_url_is_not_a_local_file(path: str) -> None:
    with pytest.raises(AudioError, match="not a local file: download it first") as raised:
        load_waveform(path)
    assert raised.value.code is ErrorCode.NOT_FOUND


def test_an_invalid_name_is_not_found() -> None:
    assert error_of("nul\0byte.wav") == "not_found"
    assert error_of("x" * 10_000) in ("not_found", "not_regular")


posix_only = pytest.mark.skipif(os.name != "posix", reason="files of POSIX")


@posix_only
def test_special_files_are_refused_without_opening_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is at most 107 bytes
    os.mkfifo("fifo.wav")
    os.mkdir("folder.wav")
    os.symlink("nowhere.wav", "dangling.wav")
    os.symlink("loop.wav", "loop.wav")
    os.symlink("fifo.wav", "link_to_fifo.wav")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.wav")
        for path in ("fifo", "folder", "dangling", "loop", "link_to_fifo", "socket"):
            assert error_of(f"{path}.wav") == "not_regular", path
    assert error_of("/dev/null") == "not_regular"
    assert error_of("/dev/zero") == "not_regular"


@posix_only
def test_a_link_to_audio_is_read(tmp_path: Path) -> None:
    os.symlink(write_sound(tmp_path / "a.wav", sound(0.1)), tmp_path / "link.wav")
    assert decoded(tmp_path / "link.wav")[0].size == 1600


@posix_only
def test_an_unreadable_file_is_a_permission_error(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path = write_sound(tmp_path / "a.wav", sound(0.1))
    path.chmod(0)
    assert error_of(path) == "permission"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermissionError(13, "no"), "permission"),
        (FileNotFoundError(2, "no"), "vanished"),
        (OSError(5, "I/O"), "vanished"),
        (OSError(22, "Invalid argument"), "decode_error"),
    ],
)
def test_a_file_that_becomes_unreadable_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, code: str
) -> None:
    path = write_sound(tmp_path / "a.wav", sound(0.1))

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr("builtins.open", fail)
    assert error_of(path) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(12, "Cannot allocate memory"), "out_of_memory"),
        (UnicodeDecodeError("ascii", b"\xff", 0, 1, "a tag"), "decode_error"),
        (OverflowError("a number too large"), "decode_error"),
        (EOFError("end of file"), "decode_error"),
        (PermissionError(1, "Operation not permitted"), "decode_error"),
    ],
)
def test_every_error_of_ffmpeg_becomes_an_audio_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, intact_files: dict[str, bytes], error: Exception, code: str
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    path = tmp_path / "a.m4a"
    path.write_bytes(intact_files["m4a"])
    monkeypatch.setattr("av.open", fail)
    assert error_of(path) == code


@pytest.mark.parametrize("error", [TypeError("no such argument"), AttributeError("no such name"), KeyError("x")])
@pytest.mark.parametrize("broken", ["av.open", "ast_cli.audio.decoders.libsndfile._WithoutSeekAfterRead"])
def test_a_bug_is_not_reported_as_damaged_audio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, intact_files: dict[str, bytes], broken: str, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    path = tmp_path / "a.m4a"
    path.write_bytes(intact_files["m4a"])
    monkeypatch.setattr(broken, fail)
    with pytest.raises(AudioError) as raised:
        open_audio(path)
    assert raised.value.code == "worker_crashed"
    assert raised.value.__cause__ is error
    assert str(raised.value) == (
        f"{path}: decoding stopped with an internal error ({type(error).__name__}: {error}); "
        "add --debug for the traceback and report it"
    )


def test_a_bug_while_decoding_is_not_reported_as_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> Any:
        raise TypeError("no such argument")

    path = write_by_ffmpeg(tmp_path / "a.m4a", ORIGINAL, codec="aac", container="ipod")
    monkeypatch.setattr("ast_cli.audio.decoders.ffmpeg.frame_samples", fail)
    assert error_of(path) == "worker_crashed"


def test_running_out_of_memory_while_reading_is_an_audio_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> Any:
        raise MemoryError

    path = write_sound(tmp_path / "a.wav", sound(0.1))
    monkeypatch.setattr(decode, "replace_absurd", fail)
    assert error_of(path) == "out_of_memory"


def test_a_file_removed_before_it_is_opened_has_vanished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_sound(tmp_path / "a.wav", sound(0.1))
    monkeypatch.setattr(decode, "check_regular_file", os.remove)
    assert error_of(path) == "vanished"


@pytest.mark.parametrize("name", ["wav", "flac", "mp3", "m4a"])
def test_a_file_that_shrinks_while_it_is_read_ends_early(
    tmp_path: Path, intact_files: dict[str, bytes], name: str
) -> None:
    path = tmp_path / "shrinking.bin"
    path.write_bytes(intact_files[name])
    with open_audio(path) as stream:
        truncated(path, len(intact_files[name]) // 3)
        samples = np.concatenate(list(stream))
    assert 0 < samples.size < DURATION_S * RATE
    assert {str(warning) for warning in stream.warnings} & {"truncated", "partial"}


# Long recordings, which need the memory of one block


sparse_files = pytest.mark.skipif(sys.platform == "win32", reason="needs sparse files")


def sparse_wav(path: Path, num_bytes: int) -> Path:
    """Write a WAV of silence with correct sizes, or with sizes that wrapped at 4 GiB."""
    sizes = (num_bytes + 36) % 2**32, b"WAVEfmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16, b"data", num_bytes % 2**32
    path.write_bytes(b"RIFF" + struct.pack("<I8sIHHIIHH4sI", *sizes))
    return truncated(path, 44 + num_bytes)


@sparse_files
@pytest.mark.parametrize("start_s", [0.0, 3600.0, 60_000.25])
def test_a_part_of_a_two_gigabyte_file_needs_little_memory(tmp_path: Path, start_s: float) -> None:
    path = sparse_wav(tmp_path / "day.wav", 2_000_000_000)
    tone = (32000 * ORIGINAL[:RATE, 0]).astype("<i2").tobytes()
    with path.open("r+b") as file:
        file.seek(44 + 2 * round(start_s * RATE))
        file.write(tone)
    tracemalloc.start()
    samples, warnings = decoded(path, start_s=start_s, duration_s=20.0)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    assert warnings == set()
    expected = np.zeros(20 * RATE, np.float32)
    expected[:RATE] = np.frombuffer(tone, "<i2") / 32768
    np.testing.assert_array_equal(samples, expected)


@sparse_files
def test_a_wav_whose_size_wrapped_at_four_gigabytes_is_not_cut_short(tmp_path: Path) -> None:
    path = sparse_wav(tmp_path / "days.wav", 2**32 + 320_000)  # the header states 10 s
    with open_audio(path, duration_s=60.0) as stream:
        num_samples = sum(block.size for block in stream)
    assert num_samples == 60 * RATE


@sparse_files
def test_a_long_recording_is_streamed(tmp_path: Path) -> None:
    path = sparse_wav(tmp_path / "hour.wav", 3600 * 2 * RATE)
    tracemalloc.start()
    with open_audio(path) as stream:
        num_samples = sum(block.size for block in stream)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    assert (num_samples, stream.duration_s, stream.warnings) == (3600 * RATE, 3600.0, set())
