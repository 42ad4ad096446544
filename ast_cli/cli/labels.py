"""``ast labels``: the labels of a model and their places in AudioSet's hierarchy."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from ast_cli.cli import parameters as p
from ast_cli.cli.streams import note, results_stream, writing_stdout
from ast_cli.errors import UsageError


def labels(
    *,
    search: Annotated[
        str | None,
        typer.Option(
            "--search",
            metavar="TEXT",
            help="List only labels whose name or /m/ id contains this text; with --tree, what is above and below too.",
        ),
    ] = None,
    tree: Annotated[
        bool, typer.Option("--tree", help="Draw AudioSet's hierarchy with the labels that the model has.")
    ] = False,
    format_name: Annotated[
        Literal["table", "json", "csv"], typer.Option("--format", "-f", help="Format of the list.")
    ] = "table",
    model: p.Model = None,
    unnamed_labels: p.UnnamedLabels = False,
    quiet: p.Quiet = False,
) -> None:
    """List a model's labels: index, AudioSet's id, name, and the classes above it in AudioSet's hierarchy.

    Labels that a model lists as unproven are marked: in its training they never had a score over 0.3.

    Examples: `ast labels --search dog`, `ast labels --tree --model audioset`
    """
    if tree and format_name != "table":
        raise UsageError(f"--tree draws text: leave out --format {format_name}, or leave out --tree")
    if search is not None and not search.strip():
        raise UsageError("--search is empty: give a part of a name")
    name = p.choose_model(model, quiet=quiet)

    from ast_cli.cli.label_table import csv_text, json_text, table_text, tree_text
    from ast_cli.label_list import UNPROVEN_SCORE, list_labels

    listed = list_labels(name, unnamed_labels=unnamed_labels)
    shown = listed if search is None or tree else listed.containing(search.strip())
    if tree:
        text = tree_text(listed, search)
    else:
        text = {"table": table_text, "json": json_text, "csv": csv_text}[format_name](shown)
    with results_stream() as stream, writing_stdout():
        stream.write(text)
        stream.flush()
    if any(each.unproven for each in shown.labels):
        num_unproven = sum(each.unproven or False for each in listed.labels)
        note(
            f"unproven: no score over {UNPROVEN_SCORE:g} in the training of {name} "
            f"({num_unproven} of its {len(listed.labels)} labels)",
            quiet=quiet,
        )
