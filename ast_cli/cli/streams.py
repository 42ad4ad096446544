"""Standard output for results, standard error for messages."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TextIO

from ast_cli.cli.terminal import terminal_width, wrapped
from ast_cli.errors import DEBUG_VARIABLE, AstError
from ast_cli.report.text import printable
from ast_cli.results import FileError


def note(text: str, *, quiet: bool = False) -> None:
    """Print a line on standard error unless ``quiet``; it is escaped, and wrapped between words on a terminal."""
    if not quiet:
        line = wrapped(printable(text), terminal_width(sys.stderr))
        sys.stderr.write(f"{line}\n")  # one write: progress is printed by another thread
        sys.stderr.flush()


def notice(text: str, *, quiet: bool = False) -> None:
    """Write a message to standard error only if that is a terminal, for information that a log does not need."""
    note(text, quiet=quiet or not sys.stderr.isatty())


def print_faults(path: str | None, error: FileError | None, warnings: Sequence[str], *, quiet: bool) -> None:
    """Print the error or the warnings of one input; errors are printed even if ``quiet``."""
    if error is not None:
        note(f"error: {error.message}")
    elif warnings:
        note(f"warning: {path or ''}: {', '.join(warnings)}", quiet=quiet)


@contextlib.contextmanager
def results_stream() -> Iterator[TextIO]:
    """Yield standard output for results, with UTF-8 and LF line ends on every system."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", errors="replace", newline="\n")
    yield sys.stdout


def abandon_stdout() -> None:
    """Redirect standard output to the null device, so that the interpreter's final flush does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def writing_stdout() -> Iterator[None]:
    """Convert a failed write to standard output into an `AstError`; the error of a closed pipe passes unchanged.

    Raises:
        AstError: If standard output cannot be written, for example because it goes to a full disk.
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
    """Hide the messages that C libraries such as mpg123 write to file descriptor 2 about broken files.

    Python's own ``sys.stderr`` still writes to the original destination. With ``--debug`` nothing is hidden.
    """
    if os.environ.get(DEBUG_VARIABLE):
        yield
        return
    try:
        number = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # replaced by an object without a descriptor
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
