"""The examples of README and docs work: commands print the output on the page, Python code runs, options exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from ast_cli.cli import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
MAX_README_LINES = 250
SCORE_TOLERANCE = 0.02  # lossy decoders differ by version; a bar may gain or lose a block
NUMBER = re.compile(r"\d+\.\d+")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def blocks(*languages: str) -> list[Any]:
    """Return the fenced blocks of the pages, named after their page and first line."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
            if language in languages:
                found.append(pytest.param(block, id=f"{page.name}-{block.splitlines()[0][:50]}"))
    return found


def commands(block: str) -> Iterator[list[str]]:
    """Yield the words of each ``ast`` command of a block, without its comments, of pipelines the part that is ours."""
    for line in block.splitlines():
        for part in line.removeprefix("$ ").split(" | "):
            words = shlex.split(part, comments=True)
            if words[:1] == ["ast"]:
                yield words[1:]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder that looks like the checkout, so that examples may write files."""
    (tmp_path / "sample_audio").symlink_to(ROOT / "sample_audio")
    return tmp_path


@pytest.mark.parametrize("block", blocks("console"))
def test_command_prints_what_the_page_says(run_ast: Run, checkout: Path, block: str) -> None:
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, *expected = part.splitlines()
        program, *arguments = shlex.split(command)
        assert program == "ast"
        done = run_ast(*arguments, cwd=checkout, COLUMNS="80")
        assert done.returncode == 0, done.stderr
        printed = done.stdout.splitlines()
        assert [shape(line) for line in printed] == [shape(line) for line in expected]
        for line, other in zip(printed, expected, strict=True):
            assert numbers(line) == pytest.approx(numbers(other), abs=SCORE_TOLERANCE)


def shape(line: str) -> str:
    return re.sub(r"[█ ]+", " ", NUMBER.sub("0.0", line))


def numbers(line: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(line)]


@pytest.mark.parametrize("block", blocks("", "console", "bash", "sh"))
def test_commands_of_the_page_have_only_options_that_exist(block: str) -> None:
    program: Any = typer.main.get_command(app)
    for name, *arguments in commands(block):
        if name.startswith("-") or name == "help":
            continue
        program.commands[name].make_context(name, list(arguments))  # raises where an option or a value is wrong


@pytest.mark.parametrize("block", blocks("python"))
def test_python_example_runs(
    block: str, checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(checkout)
    if "dog.npz" in block:  # what the page's command before it writes
        from ast_cli import Tagger
        from ast_cli.tagging.extract.files import write_extraction

        extraction = Tagger.from_pretrained("builtin").extract("sample_audio/dog.wav", what="embedding")
        write_extraction(extraction, Path("dog.npz"), {"duration_s": 4.0})
    exec(compile(block, "example", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("block", blocks("toml"))
def test_configuration_example_is_accepted(run_ast: Run, tmp_path: Path, block: str) -> None:
    (tmp_path / "ast.toml").write_text(block, encoding="utf-8")
    done = run_ast("config", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "ast.toml" in done.stdout


def test_every_command_and_format_has_its_place_in_the_readme() -> None:
    readme = PAGES[0].read_text(encoding="utf-8")
    program: Any = typer.main.get_command(app)
    for word in (*(f"ast {name}" for name in program.commands), "jsonl", "csv", "--json"):
        assert word in readme
    assert len(readme.splitlines()) <= MAX_README_LINES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_have_targets(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", text):
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), f"{target}#{anchor}"


def anchors(file: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
