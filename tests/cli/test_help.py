"""The help of the commands: headings, width, ``ast help``, and the reference that is made from it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from ast_cli.cli.commands import COMMANDS, NAMES, LazyCommands
from ast_cli.cli.help_sections import OTHER, flag_of, is_argument, sections_of

Run = Callable[..., "subprocess.CompletedProcess[str]"]
DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", NAMES)
def test_help_fits_80_columns_and_groups_every_option(run_ast: Run, name: str) -> None:
    done = run_ast(name, "--help", COLUMNS="80")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "Options:" not in lines
    params = LazyCommands()[name].params
    assert OTHER not in dict(sections_of(params)), "an option stands in no section of help_sections.SECTIONS"
    for param in params:
        if not is_argument(param):
            assert any(line.lstrip().startswith(names) for line in lines for names in param.opts), flag_of(param)


def test_options_of_classify_stand_under_the_headings_in_their_order(run_ast: Run) -> None:
    lines = run_ast("classify", "--help", COLUMNS="80").stdout.splitlines()
    headings = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Arguments:", "Input:", "What to report:", "Output:", "Model:", "Run:", "Live input:"]
    report = lines[lines.index("What to report:") + 1]
    assert report.split()[:3] == ["-k,", "--top-k", "N"]


def test_the_program_lists_its_commands_by_purpose(run_ast: Run) -> None:
    lines = run_ast("--help", COLUMNS="80").stdout.splitlines()
    for heading, commands in COMMANDS.items():
        first = lines.index(f"{heading}:") + 1
        assert [line.split()[0] for line in lines[first : first + len(commands)]] == list(commands)


def test_ast_help_is_the_help_of_a_command(run_ast: Run) -> None:
    assert run_ast("help", "merge").stdout == run_ast("merge", "--help").stdout
    assert run_ast("help").stdout == run_ast("--help").stdout
    done = run_ast("help", "clasify")
    assert done.returncode == 2
    assert "No such command 'clasify'. Did you mean 'classify'?" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-k", "many"], "Invalid value for '--top-k' / '-k': it must be a whole number"),
        (["--threshold", "high"], "Invalid value for '--threshold': it must be a number"),
        (["--format", "xml"], "--format must be one of table, json, jsonl, csv, tsv, audacity, raven"),
    ],
)
def test_a_value_of_another_type_is_refused_in_plain_words(run_ast: Run, arguments: list[str], message: str) -> None:
    done = run_ast("classify", "x.wav", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Value error" not in done.stderr


def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_docs_cli_md_matches_the_commands() -> None:
    made = reference()
    assert (DOCS / "cli.md").read_text(encoding="utf-8") == made.markdown(), "run `make docs`"
    assert (DOCS / "ast.1").read_text(encoding="utf-8") == made.man_page(), "run `make docs`"


def test_models_complete_on_tab(tmp_path: Path) -> None:
    (tmp_path / "hub" / "models--org--mine").mkdir(parents=True)

    def offered(words: str) -> list[str]:
        """Return the completions of the shell after these words."""
        program = "import sys; sys.argv = ['ast']; from ast_cli.cli import main; main()"
        environment = {
            **os.environ,
            "HF_HOME": str(tmp_path),
            "AST_MODEL": "org/chosen",
            "_AST_COMPLETE": "complete_bash",
        }
        environment |= {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        command = [sys.executable, "-c", program]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout.split()

    assert offered("ast classify --model audioset-10-10-0.448") == ["audioset-10-10-0.448", "audioset-10-10-0.448-v2"]
    assert offered("ast classify --model org/") == ["org/chosen", "org/mine"]
    assert offered("ast cla") == ["classify"]
    assert offered("ast classify --attn ") == ["sdpa", "eager"]


def test_a_file_in_the_place_of_a_command_is_hinted_to_classify(run_ast: Run, tmp_path: Path) -> None:
    (tmp_path / "song.wav").touch()
    done = run_ast("song.wav", cwd=tmp_path)
    assert done.returncode == 2
    assert "No such command 'song.wav'. Did you mean `ast classify song.wav`?" in done.stderr
