"""The commands by name. The module of a command is imported only when the command is used, for a fast start."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, MutableMapping
from typing import Any

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

from ast_cli.cli.config_files import DEFAULTS, defaults_for, source_of
from ast_cli.cli.help_sections import flag_of, help_of, is_argument, metavar_of, names_of, sections_of, write_rows
from ast_cli.errors import UsageError

# Commands with their descriptions, by heading. Each is in the module of ``ast_cli.cli`` with its name.
COMMANDS: dict[str, dict[str, str]] = {
    "Tag recordings": {
        "classify": "Tag audio files with the model's labels.",
        "plot": "Draw recordings and their labels over time.",
        "extract": "Write features, embeddings or logits to files.",
        "merge": "Join the outputs of the shards of a run.",
        "convert": "Filter and convert results that exist.",
        "diff": "Show what changed between two outputs.",
        "report": "Write results as a page to look at.",
    },
    "Train and evaluate": {
        "finetune": "Train a model on labeled recordings.",
        "evaluate": "Evaluate a model on labeled recordings.",
        "stats": "Compute the mean and standard deviation of a training set.",
    },
    "Models": {
        "models": "List known models, their quality and cost.",
        "labels": "List the labels of a model, also as a tree.",
        "download": "Fetch published checkpoints.",
        "export": "Convert a model for ONNX Runtime or OpenVINO.",
    },
    "This machine": {
        "benchmark": "Measure the speed of engines and data types.",
        "doctor": "Check the installation against stored values.",
        "config": "Show the defaults set by files and variables.",
    },
}
NAMES = [name for commands in COMMANDS.values() for name in commands]


class AstCommand(TyperCommand):
    """A command whose help lists its options under headings, and whose errors name the source of a wrong default."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then each section that has an option of this command."""
        params, configured = self.get_params(ctx), ctx.default_map or {}
        write_rows(formatter, "Arguments", [(metavar_of(p), help_of(p)) for p in params if is_argument(p)])
        for section, options in sections_of(params):
            write_rows(formatter, section, [(names_of(o), help_of(o, configured.get(o.name))) for o in options])

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error in the value of an option says where the value was set."""
        try:
            return super().invoke(ctx)
        except UsageError as error:
            named = [param for param in self.params if not is_argument(param) and flag_of(param) in str(error).split()]
            sources = "".join(source_of(param, ctx) for param in named)
            if not sources:
                raise
            raise UsageError(f"{error}{sources}") from error


class LazyCommands(MutableMapping[str, Any]):
    """The commands by name, each made when it is first looked up."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        """Return a command, importing its module."""
        if name not in self._made:
            if name not in NAMES:
                raise KeyError(name)
            module = importlib.import_module(f"ast_cli.cli.{name}")
            program = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
            program.command(name, cls=AstCommand)(getattr(module, name))
            self._made[name] = typer.main.get_command(program)
        return self._made[name]

    def __setitem__(self, name: str, command: Any) -> None:
        """Add a command, as Typer does for those that are registered by a decorator."""
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        """Remove a command."""
        del self._made[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names in the order of the help."""
        return iter(NAMES)

    def __len__(self) -> int:
        """Return the number of commands."""
        return len(NAMES)


class AstGroup(TyperGroup):
    """The program: its commands are loaded when they are used, and ``ast help COMMAND`` shows a command's help."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = LazyCommands()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read ``help COMMAND`` as ``COMMAND --help``."""
        if args[:1] == ["help"]:
            args = [*args[1:2], "--help"]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the command and give its options the defaults of configuration files and variables."""
        try:
            name, command, rest = super().resolve_command(ctx, args)
        except Exception as error:
            if os.path.exists(args[0]) and hasattr(error, "message"):
                error.message += f" Did you mean `ast classify {args[0]}`?"
            raise
        if name is not None and command is not None and not ctx.resilient_parsing:
            defaults = defaults_for(name, command.params, NAMES)
            ctx.meta[DEFAULTS] = defaults
            ctx.default_map = {name: {param: default.value for param, default in defaults.items()}}
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command; the message about a wrong value names the file or variable that the value comes from."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = plain_words(error.message)
            if error.ctx is not None and error.param is not None:
                error.message += source_of(error.param, error.ctx)
            raise

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the commands under their headings, then the options."""
        for heading, commands in COMMANDS.items():
            write_rows(formatter, heading, list(commands.items()))
        write_rows(formatter, "Options", [(names_of(p), help_of(p)) for p in self.get_params(ctx)])


def plain_words(message: str) -> str:
    """Return a message about a wrong value in plain words instead of those of the library that validates it."""
    if "valid integer" in message:
        return "it must be a whole number"
    if "valid number" in message or "valid float" in message:
        return "it must be a number"
    if "valid boolean" in message:
        return "it must be true or false"
    return message.removeprefix("Value error, ")
