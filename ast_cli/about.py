"""What is said of an option beside its field, once for library, recipes and command line. Standard library only."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True, slots=True)
class About:
    """What is said of a field, in its type: ``Annotated[float, About("Where to start.", flag="--start")]``.

    Attributes:
        help: For the command line.
        flag: Its name on the command line, where that is not the field's.
        short: One letter for it, such as ``-k``.
        metavar: What stands for its value in the help, such as ``SECONDS``.
        choices: A Literal of what it may be on the command line, where the field's type is wider.
    """

    help: str
    flag: str = ""
    short: str = ""
    metavar: str | None = None
    choices: Any = None


@dataclass(frozen=True, slots=True)
class AboutField:
    """A field with its type, what is said of it, and its default."""

    name: str
    kind: Any
    about: About
    default: Any

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return self.about.flag or "--" + self.name.replace("_", "-")


_known: dict[type[Any], tuple[AboutField, ...]] = {}  # types are read by evaluating them, which takes a millisecond


def documented_fields(options: type[Any]) -> tuple[AboutField, ...]:
    """Return the fields of a dataclass that have an `About`, its own before those that it inherits."""
    if options not in _known:
        _known[options] = tuple(_documented(options))
    return _known[options]


def _documented(options: type[Any]) -> Iterator[AboutField]:
    hints = typing.get_type_hints(options, include_extras=True)
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    names = [name for kind in options.__mro__ for name in vars(kind).get("__annotations__", {}) if name in defaults]
    for name in dict.fromkeys(names):
        if typing.get_origin(hints[name]) is Annotated:
            kind, *said = typing.get_args(hints[name])
            yield from (AboutField(name, kind, each, defaults[name]) for each in said if isinstance(each, About))
