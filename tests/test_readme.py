"""The README's examples, run: commands print what it says, Python code runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = README + (ROOT / "docs" / "learning.md").read_text(encoding="utf-8")
SCORE_TOLERANCE = 0.02  # lossy decoders differ by version; a bar may gain or lose a block
NUMBER = re.compile(r"\d+\.\d+")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOCUMENTS, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder that looks like the checkout, so that examples may write files."""
    (tmp_path / "sample_audio").symlink_to(ROOT / "sample_audio")
    return tmp_path


@pytest.mark.parametrize("block", blocks("console"), ids=lambda block: block.splitlines()[0][2:60])
def test_command_prints_what_the_readme_says(run_ast: Run, checkout: Path, block: str) -> None:
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, *expected = part.splitlines()
        program, *arguments = shlex.split(command)
        assert program == "ast"
        done = run_ast(*arguments, cwd=checkout)
        assert done.returncode == 0, done.stderr
        printed = done.stdout.splitlines()
        assert [shape(line) for line in printed] == [shape(line) for line in expected]
        for line, other in zip(printed, expected, strict=True):
            assert numbers(line) == pytest.approx(numbers(other), abs=SCORE_TOLERANCE)


def shape(line: str) -> str:
    return re.sub(r"[█ ]+", " ", NUMBER.sub("0.0", line))


def numbers(line: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(line)]


@pytest.mark.parametrize("block", blocks("python"), ids=["tagger", "parts"])
def test_python_example_runs(
    block: str, checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(checkout)
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip().splitlines()[0].endswith(("Helicopter", "Rain"))


def test_every_command_and_format_has_its_place() -> None:
    for word in (
        "ast classify",
        "ast extract",
        "ast finetune",
        "ast evaluate",
        "ast stats",
        "ast benchmark",
        "ast download",
        "ast doctor",
        "ast export",
        "ast merge",
        "jsonl",
        "csv",
        "--json",
    ):
        assert word in README
    assert len(README.splitlines()) <= 200


def test_links_into_the_project_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", README)
    assert targets
    assert all(os.path.exists(ROOT / target) for target in targets)
