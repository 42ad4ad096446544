"""Functions that create small audio files of every kind, and functions that damage them."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 16000  # Hz; the model's rate, unless a test is about resampling
WRITE_SAMPLES = 4096  # libsndfile's Vorbis encoder can crash on a long array: write in blocks


def sound(duration_s: float = 1.0, rate: int = RATE, num_channels: int = 1, seed: int = 0) -> NDArray[np.float64]:
    """Return three tones with a slow swell and a little noise, peak below 0.6, shape (num_samples, num_channels)."""
    num_samples = round(duration_s * rate)
    time = np.arange(num_samples)[:, None] / rate
    phase = np.arange(num_channels)[None]
    tones = sum(0.15 * np.sin(2 * np.pi * hz * time + phase) for hz in (220.0, 450.0, 1100.0))
    noise = np.random.default_rng(seed).uniform(-0.02, 0.02, (num_samples, num_channels))
    swell = 0.75 + 0.25 * np.sin(2 * np.pi * 1.7 * time)
    samples: NDArray[np.float64] = tones * swell + noise
    return samples


def write_sound(
    path: Path,
    samples: NDArray[Any],
    rate: int = RATE,
    container: str | None = None,
    subtype: str | None = None,
    endian: str | None = None,
) -> Path:
    """Write a file with libsndfile, in blocks; by default, the extension determines the format."""
    num_channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(path, "w", rate, num_channels, subtype, endian, container) as file:
        for start in range(0, len(samples), WRITE_SAMPLES):
            file.write(samples[start : start + WRITE_SAMPLES])
    return path


def write_by_ffmpeg(
    path: Path,
    samples: NDArray[Any],
    rate: int = RATE,
    codec: str = "aac",
    container: str | None = None,
    video: bool = False,
    audio: bool = True,
    bit_rate: int | None = None,
    options: dict[str, str] | None = None,
    into_pipe: bool = False,
    first_pts: int = 0,
) -> Path:
    """Write a file with FFmpeg, optionally with a second of black video, or without seeking, as into a pipe."""
    rest = (path, samples, rate, codec, container, video, audio, bit_rate, options, first_pts)
    if into_pipe:
        with path.open("wb") as raw:
            return _write(Pipe(raw), *rest)
    return _write(str(path), *rest)


class Pipe:
    """A file that can only be written to."""

    def __init__(self, raw: BinaryIO) -> None:
        self.write = raw.write


def _write(
    target: Any,
    path: Path,
    samples: NDArray[Any],
    rate: int,
    codec: str,
    container: str | None,
    video: bool,
    audio: bool,
    bit_rate: int | None,
    options: dict[str, str] | None,
    first_pts: int,
) -> Path:
    with av.open(target, "w", format=container, options=options or {}) as output:
        picture = _add_picture(output) if video else None
        if audio:
            _mux_audio(output, samples, rate, codec, bit_rate, first_pts)
        if picture is not None:
            _mux_picture(output, picture)
    return path


def _mux_audio(output: Any, samples: NDArray[Any], rate: int, codec: str, bit_rate: int | None, first_pts: int) -> None:
    samples = np.atleast_2d(samples.T).T
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1", 16: "hexadecagonal", 24: "22.2"}[samples.shape[1]]
    stream = output.add_stream(codec, rate=rate, layout=layout)
    if bit_rate is not None:
        stream.bit_rate = bit_rate
    for start in range(0, len(samples), WRITE_SAMPLES):
        # Interleaved, because for eight planar channels PyAV requires nine.
        row = samples[start : start + WRITE_SAMPLES].astype(np.float32).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(row, format="flt", layout=layout)
        frame.sample_rate, frame.pts = rate, first_pts + start
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def _add_picture(output: Any) -> Any:
    stream = output.add_stream("mpeg4", rate=10)
    stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
    return stream


def _mux_picture(output: Any, stream: Any) -> None:
    for index in range(10):
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        frame.pts = index
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def write_flac_of_single_samples(path: Path, samples: NDArray[np.int16], rate: int = RATE) -> Path:
    """Write a FLAC with one sample per block, mono, 16 bits (RFC 9639), which libFLAC reads but FFmpeg does not."""
    info = struct.pack(">HH6xQ", 1, 1, rate << 44 | 15 << 36 | len(samples)) + hashlib.md5(samples.tobytes()).digest()
    frames = [_flac_frame(_flac_number(index), struct.pack(">h", int(sample))) for index, sample in enumerate(samples)]
    path.write_bytes(b"fLaC\x80" + len(info).to_bytes(3) + info + b"".join(frames))
    return path


def _flac_frame(number: bytes, sample: bytes) -> bytes:
    """Return a frame with one block of one verbatim sample; the header ends with a CRC-8, the frame with a CRC-16."""
    header = b"\xff\xf8\x60\x08" + number + b"\0"
    frame = header + bytes([_crc(header, 0x07, 8)]) + b"\x02" + sample
    return frame + _crc(frame, 0x8005, 16).to_bytes(2)


def _flac_number(number: int) -> bytes:
    """Return a frame's number in the encoding of UTF-8."""
    return chr(number).encode("utf-8", "surrogatepass")


def _crc(content: bytes, polynomial: int, num_bits: int) -> int:
    remainder = 0
    for byte in content:
        remainder ^= byte << num_bits - 8
        for _ in range(8):
            carries = remainder >> num_bits - 1
            remainder = (remainder << 1 ^ carries * polynomial) & (1 << num_bits) - 1
    return remainder


def patched(path: Path, offset: int, replacement: bytes) -> Path:
    """Overwrite bytes of a file in place."""
    content = bytearray(path.read_bytes())
    content[offset : offset + len(replacement)] = replacement
    path.write_bytes(content)
    return path


def truncated(path: Path, num_bytes: int) -> Path:
    """Truncate a file in place."""
    os.truncate(path, num_bytes)
    return path


def data_offset(path: Path, name: bytes = b"data") -> int:
    """Return the offset of the content of a RIFF chunk: 8 bytes after its name."""
    return path.read_bytes().index(name) + 8


def with_flac_total(path: Path, samples: NDArray[Any], num_samples: int) -> Path:
    """Write a FLAC whose header states a wrong number of samples."""
    write_sound(path, samples)
    (fields,) = struct.unpack(">Q", path.read_bytes()[18:26])  # the total is the last 36 bits
    return patched(path, 18, struct.pack(">Q", fields >> 36 << 36 | num_samples))
