"""Runs under faults from outside: closed and slow pipes, signals, a lost disk, no network."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
from watched_runs import children_of, living, peak_bytes

from ast_cli.engine.choice import is_installed
from ast_cli.errors import ExitCode
from ast_cli.hub.folders import checkpoint_folder

if sys.platform == "win32":
    pytest.skip("POSIX signals and pipes", allow_module_level=True)
import fcntl
import termios

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Write = Callable[..., Path]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
PIPE_BYTES = 65_536
CLASSIFY = [sys.executable, "-m", "ast_cli", "classify", "--model", "builtin", "--threads", "1"]


@pytest.fixture
def clips(write_wav: Write, tmp_path: Path) -> Path:
    """Three hundred names of one clip, which make more records than a pipe holds."""
    clip, folder = write_wav("clip.wav", 0.5), tmp_path / "clips"
    folder.mkdir()
    for number in range(300):
        os.link(clip, folder / f"{number:03}.wav")
    return folder


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts the command; what still runs in the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def popen(*arguments: object) -> subprocess.Popen[str]:
        command = [*CLASSIFY, *map(str, arguments)]
        started.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
        )
        return started[-1]

    yield popen
    for process in started:
        process.kill()
        process.communicate()


def assert_gone(workers: set[int], within_s: float) -> None:
    """Make sure that there were workers and that they are gone soon."""
    deadline = time.monotonic() + within_s
    assert workers
    while living(workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not living(workers)


@LINUX
@pytest.mark.parametrize("format_name", ["jsonl", "table", "csv", "json"])
@pytest.mark.parametrize("order", [[], ["--unordered"]], ids=["ordered", "unordered"])
def test_closed_pipe_ends_the_run_without_a_message(
    start: Callable[..., subprocess.Popen[str]], clips: Path, format_name: str, order: list[str]
) -> None:
    process = start(clips, "--format", format_name, "--batch-size", "1", *order)
    assert process.stdout is not None
    assert process.stderr is not None
    assert all(process.stdout.readline() for _ in range(3))  # CSV begins with the names of its columns
    workers = children_of(process.pid)
    process.stdout.close()
    lines = process.stderr.read().splitlines()
    assert [line for line in lines if " inputs, " not in line] == []  # but for progress, on a slow machine
    process.wait(timeout=30)
    assert process.returncode == ExitCode.FATAL
    assert_gone(workers, within_s=2.0)


def num_bytes_in(pipe: IO[str]) -> int:
    """Return how many bytes wait in a pipe."""
    number = fcntl.ioctl(pipe.fileno(), termios.FIONREAD, bytes(4))
    return int.from_bytes(number, sys.byteorder)


@LINUX
def test_slow_reader_loses_nothing_and_costs_no_memory(
    start: Callable[..., subprocess.Popen[str]], clips: Path
) -> None:
    process = start(clips, "--format", "jsonl", "--top-k", "10", "-q")
    assert process.stdout is not None
    first = process.stdout.readline()
    held = -1
    while held < num_bytes_in(process.stdout):  # until nothing more goes in
        held = num_bytes_in(process.stdout)
        time.sleep(2.0)
    before = peak_bytes(process.pid)
    assert process.poll() is None, "nothing was held back: the pipe took it all"
    time.sleep(1.0)  # a command that continued to read would store the results in memory
    assert peak_bytes(process.pid) - before < 5 << 20
    rest = process.stdout.read()  # not communicate(), which passes over what readline() has buffered
    process.wait(timeout=60)
    records = [json.loads(line) for line in [first, *rest.splitlines()]]
    assert len(first + rest) > PIPE_BYTES
    assert [Path(record["path"]).stem for record in records] == [f"{number:03}" for number in range(300)]
    assert process.returncode == ExitCode.OK


@LINUX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_leaves_a_summary_complete_records_and_no_worker(
    start: Callable[..., subprocess.Popen[str]], clips: Path, tmp_path: Path, number: signal.Signals
) -> None:
    output = tmp_path / "tags.jsonl"
    process = start(clips, "-f", "jsonl", "-o", output, "--batch-size", 1)
    while process.poll() is None and not (output.exists() and output.read_bytes().count(b"\n") >= 3):
        time.sleep(0.01)
    workers = children_of(process.pid)
    process.send_signal(number)
    began = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - began < 5.0
    assert process.returncode == 128 + number
    assert_gone(workers, within_s=2.0)
    records = [json.loads(line) for line in output.read_text().splitlines()]
    *_, summary, remedy = errors.splitlines()
    num_ok = int(summary.partition(" of 300 inputs: ")[0])
    assert num_ok in (len(records), len(records) - 1)  # the signal may have come between writing and counting
    assert summary.startswith(f"{num_ok} of 300 inputs: {num_ok} ok; ")
    assert remedy == f"to continue, run the same command with --resume; {output} contains what is done"


@LINUX
def test_second_signal_ends_a_run_that_hangs(start: Callable[..., subprocess.Popen[str]], clips: Path) -> None:
    process = start(clips, "-f", "jsonl", "-q", "--batch-size", "1")
    assert process.stdout is not None
    process.stdout.readline()
    workers = children_of(process.pid)
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)  # nothing ends them but SIGKILL
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=5.0)
    assert process.returncode in (ExitCode.TERMINATED, -signal.SIGTERM)
    assert_gone(workers, within_s=2.0)


def test_unreachable_disk_stops_the_run_with_a_reason(run_ast: Run, write_wav: Write, tmp_path: Path) -> None:
    good = write_wav("good.wav", 0.5)
    listed = tmp_path / "list.txt"
    lost = [str(tmp_path / "unmounted" / f"{number}.wav") for number in range(150)]
    listed.write_text("\n".join([str(good), *lost]))
    output = tmp_path / "tags.jsonl"
    command = ["classify", "--files-from", str(listed), "--model", "builtin", "-f", "jsonl", "-o", str(output)]
    done = run_ast(*command)
    assert done.returncode == ExitCode.FATAL
    assert "error: stopped: 100 inputs in a row could not be reached (not_found); is the disk mounted?" in done.stderr
    assert len(output.read_text().splitlines()) == 101
    (tmp_path / "unmounted").mkdir()
    for path in lost:
        os.link(good, path)
    again = run_ast(*command, "--resume", "--retry-errors")
    assert again.returncode == ExitCode.OK, again.stderr
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert sorted(record["path"] for record in records) == sorted([str(good), *lost])
    assert {record["status"] for record in records} == {"ok"}


CANARY = """
import os, socket
def refuse(*arguments, **_):
    with open(os.environ["CANARY"], "a") as file:
        print(arguments, file=file)
    raise OSError("no network here")
for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
socket.getaddrinfo = refuse
"""


def test_local_files_and_a_local_checkpoint_need_no_network(run_ast: Run, write_wav: Write, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(CANARY)
    canary, root = tmp_path / "canary", Path(__file__).parents[2]
    surroundings = {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)]), "CANARY": str(canary), "HF_HUB_OFFLINE": "0",
    }  # fmt: skip
    path = str(write_wav("a.wav", 0.5))
    for engine in ("auto", *filter(is_installed, ("onnxruntime", "openvino")), "torch"):
        done = run_ast("classify", path, "--model", "builtin", "-q", "--engine", engine, **surroundings)
        assert done.returncode == ExitCode.OK, done.stderr
        assert not canary.exists(), canary.read_text()  # OpenVINO would report that it was imported
    fetched = run_ast("classify", path, "--model", "somebody/something", **surroundings)
    assert fetched.returncode != ExitCode.OK
    assert canary.exists(), "the canary sees nothing: the first half proves nothing"


def test_four_corrupt_files_among_many_are_four_errors(run_ast: Run, clips: Path) -> None:
    corrupt = {"000-.wav": b"", "100-.mp3": b"no audio " * 500, "200-.flac": b"fLaC", "999-.wav": b"RIFF"}
    for name, content in corrupt.items():
        (clips / name).write_bytes(content)
    done = run_ast("classify", str(clips), "--model", "builtin", "-f", "jsonl", "--top-k", "1")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == ExitCode.SOME_FAILED
    assert [Path(record["path"]).name for record in records] == sorted(file.name for file in clips.iterdir())
    failed = {Path(record["path"]).name for record in records if record["status"] == "error"}
    assert failed == set(corrupt)
    assert "304 inputs: 300 ok, 4 failed (" in done.stderr


def test_resume_rejects_another_model_and_accepts_another_format(run_ast: Run, clips: Path, tmp_path: Path) -> None:
    output = tmp_path / "tags.jsonl"
    inputs = [str(clips / f"{number:03}.wav") for number in range(3)]
    other = tmp_path / "other"
    shutil.copytree(checkpoint_folder("builtin"), other)
    begun = ["classify", *inputs, "-o", str(output), "-q"]
    assert run_ast(*begun, "--model", "builtin", "-f", "jsonl").returncode == ExitCode.OK
    same = run_ast(*begun, "--model", str(other), "-f", "csv", "--resume")  # the same weights elsewhere
    assert same.returncode == ExitCode.OK, same.stderr
    assert output.read_text().startswith("path,start_s,")
    settings = json.loads((other / "preprocessor_config.json").read_text())
    (other / "preprocessor_config.json").write_text(json.dumps({**settings, "mean": settings["mean"] + 1}))
    before = output.read_bytes()
    refused = run_ast(*begun, "--model", str(other), "-f", "csv", "--resume")
    assert refused.returncode == ExitCode.USAGE
    assert f"error: {output} was begun with other settings: --model was another; --resume needs" in refused.stderr
    assert output.read_bytes() == before


def test_an_output_begun_with_another_engine_is_continued_with_that_engine_only(
    run_ast: Run, clips: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    output = tmp_path / "tags.jsonl"
    for begun, remedy, other in (("torch", "torch", "auto"), ("auto", "onnxruntime", "torch")):  # torch: version 0.1
        command = ["classify", "--model", "builtin", "--device", "cpu", "-q", "-o", str(output), "--engine"]
        inputs = [str(clips / f"{number:03}.wav") for number in range(3)]
        assert run_ast(*command, begun, inputs[0], "--force").returncode == ExitCode.OK
        before = output.read_bytes()
        refused = run_ast(*command, other, *inputs, "--resume")
        assert refused.returncode == ExitCode.USAGE
        was, now = ("native", "numpy") if begun == "torch" else ("numpy", "native")
        assert refused.stderr == (
            f"error: {output} was begun with other settings: --fbank was {was} and is now {now}; --resume needs "
            f"the same settings (here --engine {remedy}), --force starts over\n"
        )
        assert output.read_bytes() == before
        assert run_ast(*command, remedy, *inputs, "--resume").returncode == ExitCode.OK
        assert len(output.read_text().splitlines()) == len(inputs)
