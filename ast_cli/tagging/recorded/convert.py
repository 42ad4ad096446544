"""Results of files, read twice: once for a survey of what they contain, once to choose from them.

Standard library only.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ast_cli.errors import AstError, UsageError
from ast_cli.report.reading import STDIN, read_results
from ast_cli.report.text import printable
from ast_cli.results import TaggingResult
from ast_cli.tagging.recorded.choosing import RecordedChooser
from ast_cli.tagging.recorded.options import ConvertOptions
from ast_cli.tagging.recorded.survey import Survey


class Conversion:
    """Results that are chosen again; iterated once, it yields what is kept of each recording, or of each channel.

    Attributes:
        survey: What the results contain.
        chooser: What is kept of them.
        num_read: Number of results so far.
    """

    def __init__(self, files: Sequence[tuple[Path, str]], options: ConvertOptions) -> None:
        self._files = files
        self.survey = Survey()
        self.num_read = 0
        for result in self._results():
            self.survey.add(result)
        self.chooser = RecordedChooser(options, self.survey)

    def __iter__(self) -> Iterator[TaggingResult]:
        """Yield the results in the order of the files."""
        for result in self._results():
            self.num_read += 1
            if (kept := self.chooser(result)) is not None:
                yield kept

    def _results(self) -> Iterator[TaggingResult]:
        for file, name in self._files:
            for result in read_results(file, name=name):
                yield from result.records


@contextlib.contextmanager
def open_conversion(files: Sequence[str], options: ConvertOptions) -> Iterator[Conversion]:
    """Read files of results and check that the options fit them; every line has then been read once.

    Args:
        files: Outputs of ``ast classify`` in JSON Lines or JSON, ``-`` for standard input. What can be read only once,
            such as a pipe, is copied to a temporary file.
        options: What to keep.

    Raises:
        UsageError: If a file does not exist, or the options do not fit the results.
        AstError: If a file is damaged; the message names the line.
    """
    if list(files).count(STDIN) > 1:
        raise UsageError("standard input can be read once: name - once")
    with contextlib.ExitStack() as stack:
        yield Conversion([stack.enter_context(_readable_twice(file)) for file in files], options)


@contextlib.contextmanager
def _readable_twice(file: str) -> Iterator[tuple[Path, str]]:
    """Yield a file that can be read again, and the name of the original."""
    path, name = Path(file), "standard input" if file == STDIN else printable(file)
    if file != STDIN and (path.is_file() or path.is_dir() or not path.exists()):
        yield path, name
        return
    with tempfile.TemporaryDirectory(prefix="ast-") as folder:
        copy = Path(folder) / "results"
        try:
            with copy.open("wb") as target, contextlib.ExitStack() as stack:
                source = sys.stdin.buffer if file == STDIN else stack.enter_context(path.open("rb"))
                shutil.copyfileobj(source, target)
        except OSError as error:
            raise AstError(f"{name}: cannot be copied to a temporary file ({error.strerror or error})") from error
        yield copy, name
