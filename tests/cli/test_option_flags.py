"""Flags made from the fields of options: every field with an `About`, with its default, type and help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from ast_cli.about import About, documented_fields
from ast_cli.cli import app
from ast_cli.cli.option_flags import with_flags
from ast_cli.evaluation.options import EvaluationOptions
from ast_cli.tagging.options import (
    ClassifyOptions,
    DecodeOptions,
    ExtractOptions,
    ExtractRunOptions,
    LoadOptions,
    RunOptions,
)

COMMANDS: dict[str, tuple[type[Any], ...]] = {
    "classify": (ClassifyOptions, RunOptions, LoadOptions),
    "extract": (ExtractOptions, ExtractRunOptions, LoadOptions),
    "evaluate": (EvaluationOptions, LoadOptions),
    "stats": (DecodeOptions,),
}


@dataclass(frozen=True)
class Base:
    start_s: Annotated[float, About("Where to start.", flag="--start", metavar="SECONDS")] = 0.0
    untold: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class Options(Base):
    top_k: Annotated[int | None, About("How many.", short="-k")] = None
    labels: Annotated[tuple[str, ...], About("Which.")] = ()
    loud: Annotated[bool, About("Say more.")] = False


@pytest.mark.parametrize(("name", "kinds"), COMMANDS.items())
def test_every_field_is_a_flag_with_its_default_and_help(name: str, kinds: tuple[type[Any], ...]) -> None:
    command: Any = typer.main.get_command(app)
    flags = {parameter.name: parameter for parameter in command.commands[name].params}
    for kind in kinds:
        for field in documented_fields(kind):
            flag = flags[field.name]
            assert field.flag in flag.opts
            assert flag.help == field.about.help
            assert (tuple(flag.default) if isinstance(flag.default, list) else flag.default) == field.default


def run(*arguments: str) -> Any:
    """Return the options that a command is called with for these arguments."""
    got: list[Any] = []
    app = typer.Typer()

    @app.command()
    @with_flags
    def command(*, name: str = "x", options: Options) -> None:
        got.extend((name, options))

    done = CliRunner().invoke(app, list(arguments))
    return got if done.exit_code == 0 else done.output


def test_a_command_is_called_with_its_options() -> None:
    assert run() == ["x", Options()]
    assert run("--name", "y", "-k", "3", "--labels", "a", "--labels", "b", "--start", "2", "--loud") == [
        "y",
        Options(start_s=2.0, top_k=3, labels=("a", "b"), loud=True),
    ]


def test_a_field_without_about_is_no_flag() -> None:
    assert [field.name for field in documented_fields(Options)] == ["top_k", "labels", "loud", "start_s"]
    assert "No such option" in run("--untold", "2")
