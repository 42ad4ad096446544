from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ast_cli.audio.decode import load_waveform
from ast_cli.audio.front_ends.kaldi import ASTFeatureExtractor
from ast_cli.dataset.examples import Example
from ast_cli.errors import AstError, ErrorCode
from ast_cli.tagging.options import DecodeOptions
from ast_cli.training.data import features
from ast_cli.training.data.features import FeatureStore, compute_features

EXTRACTOR = ASTFeatureExtractor(num_mel_bins=32)


@pytest.fixture
def examples(write_wav: Callable[..., Path], tmp_path: Path) -> list[Example]:
    """Return two whole recordings, with an unreadable one between them, and a part of a recording."""
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"this is text, not audio" * 10)
    first, second = write_wav("first.wav", 1.5), write_wav("second.wav", 2.0, sampling_rate=22050, num_channels=2)
    return [
        Example(str(first), ("Dog",)),
        Example(str(broken), ("Dog",)),
        Example(str(second), ("Cat",)),
        Example(str(first), ("Cat",), start_s=0.5, end_s=1.0),
    ]


def compute(examples: list[Example], tmp_path: Path, **changes: object) -> FeatureStore:
    arguments = {"max_frames": 1024, "folder": tmp_path / "features", "workers": DecodeOptions(0), **changes}
    return compute_features(examples, EXTRACTOR, **arguments)  # type: ignore[arg-type]


def direct(example: Example) -> np.ndarray:
    """Return the fbank of an example, computed directly."""
    duration_s = None if example.end_s is None else example.end_s - example.start_s
    waveform = load_waveform(example.path, 16000, example.start_s, duration_s)
    return EXTRACTOR.fbank(torch.from_numpy(waveform)[None])[0].numpy()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_store_equals_a_direct_computation(examples: list[Example], tmp_path: Path, num_workers: int) -> None:
    seen: list[tuple[int, int]] = []
    store = compute(
        examples, tmp_path, workers=DecodeOptions(num_workers), on_progress=lambda *counts: seen.append(counts)
    )
    assert store.examples == (examples[0], examples[2], examples[3])
    assert len(store) == 3
    assert store[-1].shape == (48, 32)
    for example, fbank in zip(store.examples, store, strict=True):
        assert fbank.dtype == np.float32
        np.testing.assert_allclose(fbank, direct(example), rtol=0, atol=1e-6)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_bad_example_is_reported_and_left_out(examples: list[Example], tmp_path: Path) -> None:
    for _ in range(2):  # computed, then found again
        store = compute(examples, tmp_path)
        ((example, error),) = store.failures
        assert example is examples[1]
        assert error.code == ErrorCode.NOT_AUDIO
        assert "broken.wav" in error.message


def test_examples_are_cut_to_max_frames(examples: list[Example], tmp_path: Path) -> None:
    whole, cut = compute(examples, tmp_path), compute(examples, tmp_path, max_frames=50)
    assert [len(fbank) for fbank in cut] == [50, 50, 48]
    for long, short in zip(whole, cut, strict=True):
        assert np.array_equal(long[:50], short)


def test_long_recordings_are_complete_and_exact_across_blocks(write_wav: Callable[..., Path], tmp_path: Path) -> None:
    example = Example(str(write_wav("long.wav", 20.0)), ("Dog",))
    store = compute([example], tmp_path, max_frames=None, workers=DecodeOptions(1))
    np.testing.assert_allclose(store[0], direct(example), rtol=0, atol=1e-6)


def test_frames_are_read_only(examples: list[Example], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        compute(examples, tmp_path)[0][0, 0] = 1
    with pytest.raises(IndexError):
        compute(examples, tmp_path)[3]


def is_computed_again(
    examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: object
) -> bool:
    calls: list[int] = []
    real = features.compute_spectrograms

    def counted(*arguments: object, **options: object) -> object:
        calls.append(1)
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(features, "compute_spectrograms", counted)
    compute(examples, tmp_path, **changes)
    monkeypatch.setattr(features, "compute_spectrograms", real)
    return bool(calls)


def test_the_same_data_is_computed_once(
    examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_computed_again(examples, tmp_path, monkeypatch)
    assert not is_computed_again(examples, tmp_path, monkeypatch)
    renamed = [Example(e.path, ("Bark",), "train", 1, e.start_s, e.end_s) for e in examples]
    assert not is_computed_again(renamed, tmp_path, monkeypatch)  # labels and splits change no number
    assert compute(renamed, tmp_path).examples[0].labels == ("Bark",)


def test_other_data_is_computed_again(examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute(examples, tmp_path)
    assert is_computed_again(examples[:3], tmp_path, monkeypatch)
    assert is_computed_again(examples[::-1], tmp_path, monkeypatch)
    assert is_computed_again(examples, tmp_path, monkeypatch, max_frames=20)
    status = os.stat(examples[0].path)
    os.utime(examples[0].path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert is_computed_again(examples, tmp_path, monkeypatch)


@pytest.mark.parametrize("fault", ["empty", "torn", "longer", "foreign", "other key"])
def test_a_truncated_or_foreign_file_is_replaced(
    examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    store = compute(examples, tmp_path)
    expected, file = [fbank.copy() for fbank in store], store.file
    content = file.read_bytes()
    key = content[content.index(b'"key": "') + 8 :][:64]
    file.unlink()  # and not in place: the store still maps it
    file.write_bytes(
        {
            "empty": b"",
            "torn": content[:-1],
            "longer": content[:64] + bytes(4) + content[64:],
            "foreign": b"RIFF" * 1000,
            "other key": content.replace(key, b"0" * 64),
        }[fault]
    )
    assert is_computed_again(examples, tmp_path, monkeypatch)
    assert all(np.array_equal(a, b) for a, b in zip(expected, compute(examples, tmp_path), strict=True))


def test_a_file_cut_at_any_length_is_never_taken_for_a_store(examples: list[Example], tmp_path: Path) -> None:
    file = compute(examples, tmp_path).file
    content = file.read_bytes()
    key = content[content.index(b'"key": "') + 8 :][:64].decode()
    assert features._read_index(file, key) is not None
    torn = tmp_path / "torn.bin"
    for length in [*range(0, len(content), 997), *range(len(content) - 600, len(content))]:
        torn.write_bytes(content[:length])
        assert features._read_index(torn, key) is None


def test_a_failure_that_may_be_temporary_is_tried_again(write_wav: Callable[..., Path], tmp_path: Path) -> None:
    late = tmp_path / "late.wav"
    examples = [Example(str(write_wav("first.wav")), ("Dog",)), Example(str(late), ("Cat",))]
    assert len(compute(examples, tmp_path)) == 1
    os.rename(write_wav("other.wav"), late)
    assert len(compute(examples, tmp_path)) == 2


def test_no_file_is_left_if_no_example_could_be_read(examples: list[Example], tmp_path: Path) -> None:
    with pytest.raises(AstError, match=r"none of the 1 recordings could be read; first error: .*broken.wav"):
        compute(examples[1:2], tmp_path)
    assert list((tmp_path / "features").iterdir()) == []


def test_an_interrupted_computation_leaves_nothing(examples: list[Example], tmp_path: Path) -> None:
    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compute(examples, tmp_path, on_progress=interrupt, workers=DecodeOptions(1))
    assert list((tmp_path / "features").iterdir()) == []


def test_what_a_killed_process_left_is_removed_once_it_is_old(examples: list[Example], tmp_path: Path) -> None:
    file = compute(examples, tmp_path).file
    file.unlink()
    old, young = file.with_name(f".{file.name}.1-0.tmp"), file.with_name(f".{file.name}.2-0.tmp")
    old.write_bytes(b"x")
    young.write_bytes(b"x")
    os.utime(old, (0, 0))
    compute(examples, tmp_path)
    assert young.exists()
    assert not old.exists()


def test_a_folder_that_cannot_be_written_is_an_error_of_one_sentence(examples: list[Example], tmp_path: Path) -> None:
    (tmp_path / "features").write_text("a file")
    with pytest.raises(AstError, match=r"features.*cannot be written \(.*\); a minute of audio needs 0.8 MB"):
        compute(examples, tmp_path)
