"""Errors are one sentence; their traces come with --debug alone, those of worker processes too."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ast_cli.errors import ExitCode

Run = Callable[..., "subprocess.CompletedProcess[str]"]
WITH_A_BUG = """
import sys
from ast_cli import selfcheck
from ast_cli.cli import main
selfcheck.versions = lambda: {}["no such key"]
sys.argv = ["ast", *sys.argv[1:]]
main()
"""


def run_with_a_bug(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITH_A_BUG, "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_an_internal_error_is_one_sentence_with_the_exception() -> None:
    done = run_with_a_bug()
    assert done.returncode == ExitCode.FATAL
    assert done.stderr == (
        "error: internal error (KeyError: 'no such key'): this is a bug; "
        "run it again with --debug for the trace, and please report it\n"
    )


def test_debug_shows_the_trace_of_a_bug() -> None:
    done = run_with_a_bug("--debug")
    assert done.returncode == ExitCode.FATAL
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert "<lambda>" in done.stderr
    assert done.stderr.endswith("error: internal error (KeyError: 'no such key'): this is a bug; please report it\n")


@pytest.mark.parametrize("num_workers", ["0", "1"])
def test_debug_shows_why_a_file_has_no_scores(run_ast: Run, tmp_path: Path, num_workers: str) -> None:
    (tmp_path / "junk.wav").write_bytes(b"this is no audio")
    arguments = ("classify", "junk.wav", "--model", "builtin", "--format", "csv", "--workers", num_workers)
    quiet = run_ast(*arguments, cwd=tmp_path)
    assert "Traceback" not in quiet.stderr
    loud = run_ast("--debug", *arguments, cwd=tmp_path)
    assert loud.stderr.count("ast_cli.errors.AudioError: junk.wav: not an audio file") == 1
    assert (loud.returncode, loud.stdout) == (quiet.returncode, quiet.stdout) == (ExitCode.SOME_FAILED, quiet.stdout)


def test_debug_is_accepted_anywhere_before_two_dashes(run_ast: Run, tmp_path: Path) -> None:
    (tmp_path / "junk.wav").write_bytes(b"this is no audio")
    junk = run_ast("extract", "junk.wav", "-o", "x.npz", "--model", "builtin", "--debug", cwd=tmp_path)
    assert "Traceback" in junk.stderr
    file = run_ast("classify", "--model", "builtin", "--", "--debug", cwd=tmp_path)
    assert "Traceback" not in file.stderr
    assert file.stderr.startswith("error: --debug: no such file; arguments after -- are names of files")
