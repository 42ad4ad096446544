from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ast_cli.cli.merge import merge
from ast_cli.errors import AstError, UsageError

app = typer.Typer()
app.command()(merge)


def part(file: Path, *paths: str) -> str:
    records = [{"schema_version": 1, "type": "file", "path": path, "status": "ok"} for path in paths]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(file)


def test_one_line_on_stderr_summarizes_the_merge(tmp_path: Path) -> None:
    output = tmp_path / "tags.jsonl"
    arguments = [part(tmp_path / "0.jsonl", "a.wav", "b.wav"), part(tmp_path / "1.jsonl", "c.wav")]
    done = CliRunner().invoke(app, [*arguments, "--output", str(output)])
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == f"merged 2 outputs into {output}: 3 files, 3 ok, 0 failed\n"
    assert [json.loads(line)["path"] for line in output.read_text().splitlines()] == ["a.wav", "b.wav", "c.wav"]
    quiet = CliRunner().invoke(app, [*arguments, "--output", str(output), "--force", "--quiet"])
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, "", "")


def test_outputs_that_do_not_match_are_one_sentence(tmp_path: Path) -> None:
    arguments = [part(tmp_path / "0.jsonl", "a.wav"), part(tmp_path / "1.jsonl", "a.wav")]
    done = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "tags.jsonl")])
    assert isinstance(done.exception, AstError)
    first, second = arguments
    assert str(done.exception) == f"a.wav occurs twice: {first} line 1, {second} line 1"
    assert done.exception.exit_code == 1
    again = CliRunner().invoke(app, [*arguments, "--output", arguments[0]])
    assert isinstance(again.exception, UsageError)


@pytest.mark.parametrize("arguments", [[], ["0.jsonl"], ["--output", "tags.jsonl"]])
def test_parts_and_output_must_be_named(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2
