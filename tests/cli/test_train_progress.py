from __future__ import annotations

import io
import os
import sys
from typing import Any

import pytest

from ast_cli.cli import train_progress
from ast_cli.cli.train_progress import TrainDisplay
from ast_cli.training.trainer import Report


def epoch_end(epoch: int, num_epochs: int, metric: float | None, **changes: Any) -> Report:
    row = {"validation_metric": metric}
    return Report(epoch, num_epochs, 3, 3, 1 / epoch, 800.0, 0.0, row, is_last=epoch == num_epochs, **changes)


def shown_epochs(stderr: str) -> list[str]:
    return [line.split("  ")[0] for line in stderr.splitlines()]


def test_quick_epochs_have_a_line_at_the_first_the_last_and_every_new_best(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = [0.5, 0.5, 0.75, 0.5, 0.75, 0.25, 0.75]
    display = TrainDisplay(quiet=False)
    for fold in (1, 2):  # the second run shows its own first epoch
        best = -1.0
        for epoch, metric in enumerate(metrics, start=1):
            display.report(Report(epoch, len(metrics), 1, 3, 1.0, 800.0, 0.0))
            display.report(epoch_end(epoch, len(metrics), metric, is_best=metric > best))
            best = max(best, metric)
        lines = capsys.readouterr().err.splitlines()
        assert [line.split("  ")[0] for line in lines] == ["epoch 1/7", "epoch 3/7", "epoch 7/7"], fold
    assert lines[1] == "epoch 3/7  loss 0.3333  validation 0.7500  best so far  800.0 clips/s  0 s left"
    assert lines[2] == "epoch 7/7  loss 0.1429  validation 0.7500  800.0 clips/s  0 s left"


def test_epochs_without_validation_have_a_line_at_the_first_and_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    display = TrainDisplay(quiet=False)
    for epoch in range(1, 101):
        display.report(epoch_end(epoch, 100, None))
    assert shown_epochs(capsys.readouterr().err) == ["epoch 1/100", "epoch 100/100"]


def test_slow_epochs_have_a_line_each(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(train_progress.time, "monotonic", lambda: now)
    display = TrainDisplay(quiet=False)
    for epoch in range(1, 6):
        now += train_progress.EPOCH_INTERVAL_S
        display.report(epoch_end(epoch, 5, 0.5))
    assert shown_epochs(capsys.readouterr().err) == [f"epoch {epoch}/5" for epoch in range(1, 6)]


def test_a_quiet_run_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainDisplay(quiet=True) as display:
        display.report(epoch_end(1, 1, 0.5, is_best=True))
        display.note("note: something")
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs terminals")
def test_epochs_without_a_line_of_their_own_pass_in_the_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with TrainDisplay(quiet=False) as display:
        display.report(epoch_end(1, 3, 0.5, is_best=True))
        display.report(epoch_end(2, 3, 0.5))
        assert display._line.startswith("epoch 2/3  loss 0.5000  validation 0.5000  ")
        display.report(epoch_end(3, 3, 0.5))
    text = terminal.getvalue()
    for epoch in (1, 3):
        assert f"epoch {epoch}/3  loss {1 / epoch:.4f}" in text
    assert text.endswith("\x1b[2K")  # the live line is erased
