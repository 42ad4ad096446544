"""Standard output for results, standard error for everything else."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TextIO

from ast_cli.errors import DEBUG_VARIABLE, AstError
from ast_cli.report.text import printable
from ast_cli.results import FileError


def note(text: str, *, quiet: bool = False) -> None:
    """Tell the user something on standard error, unless ``--quiet``; names in it may come from anywhere."""
    if not quiet:
        sys.stderr.write(f"{printable(text)}\n")  # in one piece: progress comes from another thread
        sys.stderr.flush()


def tell_faults(path: str | None, error: FileError | None, warnings: Sequence[str], *, quiet: bool) -> None:
    """Say what went wrong with one input: an error even if ``quiet``."""
    if error is not None:
        note(f"error: {error.message}")
    elif warnings:
        note(f"warning: {path or ''}: {', '.join(warnings)}", quiet=quiet)


@contextlib.contextmanager
def results_stream() -> Iterator[TextIO]:
    """Give standard output for results: UTF-8 and plain line ends on every system."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", errors="replace", newline="\n")
    yield sys.stdout


def abandon_stdout() -> None:
    """Send what is left of standard output nowhere, so that the interpreter does not fail on it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def writing_stdout() -> Iterator[None]:
    """Turn a failing write to standard output into one sentence; a closed pipe passes as it is.

    Raises:
        AstError: The disk behind it is full, for example.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        abandon_stdout()
        raise AstError(f"standard output: cannot be written ({error.strerror})") from error


@contextlib.contextmanager
def quiet_native_libraries() -> Iterator[None]:
    """Keep C libraries off the terminal: mpg123 and others write to file descriptor 2 about broken files.

    Python's own ``sys.stderr`` goes on to where it went. With ``--debug`` their words are wanted.
    """
    if os.environ.get(DEBUG_VARIABLE):
        yield
        return
    try:
        number = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # replaced by something without a descriptor
        yield
        return
    sys.stderr.flush()
    kept, python_stderr = os.dup(number), sys.stderr
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)
    sys.stderr = open(kept, "w", encoding=python_stderr.encoding, errors="backslashreplace", buffering=1)  # noqa: SIM115
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(sys.stderr.fileno(), number)
        sys.stderr.close()
        sys.stderr = python_stderr
