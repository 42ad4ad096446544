"""Recipes: settings that belong together, as TOML files in the package or of the user. Standard library only."""

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
    """Return the names of the recipes in the package, sorted."""
    return sorted(file.stem for file in RECIPES_FOLDER.glob("*.toml"))


def read_recipe(recipe: str | Path) -> dict[str, Any]:
    """Read a recipe: one of the package, by name, or a TOML file.

    Returns:
        The settings it contains, validated by `TrainOptions.from_dict`.

    Raises:
        UsageError: If there is no such recipe, or the file is not valid TOML or contains an invalid setting.
    """
    is_named = str(recipe) in recipe_names()
    file = RECIPES_FOLDER / f"{recipe}.toml" if is_named else Path(recipe)
    if not is_named and file.suffix != ".toml":
        known = ", ".join(recipe_names())
        raise UsageError(f"there is no recipe {str(recipe)!r}: use {known}, or a file that ends in .toml")
    try:
        with open(file, "rb") as stream:
            values = tomllib.loads(stream.read(MAX_RECIPE_BYTES).decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"recipe {file}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # no UTF-8, no TOML
        raise UsageError(f"recipe {file}: not valid TOML ({error})") from error
    TrainOptions.from_dict(values, f"recipe {file}")
    return values


def options_of(recipe: str | Path = DEFAULT_RECIPE, overrides: Mapping[str, Any] | None = None) -> TrainOptions:
    """Return the settings of a recipe, with some of them overridden.

    Raises:
        UsageError: If the recipe cannot be read (see `read_recipe`) or an override is invalid.
    """
    return TrainOptions.from_dict({**read_recipe(recipe), **(overrides or {})})


def to_toml(options: TrainOptions) -> str:
    """Return the settings as TOML that `read_recipe` reads, without those that are None: TOML has no None."""
    lines = [f"{name} = {_toml_value(value)}" for name, value in options.to_dict().items() if value is not None]
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    """Return a value in TOML, which equals JSON for strings, numbers and booleans but needs a point in floats."""
    if isinstance(value, float):
        text = repr(value)
        return text if any(mark in text for mark in ".en") else f"{text}.0"
    return json.dumps(value)
