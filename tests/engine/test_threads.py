"""The default number of CPU threads of a runtime."""

from __future__ import annotations

import os

import pytest

from ast_cli.engine.interface import default_num_threads


def test_threads_by_default_are_those_of_openmp_else_the_cores_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, expected in (("3", 3), ("2,4", 2), (" 5 ", 5)):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert default_num_threads() == expected
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 3, 7}, raising=False)
    for value in ("", "0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert default_num_threads() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert default_num_threads() == os.cpu_count()
