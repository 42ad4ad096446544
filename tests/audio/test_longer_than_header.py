"""Files with more audio than their headers state are read to the end or give a warning; others are not affected."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from audio_files import RATE, data_offset, patched, sound, truncated, with_flac_total, write_by_ffmpeg, write_sound
from numpy.typing import NDArray
from reading import decoded, decoder_name, error_of

from ast_cli.audio.containers import ogg
from ast_cli.audio.containers.lengths import is_cut
from ast_cli.audio.containers.longer_than_header import exceeds_header, riff_exceeds_header
from ast_cli.audio.containers.mpeg import Mp3Length, changes_bit_rate, mp3_length, sampling_rates
from ast_cli.audio.decode import load_waveform, open_audio
from ast_cli.audio.decoders import choice, libsndfile
from ast_cli.audio.decoders.ffmpeg import PyAVDecoder
from ast_cli.audio.decoders.interface import undecodable
from ast_cli.audio.source import Source
from ast_cli.errors import AudioError

DURATION_S = 4.0
ORIGINAL = sound(DURATION_S)
FRACTIONS = [0.02, 0.3, 0.6, 0.9]


@pytest.fixture
def by_libsndfile_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the test fail if FFmpeg is used."""
    monkeypatch.setattr(choice, "PyAVDecoder", lambda _source: pytest.fail("FFmpeg was asked"))


# Sizes that are too small


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_a_flac_that_states_too_few_samples_is_read_to_the_end(tmp_path: Path, fraction: float) -> None:
    samples, warnings = decoded(with_flac_total(tmp_path / "a.flac", ORIGINAL, round(fraction * len(ORIGINAL))))
    np.testing.assert_allclose(samples, ORIGINAL[:, 0], rtol=0, atol=2.0**-15)
    assert warnings == {"length_mismatch"}


def test_a_flac_after_a_tag_is_checked_too(tmp_path: Path) -> None:
    path = with_flac_total(tmp_path / "a.flac", ORIGINAL, len(ORIGINAL) // 2)
    path.write_bytes(b"ID3\x03\0\0" + bytes([0, 0, 16, 0]) + bytes(2048) + path.read_bytes())
    samples, warnings = decoded(path)
    assert samples.size == len(ORIGINAL)
    assert warnings == {"length_mismatch"}


def flac_frame_header(number: int) -> bytes:
    """Return the header of frame ``number``, below 128, of 4096 samples."""
    header = bytes([0xFF, 0xF8, 0xC9, 0x08, number])
    crc = 0
    for bit in "".join(f"{byte:08b}" for byte in header) + "0" * 8:
        crc = crc << 1 | int(bit)
        crc ^= 0x107 if crc & 0x100 else 0
    return header + bytes([crc]) + bytes(30)


@pytest.mark.parametrize(("numbers", "expected"), [([100], False), ([100, 120], False), ([100, 101], True)])
def test_a_single_frame_header_in_compressed_audio_does_not_count(
    tmp_path: Path, numbers: list[int], expected: bool
) -> None:
    path = write_sound(tmp_path / "a.flac", ORIGINAL)
    with path.open("ab") as file:
        file.write(b"".join(flac_frame_header(number) for number in numbers))
    with path.open("rb") as file:
        assert exceeds_header(file, path.stat().st_size, "FLAC") is expected


def test_a_correct_flac_is_decoded_by_libsndfile(tmp_path: Path, by_libsndfile_alone: None) -> None:
    assert decoded(write_sound(tmp_path / "a.flac", ORIGINAL))[1] == set()


@pytest.mark.parametrize("fraction", FRACTIONS)
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT", "IMA_ADPCM"])
def test_a_wav_with_too_small_a_size_is_read_to_the_end(tmp_path: Path, fraction: float, subtype: str) -> None:
    path = write_sound(tmp_path / "a.wav", sound(12.0), subtype=subtype)
    expected = decoded(path)[0]
    start = data_offset(path)
    size = round(fraction * (path.stat().st_size - start)) // 1024 * 1024
    samples, warnings = decoded(patched(path, start - 4, struct.pack("<I", size)))
    assert samples.size >= expected.size
    np.testing.assert_allclose(samples[: expected.size], expected, rtol=0, atol=2.0**-14)
    assert warnings == {"length_mismatch"}


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_an_au_with_too_small_a_size_is_read_to_the_end(tmp_path: Path, fraction: float) -> None:
    size = round(fraction * 2 * len(ORIGINAL)) // 2 * 2
    samples, warnings = decoded(patched(write_sound(tmp_path / "a.au", ORIGINAL), 8, struct.pack(">I", size)))
    np.testing.assert_allclose(samples, ORIGINAL[:, 0], rtol=0, atol=2.0**-15)
    assert warnings == {"length_mismatch"}


@pytest.mark.parametrize("fraction", FRACTIONS[1:])
@pytest.mark.parametrize(("container", "chunk", "layout"), [("AIFF", b"SSND", ">I"), ("CAF", b"data", ">q")])
def test_an_aiff_or_caf_with_too_small_a_size_gives_a_warning(
    tmp_path: Path, fraction: float, container: str, chunk: bytes, layout: str
) -> None:
    path = write_sound(tmp_path / "a.bin", ORIGINAL, container=container)
    size = round(fraction * 2 * len(ORIGINAL)) // 1024 * 1024
    patched(path, path.read_bytes().index(chunk) + 4, struct.pack(layout, size))
    if container == "AIFF":  # a separate chunk states the number of samples, too
        patched(path, path.read_bytes().index(b"COMM") + 10, struct.pack(">I", size // 2))
    samples, warnings = decoded(path)
    assert samples.size >= (size - 16) // 2
    assert "length_mismatch" in warnings


@pytest.mark.parametrize("container", ["WAV", "AIFF", "FLAC", "AU", "CAF", "MP3"])
def test_tags_after_the_audio_are_not_decoded(tmp_path: Path, container: str, by_libsndfile_alone: None) -> None:
    path = write_sound(tmp_path / "a.bin", ORIGINAL, container=container)
    picture = np.random.default_rng(0).bytes(3000 if container == "MP3" else 60_000)
    with path.open("ab") as file:
        file.write(b"ID3\x04\0\0" + bytes([0, 3, 0x54, 0x60]) + picture)
    samples, warnings = decoded(path)
    assert abs(samples.size - len(ORIGINAL)) <= 1
    assert warnings == set()


NOISE = np.random.default_rng(0).bytes(20_000)
BEHIND: dict[str, bytes] = {
    "a picture cut off": b"id3 " + struct.pack("<I", 90_000) + NOISE,
    "XMP cut off": b"_PMX" + struct.pack("<I", 90_000) + NOISE,
    "XMP without a chunk": b"<?xpacket begin=" + NOISE,
    "a list with too large a size": b"LIST" + struct.pack("<I", 25_000) + NOISE,
    "a name that is none": b"\xe4\0\xff\x80" + struct.pack("<I", 20_000) + NOISE,
    "zeros": bytes(20_000),
    "ones": b"\xff" * 20_000,
}


@pytest.mark.parametrize("kind", BEHIND)
@pytest.mark.parametrize("num_samples", [64_000, 63_999])
def test_metadata_after_the_samples_of_a_wav_is_not_decoded(
    tmp_path: Path, kind: str, num_samples: int, by_libsndfile_alone: None
) -> None:
    path = write_sound(tmp_path / "a.wav", ORIGINAL[:num_samples], subtype="PCM_U8")
    forgotten = (
        num_samples % 2 if kind.startswith(("a", "X")) and "none" not in kind else 0
    )  # the omitted byte of padding
    truncated(path, data_offset(path) + num_samples + num_samples % 2 - forgotten)
    with path.open("ab") as file:
        file.write(BEHIND[kind])
    samples, warnings = decoded(path)
    assert samples.size == num_samples
    assert warnings == set()


@pytest.mark.parametrize("container", ["AIFF", "CAF", "AU"])
def test_padding_after_the_samples_is_not_decoded(tmp_path: Path, container: str, by_libsndfile_alone: None) -> None:
    path = write_sound(tmp_path / "a.bin", ORIGINAL, container=container)
    with path.open("ab") as file:
        file.write(bytes(30_000))
    samples, warnings = decoded(path)
    assert samples.size == len(ORIGINAL)
    assert warnings == set()


def test_an_au_of_unknown_size_stays_with_libsndfile(tmp_path: Path, by_libsndfile_alone: None) -> None:
    path = patched(write_sound(tmp_path / "a.au", ORIGINAL), 8, b"\xff" * 4)
    assert decoded(path)[0].size == len(ORIGINAL)


def test_a_few_bytes_after_the_samples_matter_to_ffmpeg_only(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", ORIGINAL)
    with path.open("ab") as file:
        file.write(bytes(range(200)))
    with path.open("rb") as file:
        assert riff_exceeds_header(file, path.stat().st_size)
        assert not exceeds_header(file, path.stat().st_size, "WAV")


# MP3: lengths estimated from the first frame


def mp3(path: Path, samples: NDArray[np.float64], bit_rate: int) -> bytes:
    """Return frames of one bit rate, without a frame that states the length."""
    options = {"write_xing": "0", "id3v2_version": "0"}
    return write_by_ffmpeg(path, samples, codec="libmp3lame", bit_rate=bit_rate, options=options).read_bytes()


@pytest.mark.parametrize("rates", [(160_000, 16_000), (16_000, 160_000)])
def test_an_mp3_of_changing_bit_rates_without_a_stated_length_is_read_to_the_end(
    tmp_path: Path, rates: tuple[int, int]
) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(b"".join(mp3(tmp_path / "part.mp3", sound(10.0), rate) for rate in rates))
    samples, warnings = decoded(path)
    assert samples.size == pytest.approx(20.0 * RATE, rel=0.02)
    assert warnings <= {"partial"}  # at the boundary of the recordings, bits of the first one are missing


def test_an_mp3_of_one_bit_rate_stays_with_libsndfile(tmp_path: Path, by_libsndfile_alone: None) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(mp3(path, sound(10.0), 64_000))
    assert decoded(path)[0].size == pytest.approx(10.0 * RATE, rel=0.02)


class Counted(io.BytesIO):
    """Bytes that count how many of them were read."""

    num_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self.num_read += len(content)
        return content


def test_bit_rates_are_read_at_a_few_places_only(tmp_path: Path) -> None:
    frames = mp3(tmp_path / "a.mp3", sound(2.0), 64_000)
    for content, expected in (
        (frames * 200, False),
        (frames * 100 + mp3(tmp_path / "b.mp3", sound(2.0), 32_000) * 100, True),
        (NOISE, False),
        (b"\xff" * 20_000, False),
    ):
        file = Counted(content)
        assert changes_bit_rate(file, len(content)) is expected
        assert file.num_read < 600_000


@pytest.mark.parametrize("rate", [16000, 44100])
def test_an_mp3_whose_rate_libsndfile_misreads_is_decoded_by_ffmpeg(
    tmp_path: Path, rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_sound(tmp_path / "a.mp3", sound(2.0, rate), rate)
    with path.open("rb") as file:
        assert sampling_rates(file, path.stat().st_size) == {rate}
    for rates, decoder in (({rate}, "SoundFileDecoder"), ({rate // 2}, "PyAVDecoder"), (set(), "SoundFileDecoder")):
        monkeypatch.setattr(libsndfile, "sampling_rates", lambda _file, _size, rates=rates: rates)
        with open_audio(path) as stream:
            assert decoder_name(stream) == decoder


@pytest.mark.parametrize(("num_bytes", "num_frames"), [(0, 100), (5000, 0), (0, 0)])
def test_a_stated_length_of_zero_is_ignored(tmp_path: Path, num_bytes: int, num_frames: int) -> None:
    path = tmp_path / "a.mp3"
    with_vbri(path)
    with patched(path, 36 + 10, struct.pack(">II", num_bytes, num_frames)).open("rb") as file:
        length = mp3_length(file)
    assert length == (Mp3Length(57_600, None) if num_frames else None)


def with_vbri(path: Path) -> int:
    """Write an MP3 whose first frame states frames and bytes as Fraunhofer's encoder does; return the frames."""
    content = bytearray(mp3(path, ORIGINAL, 64_000))
    num_frames = len(content) // (72 * 64_000 // RATE)  # of MPEG 2, 576 samples each
    content[36 : 36 + 18] = b"VBRI" + struct.pack(">HHHII", 1, 0, 75, len(content), num_frames)
    path.write_bytes(content)
    return num_frames


def test_the_length_stated_by_fraunhofers_encoder_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    num_frames = with_vbri(path)
    samples, warnings = decoded(path)
    assert samples.size == pytest.approx(num_frames * 576, abs=2 * 1152)
    assert "truncated" not in warnings
    assert decoded(truncated(path, path.stat().st_size // 2))[1] == {"truncated"}


def test_the_stated_length_of_an_mp3_is_found_after_two_tags_and_junk(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.mp3", ORIGINAL)
    with path.open("rb") as file:
        expected = mp3_length(file)
    assert expected is not None
    assert expected.end_byte == path.stat().st_size
    tag = b"ID3\x04\0\x10" + bytes([0, 0, 1, 0]) + bytes(128) + b"3DI\x04\0\x10" + bytes([0, 0, 1, 0])  # with a footer
    second = b"ID3\x03\0\0" + bytes([0, 0, 0, 10]) + b"Info Xing."
    junk = b"\xff\xfb junk"
    path.write_bytes(tag + second + junk + path.read_bytes())
    with path.open("rb") as file:
        length = mp3_length(file)
    assert length is not None
    assert (length.num_samples, length.end_byte) == (expected.num_samples, path.stat().st_size)
    assert decoded(truncated(path, path.stat().st_size // 2))[1] == {"truncated"}


# Ogg: audio that begins on a page of headers


def page(flags: int, granule: int, serial: int, number: int, lacing: bytes, body: bytes) -> bytes:
    head = struct.pack("<4sxBqIIIB", b"OggS", flags, granule, serial, number, 0, len(lacing)) + lacing
    crc = zlib.crc32((head + body).translate(ogg.REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return head[:22] + struct.pack("<I", int(f"{crc:032b}"[::-1], 2)) + head[26:] + body


def test_a_vorbis_file_whose_audio_begins_on_a_page_of_headers_is_read_completely(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.ogg", ORIGINAL)
    with path.open("rb") as file:
        identification, headers, first, *rest = [found for found in ogg._all_pages(file) if found is not None]
    lacing = [found.content[27 : 27 + found.content[26]] for found in (headers, first)]
    pages = [page(0, first.granule, first.serial, 1, lacing[0] + lacing[1], headers.body + first.body)]
    for number, found in enumerate(rest, start=2):
        own_lacing = found.content[27 : 27 + found.content[26]]
        pages.append(page(4 * found.ends_stream, found.granule, found.serial, number, own_lacing, found.body))
    expected = decoded(path)[0]
    path.write_bytes(identification.content + b"".join(pages))
    assert soundfile.info(path).frames < 0.9 * len(ORIGINAL)  # so libsndfile's length is not trusted
    samples, warnings = decoded(path)
    assert warnings == set()
    np.testing.assert_allclose(samples, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("subtype", "offset"), [("OPUS", 9), ("VORBIS", 11)])
def test_an_ogg_that_states_0_channels_is_refused_as_such(tmp_path: Path, subtype: str, offset: int) -> None:
    path = write_sound(tmp_path / "a.ogg", ORIGINAL, container="OGG", subtype=subtype)
    content = path.read_bytes()
    first = ogg.parse_page(content, 0)
    assert first.body[offset] == 1
    body = first.body[:offset] + b"\0" + first.body[offset + 1 :]
    path.write_bytes(page(2, 0, first.serial, 0, bytes([len(body)]), body) + content[first.num_bytes :])
    assert error_of(path) == "bad_channels"


# Matroska: lengths of single tracks, and encryption


def test_a_video_longer_than_its_audio_gives_no_warning(tmp_path: Path) -> None:
    path = write_by_ffmpeg(tmp_path / "a.mkv", sound(0.5), codec="aac", container="matroska", video=True)
    with av.open(str(path)) as container:
        assert container.duration is not None
        assert container.duration > 900_000
    samples, warnings = decoded(path)
    assert samples.size == pytest.approx(0.5 * RATE, abs=2048)
    assert warnings == set()


def with_track_length(path: Path, seconds: str) -> Path:
    """Change the length that the tag of the audio track, the last of a file, states."""
    return patched(path, path.read_bytes().rindex(b"00:00:0"), f"00:00:0{seconds}".encode())


@pytest.mark.parametrize(
    ("video", "stated_s", "expected"),
    [
        (True, "0.900", {"partial"}),  # within the video's length: the tag counts
        (True, "9.000", set()),  # beyond it: a leftover tag
        (False, "9.000", set()),
        (False, "0.010", set()),
    ],
)
def test_the_stated_length_of_a_track_counts_if_it_is_plausible(
    tmp_path: Path, video: bool, stated_s: str, expected: set[str]
) -> None:
    path = write_by_ffmpeg(tmp_path / "a.mkv", sound(0.5), codec="aac", container="matroska", video=video)
    assert decoded(with_track_length(path, stated_s))[1] == expected


@pytest.mark.parametrize("video", [False, True])
def test_audio_that_starts_late_gives_no_warning(tmp_path: Path, video: bool) -> None:
    path = write_by_ffmpeg(
        tmp_path / "a.mkv", sound(2.0), codec="flac", container="matroska", video=video, first_pts=5 * RATE
    )
    samples, warnings = decoded(path)
    assert samples.size == 2 * RATE
    assert warnings == set()


def element(name: str, content: bytes) -> bytes:
    return bytes.fromhex(name) + (1 << 56 | len(content)).to_bytes(8) + content


def grown(content: bytes, name: str, addition: bytes) -> bytes:
    """Append content to the first element of a name, and increase its size."""
    start = content.index(bytes.fromhex(name)) + len(name) // 2
    width = 9 - content[start].bit_length()
    size = int.from_bytes(content[start : start + width]) - (1 << 7 * width)
    inner = content[start + width : start + width + size] + addition
    return content[:start] + (1 << 56 | len(inner)).to_bytes(8) + inner + content[start + width + size :]


def test_a_webm_with_an_encryption_key_is_refused_as_encrypted(tmp_path: Path) -> None:
    path = write_by_ffmpeg(tmp_path / "a.webm", sound(1.0, 48000), 48000, "libopus", "webm", into_pipe=True)
    key = element("5035", element("47e1", b"\5") + element("47e2", bytes(range(16))))
    encoding = element("6d80", element("6240", element("5032", b"\1") + element("5033", b"\1") + key))
    content = path.read_bytes()
    start = content.rindex(bytes.fromhex("1654ae6b"))  # Tracks; an earlier match is in the list of positions
    width = 9 - content[start + 4].bit_length()
    size = int.from_bytes(content[start + 4 : start + 4 + width]) - (1 << 7 * width)
    tracks = content[start + 4 + width : start + 4 + width + size]
    tracks = grown(tracks[6 * tracks.startswith(b"\xbf\x84") :], "ae", encoding)  # without its checksum
    path.write_bytes(content[:start] + element("1654ae6b", tracks) + content[start + 4 + width + size :])
    assert error_of(path) == "encrypted"


class ScrambledPacket:
    """A packet that is marked as encrypted."""

    def __init__(self, packet: Any) -> None:
        self.size, self.decode = packet.size, packet.decode

    def has_sidedata(self, kind: str) -> bool:
        return kind == "encryption_info"


class ScrambledFrom:
    """A container whose packets are encrypted from some number on."""

    def __init__(self, container: Any, first: int) -> None:
        self.format, self.close, self._container, self._first = container.format, container.close, container, first

    def demux(self, stream: Any) -> Iterator[Any]:
        for number, packet in enumerate(self._container.demux(stream)):
            yield packet if number < self._first else ScrambledPacket(packet)


@pytest.mark.parametrize("num_clear", [0, 20])
def test_the_unencrypted_beginning_of_an_encrypted_file_is_decoded(tmp_path: Path, num_clear: int) -> None:
    path = write_by_ffmpeg(tmp_path / "a.m4a", ORIGINAL, codec="aac", container="ipod")
    decoder = PyAVDecoder(Source(str(path)))
    decoder.container = ScrambledFrom(decoder.container, num_clear)
    if num_clear:
        assert sum(len(block) for _, block in decoder.blocks()) == pytest.approx(num_clear * 1024, abs=2048)
        assert decoder.warnings == {"partial"}
    else:
        with pytest.raises(AudioError, match="the audio is encrypted"):
            list(decoder.blocks())
    decoder.close()


# ASF


def asf(path: Path) -> tuple[bytes, int]:
    """Return a WMA file and the offset of its file properties."""
    content = write_by_ffmpeg(path, ORIGINAL, codec="wmav2", container="asf", bit_rate=32_000).read_bytes()
    return content, content.index(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))


def test_a_broadcast_states_no_size(tmp_path: Path) -> None:
    content, start = asf(tmp_path / "a.wma")
    flags_at = start + 88
    broadcast = content[:flags_at] + bytes([content[flags_at] | 1]) + content[flags_at + 1 :]
    half = len(content) // 2
    assert is_cut(io.BytesIO(content[:half]), half) is True
    assert is_cut(io.BytesIO(broadcast[:half]), half) is None
    assert decoded(content[:half])[1] == {"truncated"}


def test_an_asf_with_absurd_sizes_is_damaged(tmp_path: Path) -> None:
    content, start = asf(tmp_path / "a.wma")
    absurd = content[:16] + b"\xff" * 8 + content[24:start] + b"\xff" * 24 + content[start + 24 :]
    assert error_of(absurd) in ("decode_error", "no_samples", "no_audio_stream")


# Errors for files that are damaged, unsupported or not audio


HEADS: dict[str, tuple[bytes, str]] = {
    "WavPack": (b"wvpk" + bytes(5000), "decode_error"),
    "Monkey's Audio": (b"MAC \x96\x0f" + bytes(5000), "decode_error"),
    "Musepack": (b"MPCK" + bytes(5000), "decode_error"),
    "DSD": (b"DSD \x1c" + bytes(5000), "decode_error"),
    "transport stream": ((b"\x47\x1f\xff\x10" + bytes(184)) * 20, "decode_error"),
    "Blu-ray stream": ((b"\0\0\0\0\x47\x1f\xff\x10" + bytes(184)) * 20, "decode_error"),
}


@pytest.mark.parametrize("kind", HEADS)
def test_headers_of_audio_without_any_are_damaged_audio(tmp_path: Path, kind: str) -> None:
    content, code = HEADS[kind]
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    assert error_of(path) == code


@pytest.mark.parametrize(("has_stream", "code"), [(True, "unsupported_codec"), (False, "decode_error")])
def test_formats_unknown_to_ffmpeg_are_not_called_damaged(tmp_path: Path, has_stream: bool, code: str) -> None:
    path = write_sound(tmp_path / "a.wav", ORIGINAL)
    raised = av.error.PatchWelcomeError(0x45574150, "not yet implemented")
    error = undecodable(Source(str(path)), raised, has_stream=has_stream)
    assert error.code == code
    assert "damaged" not in str(error)


@pytest.mark.parametrize("stated", [16, 1152, 4095])
def test_a_flac_whose_header_states_too_small_blocks_is_read_completely(tmp_path: Path, stated: int) -> None:
    whole = write_sound(tmp_path / "a.flac", sound(6.0, 16_000), 16_000)  # longer than one read
    content = bytearray(whole.read_bytes())
    assert int.from_bytes(content[10:12], "big") == 4096  # of STREAMINFO
    content[8:10] = min(16, stated).to_bytes(2, "big")
    content[10:12] = stated.to_bytes(2, "big")
    (wrong := tmp_path / "wrong.flac").write_bytes(content)
    np.testing.assert_array_equal(load_waveform(wrong), load_waveform(whole))
    with open_audio(wrong) as stream:
        assert sum(block.size for block in stream) == 6 * 16_000
    assert stream.warnings == set()
