"""The journal of a table: each input has its rows once, whatever stops the run and however often it resumes.

It is the journal of a run (`ast_cli.tagging.run.journal`), whose text is rows: those of an input are appended as they
are computed and confirmed together. Failed inputs have no line in it, so they are tried again. Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ast_cli.results import TaggingResult
from ast_cli.tagging.inputs import Input
from ast_cli.tagging.run.journal import Journal
from ast_cli.tagging.run.journal_lines import Header, Sidecars


class TableJournal(Journal):
    """Appends the rows of inputs to a file, and records which inputs are done.

    Args:
        rows: File of the rows.
        format_name: Format of the table.
        fingerprint: All settings that change rows, as JSON represents them: model, options.
        heading: First line of the file.
    """

    def __init__(self, rows: Path, format_name: str, fingerprint: Mapping[str, Any], heading: bytes) -> None:
        settings = json.loads(json.dumps({**fingerprint, "format": format_name}))
        self._heading = heading
        super().__init__(Sidecars(rows), Header(format_name, settings, None, generation=1))

    @property
    def path(self) -> Path:
        """The journal's file."""
        return self.sidecars.journal

    @property
    def exists(self) -> bool:
        """Whether a later run with ``resume`` can continue it."""
        return self.journal_file is not None

    def open(self, *, resume: bool, force: bool) -> TableJournal:
        """Start the file, or continue one.

        Raises:
            UsageError: If the file exists with neither ``resume`` nor ``force``, or was begun with other settings.
            AstError: If another run writes the file, it cannot be written, or it or its journal is damaged.
        """
        self.start(resume=resume, force=force)
        return self

    def add_rows(self, text: bytes) -> None:
        """Append rows of the present input; they count once `confirm_input` is called.

        Raises:
            AstError: If the file cannot be written.
        """
        try:
            self._output.append(text)
        except BaseException:
            self._cut_back()
            raise

    def confirm_input(self, item: Input) -> None:
        """Record that an input is done: all its rows have been added.

        Raises:
            AstError: If the journal cannot be written.
        """
        self.write(TaggingResult(item.path, model="", activation="none"), item, is_reported=False)

    def discard_rows(self) -> None:
        """Remove the rows of an input that failed."""
        self._cut_back()

    def _reset_writer(self) -> bytes:
        """Return the first line; rows depend on nothing before them."""
        return self._heading

    def _takes_text_over(self, format_name: str) -> bool:
        return True

    def _end_text(self) -> bytes:
        return b""
