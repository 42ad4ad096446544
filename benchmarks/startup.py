"""Compare the time of ``ast --help`` with that of a bare Typer program of two commands. Target: at most 1.3 times.

python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TARGET = 1.3  # largest ratio to the bare program
ROUNDS = 21

BARE_PROGRAM = """\
import typer

app = typer.Typer()


@app.command()
def first(name: str) -> None:
    "Do one thing."


@app.command()
def second(name: str) -> None:
    "Do another thing."


app()
"""
OURS = "from ast_cli.cli import main; main()"  # as in the installed `ast` script


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE_PROGRAM, encoding="utf-8")
        commands = {
            "ast --help": [sys.executable, "-c", OURS, "--help"],
            "bare --help": [sys.executable, str(bare), "--help"],
            "python -c pass": [sys.executable, "-c", "pass"],
        }
        times_s = time_alternating(commands)
    for name, times in times_s.items():
        print(f"{name:<15} {statistics.median(times) * 1000:6.0f} ms (fastest {min(times) * 1000:.0f})")
    ratio = statistics.median(times_s["ast --help"]) / statistics.median(times_s["bare --help"])
    print(f"ast / bare      {ratio:6.2f}    (target: at most {TARGET})")


def time_alternating(commands: dict[str, list[str]]) -> dict[str, list[float]]:
    """Time commands in turn, and return seconds by command; the first round, with a cold disk cache, is left out."""
    times_s: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS + 1):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            times_s[name].append(time.perf_counter() - start)
    return {name: times[1:] for name, times in times_s.items()}


if __name__ == "__main__":
    main()
