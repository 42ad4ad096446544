"""Documentation of options, attached to their dataclass fields and shared by library, recipes and command line.

Standard library only.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

TIME = "TIME"  # metavar of times of a recording: seconds or [H:]MM:SS on the command line, seconds in the library


@dataclass(frozen=True, slots=True)
class About:
    """Documentation of a field as part of its type: ``Annotated[float, About("Start in seconds.", flag="--start")]``.

    Attributes:
        help: Help text on the command line.
        flag: Name of the option on the command line, if it differs from the field's name.
        short: One-letter form of the flag, such as ``-k``.
        metavar: Placeholder for the value in the help, such as ``SECONDS``.
        choices: Type of the option on the command line, if the field's type allows more: a ``Literal`` of the values,
            or ``str`` for a value that the options parse.
    """

    help: str
    flag: str = ""
    short: str = ""
    metavar: str | None = None
    choices: Any = None


@dataclass(frozen=True, slots=True)
class AboutField:
    """A documented field: its name, type, documentation and default value."""

    name: str
    kind: Any
    about: About
    default: Any

    @property
    def flag(self) -> str:
        """Name of the option on the command line."""
        return self.about.flag or default_flag(self.name)


def flag_of(options: type[Any], name: str) -> str:
    """Return the flag of a field on the command line, for messages; fields without an `About` have one too."""
    flags = {field.name: field.flag for field in documented_fields(options)}
    return flags.get(name) or default_flag(name)


def default_flag(name: str) -> str:
    """Return the flag that a field has unless its `About` says otherwise: ``--top-k`` of ``top_k``."""
    return "--" + name.replace("_", "-")


_known: dict[type[Any], tuple[AboutField, ...]] = {}  # a cache: evaluating the annotations takes a millisecond


def documented_fields(options: type[Any]) -> tuple[AboutField, ...]:
    """Return the fields of a dataclass that have an `About`; the class's own fields precede inherited ones."""
    if options not in _known:
        _known[options] = tuple(_documented(options))
    return _known[options]


def _documented(options: type[Any]) -> Iterator[AboutField]:
    hints = typing.get_type_hints(options, include_extras=True)
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    names = [name for kind in options.__mro__ for name in vars(kind).get("__annotations__", {}) if name in defaults]
    for name in dict.fromkeys(names):
        if typing.get_origin(hints[name]) is Annotated:
            kind, *metadata = typing.get_args(hints[name])
            yield from (AboutField(name, kind, entry, defaults[name]) for entry in metadata if isinstance(entry, About))
