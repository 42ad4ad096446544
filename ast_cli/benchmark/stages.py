"""Time each processing stage between file and logits separately, for 10 s of audio."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from ast_cli.audio.decode import open_audio
from ast_cli.audio.feature_extractor import FeatureExtractor
from ast_cli.benchmark.options import BenchmarkOptions
from ast_cli.benchmark.peers import OURS, SEED
from ast_cli.benchmark.report import Measurement, StageTime
from ast_cli.benchmark.timing import median_and_spread_ms, time_alternating

CLIP_S = 10.0  # length of audio that the times refer to
CLIP_SAMPLING_RATE = 44_100  # Hz; the most common rate of files, so that decoding includes resampling
FBANK_BATCH_SIZE = 8


def front_end_stages(
    extractor: FeatureExtractor, device: torch.device, options: BenchmarkOptions
) -> Iterator[StageTime]:
    """Time decoding a compressed file, and the filter bank for one clip and for several."""
    cpu = torch.device("cpu")
    clip = _generate_clip(CLIP_SAMPLING_RATE)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clip.flac"
        soundfile.write(file, clip, CLIP_SAMPLING_RATE)
        yield _time_stage("decode", partial(_decode, file, extractor.sampling_rate), cpu, 1, CLIP_S, options)
    clip_s = min(CLIP_S, extractor.window_s)
    waveform = _generate_clip(extractor.sampling_rate).mean(axis=1, dtype=np.float32)
    waveform = waveform[: round(clip_s * extractor.sampling_rate)]
    for batch_size in (1, FBANK_BATCH_SIZE):
        clips = [waveform] * batch_size
        step = partial(extractor, clips, extractor.sampling_rate, "pt")
        yield _time_stage("fbank", step, cpu, batch_size, clip_s, options)
    if device.type == "cuda":
        waveforms = torch.from_numpy(waveform).to(device).expand(FBANK_BATCH_SIZE, -1).contiguous()
        on_device = partial(_fbank_on_device, extractor, waveforms)
        yield _time_stage("fbank", on_device, device, FBANK_BATCH_SIZE, clip_s, options)


def _generate_clip(sampling_rate: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a stereo clip of tones in noise, which compresses about as well as music, shape (num_samples, 2)."""
    time_s = np.arange(int(CLIP_S * sampling_rate)) / sampling_rate
    tones = np.stack([np.sin(2 * np.pi * pitch_hz * time_s) for pitch_hz in (440.0, 554.4)], axis=1)
    noise = np.random.default_rng(SEED).standard_normal(tones.shape)
    return (0.3 * tones + 0.03 * noise).astype(np.float32)


def _decode(file: Path, sampling_rate: int) -> int:
    """Decode a file as the tagger does, and return its number of samples at the model's rate."""
    with open_audio(file, sampling_rate=sampling_rate) as stream:
        return sum(block.size for block in stream)


def _fbank_on_device(extractor: FeatureExtractor, waveforms: Tensor) -> Tensor:
    """Compute features of waveforms (batch, num_samples) on their device."""
    input_values: Tensor = extractor.input_values(list(extractor.fbank(waveforms)))
    return input_values


def _time_stage(
    stage: str,
    step: Callable[[], object],
    device: torch.device,
    batch_size: int,
    clip_s: float,
    options: BenchmarkOptions,
) -> StageTime:
    """Time one step that processes ``batch_size`` clips of ``clip_s`` seconds."""
    times_s = time_alternating([step], device, options.num_repeats, options.num_warmups)[0]
    return _stage_time(stage, device, batch_size, *median_and_spread_ms(times_s), batch_size * clip_s)


def model_stage(measurements: Sequence[Measurement], window_s: float, device: torch.device) -> StageTime:
    """Return our fastest measurement, of windows of this many seconds, as the time of the model stage."""
    best = max((m for m in measurements if m.library == OURS), key=lambda m: m.windows_per_s)
    audio_s = best.batch_size * window_s
    return _stage_time("model", device, best.batch_size, best.median_ms, best.spread_ms, audio_s)


def _stage_time(
    stage: str, device: torch.device, batch_size: int, median_ms: float, spread_ms: float, audio_s: float
) -> StageTime:
    """Return a `StageTime`, scaling the times for ``audio_s`` seconds of audio to 10 s."""
    scale = 10 / audio_s
    return StageTime(
        stage, str(device), batch_size, median_ms * scale, spread_ms * scale, times_real_time=audio_s * 1000 / median_ms
    )
