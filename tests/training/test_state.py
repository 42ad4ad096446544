from __future__ import annotations

import io
import os
import pickle
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from ast_cli.errors import AstError, UsageError
from ast_cli.training import stop_request
from ast_cli.training.options import TrainOptions
from ast_cli.training.state import StateFolder, TrainingProgress
from ast_cli.training.stop_request import StopRequest

SETTINGS = TrainOptions(epochs=3, mixup=0.5).to_dict()
FACTS: dict[str, Any] = {"settings": SETTINGS, "labels": ["a", "b"], "data_digest": "1", "base": ""}
CPU = torch.device("cpu")


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "checkpoint")


def test_a_saved_state_can_be_loaded(state: StateFolder) -> None:
    assert state.load(CPU) is None
    progress = TrainingProgress(epoch=2, update=5, best_metric=0.5, history=[{"epoch": 1, "seconds": 0.1}])
    state.save(progress, {"model": {"w": torch.arange(3.0)}, "best": None})
    loaded = state.load(CPU)
    assert loaded is not None
    assert loaded[0] == progress
    assert torch.equal(loaded[1]["model"]["w"], torch.arange(3.0))
    assert loaded[1]["best"] is None


@pytest.mark.parametrize("fails", ["write", "fsync"])
def test_a_failed_save_keeps_the_previous_state(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    state.save(TrainingProgress(epoch=1), {"model": {}})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    class FullDisk(io.FileIO):
        write = full

    with monkeypatch.context() as patched:
        if fails == "fsync":
            patched.setattr(os, "fsync", full)
        else:
            patched.setattr("builtins.open", FullDisk)
        with pytest.raises(
            AstError, match=r"cannot be written \(No space left on device\); --resume continues from the previous"
        ):
            state.save(TrainingProgress(epoch=2), {"model": {}})
    assert state.load(CPU)[0].epoch == 1  # type: ignore[index]
    assert [file.name for file in state.folder.iterdir()] == ["state.pt"]


@pytest.mark.parametrize("num_bytes", [0, 1, 100, -1])
def test_a_damaged_state_is_an_error_of_one_sentence(state: StateFolder, num_bytes: int) -> None:
    state.save(TrainingProgress(), {"model": {"w": torch.zeros(100)}})
    content = state.state_file.read_bytes()
    state.state_file.write_bytes(content[:num_bytes])
    with pytest.raises(AstError, match="is damaged or of another version; start over with --force"):
        state.load(CPU)


def test_a_state_that_would_execute_code_is_rejected(state: StateFolder, tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "attacked"),)

    state.folder.mkdir()
    torch.save({"version": 1, "progress": Attack()}, state.state_file)
    with pytest.raises(AstError, match="is damaged"):
        state.load(CPU)
    state.state_file.write_bytes(pickle.dumps(Attack(), protocol=2))
    with pytest.raises(AstError, match="is damaged"):
        state.load(CPU)
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {**SETTINGS, "epochs": 4, "mixup": 0.5}}, "--epochs was 3 and is 4"),
        ({"labels": ["a", "c"]}, r"labels was \['a', 'b'\] and is \['a', 'c'\]"),
        ({"data_digest": "2"}, "the data has changed"),
        ({"base": "scratch:64x1"}, "base was '' and is 'scratch:64x1'"),
        ({"new": 1}, "new was None and is 1"),
    ],
)
def test_a_run_with_other_facts_is_not_resumed(state: StateFolder, change: dict[str, Any], message: str) -> None:
    state.begin(FACTS)
    state.check(FACTS)
    with pytest.raises(UsageError, match=f"--resume continues the run in .*, but {message}: repeat the command"):
        state.check({**FACTS, **change})


def test_a_run_of_version_0_1_can_be_resumed(state: StateFolder) -> None:
    older = dict(SETTINGS)
    older["optimiser"] = older.pop("optimizer")
    state.begin({**FACTS, "settings": older})
    state.check(FACTS)
    state.save(TrainingProgress(), {"model": {}, "optimiser": {"step": 3}})
    loaded = state.load(torch.device("cpu"))
    assert loaded is not None
    assert loaded[1] == {"model": {}, "optimizer": {"step": 3}}


def test_a_setting_added_since_the_run_began_counts_as_its_default(state: StateFolder) -> None:
    older = {name: value for name, value in SETTINGS.items() if name not in ("stretch", "filter_db")}
    state.begin({**FACTS, "settings": older})
    state.check(FACTS)
    with pytest.raises(UsageError, match=r"--stretch was 0\.0 and is 0\.2"):
        state.check({**FACTS, "settings": {**SETTINGS, "stretch": 0.2}})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_deferred_and_raised_at_the_end(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[int] = []
    before = signal.signal(number, lambda received, _: raised.append(received))
    try:
        stop = StopRequest()
        with stop.watched():
            os.kill(os.getpid(), number)
            assert stop.signal == number
            assert raised == []
            os.kill(os.getpid(), number)  # the same, sent to the process and its group
            assert raised == []
            monkeypatch.setattr(stop_request, "SAME_SIGNAL_S", -1.0)
            os.kill(os.getpid(), number)  # a second signal is not deferred
            assert raised == [number]
        assert raised == [number, number]
    finally:
        signal.signal(number, before)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        stop = StopRequest()
        with stop.watched():
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_no_signal_is_touched_in_another_thread() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with StopRequest().watched():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
