"""``ast download``: download checkpoints, verify them, and load each once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ast_cli.cli.models import write_models
from ast_cli.cli.parameters import Quiet
from ast_cli.cli.streams import note
from ast_cli.errors import UsageError
from ast_cli.hub.download import download as fetch_checkpoint
from ast_cli.hub.names import (
    BUILTIN,
    DEFAULT_ALIAS,
    DEFAULT_REVISION,
    PREPROCESSOR_NAME,
    repo_id_of,
)

BYTES_PER_MB = 1_000_000


def download(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Aliases (see --list) or hub ids such as org/name.", show_default=False),
    ] = None,
    list_checkpoints: Annotated[
        bool,
        typer.Option("--list", help="List the published checkpoints, as ast models does; uses no network."),
    ] = False,
    revision: Annotated[
        str, typer.Option(help="Branch, tag or commit; for any but main, pass the printed folder to --model.")
    ] = DEFAULT_REVISION,
    output_dir: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Put each checkpoint into FOLDER/NAME instead of the cache."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Download checkpoints (by default audioset), verify sizes and hashes, and load each once as a test."""
    if list_checkpoints:
        if names:
            raise UsageError("--list takes no names")
        write_models("table")
        return
    repo_ids = {name: _repo_id(name) for name in names or [DEFAULT_ALIAS]}
    for name, repo_id in repo_ids.items():
        note(f"fetching {name}" + (f" ({repo_id})" if name != repo_id else ""), quiet=quiet)
        target = output_dir / name.rsplit("/")[-1] if output_dir else None
        folder = fetch_checkpoint(repo_id, revision, target, quiet=quiet)
        num_labels = _load_once(folder)
        size_bytes = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        typer.echo(f"{name}: {num_labels} labels, {size_bytes / BYTES_PER_MB:.1f} MB, {folder}")


def _repo_id(name: str) -> str:
    """Return the hub id of a name; raises before any download if one of the names is invalid."""
    if name == BUILTIN:
        raise UsageError(f"{BUILTIN!r} ships with the package: there is nothing to fetch")
    return repo_id_of(name)


def _load_once(folder: Path) -> int:
    """Load the model and its feature extractor as the other commands do, and return the number of labels."""
    from ast_cli.audio.feature_extractor import FeatureExtractor
    from ast_cli.model.transformer import ASTForAudioClassification

    # A checkpoint without a front end or label names is complete; the commands that need them report what is missing.
    if (folder / PREPROCESSOR_NAME).is_file():
        FeatureExtractor.from_pretrained(folder)
    return ASTForAudioClassification.from_pretrained(folder, unnamed_labels=True).config.num_labels
