"""Worker processes that crash, hang or are killed cost only the file that they decode."""

from __future__ import annotations

import io
import itertools
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from faulty_decoders import RATE, faulty_pool
from opened import open_streams

from ast_cli.audio.decode import open_audio
from ast_cli.errors import AstError, AudioError, ErrorCode, WarningCode, internal_error
from ast_cli.results import FileError
from ast_cli.tagging.decode import pool as decode_pool
from ast_cli.tagging.decode.opening import INPUTS_AHEAD_PER_WORKER
from ast_cli.tagging.decode.pool import DecodePool, default_num_workers, num_workers_for
from ast_cli.tagging.inputs import Input
from ast_cli.tagging.options import WindowOptions

DEADLINE_S = 2.0  # time in which a closed pool must end all its processes
POSIX_ONLY = pytest.mark.skipif(os.name != "posix", reason="POSIX signals and FIFOs")
PIDFD_ONLY = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for processes that are not its children")


# ── Helpers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def read(open_stream: Callable[[], Any]) -> SimpleNamespace | ErrorCode:
    """Read a stream to its end; return its samples and facts, or the code of its error."""
    try:
        stream = open_stream()
        samples = np.concatenate(list(stream))
    except AudioError as error:
        return error.code
    finally_known = (stream.sampling_rate, stream.num_channels, stream.start_s, stream.duration_s, stream.warnings)
    stream.close()
    return SimpleNamespace(samples=samples, facts=finally_known)


def read_all(
    pool: DecodePool, paths: Iterable[object], part: WindowOptions | None = None
) -> list[tuple[str, SimpleNamespace | ErrorCode]]:
    inputs = [Input(str(path)) for path in paths]
    return [(item.path, read(open_stream)) for item, open_stream in open_streams(pool, inputs, part)]


def assert_same(read_by_pool: SimpleNamespace | ErrorCode, path: object, *part: Any) -> None:
    """Compare with the same file decoded in this process; the same code ran, so that every bit must be equal."""
    expected = read(lambda: open_audio(str(path), RATE, *part))
    if isinstance(expected, ErrorCode) or isinstance(read_by_pool, ErrorCode):
        assert read_by_pool == expected
        return
    np.testing.assert_array_equal(read_by_pool.samples, expected.samples)
    assert read_by_pool.samples.flags.writeable  # torch warns about arrays that are read-only
    assert read_by_pool.facts == expected.facts


def codes(results: list[tuple[str, SimpleNamespace | ErrorCode]]) -> list[str]:
    return [result.value if isinstance(result, ErrorCode) else "ok" for _, result in results]


def wait_for_end(pid: int, timeout_s: float = DEADLINE_S) -> None:
    """Wait until a process, not necessarily a child of this one, has ended."""
    handle = os.pidfd_open(pid)
    try:
        assert select.select([handle], [], [], timeout_s)[0], f"process {pid} still runs"
    finally:
        os.close(handle)


def wait_until(is_so: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait until another thread or process has made a condition true."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


@pytest.fixture
def make(tmp_path: Path, write_wav: Callable[..., Path]) -> Callable[..., list[Path]]:
    """Return a function that makes short files with the given names."""
    return lambda *names: [write_wav(f"{name}.wav", 0.1) for name in names]


# ── Good files ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_workers_start_before_there_is_anything_to_decode_with_start_now() -> None:
    with DecodePool(2, start_now=True) as pool:
        wait_until(lambda: len(pool.worker_pids) == 2)
    with DecodePool(2) as pool:
        assert not pool.worker_pids


def test_samples_and_facts_are_those_of_the_main_process_in_input_order(write_wav: Callable[..., Path]) -> None:
    # The first is the longest, so that the others are decoded before it; rates and channels differ.
    paths = [
        write_wav("long.flac", 60.0, 44100, 2),
        write_wav("short.wav", 0.01),
        write_wav("stereo.wav", 5.0, 22050, 2),
        write_wav("slow.flac", 12.5, 8000),
    ]
    with DecodePool(2) as pool:
        results = read_all(pool, paths)
    assert [path for path, _ in results] == [str(path) for path in paths]
    for (_, result), path in zip(results, paths, strict=True):
        assert not isinstance(result, ErrorCode)
        assert_same(result, path)


def test_only_the_requested_part_is_read(write_wav: Callable[..., Path]) -> None:
    path = write_wav("a.wav", 9.0, 44100)
    with DecodePool(1) as pool:
        ((_, result),) = read_all(pool, [path], WindowOptions(start_s=2.5, duration_s=3.0))
    assert_same(result, path, 2.5, 3.0)


def test_part_of_an_input_overrides_that_of_the_run(
    write_wav: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_wav("a.wav", 9.0, 44100)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(path.read_bytes())))
    own = WindowOptions(start_s=1.0, duration_s=0.5)
    inputs = [
        Input(str(path), part=own),
        Input(str(path)),
        Input(str(path), part=WindowOptions()),
        Input("-", part=own),
    ]
    with DecodePool(1) as pool:
        results = [
            read(open_stream)
            for _, open_stream in open_streams(pool, inputs, WindowOptions(start_s=2.5, duration_s=3.0))
        ]
    for result, part in zip(results, [(1.0, 0.5), (2.5, 3.0), (), (1.0, 0.5)], strict=True):
        assert_same(result, path, *part)


def test_samples_can_be_read_after_workers_have_ended(
    write_wav: Callable[..., Path],
) -> None:
    paths = [write_wav(f"{number}.wav", 2.0) for number in range(3)]
    with DecodePool(2) as pool:
        opened = open_streams(pool, [Input(str(path)) for path in paths])
        first = next(opened)
        wait_until(lambda: not pool.worker_pids and pool.num_buffered_bytes == 3 * 2 * RATE * 4)
        for path, (_, open_stream) in zip(paths, itertools.chain([first], opened), strict=True):
            assert_same(read(open_stream), path)


def test_duration_grows_with_the_blocks_that_were_read(write_wav: Callable[..., Path]) -> None:
    path = write_wav("a.wav", 20.0)
    with DecodePool(1) as pool:
        for _, open_stream in open_streams(pool, [Input(str(path))]):
            stream = open_stream()
            num_samples = 0
            assert stream.duration_s == 0.0
            for block in stream:
                num_samples += block.size
                assert stream.duration_s == pytest.approx(num_samples / RATE, rel=1e-12)  # sums of block lengths
    assert num_samples == 20 * RATE


def test_header_length_is_known_once_the_file_is_open(write_wav: Callable[..., Path]) -> None:
    path, unknown = str(write_wav("a.flac", 20.0, 44100)), str(write_wav("long.wav", 0.1))
    parts = {
        20.0: None,
        5.0: WindowOptions(start_s=15.0),
        3.0: WindowOptions(start_s=2.5, duration_s=3.0),
        2.0: WindowOptions(start_s=18.0, duration_s=30.0),
    }
    with faulty_pool(1) as pool:
        opened = open_streams(pool, [*(Input(path, part=part) for part in parts.values()), Input(unknown)])
        header_duration_s = [open_stream().header_duration_s for _, open_stream in opened]
    assert header_duration_s == [*parts, None]


def test_two_hundred_small_files_are_complete(make: Callable[..., list[Path]]) -> None:
    paths = make(*(f"{index:03}" for index in range(200)))
    with DecodePool(2) as pool:
        results = read_all(pool, paths)
    assert [path for path, _ in results] == [str(path) for path in paths]
    for (_, result), path in zip(results, paths, strict=True):
        assert_same(result, path)


def test_pool_serves_a_second_list(make: Callable[..., list[Path]]) -> None:
    first, second = make("a", "b")
    with DecodePool(1) as pool:
        assert codes(read_all(pool, [first])) == ["ok"]
        assert codes(read_all(pool, [second])) == ["ok"]


def test_empty_list_ends_at_once_and_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", pytest.fail)
    with DecodePool(2) as pool:
        assert read_all(pool, []) == []


@POSIX_ONLY
def test_name_that_is_not_utf8_reaches_the_decoder(make: Callable[..., list[Path]], tmp_path: Path) -> None:
    (plain,) = make("plain")
    odd = os.path.join(os.fsencode(tmp_path), b"caf\xe9\n\x1b.wav")
    os.rename(plain, odd)
    with DecodePool(1) as pool:
        assert codes(read_all(pool, [os.fsdecode(odd)])) == ["ok"]


def test_standard_input_is_decoded_in_the_main_process(
    make: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, piped, after = make("before", "piped", "after")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(piped.read_bytes())))
    with DecodePool(1) as pool:
        results = read_all(pool, [before, "-", after])
    assert [path for path, _ in results] == [str(before), "-", str(after)]
    for (_, result), path in zip(results, [before, piped, after], strict=True):
        assert_same(result, path)


# ── Bad files ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_bad_files_have_the_same_errors_as_in_the_main_process(make: Callable[..., list[Path]], tmp_path: Path) -> None:
    (good,) = make("good")
    for name, content in {"empty.wav": b"", "text.wav": b"no audio " * 100, "cut.wav": good.read_bytes()[:60]}.items():
        (tmp_path / name).write_bytes(content)
    paths = [tmp_path / name for name in ("empty.wav", "text.wav", "missing.wav", "good.wav", "cut.wav")]
    with DecodePool(2) as pool:
        for item, open_stream in open_streams(pool, [Input(str(path)) for path in paths]):
            assert_same(read(open_stream), item.path)
            if item.path.endswith("missing.wav"):
                with pytest.raises(AudioError) as raised:
                    open_stream()
                assert (raised.value.code, str(raised.value)) == ("not_found", f"{item.path}: no such file")


def test_truncated_file_keeps_its_warning(write_wav: Callable[..., Path]) -> None:
    path = write_wav("a.wav", 2.0)
    os.truncate(path, 40_000)
    with DecodePool(1) as pool:
        ((_, result),) = read_all(pool, [path])
    assert isinstance(result, SimpleNamespace)
    assert result.facts[-1] == {WarningCode.TRUNCATED}


def test_input_that_could_not_be_listed_keeps_its_error(make: Callable[..., list[Path]]) -> None:
    (good,) = make("good")
    unlisted = Input("folder", FileError(ErrorCode.PERMISSION, "folder: the folder cannot be read"))
    with DecodePool(1) as pool:
        opened = [(item, read(open_stream)) for item, open_stream in open_streams(pool, [unlisted, Input(str(good))])]
    assert opened[0] == (unlisted, ErrorCode.PERMISSION)
    assert_same(opened[1][1], good)


def test_memory_shortage_and_bugs_cost_only_their_file(make: Callable[..., list[Path]]) -> None:
    with faulty_pool(1) as pool:
        assert codes(read_all(pool, make("memory", "a", "bug", "b"))) == ["out_of_memory", "ok", "worker_crashed", "ok"]


def test_long_message_of_an_internal_error_is_cut(make: Callable[..., list[Path]]) -> None:
    (path,) = make("bug")
    with faulty_pool(1) as pool:
        for _, open_stream in open_streams(pool, [Input(str(path))]):
            with pytest.raises(AudioError, match=r"decoding stopped with an internal error \(KeyError: 'xxx") as raised:
                open_stream()
    assert len(str(raised.value)) <= len(str(internal_error(str(path), KeyError()))) + 500


# ── Workers that die ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["exit", "a", "b"], id="first"),
        pytest.param(["a", "exit", "b"], id="middle"),
        pytest.param(["a", "b", "exit"], id="last"),
        pytest.param(["a", *(f"segfault_{index}" for index in range(5)), "b"], id="five in a row", marks=POSIX_ONLY),
    ],
)
def test_files_that_crash_workers_are_errors_and_all_others_are_read(
    make: Callable[..., list[Path]], names: list[str]
) -> None:
    paths = make(*names)
    with faulty_pool() as pool:
        results = read_all(pool, paths)
    assert [path for path, _ in results] == [str(path) for path in paths]
    for name, (path, result) in zip(names, results, strict=True):
        if name.startswith(("exit", "segfault")):
            assert result == ErrorCode.WORKER_CRASHED
        else:
            assert_same(result, path)


def test_message_of_a_crash_says_how_the_worker_ended(make: Callable[..., list[Path]]) -> None:
    (path,) = make("exit")
    with faulty_pool(1) as pool:
        for _, open_stream in open_streams(pool, [Input(str(path))]):
            with pytest.raises(AudioError) as raised:
                open_stream()
    assert str(raised.value) == f"{path}: the decoder crashed (exit code 7)"


def test_file_whose_worker_died_once_is_tried_again(make: Callable[..., list[Path]]) -> None:
    (path,) = make("exit-once")
    with faulty_pool(1) as pool:
        ((_, result),) = read_all(pool, [path])
    assert Path(f"{path}.tried").exists()
    assert_same(result, path)


def test_crash_after_samples_were_read_is_not_tried_again(make: Callable[..., list[Path]]) -> None:
    (path,) = make("exit-late")
    num_blocks = 0
    with faulty_pool(1) as pool:
        for _, open_stream in open_streams(pool, [Input(str(path))]):
            blocks = iter(open_stream())
            with pytest.raises(AudioError) as raised:  # noqa: PT012
                for _ in blocks:
                    num_blocks += 1
    assert raised.value.code == ErrorCode.WORKER_CRASHED
    assert num_blocks <= 3  # three were sent; a second try would have added to those read


@POSIX_ONLY
def test_worker_killed_between_two_files_costs_no_file(make: Callable[..., list[Path]]) -> None:
    paths = make(*"abcdefghijkl")
    file_bytes = round(0.1 * RATE) * 4  # of each file's samples
    results = []
    with DecodePool(1) as pool:
        assert len(paths) > pool.num_workers * INPUTS_AHEAD_PER_WORKER + 1  # so that the worker is kept for more
        for _, open_stream in open_streams(pool, [Input(str(path)) for path in paths]):
            results.append(read(open_stream))
            if len(results) == 1:  # all that was taken ahead is decoded: the worker has nothing to do
                wait_until(lambda: pool.num_buffered_bytes == pool.num_workers * INPUTS_AHEAD_PER_WORKER * file_bytes)
                (pid,) = pool.worker_pids
                os.kill(pid, signal.SIGKILL)
    assert all(isinstance(result, SimpleNamespace) for result in results)
    assert len(results) == len(paths)


def test_worker_that_hangs_is_killed_and_the_other_files_are_read(make: Callable[..., list[Path]]) -> None:
    paths = make("a", "hang", "b", "c")
    with faulty_pool(timeout_s=1.0) as pool:
        started_s = time.monotonic()
        results = read_all(pool, paths)
        assert time.monotonic() - started_s < 10  # the hang itself lasts 1000 s
        for _, open_stream in open_streams(pool, [Input(str(paths[1]))]):
            with pytest.raises(AudioError) as raised:
                open_stream()
    assert codes(results) == ["ok", "timeout", "ok", "ok"]
    assert str(raised.value) == f"{paths[1]}: the decoder did nothing for 1 s and was stopped"


def test_worker_that_waits_for_room_in_the_buffer_does_not_time_out(
    make: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_pool, "INPUT_BUFFER_BYTES", 1 << 20)
    (path,) = make("endless")
    with faulty_pool(1, timeout_s=0.3) as pool:
        for _, open_stream in open_streams(pool, [Input(str(path))]):
            blocks = iter(open_stream())
            next(blocks)
            threading.Event().wait(0.8)  # the buffer is full by now, and the worker waits for the reader
            read_on = list(itertools.islice(blocks, 20))  # more than was buffered
    assert len(read_on) == 20


def test_process_that_does_not_start_ends_the_run_and_is_no_error_of_a_file(
    make: Callable[..., list[Path]],
) -> None:
    (path,) = make("a")
    with DecodePool(1, open_function="no_such_module:open") as pool:
        for _, open_stream in open_streams(pool, [Input(str(path))]):
            with pytest.raises(AstError, match=r"does not start \(exit code 1\); try fewer workers") as raised:
                open_stream()
    assert not isinstance(raised.value, AudioError)


# ── Bounds ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_buffers_and_look_ahead_are_bounded(
    make: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(decode_pool, "INPUT_BUFFER_BYTES", 4 << 20)
    monkeypatch.setattr(decode_pool, "POOL_BUFFER_BYTES", 6 << 20)
    make("endless")
    listed = 0

    def endless_list() -> Iterator[Input]:
        nonlocal listed
        while True:
            listed += 1
            yield Input(str(tmp_path / "endless.wav"))

    with faulty_pool(3) as pool:
        sources = open_streams(pool, endless_list())
        blocks = iter(next(sources)[1]())
        next(blocks)
        threading.Event().wait(1.5)  # time to overflow: three workers send some hundred MB a second
        # The pool's bound and one block above it, which the reader waits for.
        assert 7 << 20 >= pool.num_buffered_bytes > 5 << 20
        assert len(list(itertools.islice(blocks, 200))) == 200  # 50 MB: reading continues past all bounds
        assert pool.num_buffered_bytes <= 7 << 20
        assert listed == 1 + pool.num_workers * INPUTS_AHEAD_PER_WORKER
        sources.close()
        assert pool.num_buffered_bytes == 0


def test_input_that_is_read_is_complete_when_others_fill_the_buffers(
    write_wav: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_pool, "POOL_BUFFER_BYTES", 1 << 20)
    paths = [write_wav(f"{index}.wav", 30.0) for index in range(4)]  # 1.9 MB each
    with DecodePool(4) as pool:
        results = read_all(pool, paths)
    for (_, result), path in zip(results, paths, strict=True):
        assert_same(result, path)


# ── End ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_closing_early_leaves_no_worker_and_does_not_hang(make: Callable[..., list[Path]]) -> None:
    pool = faulty_pool(3)
    sources = open_streams(pool, [Input(str(path)) for path in make("endless", "endless_2", "hang", "a", "b")])
    next(iter(next(sources)[1]()))
    pids = pool.worker_pids
    assert pids
    started_s = time.monotonic()
    pool.close()
    assert time.monotonic() - started_s < DEADLINE_S
    assert not pool.worker_pids
    for pid in pids if os.name == "posix" else ():
        with pytest.raises(ProcessLookupError):  # the process was waited for, so it is no zombie either
            os.kill(pid, 0)
    pool.close()  # closing again is allowed


def test_exception_in_the_reader_is_raised(make: Callable[..., list[Path]]) -> None:
    inputs = [Input(str(path)) for path in make("endless", "a")]
    with pytest.raises(ZeroDivisionError), faulty_pool() as pool:  # noqa: PT012
        for _, open_stream in open_streams(pool, inputs):
            next(iter(open_stream()))
            raise ZeroDivisionError


def test_stream_given_up_frees_its_worker_for_the_next_file(make: Callable[..., list[Path]]) -> None:
    endless, good, *others = make("endless", "good", *"abcdefghijkl")  # so many that the worker is kept for more
    with faulty_pool(1) as pool:
        sources = open_streams(pool, [Input(str(path)) for path in (endless, good, *others)])
        stream = next(sources)[1]()
        next(iter(stream))
        (pid,) = pool.worker_pids
        stream.close()
        assert_same(read(next(sources)[1]), good)
        assert pool.worker_pids == {pid}  # stopped, not killed: a new process would cost 0.3 s for each file


def test_stream_read_too_late_is_refused(make: Callable[..., list[Path]]) -> None:
    with faulty_pool(1) as pool:
        sources = open_streams(pool, [Input(str(path)) for path in make("a", "b")])
        stream = next(sources)[1]()
        next(sources)
        with pytest.raises(ValueError, match="read it before taking the next input"):
            list(stream)


def test_exception_in_the_list_of_inputs_is_raised(make: Callable[..., list[Path]]) -> None:
    (path,) = make("a")

    def failing_list() -> Iterator[Input]:
        yield Input(str(path))
        raise OSError("the list is gone")

    with DecodePool(1) as pool, pytest.raises(OSError, match="the list is gone"):
        list(open_streams(pool, failing_list()))


MAIN_PROGRAM = """
import sys
from ast_cli.tagging.decode.opening import open_inputs
from ast_cli.tagging.decode.pool import DecodePool
from ast_cli.tagging.inputs import Input

# No `if __name__ == "__main__"`: a worker must not run this again.
sys.path.insert(0, sys.argv[1])
with DecodePool(2, open_function="faulty_decoders:open_faulty") as pool:
    with open_inputs([Input(path) for path in sys.argv[2:]], 16000, workers=pool) as turns:
        for turn in turns:
            print(turn.item.path, sum(block.size for block in turn.open_stream()), flush=True)
"""


def start_main(*paths: Path) -> subprocess.Popen[bytes]:
    folder = str(Path(__file__).parent)
    return subprocess.Popen(
        [sys.executable, "-c", MAIN_PROGRAM, folder, *map(str, paths)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


@POSIX_ONLY
@PIDFD_ONLY
def test_workers_die_with_a_main_process_that_is_killed(tmp_path: Path) -> None:
    fifos = [tmp_path / "report-and-hang", tmp_path / "report-and-hold"]
    for fifo in fifos:
        os.mkfifo(fifo)
    with start_main(*fifos) as main:
        pids = [int(fifo.read_text()) for fifo in fifos]
        main.kill()
        for pid in pids:
            wait_for_end(pid)


@POSIX_ONLY
@PIDFD_ONLY
def test_interrupt_of_the_whole_group_leaves_workers_to_the_main_process(tmp_path: Path) -> None:
    fifo = tmp_path / "report-and-hang"
    os.mkfifo(fifo)
    with start_main(fifo) as main:
        pid = int(fifo.read_text())
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        with pytest.raises(AssertionError, match="still runs"):
            wait_for_end(pid, timeout_s=0.3)
        os.killpg(main.pid, signal.SIGINT)
        wait_for_end(pid)
        output, _ = main.communicate(timeout=10)
    assert main.returncode == -signal.SIGINT
    assert output.count(b"Traceback") == 1  # of the main process, which does not catch the signal


def test_workers_print_nothing(write_wav: Callable[..., Path]) -> None:
    path = write_wav("noisy.wav", 1.0)
    with start_main(path) as main:
        output, _ = main.communicate(timeout=30)
    assert output.decode() == f"{path} 16000\n"


def test_workers_import_nothing_heavy(make: Callable[..., list[Path]]) -> None:
    (path,) = make("modules")
    with faulty_pool(1) as pool:
        for _, open_stream in open_streams(pool, [Input(str(path))]):
            with pytest.raises(AudioError) as raised:
                open_stream()
    modules = set(str(raised.value).split())
    assert modules.isdisjoint({"torch", "transformers", "typer", "rich", "safetensors", "huggingface_hub"})
    assert "ast_cli.audio.decode" in modules


def test_module_beside_the_audio_is_not_imported(
    make: Callable[..., list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = make("a")
    (tmp_path / "numpy.py").write_text("raise SystemExit(1)")
    (tmp_path / "json.py").write_text("raise SystemExit(1)")
    monkeypatch.chdir(tmp_path)
    with DecodePool(1) as pool:
        assert codes(read_all(pool, [path])) == ["ok"]


@pytest.mark.parametrize(("num_cpus", "num_workers"), [(1, 1), (2, 1), (3, 1), (4, 2), (16, 8), (32, 16), (64, 16)])
def test_half_the_cores_decode(num_cpus: int, num_workers: int) -> None:
    assert num_workers_for(num_cpus) == num_workers


def test_default_counts_the_cores_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert default_num_workers() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert default_num_workers() == 16
