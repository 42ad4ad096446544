"""``ast config``: the defaults that are set, and the file or variable that sets each."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from ast_cli.cli.commands import NAMES, LazyCommands
from ast_cli.cli.config_files import CONFIG_VARIABLE, KEYS, VARIABLE_PREFIX, config_files, defaults_for, variables_for
from ast_cli.cli.help_sections import flag_of, is_argument, sections_of, shown_value
from ast_cli.errors import DEBUG_VARIABLE, UsageError
from ast_cli.files.cache import CACHE_VARIABLE
from ast_cli.report.text import printable

BUILT_IN = "built in"
OWN_VARIABLES = {CONFIG_VARIABLE, DEBUG_VARIABLE, CACHE_VARIABLE}  # which set no option


def config(
    command: Annotated[
        str | None, typer.Argument(metavar="COMMAND", help="Show every option of this command that can have a default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same as JSON.")] = False,
) -> None:
    """Show the defaults that configuration files and variables set, and where each comes from.

    From the weakest to the strongest: ast.toml in the user's configuration folder, ast.toml in the current folder, a
    variable such as AST_TOP_K or AST_CLASSIFY_TOP_K, a flag on the command line.
    """
    if command is not None and command not in NAMES:
        raise UsageError(f"there is no command {command!r}; there are {', '.join(NAMES)}")
    params = {name: loaded.params for name, loaded in LazyCommands().items()}
    shown = [command] if command else NAMES
    rows = [row for name in shown for row in _rows(name, params[name], is_complete=command is not None)]
    files = [{"path": str(file), "exists": file.is_file()} for file in config_files()]
    known = _known_variables(params)
    unknown = sorted(name for name in os.environ if name.startswith(VARIABLE_PREFIX) and name not in known)
    if as_json:
        typer.echo(json.dumps({"files": files, "defaults": rows, "unknown_variables": unknown}, indent=2))
        return
    typer.echo("Configuration files, the stronger last:")
    for file in files:
        typer.echo(f"  {printable(str(file['path']))}  {'' if file['exists'] else '(does not exist)'}".rstrip())
    typer.echo(f"\nDefaults{f' of ast {command}' if command else ''}:" if rows else "\nNo default is set.")
    widths = [max(len(shown_value(row[key])) for row in rows) for key in ("command", "option", "value")] if rows else []
    for row in rows:
        cells = [printable(shown_value(row[key])).ljust(width) for key, width in zip(row, widths, strict=False)]
        typer.echo(f"  {'  '.join(cells)}  {printable(row['source'])}")
    for name in unknown:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        typer.echo(f"{name} is set, but there is no such option{hint}", err=True)


def _rows(command: str, params: Sequence[Any], *, is_complete: bool) -> list[dict[str, Any]]:
    """Return the options of a command that have a default set by a file or a variable, or all of its options."""
    found = defaults_for(command, params, NAMES)
    rows = []
    for _section, options in sections_of(params):
        for option in options:
            if option.name in found:
                rows.append(_row(command, option, found[option.name].value, found[option.name].source))
            elif is_complete and flag_of(option) in KEYS.values():
                rows.append(_row(command, option, option.default, BUILT_IN))
    return rows


def _row(command: str, option: Any, value: Any, source: str) -> dict[str, Any]:
    return {"command": command, "option": flag_of(option), "value": value, "source": source}


def _known_variables(params: Mapping[str, Sequence[Any]]) -> set[str]:
    """Return the variables that this program reads, from the parameters of its commands by name."""
    return OWN_VARIABLES | {
        name
        for command, options in params.items()
        for param in options
        if not is_argument(param) and flag_of(param) in KEYS.values()
        for name in variables_for(command, flag_of(param))
    }
