"""Runs of ``ast classify`` that are watched, and killed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ast_cli.tagging.run.journal_lines import Sidecars, read_journal


def report(text: str) -> None:
    """Print at once, past pytest's capture if it is run with -s."""
    print(text, flush=True)  # noqa: T201


def classify_command(model: Path, *arguments: object) -> list[str]:
    base = [sys.executable, "-m", "ast_cli", "classify", "--model", str(model), "--threads", "1", "-f", "jsonl"]
    return [*base, *map(str, arguments)]


@dataclass(frozen=True)
class Run:
    """A finished run; ``peak_bytes`` is that of the main process alone."""

    returncode: int
    stderr: str
    elapsed_s: float
    peak_bytes: int
    first_output_s: float | None


def run_watched(command: Sequence[str], output: Path | None = None, timeout_s: float = 3600.0) -> Run:
    """Run a command, watching its memory and when its output begins."""
    errors = Path(f"{output or '/tmp/run'}.stderr")
    started, first, peak = time.monotonic(), None, 0
    with errors.open("wb") as stderr, subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr) as process:
        while process.poll() is None:
            peak = max(peak, peak_bytes(process.pid))
            if first is None and output is not None and output.exists() and output.stat().st_size:
                first = time.monotonic() - started
            if time.monotonic() - started > timeout_s:
                process.kill()
            time.sleep(0.05)
    elapsed_s = time.monotonic() - started
    return Run(process.returncode, errors.read_text(errors="replace"), elapsed_s, peak, first)


def peak_bytes(pid: int) -> int:
    """Return the largest resident memory of a process so far; 0 when it has gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def records(output: Path) -> list[dict[str, Any]]:
    """Return the records of an output; every line must be whole."""
    text = output.read_text()
    assert text.endswith("\n") or not text
    return [json.loads(line) for line in text.splitlines()]


def scores(output: Path) -> dict[str, tuple[float, ...]]:
    """Return each path's scores by label id; every path must be there once."""
    found = records(output)
    by_path = {
        record["path"]: tuple(tag["score"] for tag in sorted(record["tags"], key=lambda tag: tag["label_id"]))
        for record in found
    }
    assert len(by_path) == len(found), "a path has two records"
    return by_path


def num_done(output: Path) -> int:
    """Return how many inputs the journal beside an output vouches for."""
    journal = Sidecars(output).journal
    return sum(1 for _ in read_journal(journal)[1]) if journal.exists() and output.exists() else 0


def children_of(pid: int) -> set[int]:
    """Return the processes that a process has started, from any of its threads, and that live."""
    children: set[int] = set()
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            children |= {int(child) for child in listed.read_text().split()}
    return children


def living(pids: set[int]) -> set[int]:
    """Return which of some processes are still there, zombies left out."""
    states = {pid: Path(f"/proc/{pid}/stat") for pid in pids if os.path.exists(f"/proc/{pid}")}
    alive = set()
    for pid, stat in states.items():
        try:
            alive |= {pid} if stat.read_text().rpartition(")")[2].split()[0] != "Z" else set()
        except OSError:
            continue
    return alive
