"""Recipes: settings that go together, as TOML files in the package or of one's own. Standard library only."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ast_cli.errors import UsageError
from ast_cli.training.options import TrainOptions

RECIPES_FOLDER = Path(__file__).parent / "recipes"
DEFAULT_RECIPE = "default"
MAX_RECIPE_BYTES = 1 << 20


def recipe_names() -> list[str]:
    """Return the names of the recipes in the package."""
    return sorted(file.stem for file in RECIPES_FOLDER.glob("*.toml"))


def read_recipe(recipe: str | Path) -> dict[str, Any]:
    """Read a recipe: the name of one in the package, or a TOML file.

    Returns:
        What it says, checked as `TrainOptions.from_dict` does.

    Raises:
        UsageError: There is no such recipe, or it is no TOML, or holds what cannot be.
    """
    is_named = str(recipe) in recipe_names()
    file = RECIPES_FOLDER / f"{recipe}.toml" if is_named else Path(recipe)
    if not is_named and file.suffix != ".toml":
        known = ", ".join(recipe_names())
        raise UsageError(f"recipe {str(recipe)!r} is not known: name one of {known}, or a file that ends in .toml")
    try:
        with open(file, "rb") as stream:
            values = tomllib.loads(stream.read(MAX_RECIPE_BYTES).decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"recipe {file}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # no UTF-8, no TOML
        raise UsageError(f"recipe {file}: no valid TOML ({error})") from error
    TrainOptions.from_dict(values, f"recipe {file}")
    return values


def options_of(recipe: str | Path = DEFAULT_RECIPE, overrides: Mapping[str, Any] | None = None) -> TrainOptions:
    """Return a recipe's settings with some of them replaced.

    Raises:
        UsageError: As in `read_recipe`, or an override that cannot be.
    """
    return TrainOptions.from_dict({**read_recipe(recipe), **(overrides or {})})


def to_toml(options: TrainOptions) -> str:
    """Write every setting as TOML, which `read_recipe` reads; what is None, TOML cannot say, and is left out."""
    lines = [f"{name} = {_toml_value(value)}" for name, value in options.to_dict().items() if value is not None]
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    """Write one value; JSON's strings, numbers and booleans are TOML's, apart from floats without a point."""
    if isinstance(value, float):
        text = repr(value)
        return text if any(mark in text for mark in ".en") else f"{text}.0"
    return json.dumps(value)
