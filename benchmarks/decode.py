"""Measure the cost of our decoding to mono at 16 kHz, relative to the libraries that it uses.

    python benchmarks/decode.py [--seconds 60] [--rounds 9] [--json FILE]

There are two files of each format: mono at 16 kHz, which only needs decoding, and stereo at 44.1 kHz, which is also
mixed down and resampled. The baseline does the same with soundfile or PyAV, NumPy and soxr in a few lines. It has none
of our checks (header lengths, damaged packets, non-finite samples) and no bound on memory. Both take turns in one
process.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import soxr
from compare import spread
from numpy.typing import NDArray
from peers import describe_machine

from ast_cli import load_waveform

SAMPLING_RATE = 16_000
SOUNDFILE_FORMATS = {  # suffix: format, subtype
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
}
PYAV_CODECS = {"m4a": "aac"}
LAYOUTS = {"16 kHz mono": (16_000, 1), "44.1 kHz stereo": (44_100, 2)}
OPUS_RATE = 48_000  # Hz; Opus supports this rate and a few lower ones
BLOCK_SAMPLES = 65_536  # samples per write; libsndfile's Vorbis encoder crashes on a whole recording
CORRELATION = 0.999  # smallest correlation of the two results, which may differ at their ends


def main() -> None:
    arguments = parse_arguments()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for layout, (rate, num_channels) in LAYOUTS.items():
            for suffix in (*SOUNDFILE_FORMATS, *PYAV_CODECS):
                stereo_rate = OPUS_RATE if suffix == "opus" and num_channels == 2 else rate
                file = Path(folder) / f"{layout}.{suffix}"
                write(file, arguments.seconds, stereo_rate, num_channels)
                rows.append(measure(file, layout, arguments))
    report = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": describe_machine(1),
        "seconds": arguments.seconds,
        "num_rounds": arguments.rounds,
        "rows": rows,
    }
    print("| Format | | ours, x real time | libraries alone | ratio of times |\n| --- | --- | ---: | ---: | ---: |")
    for row in rows:
        print(
            f"| {row['format']} | {row['layout']} | {row['ours_times_real_time']:.0f} | "
            f"{row['libraries_times_real_time']:.0f} | {row['ratio']:.2f} +- {row['ratio_spread']:.2f} |"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def write(file: Path, duration_s: float, rate: int, num_channels: int) -> None:
    """Write a clip of tones in noise, which compresses about as well as music."""
    time_s = np.arange(round(duration_s * rate)) / rate
    tones = np.stack([np.sin(2 * np.pi * hz * time_s) for hz in (440.0, 554.4)[:num_channels]], axis=1)
    noise = np.random.default_rng(0).standard_normal(tones.shape)
    samples = (0.3 * tones + 0.03 * noise).astype(np.float32)
    suffix = file.suffix[1:]
    if suffix in SOUNDFILE_FORMATS:
        format_name, subtype = SOUNDFILE_FORMATS[suffix]
        with soundfile.SoundFile(file, "w", rate, num_channels, subtype, format=format_name) as sound:
            for start in range(0, len(samples), BLOCK_SAMPLES):
                sound.write(samples[start : start + BLOCK_SAMPLES])
        return
    layout = "mono" if num_channels == 1 else "stereo"
    with av.open(str(file), "w") as container:
        stream = container.add_stream(PYAV_CODECS[suffix], rate=rate, layout=layout)
        for start in range(0, len(samples), BLOCK_SAMPLES):
            block = np.ascontiguousarray(samples[start : start + BLOCK_SAMPLES].T)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            frame.sample_rate = rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def by_soundfile(file: Path) -> NDArray[np.float32]:
    samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    return resampled(mono(samples.T), rate)


def by_pyav(file: Path) -> NDArray[np.float32]:
    with av.open(str(file)) as container:
        stream = container.streams.audio[0]
        blocks = [frame.to_ndarray() for frame in container.decode(stream)]
        rate = stream.rate
    return resampled(mono(np.concatenate(blocks, axis=1)), rate)


def mono(channels: NDArray[np.float32]) -> NDArray[np.float32]:
    if len(channels) == 1:
        return channels[0]
    total = channels[0] + channels[1]
    total *= np.float32(0.5)
    return total


def resampled(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    return samples if rate == SAMPLING_RATE else soxr.resample(samples, rate, SAMPLING_RATE, quality="HQ")


def measure(file: Path, layout: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Time our decoder and the libraries in turn, after checking that both return the same sound."""
    libraries = by_soundfile if file.suffix[1:] in SOUNDFILE_FORMATS else by_pyav
    check_equality(load_waveform(file), libraries(file), file)
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(arguments.rounds):
        ours.append(timed(lambda: load_waveform(file)))
        theirs.append(timed(lambda: libraries(file)))
    ratios = [mine / plain for mine, plain in zip(ours, theirs, strict=True)]
    return {
        "format": file.suffix[1:],
        "layout": layout,
        "ours_times_real_time": arguments.seconds / statistics.median(ours),
        "libraries_times_real_time": arguments.seconds / statistics.median(theirs),
        "ratio": statistics.median(ratios),
        "ratio_spread": spread(ratios),
    }


def check_equality(ours: NDArray[np.float32], theirs: NDArray[np.float32], file: Path) -> None:
    """Exit with an error if the sounds differ; the padding of codecs at the ends may differ by a block."""
    length = min(ours.size, theirs.size)
    if not np.corrcoef(ours[:length], theirs[:length])[0, 1] > CORRELATION:
        raise SystemExit(f"error: {file.name}: the decoded sounds differ, so the times do not compare")


def timed(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
