"""Defaults that the user sets, in files and variables.

From the weakest to the strongest: ``ast.toml`` in the user's configuration folder, ``ast.toml`` in the current folder,
``AST_TOP_K``, ``AST_CLASSIFY_TOP_K``, and the flag on the command line. In a file, a table such as ``[classify]`` has
the options of one command; a key before the first table applies to every command that has such an option::

    device = "cuda"

    [classify]
    top_k = 10
    format = "jsonl"
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ast_cli.about import default_flag
from ast_cli.cli.help_sections import SECTIONS, flag_of, is_argument
from ast_cli.errors import UsageError

CONFIG_NAME = "ast.toml"
CONFIG_VARIABLE = "AST_CONFIG"  # a file that is read instead of both; empty for none
VARIABLE_PREFIX = "AST_"
MAX_CONFIG_BYTES = 1 << 20
# Options for the files or actions of a single run. A default for these could overwrite a file.
NEVER_DEFAULTS = frozenset(
    "--output --output-dir --plot --predictions --thresholds-output --apply --calibrate --features --keep-checkpoint "
    "--resume --retry-errors --force --files-from --null --shard --dry-run --json --list --raw-rate --raw-format "
    "--raw-channels --search --tree --split --fold --folds --soft-targets --thresholds --help --version --debug "
    "--all".split()
)
# Options that mean something else in each command: their defaults are set for one command.
OF_ONE_COMMAND = frozenset({"--format", "--batch-size", "--dtype", "--max-length", "--num-mel-bins"})
# Options with another meaning than in the other commands: only the command's own table and variable set their defaults.
# --model of stats and benchmark is not the model to tag with. A default that chooses what ast classify reports must not
# make ast convert drop what was recorded.
OWN_OPTIONS = {
    "stats": frozenset({"--model"}),
    "benchmark": frozenset({"--model"}),
    "convert": frozenset(
        "--top-k --threshold --labels --exclude-labels --specific --timestamps --events --matches-only".split()
    ),
}
DEFAULTS = "ast_cli.defaults"  # where a command's context keeps the defaults that were set for it
KEYS = {
    flag.removeprefix("--").replace("-", "_"): flag
    for flags in SECTIONS.values()
    for flag in flags
    if flag not in NEVER_DEFAULTS
}


@dataclass(frozen=True, slots=True)
class Default:
    """The default of one option and where it comes from.

    Attributes:
        value: Value as it is written: a string from a variable, a TOML value from a file.
        source: The variable's name, or the file's path.
    """

    value: Any
    source: str


def config_files() -> list[Path]:
    """Return the configuration files that would be read, the weakest first, whether they exist or not."""
    named = os.environ.get(CONFIG_VARIABLE)
    if named is not None:
        return [Path(named)] if named else []
    import platformdirs

    return [platformdirs.user_config_path("ast", appauthor=False) / CONFIG_NAME, Path(CONFIG_NAME)]


def defaults_for(command: str, params: Sequence[Any], commands: Sequence[str]) -> dict[str, Default]:
    """Return the defaults that files and variables set for one command, by parameter name.

    Args:
        command: Name of the command.
        params: Its parameters.
        commands: Names of all commands, which may be tables of a file.

    Raises:
        UsageError: If a file cannot be read, or contains an unknown option or a value of the wrong type.
    """
    options = {flag_of(param): param for param in params if not is_argument(param)}
    found: dict[str, Default] = {}
    for file in config_files():
        content = _read_toml(file)
        if content is not None:
            found |= _from_file(file, content, command, options, commands)
    for flag, param in options.items():
        if flag in KEYS.values():
            for name in variables_for(command, flag):
                if value := os.environ.get(name):
                    found[param.name] = Default([value] if param.multiple else value, name)
    return found


def variables_for(command: str, flag: str) -> list[str]:
    """Return the names of the variables that set an option, the weaker first: ``AST_TOP_K``, ``AST_CLASSIFY_TOP_K``."""
    option = flag.removeprefix("--").replace("-", "_").upper()
    prefixes = ["", f"{command.upper()}_"][flag in OF_ONE_COMMAND or _is_own(command, flag) :]
    return [f"{VARIABLE_PREFIX}{prefix}{option}" for prefix in prefixes]


def _is_own(command: str, flag: str) -> bool:
    return flag in OWN_OPTIONS.get(command, ())


def source_of(param: Any, ctx: Any) -> str:
    """Return `` (set by AST_TOP_K)`` if the value of an option comes from a variable or a file, else an empty text."""
    source, default = ctx.get_parameter_source(param.name), ctx.meta.get(DEFAULTS, {}).get(param.name)
    is_default = default is not None and source is not None and source.name == "DEFAULT_MAP"
    return f" (set by {default.source})" if is_default else ""


def _read_toml(file: Path) -> dict[str, Any] | None:
    """Read a configuration file; None where there is none.

    Raises:
        UsageError: If it cannot be read or is not valid TOML.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        if os.environ.get(CONFIG_VARIABLE):
            raise UsageError(f"{CONFIG_VARIABLE}={file}: no such file") from None
        return None
    except OSError as error:
        raise UsageError(f"configuration file {file}: cannot be read ({error.strerror})") from error
    if len(content) > MAX_CONFIG_BYTES:
        raise UsageError(f"configuration file {file}: is larger than 1 MB")
    import tomllib

    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except ValueError as error:  # no UTF-8, no TOML
        raise UsageError(f"configuration file {file}: not valid TOML ({error})") from error


def _from_file(
    file: Path, content: Mapping[str, Any], command: str, options: Mapping[str, Any], commands: Sequence[str]
) -> dict[str, Default]:
    found: dict[str, Default] = {}
    for is_own_table, key, value in _entries(file, content, command, commands):
        flag = KEYS.get(key.replace("-", "_"))
        where = f"{file}: [{command}] {key}" if is_own_table else f"{file}: {key}"
        if flag is None or (is_own_table and flag not in options):
            raise UsageError(f"{where}: {_no_option(key, command if is_own_table else None, options)}")
        if not is_own_table and flag in OF_ONE_COMMAND:
            raise UsageError(f"{where}: has another meaning in each command; write it below a line such as [{command}]")
        if flag in options and (is_own_table or not _is_own(command, flag)):
            param = options[flag]
            found[param.name] = Default(_checked(value, param, where), str(file))
    return found


def _entries(
    file: Path, content: Mapping[str, Any], command: str, commands: Sequence[str]
) -> Iterator[tuple[bool, str, Any]]:
    """Yield whether an entry is in the command's table, its key and its value; the table comes last."""
    for key, value in content.items():
        if isinstance(value, dict) and key not in commands:
            raise UsageError(f"{file}: [{key}]: there is no such command; there are {', '.join(commands)}")
        if not isinstance(value, dict) and key in commands and key not in KEYS:  # `labels` is both
            raise UsageError(f"{file}: {key} is a command: write its options below a line [{key}]")
        if not isinstance(value, dict):
            yield False, key, value
    table = content.get(command)
    for key, value in table.items() if isinstance(table, dict) else ():
        yield True, key, value


def _no_option(key: str, command: str | None, options: Mapping[str, Any]) -> str:
    """Return the reason why a key is refused, with the most similar valid key."""
    flag = default_flag(key)
    if flag in NEVER_DEFAULTS:
        return f"{flag} belongs to one run and cannot have a default; give it on the command line"
    known = [key for key, flag in KEYS.items() if command is None or flag in options]
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"ast {command} has no such option{hint}" if command else f"no command has such an option{hint}"


def _checked(value: Any, param: Any, where: str) -> Any:
    """Return a TOML value as the option takes it.

    Raises:
        UsageError: If it has a type that the option does not take.
    """
    if param.is_flag and not isinstance(value, bool):
        raise UsageError(f"{where}: must be true or false, not {value!r}")
    values = value if isinstance(value, list) and param.multiple else [value]
    if not param.is_flag and not all(
        isinstance(each, str | int | float) and not isinstance(each, bool) for each in values
    ):
        raise UsageError(f"{where}: must be {'text, or a list of it' if param.multiple else 'a number or text'}")
    texts = [str(each) for each in values]
    return value if param.is_flag else texts if param.multiple else texts[0]
