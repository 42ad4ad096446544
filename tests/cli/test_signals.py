"""Ctrl-C and SIGTERM end a process, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from ast_cli.errors import ExitCode

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

BEGINNING = """
import os, signal, sys, time
from ast_cli.cli import signals
signals.end_on_signals()
"""
NUMBERS = pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED)]
)


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BEGINNING + textwrap.dedent(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@NUMBERS
def test_raise_if_ended_raises_a_signal_that_a_library_swallowed(number: int, code: int) -> None:
    program = """
    try:
        os.kill(os.getpid(), int(sys.argv[1]))
    except BaseException:
        print("swallowed")
    try:
        signals.raise_if_ended()
    except (KeyboardInterrupt, signals.Terminated) as raised:
        print(type(raised).__name__)
    """
    name = "KeyboardInterrupt" if number == signal.SIGINT else "Terminated"
    assert run(program, number).stdout.split() == ["swallowed", name]


@NUMBERS
def test_second_signal_ends_at_once_and_with_the_same_code(number: int, code: int) -> None:
    program = """
    try:
        os.kill(os.getpid(), int(sys.argv[1]))
    except BaseException:
        time.sleep(signals.SAME_SIGNAL_S + 0.1)
        try:
            os.kill(os.getpid(), int(sys.argv[1]))
        finally:
            print("cleaned up", flush=True)
    """
    done = run(program, number)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


@NUMBERS
def test_first_signal_ends_at_once_while_there_is_nothing_to_save(number: int, code: int) -> None:
    program = """
    with signals.nothing_to_save():
        try:
            os.kill(os.getpid(), int(sys.argv[1]))
        finally:
            print("unwound", flush=True)
    """
    done = run(program, number)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_signal_after_nothing_to_save_unwinds() -> None:
    program = """
    with signals.nothing_to_save():
        pass
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except signals.Terminated:
        print("flushed")
    """
    assert run(program).stdout == "flushed\n"


def test_two_signals_within_a_moment_count_as_one() -> None:
    program = """
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except signals.Terminated:
        os.kill(os.getpid(), signal.SIGTERM)
        print("flushed")
    """
    assert run(program).stdout == "flushed\n"


def test_signal_that_is_ignored_stays_ignored() -> None:
    program = f"""
    import subprocess
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = {BEGINNING + "os.kill(os.getpid(), signal.SIGINT)"!r}
    sys.exit(subprocess.run([sys.executable, "-c", code]).returncode)
    """
    assert run(program).returncode == 0


def test_no_signal_raises_nothing() -> None:
    assert run("signals.raise_if_ended(); print('on')").stdout == "on\n"


@NUMBERS
def test_signal_while_modules_are_imported_ends_with_its_code(number: int, code: int) -> None:
    program = """
    import os, sys
    class Interrupting:
        def find_spec(self, name, path=None, target=None):
            if name == "ast_cli.cli.commands":
                os.kill(os.getpid(), int(sys.argv[1]))
    sys.meta_path.insert(0, Interrupting())
    from ast_cli.__main__ import main
    main()
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ))
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")
