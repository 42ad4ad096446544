from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ast_cli.audio.decode import load_waveform
from ast_cli.audio.front_ends.kaldi import ASTFeatureExtractor
from ast_cli.dataset.examples import Example
from ast_cli.errors import AstError, CheckpointError, UsageError
from ast_cli.hub.folders import checkpoint_folder
from ast_cli.tagging.options import DecodeOptions
from ast_cli.training.data.statistics import (
    FbankStatistics,
    Moments,
    apply_statistics,
    compute_statistics,
    mean_and_std,
)

EXTRACTOR = ASTFeatureExtractor(num_mel_bins=32, max_length=100)


@pytest.fixture
def examples(write_wav: Callable[..., Path], tmp_path: Path) -> list[Example]:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"this is text, not audio" * 10)
    first, second = write_wav("first.wav", 0.5), write_wav("second.wav", 12.0)
    return [
        Example(str(first), ()),
        Example(str(second), ()),
        Example(str(broken), ()),
        Example(str(second), (), start_s=1.0, end_s=1.75),
    ]


def direct(examples: list[Example]) -> list[np.ndarray]:
    """Return the fbank of each readable example, computed directly."""
    parts = [(e.path, 16000, e.start_s, None if e.end_s is None else e.end_s - e.start_s) for e in examples]
    waveforms = [load_waveform(*part) for part in parts if "broken" not in part[0]]
    return [EXTRACTOR.fbank(torch.from_numpy(waveform)[None])[0].numpy().astype(np.float64) for waveform in waveforms]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_statistics_equal_a_direct_computation(examples: list[Example], num_workers: int) -> None:
    statistics = compute_statistics(examples, EXTRACTOR, workers=DecodeOptions(num_workers))
    frames = np.concatenate(direct(examples))
    assert statistics.mean == pytest.approx(frames.mean(), abs=1e-6)  # the promise is 1e-4
    assert statistics.std == pytest.approx(frames.std(), abs=1e-6)
    assert (statistics.num_examples, statistics.num_frames, statistics.num_padded_frames) == (3, len(frames), 0)
    assert statistics.duration_s == pytest.approx(0.5 + 12.0 + 0.75, abs=1e-3)
    ((example, error),) = statistics.failures
    assert example is examples[2]
    assert "broken.wav" in error.message


@pytest.mark.parametrize("max_frames", [None, 60])
def test_padded_statistics_equal_a_direct_computation(examples: list[Example], max_frames: int | None) -> None:
    statistics = compute_statistics(examples, EXTRACTOR, max_frames=max_frames, padded=True, workers=DecodeOptions(0))
    length = max_frames or 100
    clips = [np.zeros((length, 32)) for _ in range(3)]
    for clip, fbank in zip(clips, direct(examples), strict=True):
        clip[: len(fbank)] = fbank[:length]
    frames = np.concatenate(clips)
    assert statistics.mean == pytest.approx(frames.mean(), abs=1e-6)
    assert statistics.std == pytest.approx(frames.std(), abs=1e-6)
    assert statistics.num_frames == 3 * length
    assert statistics.num_padded_frames == sum(max(0, length - len(fbank)) for fbank in direct(examples)) > 0


def test_frames_beyond_max_frames_do_not_count(examples: list[Example]) -> None:
    statistics = compute_statistics(examples, EXTRACTOR, max_frames=60, workers=DecodeOptions(0))
    frames = np.concatenate([fbank[:60] for fbank in direct(examples)])
    assert statistics.mean == pytest.approx(frames.mean(), abs=1e-6)
    assert statistics.num_frames == len(frames) == 60 + 60 + 48
    assert statistics.duration_s == pytest.approx(0.6 + 0.6 + 0.5, abs=0.3)


def test_inputs_normalized_by_the_statistics_have_mean_0_and_deviation_a_half(examples: list[Example]) -> None:
    statistics = compute_statistics(examples[1:2], EXTRACTOR, max_frames=100, workers=DecodeOptions(0))
    extractor = ASTFeatureExtractor(num_mel_bins=32, max_length=100, mean=statistics.mean, std=statistics.std)
    values = extractor(load_waveform(examples[1].path), 16000, return_tensors="np")["input_values"]
    assert values.mean() == pytest.approx(0, abs=1e-5)
    assert values.std() == pytest.approx(0.5, abs=1e-5)


def test_moments_are_exact_far_from_zero(rng: np.random.Generator) -> None:
    numbers = 1e8 + rng.standard_normal(100_000)
    moments, other = Moments(), Moments()
    for block in np.split(numbers[:60_000], 60):
        moments.add(block)
    other.add(numbers[60_000:])
    other.add(np.zeros((0, 4)))
    moments.merge(other)
    moments.merge(Moments())
    assert moments.count == 100_000
    assert moments.mean == pytest.approx(numbers.mean(), abs=1e-6)
    assert moments.std == pytest.approx(numbers.std(), rel=1e-6)
    assert (Moments().mean, Moments().std) == (0.0, 0.0)


def test_statistics_of_stored_fbanks(rng: np.random.Generator) -> None:
    fbanks = [rng.standard_normal((length, 4)).astype(np.float32) for length in (3, 50, 7)]
    together = np.concatenate(fbanks).astype(np.float64)
    assert mean_and_std(fbanks) == pytest.approx((together.mean(), together.std()), abs=1e-9)


def test_data_without_readable_recordings_is_an_error(examples: list[Example]) -> None:
    with pytest.raises(AstError, match=r"none of the 1 recordings could be read; first error: .*broken\.wav"):
        compute_statistics(examples[2:3], EXTRACTOR, workers=DecodeOptions(0))


def statistics_of(**changes: float) -> FbankStatistics:
    values = {"mean": -5.5, "std": 4.25, "num_mel_bins": 128, "num_examples": 1, "num_frames": 9}
    return FbankStatistics(**{**values, "num_padded_frames": 0, "duration_s": 1.0, **changes})  # type: ignore[arg-type]


def test_applying_statistics_changes_no_other_keys(tmp_path: Path) -> None:
    file = tmp_path / "preprocessor_config.json"
    shutil.copy(checkpoint_folder("builtin") / file.name, file)
    before = json.loads(file.read_text())
    bins = before["num_mel_bins"]
    file.write_text(json.dumps({**before, "own_key": [1, 2]}))
    assert apply_statistics(statistics_of(num_mel_bins=bins), tmp_path) == file
    assert json.loads(file.read_text()) == {**before, "own_key": [1, 2], "mean": -5.5, "std": 4.25}
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_statistics_of_another_filter_bank_are_not_applied(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"contains no preprocessor_config\.json"):
        apply_statistics(statistics_of(), tmp_path)
    file = tmp_path / "preprocessor_config.json"
    content = json.dumps({"num_mel_bins": 64})
    file.write_text(content)
    with pytest.raises(UsageError, match="has 64 mel bins, but the statistics are of 128"):
        apply_statistics(statistics_of(), tmp_path)
    with pytest.raises(UsageError, match="all frames are equal"):
        apply_statistics(statistics_of(std=0.0, num_mel_bins=64), tmp_path)
    assert file.read_text() == content
    file.write_text(json.dumps({"feature_extractor_type": "ClapFeatureExtractor"}))
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: needs another front end, 'Clap"):
        apply_statistics(statistics_of(), tmp_path)
