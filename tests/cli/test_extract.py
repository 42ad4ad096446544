from __future__ import annotations

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from ast_cli.errors import ExitCode, UsageError
from ast_cli.hub.folders import builtin_folder
from ast_cli.model.config import read_config
from ast_cli.tagging.extract.targets import plan_targets
from ast_cli.tagging.inputs import Input

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Write = Callable[..., Path]
needs_pyarrow = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")


def test_embedding_of_one_file_goes_to_the_file_named(run_ast: Run, write_wav: Write, tmp_path: Path) -> None:
    target = tmp_path / "out.npz"
    done = run_ast("extract", str(write_wav("a.wav", 12.0)), "--model", "builtin", "--output", str(target))
    assert done.returncode == ExitCode.OK
    assert done.stdout == f"{target}  embedding 256, window_embeddings 3x256, start_s 3, end_s 3\n"
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
    assert written == [".ast-journal", "sub/x.wav.npy", "x.flac.npy", "x.wav.npy"]
    assert np.load(tmp_path / "out" / "x.wav.npy").shape == (98, 128)
    assert "error: " in done.stderr
    assert "\n4 inputs: 3 ok, 1 failed (empty_file 1); 0.00 h of audio in " in done.stderr
    assert done.stdout == ""
    assert "note:" not in done.stderr  # the fbank needs no model, so none is chosen


def test_logits_in_safetensors_bring_their_labels(run_ast: Run, write_wav: Write, tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"
    done = run_ast("extract", str(write_wav("a.wav")), "--what", "logits", "-m", "builtin", "-o", str(target))
    assert done.returncode == ExitCode.OK
    with safe_open(target, "np") as opened:
        labels = read_config(builtin_folder()).id2label
        assert opened.get_tensor("logits").shape == (len(labels),)
        assert json.loads(opened.metadata()["ast"])["id2label"]["8"] == labels[8]


def test_channels_are_an_axis_of_the_arrays_and_in_the_metadata(run_ast: Run, write_wav: Write, tmp_path: Path) -> None:
    write_wav("stereo.wav", 6.0, num_channels=2)
    command = ["extract", "stereo.wav", "--model", "builtin", "--channels"]
    each = run_ast(*command, "each", "-o", "each.npz", cwd=tmp_path)
    assert each.stdout == "each.npz  embedding 2x256, window_embeddings 2x2x256, start_s 2, end_s 2\n"
    second = run_ast(*command, "2", "-o", "second.npz", cwd=tmp_path)
    assert second.stdout == "second.npz  embedding 256, window_embeddings 2x256, start_s 2, end_s 2\n"
    with np.load(tmp_path / "each.npz") as all_channels, np.load(tmp_path / "second.npz") as one:
        np.testing.assert_allclose(all_channels["embedding"][1], one["embedding"], atol=1e-5)
        facts = [json.loads(str(file["metadata"])) for file in (all_channels, one)]
    assert [(fact["num_channels"], fact["channels"]) for fact in facts] == [(2, "each"), (2, 2)]
    third = run_ast(*command, "3", "-o", "third.npz", cwd=tmp_path)
    assert (third.returncode, (tmp_path / "third.npz").exists()) == (ExitCode.SOME_FAILED, False)
    assert "error: stereo.wav: there is no channel 3 (--channels 3): it has 2 channels" in third.stderr


def test_existing_file_is_replaced_only_with_force(run_ast: Run, write_wav: Write, tmp_path: Path) -> None:
    target, path = tmp_path / "out.npy", str(write_wav("a.wav"))
    target.write_bytes(b"precious")
    refused = run_ast("extract", path, "--what", "fbank", "-o", str(target))
    assert (refused.returncode, target.read_bytes()) == (ExitCode.USAGE, b"precious")
    assert run_ast("extract", path, "--what", "fbank", "-o", str(target), "--force").returncode == ExitCode.OK
    assert np.load(target).shape == (98, 128)


def test_input_is_never_overwritten(run_ast: Run, write_wav: Write, tmp_path: Path) -> None:
    audio = tmp_path / "x.npz"
    audio.write_bytes(write_wav("a.wav").read_bytes())
    before = audio.read_bytes()
    done = run_ast("extract", "./x.npz", "--what", "fbank", "-o", "x.npz", "--force", cwd=tmp_path)
    assert (done.returncode, audio.read_bytes() == before) == (ExitCode.USAGE, True)


def test_metadata_describes_the_whole_recording_if_only_its_first_window_is_extracted(
    run_ast: Run, write_wav: Write, tmp_path: Path
) -> None:
    path, target = str(write_wav("a.wav", 12.0)), tmp_path / "out.npz"
    assert run_ast("extract", path, "--what", "hidden-states", "-m", "builtin", "-o", str(target)).returncode == 0
    with np.load(target) as arrays:
        assert arrays["hidden_states"].shape == (1, 7, 130, 256)
        assert json.loads(str(arrays["metadata"]))["duration_s"] == 12.0


def test_long_names_fit_a_file_system(tmp_path: Path) -> None:
    planned = plan_targets(inputs("x" * 251 + ".wav", "x" * 251 + ".flac"), tmp_path, "safetensors", force=False)
    assert len({path.name for path in planned}) == 2
    assert all(len(path.name.encode()) <= 250 for path in planned)


def inputs(*paths: str) -> list[Input]:
    return [Input(path) for path in paths]


def test_targets_leave_out_the_common_folder(tmp_path: Path) -> None:
    planned = plan_targets(inputs("in/a/x.wav", "in/b/x.wav", "in/b/y.mp3"), tmp_path / "out", None, force=False)
    relative = [path.relative_to(tmp_path / "out").as_posix() for path in planned]
    assert relative == ["a/x.wav.npz", "b/x.wav.npz", "b/y.mp3.npz"]


def test_targets_stay_inside_the_folder_and_differ(tmp_path: Path) -> None:
    planned = plan_targets(inputs("../../x.wav", "a.wav", "A.WAV", "a.mp3", "-"), tmp_path, "npy", force=False)
    assert all(path.resolve().is_relative_to(tmp_path.resolve()) for path in planned)
    assert len({str(path).casefold() for path in planned}) == 5


@pytest.mark.parametrize(
    ("paths", "output", "format_name", "message"),
    [
        (["a.wav", "b.wav"], "out.npz", None, "is one file and there are 2 inputs: name a folder"),
        (["a.wav"], "out.npz", "npy", "does not end in .npy"),
        (["a.wav"], "e.h5", None, "--output e.h5: .h5 is not a supported format; end the name of a file in .npz"),
        (
            ["a.wav", "b.wav"],
            "e.h5",
            "npz",
            r"\.npz, \.npy or \.safetensors, for a table in \.csv or \.parquet, or name",
        ),
    ],
)
def test_an_output_that_does_not_fit_is_refused(
    paths: list[str], output: str, format_name: str | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        plan_targets(inputs(*paths), Path(output), format_name, force=False)


@pytest.mark.parametrize("name", ["out", "v1.2", "features.there"])
def test_a_name_without_a_suffix_and_an_existing_folder_are_folders(tmp_path: Path, name: str) -> None:
    (tmp_path / "features.there").mkdir()
    assert plan_targets(inputs("a.wav"), tmp_path / name, None, force=False) == [tmp_path / name / "a.wav.npz"]


def test_an_unknown_suffix_is_refused_and_nothing_is_written(run_ast: Run, write_wav: Write, tmp_path: Path) -> None:
    write_wav("a.wav")
    done = run_ast("extract", "a.wav", "--what", "fbank", "--output", "e.h5", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert done.stderr == (
        "error: --output e.h5: .h5 is not a supported format; end the name of a file in .npz, .npy or .safetensors, "
        "for a table in .csv or .parquet, or name a folder without a suffix\n"
    )
    assert not (tmp_path / "e.h5").exists()


@pytest.mark.parametrize(
    ("what", "shape"), [("attentions", (1, 6, 4, 130, 130)), ("hidden-states", (1, 7, 130, 256)), ("embedding", (256,))]
)
def test_arrays_that_only_torch_computes_need_no_engine_option(
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


FBANK = ("--what", "fbank")


def many_clips(write_wav: Write, num_clips: int) -> Path:
    """Return a folder of clips of a minute, which are one file under many names."""
    clip = write_wav("clips/000.wav", 60.0)
    for number in range(1, num_clips):
        os.link(clip, clip.with_name(f"{number:03}.wav"))
    return clip.parent


def num_lines(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def start(folder: Path, num_files: int, *arguments: str) -> subprocess.Popen[str]:
    """Start an extraction of clips/ to out/ and wait until so many files are complete."""
    return start_and_watch(folder, "out/.ast-journal", num_files, *FBANK, "--output", "out", *arguments)


def start_and_watch(folder: Path, journal: str, num_files: int, *arguments: str) -> subprocess.Popen[str]:
    """Start an extraction of clips/ and wait until a journal lists so many inputs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ast_cli", "extract", "clips", *arguments],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while process.poll() is None and num_lines(folder / journal) <= num_files:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()
    return process


def test_a_killed_run_is_resumed_and_writes_no_file_twice(write_wav: Write, run_ast: Run, tmp_path: Path) -> None:
    num_clips, out = 40, tmp_path / "out"
    many_clips(write_wav, num_clips)
    process = start(tmp_path, 3)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    num_complete = num_lines(out / ".ast-journal") - 1
    assert 3 <= num_complete < num_clips
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("[0-9]*.npz")}
    assert num_complete <= len(before) <= num_complete + 1
    done = run_ast("extract", "clips", *FBANK, "--output", "out", "--resume", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (ExitCode.OK, "")
    assert f"{num_clips} inputs: {num_clips - num_complete} ok, {num_complete} done before;" in done.stderr
    written = sorted(out.iterdir())
    assert [path.name for path in written] == [".ast-journal", *(f"{i:03}.wav.npz" for i in range(num_clips))]
    assert sum(path.stat().st_mtime_ns == before.get(path.name) for path in written) == num_complete
    assert len({path.read_bytes()[:10_000] for path in written[1:]}) == 1  # one clip under many names
    refused = run_ast("extract", "clips", *FBANK, "--output", "out", "--resume", "--start", "1", cwd=tmp_path)
    assert refused.returncode == ExitCode.USAGE
    assert refused.stderr == (
        "error: out was begun with other settings: --start was 0.0 and is now 1.0; --resume needs the same settings, "
        "--force starts over\n"
    )


def rows_of(table: Path) -> list[tuple[str, float, list[float]]]:
    """Return path, start and numbers of the rows of a table of logits."""
    if table.suffix == ".parquet":
        from pyarrow import parquet

        return [(row["path"], row["start_s"], row["logits"]) for row in parquet.read_table(table).to_pylist()]
    with table.open(newline="") as stream:
        rows = list(csv.reader(stream))[1:]
    return [(row[0], float(row[1]), [float(number) for number in row[4:]]) for row in rows]


@pytest.mark.parametrize(
    ("table", "journal"),
    [
        ("table.csv", "table.csv.ast-journal"),
        pytest.param("table.parquet", "table.parquet.ast-rows.ast-journal", marks=needs_pyarrow),
    ],
)
def test_a_table_whose_run_is_killed_again_and_again_has_each_row_once(
    run_ast: Run, write_wav: Write, tmp_path: Path, table: str, journal: str
) -> None:
    clip, num_clips = write_wav("clips/000.wav", 6.0), 40
    for number in range(1, num_clips):
        os.link(clip, clip.with_name(f"{number:03}.wav"))
    command = ["--what", "logits", "-m", "builtin", "--device", "cpu", "--threads", "1", "--output", table]
    for number, num_files in enumerate((2, 8, 16)):
        resume = ["--resume"] if number else []
        process = start_and_watch(tmp_path, journal, num_files, *command, *resume)
        process.kill()
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert num_files < num_lines(tmp_path / journal) <= num_clips
    num_done = num_lines(tmp_path / journal) - 1
    done = run_ast("extract", "clips", *command, "--resume", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (ExitCode.OK, "")
    assert f"{num_clips} inputs: {num_clips - num_done} ok, {num_done} done before;" in done.stderr
    rows = rows_of(tmp_path / table)
    expected = [(f"clips/{number:03}.wav", start_s) for number in range(num_clips) for start_s in (0.0, 0.86)]
    assert [(path, start_s) for path, start_s, _ in rows] == expected
    numbers = np.array([row for _, _, row in rows])
    np.testing.assert_allclose(numbers, np.tile(numbers[:2], (num_clips, 1)), atol=1e-5)


def test_a_table_of_embeddings_has_a_column_for_each_number(run_ast: Run, write_wav: Write, tmp_path: Path) -> None:
    path = str(write_wav("a.wav", 12.0))
    done = run_ast("extract", path, "-m", "builtin", "-o", "table.csv", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (ExitCode.OK, "table.csv  embedding 3x256\n")
    assert run_ast("extract", path, "-m", "builtin", "-o", "arrays.npz", cwd=tmp_path).returncode == ExitCode.OK
    with (tmp_path / "table.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    with np.load(tmp_path / "arrays.npz") as arrays:
        found = np.array([[row[f"embedding_{number}"] for number in range(256)] for row in rows], np.float32)
        np.testing.assert_array_equal(found, arrays["window_embeddings"])
        assert [float(row["start_s"]) for row in rows] == arrays["start_s"].tolist()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGTERM, ExitCode.TERMINATED), (signal.SIGINT, ExitCode.INTERRUPTED)]
)
def test_a_signal_ends_with_a_summary_and_its_code(
    write_wav: Write, tmp_path: Path, signum: signal.Signals, code: ExitCode
) -> None:
    many_clips(write_wav, 200)
    process = start(tmp_path, 2)
    process.send_signal(signum)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (code, "")
    summary, hint = stderr.splitlines()
    num_files = len(list((tmp_path / "out").glob("[0-9]*.npz")))
    assert summary.startswith((f"{num_files} of 200 inputs: {num_files} ok; ", f"{num_files - 1} of 200 inputs: "))
    assert hint == "to continue, run the same command with --resume; out contains what is done"
    assert not list((tmp_path / "out").glob(".*.tmp"))


def test_an_extraction_stops_at_max_errors(run_ast: Run, tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.wav").write_bytes(b"no audio")
    done = run_ast("extract", ".", *FBANK, "--output", "out", "--max-errors", "2", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (ExitCode.FATAL, "")
    assert "2 of 4 inputs: 0 ok, 2 failed (not_audio 2); " in done.stderr
    assert "error: stopped after 2 failed inputs, as requested" in done.stderr


def test_quiet_still_prints_errors(run_ast: Run, write_wav: Write, tmp_path: Path) -> None:
    write_wav("in/a.wav")
    (tmp_path / "in" / "bad.wav").write_bytes(b"no audio")
    done = run_ast("extract", "in", *FBANK, "--output", "out", "--quiet", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (ExitCode.SOME_FAILED, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: in/bad.wav: ")


def test_commands_for_single_files_write_to_one_folder_at_the_same_time(
    run_ast: Run, write_wav: Write, tmp_path: Path
) -> None:
    for name in ("a.wav", "b.wav"):
        write_wav(name)
        done = run_ast("extract", name, *FBANK, "--output", "out", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (ExitCode.OK, f"{Path('out') / name}.npz  fbank 98x128\n")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.wav.npz", "b.wav.npz"]


def test_a_folder_of_one_file_prints_nothing_and_is_resumed(run_ast: Run, write_wav: Write, tmp_path: Path) -> None:
    write_wav("in/a.wav")
    for resume in ([], ["--resume"]):
        done = run_ast("extract", "in", *FBANK, "--output", "out", *resume, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (ExitCode.OK, "", "")
