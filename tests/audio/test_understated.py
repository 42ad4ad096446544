"""Files that hold more than their headers say are read to the end, or say what is amiss; others stay the same."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from audio_files import RATE, data_offset, patched, sound, truncated, write_by_ffmpeg, write_sound
from numpy.typing import NDArray
from test_broken_files import decoded, error_of, with_flac_total

from ast_cli.audio import decode, ogg
from ast_cli.audio.claims import xing_claim
from ast_cli.audio.decoders import undecodable
from ast_cli.audio.source import Source
from ast_cli.audio.understated import holds_more, riff_goes_on
from ast_cli.errors import ErrorCode

DURATION_S = 4.0
ORIGINAL = sound(DURATION_S)
SHARES = [0.02, 0.3, 0.6, 0.9]


@pytest.fixture
def by_libsndfile_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sound file needs no second decoder."""
    monkeypatch.setattr(decode, "PyAVDecoder", lambda _source: pytest.fail("FFmpeg was asked"))


# Sizes too small


@pytest.mark.parametrize("share", SHARES)
def test_a_flac_that_counts_too_few_samples_is_read_to_the_end(tmp_path: Path, share: float) -> None:
    samples, warnings = decoded(with_flac_total(tmp_path / "a.flac", round(share * len(ORIGINAL))))
    np.testing.assert_allclose(samples, ORIGINAL[:, 0], rtol=0, atol=2.0**-15)
    assert warnings == {"length_mismatch"}


@pytest.mark.parametrize("seed", range(20))
def test_a_right_flac_is_not_suspected(tmp_path: Path, seed: int, by_libsndfile_alone: None) -> None:
    noise = np.random.default_rng(seed).uniform(
        -1, 1, (200_000, 1)
    )  # hardly compressed: 400 KB of what may look like headers
    assert decoded(write_sound(tmp_path / "a.flac", noise))[1] == set()


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT", "IMA_ADPCM"])
def test_a_wav_with_too_small_a_size_is_read_to_the_end(tmp_path: Path, share: float, subtype: str) -> None:
    path = write_sound(tmp_path / "a.wav", sound(12.0), subtype=subtype)
    expected = decoded(path)[0]
    start = data_offset(path)
    size = round(share * (path.stat().st_size - start)) // 1024 * 1024
    samples, warnings = decoded(patched(path, start - 4, struct.pack("<I", size)))
    assert samples.size >= expected.size
    np.testing.assert_allclose(samples[: expected.size], expected, rtol=0, atol=2.0**-14)
    assert warnings == {"length_mismatch"}


@pytest.mark.parametrize("share", SHARES)
def test_an_au_with_too_small_a_size_is_read_to_the_end(tmp_path: Path, share: float) -> None:
    size = round(share * 2 * len(ORIGINAL)) // 2 * 2
    samples, warnings = decoded(patched(write_sound(tmp_path / "a.au", ORIGINAL), 8, struct.pack(">I", size)))
    np.testing.assert_allclose(samples, ORIGINAL[:, 0], rtol=0, atol=2.0**-15)
    assert warnings == {"length_mismatch"}


@pytest.mark.parametrize("share", SHARES[1:])
@pytest.mark.parametrize(("container", "chunk", "layout"), [("AIFF", b"SSND", ">I"), ("CAF", b"data", ">q")])
def test_an_aiff_or_caf_with_too_small_a_size_says_so(
    tmp_path: Path, share: float, container: str, chunk: bytes, layout: str
) -> None:
    path = write_sound(tmp_path / "a.bin", ORIGINAL, container=container)
    size = round(share * 2 * len(ORIGINAL)) // 1024 * 1024
    patched(path, path.read_bytes().index(chunk) + 4, struct.pack(layout, size))
    if container == "AIFF":  # it counts its samples in a chunk of their own, too
        patched(path, path.read_bytes().index(b"COMM") + 10, struct.pack(">I", size // 2))
    samples, warnings = decoded(path)
    assert samples.size >= (size - 16) // 2
    assert "length_mismatch" in warnings


@pytest.mark.parametrize("container", ["WAV", "AIFF", "FLAC", "AU", "CAF", "MP3"])
def test_tags_behind_the_audio_are_no_audio(tmp_path: Path, container: str, by_libsndfile_alone: None) -> None:
    path = write_sound(tmp_path / "a.bin", ORIGINAL, container=container)
    picture = np.random.default_rng(0).bytes(4000 if container in ("AU", "MP3") else 60_000)
    with path.open("ab") as file:
        file.write(b"ID3\x04\0\0" + bytes([0, 3, 0x54, 0x60]) + picture)
    samples, warnings = decoded(path)
    assert (abs(samples.size - len(ORIGINAL)) <= 1, warnings) == (True, set())


def test_a_few_bytes_behind_the_samples_are_for_the_decoder_that_needs_them(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", ORIGINAL)
    with path.open("ab") as file:
        file.write(bytes(range(200)))
    with path.open("rb") as file:
        assert riff_goes_on(file, path.stat().st_size)
        assert not holds_more(file, path.stat().st_size)


# MP3: lengths foreseen by the first frame


def mp3(path: Path, samples: NDArray[np.float64], bit_rate: int) -> bytes:
    """Return frames of one bit rate, none of which claims anything."""
    options = {"write_xing": "0", "id3v2_version": "0"}
    return write_by_ffmpeg(path, samples, codec="libmp3lame", bit_rate=bit_rate, options=options).read_bytes()


@pytest.mark.parametrize("rates", [(160_000, 16_000), (16_000, 160_000)])
def test_an_mp3_of_changing_bit_rates_without_a_claim_is_read_to_the_end(
    tmp_path: Path, rates: tuple[int, int]
) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(b"".join(mp3(tmp_path / "part.mp3", sound(10.0), rate) for rate in rates))
    samples, warnings = decoded(path)
    assert samples.size == pytest.approx(20.0 * RATE, rel=0.02)
    assert warnings <= {"partial"}  # where one recording meets the other, bits of the first are missing


def test_an_mp3_of_one_bit_rate_stays_with_libsndfile(tmp_path: Path, by_libsndfile_alone: None) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(mp3(path, sound(10.0), 64_000))
    assert decoded(path)[0].size == pytest.approx(10.0 * RATE, rel=0.02)


def with_vbri(path: Path) -> int:
    """Write an MP3 whose first frame states frames and bytes as Fraunhofer's encoder does; return the frames."""
    content = bytearray(mp3(path, ORIGINAL, 64_000))
    num_frames = len(content) // (72 * 64_000 // RATE)  # of MPEG 2, 576 samples each
    content[36 : 36 + 18] = b"VBRI" + struct.pack(">HHHII", 1, 0, 75, len(content), num_frames)
    path.write_bytes(content)
    return num_frames


def test_the_claim_of_fraunhofers_encoder_is_heard(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    num_frames = with_vbri(path)
    samples, warnings = decoded(path)
    assert samples.size == pytest.approx(num_frames * 576, abs=2 * 1152)
    assert "truncated" not in warnings
    assert decoded(truncated(path, path.stat().st_size // 2))[1] == {"truncated"}


def test_the_claim_of_an_mp3_is_found_behind_two_tags_and_junk(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.mp3", ORIGINAL)
    with path.open("rb") as file:
        expected = xing_claim(file)
    assert expected is not None
    assert expected.end_byte == path.stat().st_size
    tag = b"ID3\x04\0\x10" + bytes([0, 0, 1, 0]) + bytes(128) + b"3DI\x04\0\x10" + bytes([0, 0, 1, 0])  # with a footer
    second = b"ID3\x03\0\0" + bytes([0, 0, 0, 10]) + b"Info Xing."
    junk = b"\xff\xfb junk"
    path.write_bytes(tag + second + junk + path.read_bytes())
    with path.open("rb") as file:
        claim = xing_claim(file)
    assert claim is not None
    assert (claim.num_samples, claim.end_byte) == (expected.num_samples, path.stat().st_size)
    assert decoded(truncated(path, path.stat().st_size // 2))[1] == {"truncated"}


# Ogg: audio that begins on a page of headers


def page(flags: int, granule: int, serial: int, number: int, lacing: bytes, body: bytes) -> bytes:
    head = struct.pack("<4sxBqIIIB", b"OggS", flags, granule, serial, number, 0, len(lacing)) + lacing
    crc = zlib.crc32((head + body).translate(ogg.REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return head[:22] + struct.pack("<I", int(f"{crc:032b}"[::-1], 2)) + head[26:] + body


def test_a_vorbis_file_whose_audio_begins_on_a_page_of_headers_is_read_whole(tmp_path: Path) -> None:
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
    assert soundfile.info(path).frames < 0.9 * len(ORIGINAL)  # which is why it is not believed
    samples, warnings = decoded(path)
    assert warnings == set()
    np.testing.assert_allclose(samples, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("subtype", "offset"), [("OPUS", 9), ("VORBIS", 11)])
def test_an_ogg_that_states_no_channels_is_refused_for_that(tmp_path: Path, subtype: str, offset: int) -> None:
    path = write_sound(tmp_path / "a.ogg", ORIGINAL, container="OGG", subtype=subtype)
    content = path.read_bytes()
    first = ogg.parse_page(content, 0)
    assert first.body[offset] == 1
    body = first.body[:offset] + b"\0" + first.body[offset + 1 :]
    path.write_bytes(page(2, 0, first.serial, 0, bytes([len(body)]), body) + content[first.num_bytes :])
    assert error_of(path) == "bad_channels"


# Matroska: tracks of their own length, and keys


def test_a_video_longer_than_its_audio_is_no_loss(tmp_path: Path) -> None:
    path = write_by_ffmpeg(tmp_path / "a.mkv", sound(0.5), codec="aac", container="matroska", video=True)
    with av.open(str(path)) as container:
        assert container.duration is not None
        assert container.duration > 900_000
    samples, warnings = decoded(path)
    assert samples.size == pytest.approx(0.5 * RATE, abs=2048)
    assert warnings == set()


def element(name: str, content: bytes) -> bytes:
    return bytes.fromhex(name) + (1 << 56 | len(content)).to_bytes(8) + content


def grown(content: bytes, name: str, addition: bytes) -> bytes:
    """Add to the end of the first element of a name, and to its size."""
    start = content.index(bytes.fromhex(name)) + len(name) // 2
    width = 9 - content[start].bit_length()
    size = int.from_bytes(content[start : start + width]) - (1 << 7 * width)
    inner = content[start + width : start + width + size] + addition
    return content[:start] + (1 << 56 | len(inner)).to_bytes(8) + inner + content[start + width + size :]


def test_a_webm_with_a_key_is_encrypted(tmp_path: Path) -> None:
    path = write_by_ffmpeg(tmp_path / "a.webm", sound(1.0, 48000), 48000, "libopus", "webm", into_pipe=True)
    key = element("5035", element("47e1", b"\5") + element("47e2", bytes(range(16))))
    encoding = element("6d80", element("6240", element("5032", b"\1") + element("5033", b"\1") + key))
    content = path.read_bytes()
    start = content.rindex(bytes.fromhex("1654ae6b"))  # Tracks (a list of places names them before): their entry grows
    width = 9 - content[start + 4].bit_length()
    size = int.from_bytes(content[start + 4 : start + 4 + width]) - (1 << 7 * width)
    tracks = content[start + 4 + width : start + 4 + width + size]
    tracks = grown(tracks[6 * tracks.startswith(b"\xbf\x84") :], "ae", encoding)  # without its checksum
    path.write_bytes(content[:start] + element("1654ae6b", tracks) + content[start + 4 + width + size :])
    assert error_of(path) == "encrypted"


# What a file is meant to be


HEADS: dict[str, bytes] = {
    "WavPack": b"wvpk" + bytes(5000),
    "Monkey's Audio": b"MAC \x96\x0f" + bytes(5000),
    "Musepack": b"MPCK" + bytes(5000),
    "DSD": b"DSD \x1c" + bytes(5000),
    "transport stream": (b"\x47\x1f\xff\x10" + bytes(184)) * 20,
    "Blu-ray stream": (b"\0\0\0\0\x47\x1f\xff\x10" + bytes(184)) * 20,
}


@pytest.mark.parametrize("kind", HEADS)
def test_headers_of_audio_without_any_are_damaged_audio(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(HEADS[kind])
    assert error_of(path) in ("decode_error", "no_audio_stream", "no_samples")


def test_what_ffmpeg_does_not_know_yet_is_no_damage(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", ORIGINAL)
    error = undecodable(Source(str(path)), av.error.PatchWelcomeError(0x45574150, "not yet implemented"))
    assert error.code == ErrorCode.UNSUPPORTED_CODEC
