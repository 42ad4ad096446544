"""Flags made from the fields of options, so that defaults and help texts are defined once."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

import typer

from ast_cli.about import TIME, AboutField, documented_fields
from ast_cli.cli.times import parse_time


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of a command that is a dataclass of options by a flag for each field with an `About`.

    The command is called with the options. A field that several dataclasses have in common becomes one flag.
    """
    hints = inspect.get_annotations(command, eval_str=True)
    plain: dict[str, inspect.Parameter] = {}
    options: dict[str, tuple[type[Any], tuple[AboutField, ...]]] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        if dataclasses.is_dataclass(hints[name]):
            fields = documented_fields(hints[name])
            options[name] = hints[name], fields
            plain |= {field.name: _parameter(field) for field in fields if field.name not in plain}
        else:
            plain[name] = parameter.replace(annotation=hints[name])

    def call(**values: Any) -> None:
        made = {name: _made(kind, fields, values) for name, (kind, fields) in options.items()}
        taken = {field.name for _, fields in options.values() for field in fields}
        command(**{name: value for name, value in values.items() if name not in taken}, **made)

    return as_command(call, command, plain.values())


def as_command(
    call: Callable[..., None], command: Callable[..., None], parameters: Iterable[inspect.Parameter]
) -> Callable[..., None]:
    """Set the parameters that Typer reads from a function, and its name and docstring to those of the command."""
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {each.name: each.annotation for each in parameters}
    call.__doc__ = command.__doc__
    call.__name__ = command.__name__
    return call


def _made(kind: type[Any], fields: Sequence[AboutField], values: dict[str, Any]) -> Any:
    """Return the options with the values of flags; a list, from a repeated flag, becomes a tuple."""
    given = {field.name: values[field.name] for field in fields}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})


def _parameter(field: AboutField) -> inspect.Parameter:
    """Return the flag of a field as a parameter of a command."""
    kind, default = field.about.choices or field.kind, field.default
    if typing.get_origin(kind) is tuple:  # of names: the flag may be repeated
        kind, default = list[str], list(default)
    annotation: Any = Annotated[kind, _option(field)]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def option_of(options: type[Any], name: str) -> Any:
    """Return the flag of one field, for a command that does not take all of them."""
    (field,) = (field for field in documented_fields(options) if field.name == name)
    return _option(field)


def _option(field: AboutField) -> Any:
    about = field.about
    names = [field.flag, about.short] if about.short else [field.flag]
    shows_default = field.default not in (None, ()) and "[default:" not in about.help
    parser = parse_time if about.metavar == TIME else None
    return typer.Option(*names, help=about.help, metavar=about.metavar, show_default=shows_default, parser=parser)
