"""An output that is made from others and written whole, not result by result. Standard library only."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

from ast_cli.errors import UsageError
from ast_cli.files.atomic import replacing, writing
from ast_cli.files.target import ReadFiles, check_target
from ast_cli.tagging.run.journal_lines import Sidecars, records_file


def check_whole_output(output: Path, sources: Iterable[str], name: str, *, force: bool) -> None:
    """Check that an output which is written whole replaces no source, and no other file or run without ``force``.

    Raises:
        UsageError: If the file must not be written; the message says what to do.
    """
    check_target(output, ReadFiles(sources, name), force=force, makes_folder=True)
    if not force and any(file.exists() for file in _files_of_run(output)):
        raise UsageError(f"--output {output} has the journal of a run beside it: add --force to replace both")


@contextlib.contextmanager
def whole_output(output: Path) -> Iterator[BinaryIO]:
    """Write an output whole: it appears at the end of the block, and what a run kept beside a replaced output goes.

    Raises:
        AstError: If the file cannot be written; an existing file then stays as it was.
    """
    with writing(output):
        with replacing(output) as stream:
            yield stream
        for file in _files_of_run(output):
            file.unlink(missing_ok=True)


def _files_of_run(output: Path) -> tuple[Path, ...]:
    """Return the files that a run keeps beside its output in order to be continued; the journals first."""
    records = records_file(output)
    return Sidecars(output).journal, Sidecars(records).journal, records


@contextlib.contextmanager
def as_text(file: BinaryIO) -> Iterator[TextIO]:
    """Yield a text stream over a file, which stays open."""
    stream = io.TextIOWrapper(file, encoding="utf-8", errors="replace", newline="")
    yield stream
    stream.flush()
    stream.detach()
