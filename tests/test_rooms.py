"""The rooms of the package and the direction of its imports: downwards only, and no circles."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ast_cli"
# From the bottom up: a room may import those before it. docs/architecture.md has the same order.
ROOMS = (
    *(
        "errors",
        "about",
        "styles",
        "notebook",
        "results",
        "keyed_output",
        "files",
        "hierarchy",
        "labels",
        "hub",
        "audio",
        "model",
    ),
    *("engine", "report", "tagging", "report_page", "dataset", "evaluation", "training", "benchmark", "selfcheck"),
    *("label_list", "model_list", "export", "cli", "assets"),
)
# Not rooms: the package itself, whose public names are resolved on first use, and the program that starts the command.
AROUND = ("ast_cli", "ast_cli.__main__")


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(file): file for file in PACKAGE.rglob("*.py")}


def imports_of(source: str) -> Iterator[str]:
    """Yield the modules of this package that a source imports, inside functions too, but not for annotations alone."""
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ast_cli":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else str(node.module) for name in names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "ast_cli")
        pending += ast.iter_child_nodes(node)


IMPORTS = {
    name: sorted(set(imports_of(file.read_text(encoding="utf-8"))) - {name})
    for name, file in MODULES.items()
    if name not in AROUND
}


def room_of(module: str) -> str:
    return module.split(".")[1]


def test_lazy_imports_are_seen_and_annotations_are_not() -> None:
    source = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from ast_cli.cli import app
def run():
    from ast_cli import hub, __version__
    import ast_cli.model.config
"""
    assert set(imports_of(source)) == {"ast_cli.hub", "ast_cli", "ast_cli.model.config"}


def test_imports_have_no_cycles() -> None:
    below = {name: [other for other in others if other not in AROUND] for name, others in IMPORTS.items()}
    try:
        TopologicalSorter(below).prepare()
    except CycleError as error:
        pytest.fail(f"these import each other: {' <- '.join(error.args[1])}")


def test_imports_point_downwards() -> None:
    upwards = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in others
        if other not in AROUND and ROOMS.index(room_of(other)) > ROOMS.index(room_of(name))
    ]
    assert upwards == []


def test_every_package_is_in_a_room() -> None:
    assert {room_of(name) for name in IMPORTS if name.count(".")} == set(ROOMS)


def test_the_architecture_lists_the_rooms_in_this_order() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text[text.index("## Rooms") :]
    first_cells = re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE)
    rooms = [room for cell in first_cells for room in re.findall(r"`(\w+)(?:\.py|/)`", cell)]
    assert tuple(rooms) == ROOMS
