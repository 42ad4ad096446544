"""``ast merge``: the outputs of shards to one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ast_cli.cli import parameters as p
from ast_cli.cli.streams import note


def merge(
    parts: Annotated[list[Path], typer.Argument(metavar="PARTS...", help="Outputs of finished runs, in order.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")],
    force: p.Force = False,
    quiet: p.Quiet = False,
) -> None:
    """Join the outputs of shards, all in one format, into one, refusing torn lines, duplicates and missing shards.

    Example: `ast merge tags-0.jsonl tags-1.jsonl --output tags.jsonl`
    """
    from ast_cli.tagging.run.merge import merge_outputs

    report = merge_outputs(parts, output, force=force)
    note(
        f"merged {report.num_parts} outputs into {output}: "
        f"{report.num_files} files, {report.num_ok} ok, {report.num_failed} failed",
        quiet=quiet,
    )
