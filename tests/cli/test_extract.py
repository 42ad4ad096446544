from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from ast_cli.errors import ExitCode, UsageError
from ast_cli.tagging.extract.targets import plan_targets
from ast_cli.tagging.inputs import Input

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Write = Callable[..., Path]


def test_embedding_of_one_file_goes_to_the_file_named(run_ast: Run, write_wav: Write, tmp_path: Path) -> None:
    target = tmp_path / "out.npz"
    done = run_ast("extract", str(write_wav("a.wav", 12.0)), "--model", "builtin", "--output", str(target))
    assert done.returncode == ExitCode.OK
    assert done.stdout == f"{target}  embedding 192, window_embeddings 3x192, start_s 3, end_s 3\n"
    with np.load(target) as arrays:
        assert arrays["embedding"].dtype == np.float32
        np.testing.assert_allclose(arrays["embedding"], arrays["window_embeddings"].mean(axis=0), atol=1e-6)
        metadata = json.loads(str(arrays["metadata"]))
    assert (metadata["model"], metadata["what"], metadata["duration_s"]) == ("builtin", "embedding", 12.0)


def test_folder_is_mirrored_and_the_bad_file_is_reported(run_ast: Run, write_wav: Write, tmp_path: Path) -> None:
    write_wav("in/x.wav")
    write_wav("in/sub/x.wav")
    write_wav("in/x.flac")
    (tmp_path / "in" / "bad.wav").write_bytes(b"")
    done = run_ast("extract", "in", "--what", "fbank", "--format", "npy", "--output", "out", cwd=tmp_path)
    assert done.returncode == ExitCode.SOME_FAILED
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert written == ["sub/x.wav.npy", "x.flac.npy", "x.wav.npy"]
    assert np.load(tmp_path / "out" / "x.wav.npy").shape == (98, 128)
    assert "error: " in done.stderr
    assert "3 of 4 inputs extracted, 1 failed" in done.stderr
    assert "note:" not in done.stderr  # the fbank needs no model, so none is chosen


def test_logits_in_safetensors_bring_their_labels(run_ast: Run, write_wav: Write, tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"
    done = run_ast("extract", str(write_wav("a.wav")), "--what", "logits", "-m", "builtin", "-o", str(target))
    assert done.returncode == ExitCode.OK
    with safe_open(target, "np") as opened:
        assert opened.get_tensor("logits").shape == (14,)
        assert json.loads(opened.metadata()["ast"])["id2label"]["8"] == "Rain"


def test_channels_are_an_axis_of_the_file_and_in_its_facts(run_ast: Run, write_wav: Write, tmp_path: Path) -> None:
    write_wav("stereo.wav", 6.0, num_channels=2)
    command = ["extract", "stereo.wav", "--model", "builtin", "--channels"]
    each = run_ast(*command, "each", "-o", "each.npz", cwd=tmp_path)
    assert each.stdout == "each.npz  embedding 2x192, window_embeddings 2x2x192, start_s 2, end_s 2\n"
    second = run_ast(*command, "2", "-o", "second.npz", cwd=tmp_path)
    assert second.stdout == "second.npz  embedding 192, window_embeddings 2x192, start_s 2, end_s 2\n"
    with np.load(tmp_path / "each.npz") as all_channels, np.load(tmp_path / "second.npz") as one:
        np.testing.assert_allclose(all_channels["embedding"][1], one["embedding"], atol=1e-5)
        facts = [json.loads(str(file["metadata"])) for file in (all_channels, one)]
    assert [(fact["num_channels"], fact["channels"]) for fact in facts] == [(2, "each"), (2, 2)]
    third = run_ast(*command, "3", "-o", "third.npz", cwd=tmp_path)
    assert (third.returncode, (tmp_path / "third.npz").exists()) == (ExitCode.SOME_FAILED, False)
    assert "error: stereo.wav: there is no channel 3 (--channels 3): it has 2 channels" in third.stderr


def test_existing_file_is_kept_unless_forced(run_ast: Run, write_wav: Write, tmp_path: Path) -> None:
    target, path = tmp_path / "out.npy", str(write_wav("a.wav"))
    target.write_bytes(b"precious")
    refused = run_ast("extract", path, "--what", "fbank", "-o", str(target))
    assert (refused.returncode, target.read_bytes()) == (ExitCode.USAGE, b"precious")
    assert run_ast("extract", path, "--what", "fbank", "-o", str(target), "--force").returncode == ExitCode.OK
    assert np.load(target).shape == (98, 128)


def test_input_is_never_the_output(run_ast: Run, write_wav: Write, tmp_path: Path) -> None:
    audio = tmp_path / "x.npz"
    audio.write_bytes(write_wav("a.wav").read_bytes())
    before = audio.read_bytes()
    done = run_ast("extract", "./x.npz", "--what", "fbank", "-o", "x.npz", "--force", cwd=tmp_path)
    assert (done.returncode, audio.read_bytes() == before) == (ExitCode.USAGE, True)


def test_facts_are_the_recordings_though_only_its_first_window_is_extracted(
    run_ast: Run, write_wav: Write, tmp_path: Path
) -> None:
    path, target = str(write_wav("a.wav", 12.0)), tmp_path / "out.npz"
    assert run_ast("extract", path, "--what", "hidden-states", "-m", "builtin", "-o", str(target)).returncode == 0
    with np.load(target) as arrays:
        assert arrays["hidden_states"].shape == (1, 7, 258, 192)
        assert json.loads(str(arrays["metadata"]))["duration_s"] == 12.0


def test_long_names_fit_a_file_system(tmp_path: Path) -> None:
    planned = plan_targets(inputs("x" * 251 + ".wav", "x" * 251 + ".flac"), tmp_path, "safetensors", force=False)
    assert len({path.name for path in planned}) == 2
    assert all(len(path.name.encode()) <= 250 for path in planned)


def inputs(*paths: str) -> list[Input]:
    return [Input(path) for path in paths]


def test_targets_leave_the_common_folder_away(tmp_path: Path) -> None:
    planned = plan_targets(inputs("in/a/x.wav", "in/b/x.wav", "in/b/y.mp3"), tmp_path / "out", None, force=False)
    relative = [path.relative_to(tmp_path / "out").as_posix() for path in planned]
    assert relative == ["a/x.wav.npz", "b/x.wav.npz", "b/y.mp3.npz"]


def test_targets_stay_inside_the_folder_and_apart(tmp_path: Path) -> None:
    planned = plan_targets(inputs("../../x.wav", "a.wav", "A.WAV", "a.mp3", "-"), tmp_path, "npy", force=False)
    assert all(path.resolve().is_relative_to(tmp_path.resolve()) for path in planned)
    assert len({str(path).casefold() for path in planned}) == 5


@pytest.mark.parametrize(
    ("paths", "output", "format_name", "message"),
    [
        (["a.wav", "b.wav"], "out.npz", None, "is one file and there are 2 inputs: name a folder"),
        (["a.wav"], "out.npz", "npy", "does not end in .npy"),
        (["a.wav"], "e.csv", None, "--output e.csv: .csv is not written; name a file that ends in .npz, .npy or .safe"),
        (["a.wav", "b.wav"], "e.h5", "npz", "or .safetensors, or a folder; one of such a name has to be there already"),
    ],
)
def test_impossible_targets_are_refused(paths: list[str], output: str, format_name: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan_targets(inputs(*paths), Path(output), format_name, force=False)


@pytest.mark.parametrize("name", ["out", "v1.2", "features.there"])
def test_what_has_no_suffix_or_is_there_is_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "features.there").mkdir()
    assert plan_targets(inputs("a.wav"), tmp_path / name, None, force=False) == [tmp_path / name / "a.wav.npz"]


def test_a_name_of_another_format_leaves_nothing_behind(run_ast: Run, write_wav: Write, tmp_path: Path) -> None:
    write_wav("a.wav")
    done = run_ast("extract", "a.wav", "--what", "fbank", "--output", "e.csv", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert done.stderr == (
        "error: --output e.csv: .csv is not written; name a file that ends in .npz, .npy or .safetensors, or a folder; "
        "one of such a name has to be there already\n"
    )
    assert not (tmp_path / "e.csv").exists()


@pytest.mark.parametrize(
    ("what", "shape"), [("attentions", (1, 6, 3, 258, 258)), ("hidden-states", (1, 7, 258, 192)), ("embedding", (192,))]
)
def test_what_torch_alone_computes_needs_no_engine_named(
    what: str, shape: tuple[int, ...], run_ast: Run, write_wav: Write, tmp_path: Path
) -> None:
    path, arrays = str(write_wav("a.wav")), {}
    for engine in ([], ["--engine", "torch"]):
        target = tmp_path / f"out-{len(engine)}.npy"
        done = run_ast("extract", path, "--what", what, "--device", "cpu", "-m", "builtin", "-o", str(target), *engine)
        assert (done.returncode, done.stderr) == (ExitCode.OK, "")
        arrays[len(engine)] = np.load(target)
    assert arrays[0].shape == shape
    np.testing.assert_array_equal(arrays[0], arrays[2])
    refused = run_ast("extract", path, "--what", what, "-m", "builtin", "-o", "x.npy", "--engine", "onnxruntime")
    assert refused.returncode == ExitCode.USAGE
    assert f"use --engine torch for {what}" in refused.stderr or "is not installed" in refused.stderr
