"""A run into a Parquet file, which is complete at its end only.

The results are kept as JSON Lines in ``tags.parquet.ast-records`` with a journal of its own, so that a run may be
stopped and continued like any other. At the end ``tags.parquet`` is made from them, whole or not at all, in memory that
does not depend on their number.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ast_cli.errors import UsageError
from ast_cli.files.atomic import replacing, writing
from ast_cli.report.parquet import write_parquet
from ast_cli.report.reading import read_results
from ast_cli.tagging.run.journal import Journal, open_journal
from ast_cli.tagging.run.journal_lines import records_file


@contextlib.contextmanager
def open_parquet_output(
    output: Path, fingerprint: Mapping[str, Any], *, resume: bool = False, force: bool = False, **journal: Any
) -> Iterator[Journal]:
    """Keep the results of a ``with`` block, and write the Parquet file at its end, unless it ends with an error.

    Args:
        output: File to write.
        fingerprint: All settings that change results.
        resume: Whether to continue an output that exists.
        force: Whether to replace an output that exists.
        **journal: Other arguments of `ast_cli.tagging.run.journal.open_journal`.

    Raises:
        UsageError, AstError: As `ast_cli.tagging.run.journal.open_journal`; or if the file cannot be written.
    """
    records = records_file(output)
    if resume and output.exists() and not records.exists():
        raise UsageError(f"{output} cannot be continued without {records.name} beside it; --force replaces it")
    with open_journal(records, "jsonl", fingerprint, resume=resume, force=force, **journal) as opened:
        yield opened
    results = read_results(records) if records.exists() else iter(())
    with writing(output), replacing(output) as stream:
        write_parquet(results, stream)
