from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
import typer
from typer.testing import CliRunner

from ast_cli.cli.times import parse_time

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (0.0, 0.0),
        ("90", 90.0),
        ("2.5", 2.5),
        (".5", 0.5),
        ("1e2", 100.0),
        ("1:30", 90.0),
        ("01:05.12", 65.12),
        ("90:00", 5400.0),
        ("1:02:03.5", 3723.5),
        ("0:00:00", 0.0),
        ("100:00:01", 360_001.0),
    ],
)
def test_a_time_is_seconds_or_hours_minutes_and_seconds(text: str | float, seconds: float) -> None:
    assert parse_time(text) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize("text", ["", "abc", "1:60", "1:61:00", ":30", "1:", "1:2:3:4", "-1:30", "1:3x", "1:-3"])
def test_text_that_is_not_a_time_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a time: give seconds"):
        parse_time(text)


def test_flags_of_a_command_take_times() -> None:
    from ast_cli.cli import app

    for flag in ("--start", "--duration", "--hop"):
        done = CliRunner().invoke(app, ["classify", "x.wav", flag, "1:75"])
        assert done.exit_code == 2
        assert f"Invalid value for '{flag}': '1:75' is not a time: give seconds (90, 2.5) or [H:]MM:SS" in done.output


def test_a_time_reaches_the_recording(run_ast: Run, write_wav: Callable[..., object]) -> None:
    path = str(write_wav("a.wav", 12.0))
    arguments = ("--model", "builtin", "--timestamps", "-f", "csv")
    by_clock = run_ast("classify", path, "--start", "0:03.5", "--duration", "0:00:08", "--hop", "0:02", *arguments)
    assert by_clock.returncode == 0, by_clock.stderr
    in_seconds = run_ast("classify", path, "--start", "3.5", "--duration", "8", "--hop", "2", *arguments)
    assert by_clock.stdout == in_seconds.stdout
    assert ",3.500,8.620," in by_clock.stdout
