"""Defaults from ``ast.toml``, from variables and from flags, in this order of strength."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ast_cli.results import Tag, TaggingResult

RAIN = Path(__file__).parents[2] / "sample_audio" / "rain.ogg"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def users_file(tmp_path: Path) -> Path:
    """Return the place of the user's ast.toml, which `run_ast` puts below the test's folder."""
    file = tmp_path / "config" / "ast" / "ast.toml"
    file.parent.mkdir(parents=True)
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def defaults(run_ast: Run, folder: Path, *arguments: str, **environment: str) -> dict[tuple[str, str], tuple[Any, str]]:
    """Return value and source by command and option, as ``ast config --json`` prints them."""
    done = run_ast("config", "--json", *arguments, cwd=folder, **environment)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["defaults"]
    return {(row["command"], row["option"]): (row["value"], row["source"]) for row in rows}


def test_each_source_overrides_the_weaker_ones(run_ast: Run, users_file: Path, folder: Path) -> None:
    def num_tags(*flags: str, **environment: str) -> int:
        command = ("classify", str(RAIN), "--model", "builtin", "--format", "json", "--quiet", *flags)
        done = run_ast(*command, cwd=folder, **environment)
        assert done.returncode == 0, done.stderr
        return len(json.loads(done.stdout)[0]["tags"])

    assert num_tags() == 5
    users_file.write_text("[classify]\ntop_k = 1\n")
    assert num_tags() == 1
    (folder / "ast.toml").write_text("top-k = 2\n")
    assert num_tags() == 2
    (folder / "ast.toml").write_text("top-k = 2\n[classify]\ntop_k = 3\n")
    assert num_tags() == 3
    assert num_tags(AST_TOP_K="4") == 4
    assert num_tags(AST_TOP_K="4", AST_CLASSIFY_TOP_K="6") == 6
    assert num_tags("--top-k", "7", AST_CLASSIFY_TOP_K="6") == 7
    assert num_tags(AST_TOP_K="") == 3
    assert num_tags(AST_CONFIG="") == 5


def test_values_of_every_type_reach_the_command(run_ast: Run, folder: Path) -> None:
    (folder / "ast.toml").write_text(
        'model = "builtin"\nquiet = true\n[classify]\nlabels = ["Rain", "Bark"]\nthreshold = 0.0\ntimestamps = true\n'
        'format = "json"\n'
    )
    done = run_ast("classify", str(RAIN), cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    (record,) = json.loads(done.stdout)
    assert {tag["label"] for tag in record["tags"]} == {"Rain", "Bark"}
    assert record["windows"]


def test_config_shows_each_default_and_its_source(run_ast: Run, users_file: Path, folder: Path) -> None:
    users_file.write_text('device = "cpu"\n[evaluate]\naggregate = "max"\n')
    (folder / "ast.toml").write_text("[classify]\ntop_k = 10\n")
    found = defaults(run_ast, folder, AST_CLASSIFY_HOP="2.5", AST_MODEL="builtin")
    assert found["classify", "--top-k"] == ("10", "ast.toml")
    assert found["classify", "--hop"] == ("2.5", "AST_CLASSIFY_HOP")
    assert found["evaluate", "--aggregate"] == ("max", str(users_file))
    assert {command for command, option in found if option == "--device"} == {
        *("classify", "extract", "plot", "finetune", "evaluate", "benchmark"),
    }
    assert ("extract", "--hop") not in found
    assert {command for command, option in found if option == "--model"} == {
        *("classify", "extract", "plot", "finetune", "evaluate", "export", "labels"),
    }
    everything = defaults(run_ast, folder, "classify")
    assert everything["classify", "--aggregate"] == ("mean", "built in")
    assert all(command == "classify" for command, _ in everything)
    text = run_ast("config", cwd=folder).stdout
    assert f"  {users_file}\n  ast.toml\n" in text
    assert "  classify   --top-k      10   ast.toml\n" in text


def test_defaults_of_what_classify_reports_take_nothing_from_results_that_are_converted(
    run_ast: Run, folder: Path
) -> None:
    record = TaggingResult(
        "a.wav", "m", "sigmoid", 9.0, 16000, 1, (Tag("Rain", 0, None, 0.9), Tag("Bark", 1, None, 0.2))
    )
    (folder / "tags.jsonl").write_text(f"{json.dumps(record.to_dict())}\n")
    (folder / "ast.toml").write_text('events = true\ntop_k = 1\nthreshold = 0.5\nspecific = true\nlabels = ["Rain"]\n')

    def labels(**environment: str) -> list[str]:
        done = run_ast("convert", "tags.jsonl", "--format", "csv", cwd=folder, **environment)
        assert done.returncode == 0, done.stderr
        return [row.split(",")[4] for row in done.stdout.splitlines()[1:]]

    assert labels(AST_TOP_K="1") == ["Rain", "Bark"]
    assert labels(AST_CONVERT_TOP_K="1") == ["Rain"]
    assert "classify" in {command for command, option in defaults(run_ast, folder) if option == "--events"}
    (folder / "ast.toml").write_text("[convert]\nthreshold = 0.5\n")
    assert labels() == ["Rain"]


def test_config_lists_variables_that_set_no_option(run_ast: Run, folder: Path) -> None:
    done = run_ast("config", cwd=folder, AST_TOPK="3")
    assert done.stdout.endswith("No default is set.\n")
    assert done.stderr == "AST_TOPK is set, but there is no such option; did you mean AST_TOP_K?\n"
    assert run_ast("config", "clasify", cwd=folder).returncode == 2


def test_a_key_that_is_an_option_and_a_command_is_an_option_and_its_table_the_commands(
    run_ast: Run, folder: Path
) -> None:
    (folder / "ast.toml").write_text('labels = ["Rain"]\n')
    done = run_ast("classify", str(RAIN), "--model", "builtin", "--format", "csv", "--quiet", cwd=folder)
    assert [row.split(",")[4] for row in done.stdout.splitlines()] == ["label", "Rain"]
    (folder / "ast.toml").write_text('[labels]\nformat = "csv"\n')
    assert run_ast("labels", "--model", "builtin", cwd=folder).stdout.startswith("label_id,mid,")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("top_l = 3", "ast.toml: top_l: no command has such an option; did you mean top_k?"),
        ("[classify]\ntpo_k = 3", "ast.toml: [classify] tpo_k: ast classify has no such option; did you mean top_k?"),
        ("[classify]\nepochs = 3", "ast.toml: [classify] epochs: ast classify has no such option"),
        ("[clasify]\ntop_k = 3", "ast.toml: [clasify]: there is no such command; there are classify, plot, extract"),
        ("classify = 3", "ast.toml: classify is a command: write its options below a line [classify]"),
        ('output = "x"', "ast.toml: output: --output belongs to one run and cannot have a default"),
        ('format = "json"', "ast.toml: format: has another meaning in each command"),
        ("timestamps = 1", "ast.toml: timestamps: must be true or false, not 1"),
        ("top_k = [1]", "ast.toml: top_k: must be a number or text"),
        ("top_k = true", "ast.toml: top_k: must be a number or text"),
        ("top_k = 'x'", "Invalid value for '--top-k' / '-k': it must be a whole number (set by ast.toml)"),
        ("top_k =", "configuration file ast.toml: not valid TOML"),
    ],
)
def test_an_error_in_a_configuration_file_names_file_and_key(
    run_ast: Run, folder: Path, text: str, message: str
) -> None:
    (folder / "ast.toml").write_text(text)
    done = run_ast("classify", "x.wav", cwd=folder)
    assert done.returncode == 2
    assert message in done.stderr


def test_an_error_in_a_variable_names_the_variable(run_ast: Run, folder: Path) -> None:
    done = run_ast("classify", "x.wav", cwd=folder, AST_TOP_K="many")
    assert "it must be a whole number (set by AST_TOP_K)" in done.stderr
    done = run_ast("classify", "x.wav", cwd=folder, AST_TIMESTAMPS="perhaps")
    assert "it must be true or false (set by AST_TIMESTAMPS)" in done.stderr
    done = run_ast("classify", "x.wav", cwd=folder, AST_CONFIG="gone.toml")
    assert (done.returncode, done.stderr) == (2, "error: AST_CONFIG=gone.toml: no such file\n")


def test_help_shows_a_configured_default(run_ast: Run, folder: Path) -> None:
    text = run_ast("classify", "--help", cwd=folder, AST_TOP_K="7", COLUMNS="80").stdout
    assert "[configured: 7]" in text
